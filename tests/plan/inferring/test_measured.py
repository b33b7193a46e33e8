"""How much `infer` gets right, without a map, where the conversion is known; the table in the docs has these figures."""

import re
from collections import defaultdict
from functools import cache
from math import ceil
from pathlib import Path
from random import Random
from string import ascii_lowercase

import numpy as np
import pytest
from tests.plan.inferring.made_pairs import all_pairs, transformer
from tests.plan.inferring.model_pairs import FOLDER, ModelPair, converted, filled, read, written

from statedict import StateDict
from statedict.plan import infer

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "other-names.md"
REAL = [read(path) for path in sorted(FOLDER.glob("*.txt"))]
UNDECIDABLE = "two equal towers with unrelated names"
PAIRS = {pair.name: pair for pair in (*REAL, *all_pairs())}


@cache
def measured(name: str) -> dict[str, int]:
    """Count the model's tensors whose values are those of the true conversion, and those that are not."""
    pair: ModelPair = PAIRS[name]
    source = filled(pair.source)
    inference = infer({one: np.zeros(shape) for one, shape in pair.target.items()}, source)
    true, found = converted(pair.truth, source), inference.key_map.rename(StateDict(source)).numpy()
    unsure = {step.target for step in inference.steps if not step.certain}
    counts = dict.fromkeys(["tensors", "right", "certain", "wrong", "wrongly certain", "open"], 0)
    for one in pair.target:
        if one not in true and one not in {step.target for step in inference.steps}:
            continue  # neither has a source
        right = one in true and one in found and np.array_equal(true[one], found[one])
        counts["tensors"] += 1
        counts["right"] += right
        counts["certain"] += right and one not in unsure
        counts["open"] += one in inference.unfilled
        counts["wrong"] += not right and one in unsure
        counts["wrongly certain"] += not right and one not in unsure and one not in inference.unfilled
    return counts


def row(name: str) -> str:
    """Return the row of the table in the docs."""
    counts = measured(name)
    shares = (f"{counts[column] / counts['tensors']:.0%}" for column in ("right", "certain"))
    cells = [name, counts["tensors"], *shares, *(counts[column] for column in ("wrong", "wrongly certain", "open"))]
    return f"| {' | '.join(map(str, cells))} |"


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_wrong_is_certain(name):
    """No tensor gets a wrong value from a match that is called certain."""
    assert measured(name)["wrongly certain"] == 0


@pytest.mark.parametrize("real", [True, False])
def test_most_tensors_are_right(real):
    """At least 95 % of the tensors of all pairs that can be decided get their true values."""
    names = [pair.name for pair in (REAL if real else all_pairs()) if pair.name != UNDECIDABLE]
    right, tensors = (sum(measured(name)[column] for name in names) for column in ("right", "tensors"))
    assert right / tensors >= 0.95


def test_what_nothing_decides_is_not_certain():
    """If two modules are equal and their names unrelated, no tensor is called certain."""
    assert measured(UNDECIDABLE)["certain"] == 0


@pytest.mark.parametrize("layers", [{"kv": 8}, {"bias": False}, {"kv": 16, "ff": 16}], ids=str)
def test_a_missing_module_does_not_decide(layers):
    """If two modules are equal and their names unrelated, nothing is certain, whatever one of them lacks on one side."""
    source = {
        f"{tower}.{name}": shape for tower in ("query", "passage") for name, shape in transformer(2, **layers).items()
    }
    target = {name.replace("query", "student").replace("passage", "context"): shape for name, shape in source.items()}
    target = {name: target[name] for name in sorted(target)}
    for side, tower in ((source, "passage"), (target, "student")):
        for module in ("", "layers.", "layers.0.", "layers.1.mlp."):
            gone = f"{tower}.{module}"
            rest = {name: shape for name, shape in side.items() if not name.startswith(gone)}
            found = infer(*map(zeros, (target, rest) if side is source else (rest, source)))
            assert [step for step in found.steps if step.certain] == []


def test_one_name_decides_between_two_modules():
    """If a word tells which is one of two equal modules, the other is certain, too."""
    tensors = transformer(2)
    source = {f"{tower}.{name}": shape for tower in ("visual", "main") for name, shape in tensors.items()}
    target = {f"{tower}.{name}": shape for tower in ("vision", "other") for name, shape in tensors.items()}
    found = infer(zeros(target), zeros(source))
    assert found.certain
    assert {(step.source.split(".")[0], step.target.split(".")[0]) for step in found.steps} == {
        ("visual", "vision"),
        ("main", "other"),
    }


def zeros(shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


def test_the_table_in_the_docs():
    """The page about other names has the measured figures of every pair."""
    assert [
        line for line in PAGE.read_text().splitlines() if line.startswith("| ") and line[2:].split(" |")[0] in PAIRS
    ] == [row(name) for name in PAIRS]


@pytest.mark.parametrize("pair", [pair for pair in REAL if len(pair.source) < 250], ids=lambda pair: pair.name)
def test_meaningless_words_do_not_mislead(pair):
    """If each word is replaced by random letters and the modules are in another order, nothing wrong is certain."""
    for seed in range(3):
        random = Random(seed)
        new = defaultdict[str, str](lambda: "".join(random.choices(ascii_lowercase, k=random.randint(3, 7))))  # noqa: B023
        renamed = {name: re.sub("[A-Za-z]+", lambda word: new[word[0]], name) for name in pair.source}  # noqa: B023
        if len(set(renamed.values())) < len(renamed):
            continue
        target = {renamed[name]: pair.source[name] for name in sorted(pair.source, key=renamed.__getitem__)}
        source = filled(pair.source)
        inference = infer({name: np.zeros(shape) for name, shape in target.items()}, source)
        found = inference.key_map.rename(StateDict(source)).numpy()
        certain = {step.target for step in inference.steps if step.certain}
        right = {renamed[name] for name, value in source.items() if np.array_equal(found.get(renamed[name]), value)}
        assert certain <= right


@pytest.mark.parametrize("share", [(0.2, 0), (0.1, 0.1), (0.01, 0.01)], ids=str)
@pytest.mark.parametrize(
    "pair", [pair for pair in PAIRS.values() if len(pair.source) < 110], ids=lambda pair: pair.name
)
def test_what_is_missing_does_not_mislead(pair, share):
    """If tensors are missing on one or both sides, nothing wrong is certain, and the rules can be applied."""
    everything = filled(pair.source)
    source, target = (
        {name: side[name] for name in side if name not in Random(0).sample(list(side), ceil(part * len(side)))}
        for side, part in zip((everything, pair.target), share)
    )
    inference = infer(zeros(target), source)
    true, found = converted(pair.truth, everything), converted(inference.key_map, source)
    certain = {step.target for step in inference.steps} - {step.target for step in inference.steps if not step.certain}
    assert certain <= {name for name in certain & true.keys() if np.array_equal(true[name], found.get(name))}
    assert not found.keys() & set(inference.unfilled)


@pytest.mark.parametrize("pair", REAL, ids=lambda pair: pair.name)
def test_the_truth_fits_both_models(pair):
    """The true rules give only tensors of the target's shapes, except for names that only the source has."""
    made = converted(pair.truth, filled(pair.source))
    both = made.keys() & pair.target.keys()
    assert {name: made[name].shape for name in both} == {name: pair.target[name] for name in both}
    assert len(both) >= 0.9 * len(pair.target)


@pytest.mark.parametrize("pair", REAL, ids=lambda pair: pair.name)
def test_a_pair_is_read_as_it_was_written(pair, tmp_path):
    """Reading the text of a pair gives the same names and shapes, in the same order."""
    (tmp_path / "x.txt").write_text(
        "\n".join(
            ["# source", *written(pair.source), "# target", *written(pair.target), "# truth", str(pair.truth), ""]
        )
    )
    again = read(tmp_path / "x.txt")
    assert list(again.source.items()) == list(pair.source.items())
    assert list(again.target.items()) == list(pair.target.items())
