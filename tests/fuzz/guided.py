"""The same targets with inputs chosen by atheris, which follows what new code an input reaches."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

from .loop import Finding, attempt, watching
from .targets import Target

CORPUS = Path("build", "fuzz")


def guided(target: Target, seconds: float, folder: Path) -> None:
    """Run libFuzzer on the target; what it finds is written to the folder, and ends it."""
    import atheris

    corpus = CORPUS / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, raw in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(raw)
    for raw in target.seeds:
        target.read(raw)
    atheris.instrument_all()

    def one(raw: bytes) -> None:
        what = attempt(target, raw)
        if what is not None:
            print(Finding(target.name, raw, what).keep(folder), what)
            raise SystemError(what)

    def custom(raw: bytes, limit: int, seed: int) -> bytes:
        return target.change(raw, Random(seed))[:limit]

    options = [f"-max_total_time={int(seconds)}", "-max_len=65536", str(corpus)]
    with watching():
        atheris.Setup([sys.argv[0], *options], one, custom_mutator=custom)
        atheris.Fuzz()
