"""Feeds the readers files that are nearly right, for as long as asked.

    python -m tests.fuzz [TARGET …] [--seconds 60] [--seed 1] [--keep FOLDER] [--coverage]

Each target takes its share of the time. An input that crashes a reader, hangs it or costs too much memory is written to the
folder (by default `tests/fuzz/found`, whose files are tests) and ends with exit code 1. `--coverage` lets atheris choose
the inputs, where it is installed; it takes one target, and its corpus grows in `build/fuzz`.

`--against` compares with torch, safetensors and NumPy instead: what both libraries write and read, and what both read of
damaged files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .loop import FOUND, fuzz
from .targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=FOUND, help="where inputs that are found go")
    parser.add_argument("--coverage", action="store_true", help="let atheris choose the inputs")
    parser.add_argument("--against", action="store_true", help="compare with the real libraries")
    asked = parser.parse_args()
    if asked.against:
        return against(asked.seconds, asked.seed)
    names = asked.targets or list(TARGETS)
    unknown = set(names) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if asked.coverage:
        from .guided import guided

        guided(TARGETS[names[0]], asked.seconds, asked.keep)
        return 0
    total = 0
    for name in names:
        count, found = fuzz(TARGETS[name], asked.seed, seconds=asked.seconds / len(names))
        print(f"{name:12} {count:9,} inputs, {len(found)} found", flush=True)
        for finding in found:
            print(f"    {finding.keep(asked.keep)}: {finding.what}", flush=True)
        total += len(found)
    return 1 if total else 0


def against(seconds: float, seed: int) -> int:
    from .against import LIBRARIES, differences

    total = 0
    for name, library in LIBRARIES.items():
        count, found = differences(library, seconds / len(LIBRARIES), seed)
        print(f"{name:18} {count:9,} states, {len(found)} differences", *found, sep="\n    ", flush=True)
        total += len(found)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
