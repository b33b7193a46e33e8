"""The table of docs/how-to/bit-for-bit.md: each of its rows is a training, and the trainings have done what it says."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from tests import forked
from tests.training.bit_exact.row import Row
from tests.training.bit_exact.rows import ROWS
from tests.training.bit_exact.run import STEPS

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "how-to" / "bit-for-bit.md"
# It takes a compiler and seconds for each process.
COMPILED = "inductor"


def run(directory: Path, seed: str, names: list[str], *phases: str) -> None:
    """Run phases side by side; warnings are errors there, and every training must end as it should."""
    jobs = {phase: forked.start("tests.training.bit_exact.run", phase, directory, seed, *names) for phase in phases}
    for phase, job in jobs.items():
        done = job.wait(800)
        assert (done.returncode, done.stdout) == (0, "[]\n"), f"{phase}: {done.stdout} {done.stderr[-5000:]}"


def records(directory: Path, phase: str, name: str) -> dict[tuple[int, int], dict[str, str]]:
    """What a training has recorded, by rank and step."""
    found = {}
    for rank in range(ROWS[name].ranks):
        end = f".{rank}.jsonl" if ROWS[name].ranks > 1 else ".jsonl"
        for line in (directory / phase / f"{name}{end}").read_text().splitlines():
            record = json.loads(line)
            found[rank, record.pop("step")] = record
    return found


def differences(directory: Path, name: str) -> list[str]:
    """The differences from the uninterrupted training, as texts such as `rank 0, step 7: model`."""
    straight, killed, resumed = (records(directory, phase, name) for phase in ("straight", "killed", "resumed"))
    last = max(step for _, step in straight)
    assert last >= STEPS
    assert max(killed) < max(straight), "it was killed before its end"
    assert min(step for _, step in resumed) > 1, "it was resumed, and not trained again"
    assert {step for _, step in resumed} == set(range(min(step for _, step in resumed), last + 1))
    return [
        f"{name}, {phase}: rank {rank}, step {step}: {what}"
        for phase, found in (("killed", killed), ("resumed", resumed))
        for (rank, step), record in found.items()
        for what, digest in record.items()
        if straight[rank, step][what] != digest
    ]


def trained(directory: Path, seed: str, names: list[str], *phases: tuple[str, ...]) -> dict[str, list[str]]:
    """Train rows straight, killed and resumed; return the differences of each. Phases of one tuple run side by side."""
    for together in phases:
        run(directory, seed, names, *together)
    return {name: differences(directory, name) for name in names}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_and_resumed_training_has_the_bits_that_the_table_promises(tmp_path):
    """Every loss, state and generator of every later step is bit-equal; where the table says no, something differs."""
    has_torchdata = importlib.util.find_spec("torchdata") is not None
    names = [name for name in ROWS if name != COMPILED and (has_torchdata or not name.startswith("stateful"))]
    found = trained(tmp_path, os.environ.get("BIT_EXACT_SEED", "0"), names, ("straight", "killed"), ("resumed",))
    assert {name: found[name][:5] for name in names if ROWS[name].exact and found[name]} == {}
    assert [name for name in names if not ROWS[name].exact and not found[name]] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_code_of_inductor_has_the_same_bits_in_another_process(tmp_path, monkeypatch):
    """A training with `torch.compile` and its default backend has the same bits, with code from the compiler's cache.

    To compile takes most of the time, so only the first process does it; and without vector instructions, for which inductor
    would first compile programs that find out what the processor has.
    """
    monkeypatch.setenv("TORCHINDUCTOR_VEC_ISA_OK", "0")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    assert trained(tmp_path, "0", [COMPILED], ("straight",), ("killed",), ("resumed",)) == {COMPILED: []}


# the page


def table() -> dict[str, tuple[bool, str]]:
    """The rows of the page: the title, whether it says yes, and what is to be done."""
    lines = [line.strip("|").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {cells[0].strip(): (cells[1].strip() == "yes", cells[2].strip()) for cells in lines if len(cells) == 3}


def test_the_table_has_a_row_for_each_training():
    """Each row has a training, each training has a row, and the row says yes if the bits are equal."""
    said = {title: exact for title, (exact, _) in table().items() if title != "part of the training"}
    assert said == {row.title: row.exact for row in ROWS.values()}


def blocks() -> list[tuple[str, str]]:
    """The code of the page: the file and the name of the function or class that has it, and the code."""
    found = re.findall(r"<!-- (\w+): (\w+) -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [(f"{file}.py:{name}", code) for file, name, code in found]


def test_each_block_of_the_page_is_of_a_training():
    """Each code block of the page belongs to a training, so all of them have run."""
    assert len(blocks()) == PAGE.read_text().count("```python") > 4


@pytest.mark.parametrize("place", [place for place, _ in blocks()])
def test_the_code_of_the_page_is_that_of_the_training(place):
    """The training has the lines of the page in order, with further lines only for recording and ending."""
    file, name = place.split(":")
    source = Path(__file__).with_name(file).read_text()
    body = re.search(rf"^(?:def|class) {name}\b.*?(?=^\S|\Z)", source, re.DOTALL | re.MULTILINE)[0]
    lines = iter(line.strip() for line in body.splitlines())
    missing = [line for line in dict(blocks())[place].splitlines() if line.strip() and line.strip() not in lines]
    assert missing == []


def test_variants_of_a_row_agree():
    """Trainings with the same title are one row: all of them are exact, or none is."""
    by_title: dict[str, set[bool]] = {}
    for row in ROWS.values():
        assert isinstance(row, Row)
        by_title.setdefault(row.title, set()).add(row.exact)
    assert [title for title, exact in by_title.items() if len(exact) > 1] == []
