"""Entries that are written together are, byte for byte, those that torch.save writes one by one."""

from __future__ import annotations

import io
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict import formats
from statedict.formats.torch_files._write import _pickled
from statedict.state import StateDict, Table

torch = pytest.importorskip("torch")

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
COUNT = 2300


def tensor(number, kinds=12):
    """Shapes of no, one, two and four dimensions; no two tensors of one storage."""
    shape = [(), (3,), (2, 5), (1, 2, 3, 1)][number % 4]
    return torch.full(shape, number % 7, dtype=DTYPES[number % kinds % len(DTYPES)])


def state(count=COUNT):
    return {f"layer.{number}.{'weight' if number % 3 else 'bias'}": tensor(number) for number in range(count)}


def together(packed):
    return sum(len(storage) for storage in packed if isinstance(storage, Table))


def clones():
    model = state()
    return {"model": model, "ema": {name: value.clone() for name, value in model.items()}, "epoch": 3}


def again():
    model = state()
    return [model, OrderedDict(model), {"one": model["layer.1000.weight"], "view": model["layer.1001.weight"][:]}]


def tied():
    model = state()
    return model | {"tied": model["layer.7.weight"], "seen": model["layer.2200.weight"].view(-1).view(-1)}


def parts():
    model = state()
    return [model, model["layer.2002.weight"][1:]]


def mixed():
    model = state()
    model["layer.1500.note"] = "text"
    return {**model, "scale": torch.nn.Parameter(torch.ones(2)), 7: tensor(1)}


def ordered():
    found = OrderedDict(state())
    found._metadata = OrderedDict({"": {"version": 1}})
    return found


def turned():
    return {f"w{number}": torch.ones(3, 4).T if number % 2 else torch.ones(3, 4) for number in range(400)}


def surrogates():
    return {f"\ud800 {'ü' * (number % 300)} {number}": tensor(number) for number in range(400)}


def parameters():
    found = {f"w{number}": torch.nn.Parameter(torch.ones(2, number % 3 + 1), number % 5 > 0) for number in range(2300)}
    return {"model": found, "again": [*found.values()], "data": {name: value.data for name, value in found.items()}}


def every_tenth_is_odd():
    odd = ["gradient", "attribute", "number", "new dtype"]
    kinds = [ODD[odd[number % 4]] if number % 10 == 7 else tensor for number in range(2300)]
    return {f"w{number}": kind(number) for number, kind in enumerate(kinds)}


def rarely_odd():
    return (
        state()
        | {"w40": 1}
        | {f"layer.{number}.{'weight' if number % 3 else 'bias'}": 3 for number in range(70, 2300, 500)}
    )


def trained(optimizer, count=700, **options):
    model = torch.nn.ParameterDict({f"w{number}": torch.ones(2, number % 3 + 1) for number in range(count)})
    made = optimizer(model.parameters(), **options)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.step()
    return {"model": dict(model.state_dict()), "optimizer": made.state_dict(), "epoch": 3}


def grown():
    found = trained(torch.optim.Adam)
    states = found["optimizer"]["state"]
    states[300] = {**states[300], "more": torch.ones(2)}
    states[301] = {**states[301], "step": 3}
    states[302] = states[303]
    states[304] = dict(reversed(states[304].items()))
    states[305] = {"".join(name): value for name, value in states[305].items()}
    states["name"] = states.pop(306)
    return found


# What is written, and at least how many of its tensors together.
OBJECTS = {
    "state": (state, 2200),
    "few": (lambda: state(90), 0),
    "clones": (clones, 2200),
    "again": (again, 2200),
    "tied": (tied, 1900),
    "parts of others": (parts, 1200),
    "mixed": (mixed, 900),
    "ordered": (ordered, 2200),
    "turned": (turned, 300),
    "surrogates": (surrogates, 300),
    "parameters": (parameters, 2200),
    "every tenth is odd": (every_tenth_is_odd, 0),
    "rarely odd": (rarely_odd, 1900),
    "Adam": (lambda: trained(torch.optim.Adam), 2600),
    "AMSGrad": (lambda: trained(torch.optim.Adam, amsgrad=True), 3200),
    "SGD": (lambda: trained(torch.optim.SGD, momentum=0.9), 1200),
    "SGD without momentum": (lambda: trained(torch.optim.SGD), 600),
    "more than a batch": (lambda: trained(torch.optim.Adam, 2100), 8000),
    "an optimizer's dicts differ": (grown, 2300),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_it_is_torchs_pickle(name, saved):
    """Names, tensors and storages that occur again are referred to as torch.save does, whichever were written
    together."""
    make, least = OBJECTS[name]
    obj = make()
    written, packed = _pickled(obj, lambda value: value)
    assert written == saved(obj).pickle
    assert together(packed) >= least


@pytest.mark.parametrize("name", [name for name in OBJECTS if name != "surrogates"])
def test_it_is_read_by_torch(name):
    """Tensors written together have the same elements, types and ties in torch.load and in our reader."""
    obj, file = OBJECTS[name][0](), io.BytesIO()
    formats.write(obj, file)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    expected, found = list(_tensors(obj)), list(_tensors(read))
    assert [one.dtype for one in found] == [one.dtype for one in expected]
    assert all(torch.equal(one, other) for one, other in zip(found, expected))
    assert _ties(found) == _ties(expected)
    file.seek(0)
    formats.open(file).verify(values=True)


def _tensors(tree):
    if isinstance(tree, (dict, list)):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _tensors(value)
    elif isinstance(tree, torch.Tensor):
        yield tree


def _ties(tensors):
    first = {}
    return [first.setdefault(one.untyped_storage().data_ptr(), number) for number, one in enumerate(tensors)]


ODD = {
    "usual": lambda number: tensor(number),
    "empty": lambda number: torch.zeros(0, 3),
    "slice": lambda number: torch.arange(9.0)[2:5],
    "gaps": lambda number: torch.arange(9.0)[::2],
    "expanded": lambda number: torch.ones(1).expand(4),
    "gradient": lambda number: torch.ones(2, requires_grad=True),
    "conjugate": lambda number: torch.ones(2, dtype=torch.complex64).conj(),
    "negative": lambda number: torch.ones(2, dtype=torch.complex64).conj().imag,
    "sparse": lambda number: torch.eye(3).to_sparse(),
    "attribute": lambda number: _with_note(torch.ones(2)),
    "new dtype": lambda number: torch.ones(2, dtype=torch.uint16),
    "number": lambda number: number,
}


def _with_note(found):
    found.note = "kept"
    return found


@settings(max_examples=25)
@given(odd=st.dictionaries(st.integers(0, 299), st.sampled_from(list(ODD)), max_size=4), shared=st.booleans())
def test_whatever_is_among_them(odd, shared):
    """The file is the same whether tensors are written together or, because they come from a file, one by one."""
    obj = {f"w{number}": ODD[odd.get(number, "usual")](number) for number in range(300)}
    if shared:
        obj["shared"] = obj["w170"]
    live, copied = io.BytesIO(), io.BytesIO()
    formats.write(StateDict(obj), live)
    live.seek(0)
    with formats.open(live) as checkpoint:
        formats.write(checkpoint.object, copied)
    assert live.getvalue() == copied.getvalue()
