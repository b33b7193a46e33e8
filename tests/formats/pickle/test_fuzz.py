"""Randomly changed pickles are read or raise FormatError, run nothing, and do not take long."""

from __future__ import annotations

import pickle
import random
from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import pytest
from tests.cost import seconds
from tests.fuzz.mutate import changed, changed_pickle, opcodes
from tests.hostile.build import pickles as p

from statedict.errors import FormatError
from statedict.state import leaf_of

LAYOUT = p.name("torch.serialization", "_get_layout")
REBUILD = "torch._utils"
SEEDS = [
    *(
        pickle.dumps(
            [1, 2.5, "x", b"y", {"k": (1, 2)}, {3}, OrderedDict(a=1), deque([1]), defaultdict(list), Counter("a"), 1j],
            n,
        )
        for n in range(6)
    ),
    *(
        pickle.dumps([np.arange(3), np.float32(1), np.zeros(2, [("a", "<f4"), ("b", "i2", 2)]), np.dtype("M8[s]")], n)
        for n in (0, 2, 5)
    ),
    p.tensor() + b".",
    p.build(p.ordered_dict() + p.text("w") + p.tensor() + b"s", p.dict_((p.text("_metadata"), p.ordered_dict())))
    + b".",
    p.call(p.name(REBUILD, "_rebuild_parameter"), p.tensor(), p.TRUE, p.ordered_dict()) + b".",
    p.call(
        p.name(REBUILD, "_rebuild_qtensor"),
        p.storage(kind="QInt8Storage"),
        b"K\0",
        p.integers((4,)),
        p.integers((1,)),
        p.tuple_(p.name("torch", "per_tensor_affine"), p.real(0.5), b"K\0"),
        p.FALSE,
        p.ordered_dict(),
    )
    + b".",
    p.call(
        p.name(REBUILD, "_rebuild_sparse_tensor"),
        p.call(LAYOUT, p.text("torch.sparse_coo")),
        p.tuple_(
            p.tensor(p.storage("1", 2, "LongStorage"), 0, (1, 2), (2, 1)), p.tensor(size=(2,)), p.integers((3,)), p.TRUE
        ),
    )
    + b".",
    p.build(p.name("torch", "FloatTensor") + b")R", p.tuple_(p.storage(), b"K\0", p.integers((4,)), p.integers((1,))))
    + b".",
    p.call(
        p.name("torch._tensor", "_rebuild_from_type_v2"),
        p.name(REBUILD, "_rebuild_tensor"),
        p.name("mine", "Sub"),
        p.tuple_(p.storage(), b"K\0", p.integers((4,)), p.integers((1,))),
        p.dict_((p.text("note"), p.NONE)),
    )
    + b".",
    p.build(p.name("mine", "A") + b")\x81", p.dict_((p.text("x"), p.shell()))) + b".",
    p.call(p.name("builtins", "getattr"), p.name("mine", "A"), p.text("Inner")) + b".",
]


@pytest.mark.parametrize("seed", range(4))
def test_any_mutant_is_read_or_refused(read, write, watched, seed):
    """No mutant raises anything but FormatError, runs anything, or takes a thousand times as long as an unchanged pickle."""
    generator = random.Random(seed)
    seeds = [*SEEDS, write({f"w{n}": leaf_of(np.zeros((n % 3, 2), "f4")) for n in range(40)})]
    pool = [part for whole in seeds for part in opcodes(whole)]
    # Reading them also imports the modules that they need, before the watch begins.
    longest = 1000 * max(seconds(lambda: read(whole)) for whole in seeds)  # noqa: B023
    refused = errors = 0

    def attempt():
        nonlocal refused, errors
        try:
            read(mutant)
        except FormatError as error:
            refused += error.offset is not None and len(str(error)) < 2000
            errors += 1

    with watched() as events:
        for _ in range(1500):
            whole = generator.choice(seeds)
            mutant = (
                changed(whole, generator, seeds) if generator.random() < 0.3 else changed_pickle(whole, generator, pool)
            )
            assert seconds(attempt, 1) < longest
    assert [event for event in events if not event.startswith("import ('numpy")] == []
    assert refused == errors
    assert 200 < errors < 1500
