"""The elements of a file's tensors are limited in proportion to their storages where they are written out or
computed with."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from tests.hostile.build import pickles as p
from tests.hostile.build.torch_zips import torch_zip
from tests.hostile.cases.proportion import nested, sparse

import statedict
from statedict.errors import LimitError
from statedict.report import survey
from statedict.state import StateDict, leaf_of, library, materialize, require_in_proportion

LARGE, SMALL = (100_000, 100_000), (1000, 1000)


def opened(*sizes, **limits):
    """The state of a file of views of one element, of these sizes."""
    views = {f"w{n}": p.tensor(size=size, stride=(0,) * len(size)) for n, size in enumerate(sizes)}
    return statedict.open(io.BytesIO(torch_zip(p.state(**views))), limits=statedict.Limits(**limits)).state_dict()


def saved(state, format):
    statedict.save(state, io.BytesIO(), format=format)


USES = {
    "fingerprint": lambda state: state.fingerprint(),
    "safetensors": lambda state: saved(state, "safetensors"),
    "npz": lambda state: saved(state, "npz"),
    "npy": lambda state: saved(state.leaf("w0"), "npy"),
    "a cast": lambda state: saved(state.to("float16"), "torch"),
    "a cast that is read": lambda state: state.to("float16")["w0"],
    "merge": lambda state: saved(statedict.merge([state, state]), "torch"),
    "diff": lambda state: statedict.diff(state, {"w0": np.ones(3, "f4")}),
    "a page": survey,
}


@pytest.mark.parametrize("name", USES)
def test_views_out_of_proportion_are_refused(name):
    """A file of 600 bytes does not become 40 GB, nor hours of computing."""
    with pytest.raises(LimitError, match=r"have 40,000,000,000 bytes, but their storages only 16.*Limits\(expansion="):
        USES[name](opened(LARGE))
    USES[name](opened(SMALL))


@pytest.mark.parametrize("bit", ["conj", "neg"])
def test_lazy_bits_are_not_applied_out_of_proportion(bit):
    """NumPy has no lazy conjugate or negative, so each element shown would be written out."""
    view = getattr(torch.ones(1, dtype=torch.complex64).expand(LARGE), bit if bit == "conj" else "_neg_view")()
    file = io.BytesIO()
    torch.save({"w": view}, file)
    for read in (statedict.load, lambda file, backend: statedict.open(file).state_dict().numpy()["w"]):
        file.seek(0)
        with pytest.raises(LimitError, match=r"have 80,000,000,000 bytes, but their storages only 8"):
            read(file, backend="numpy")


def test_views_count_together():
    """A hundred views of four megabytes are 400 megabytes; one view under a hundred names is one."""
    many = [(1000, 1000 + n) for n in range(100)]
    with pytest.raises(LimitError, match="expansion"):
        opened(*many).fingerprint()
    require_in_proportion(leaf for _, leaf in opened(*[SMALL] * 100).leaves())


def test_the_limit_can_be_raised():
    """The caller can raise the limit; tensors made in memory are not limited."""
    require_in_proportion(leaf for _, leaf in opened(LARGE, expansion=1 << 60).leaves())
    require_in_proportion([leaf_of(np.broadcast_to(np.ones(1), LARGE))])


def test_views_that_stay_views_cost_nothing():
    """Loading one, or saving it in the torch format, writes one element."""
    state = opened(LARGE)
    out = io.BytesIO()
    statedict.save(state, out)
    assert len(out.getvalue()) < 2000
    assert state.numpy()["w0"].shape == LARGE


@pytest.mark.parametrize("make", [sparse, nested])
def test_indices_out_of_proportion_are_refused(make):
    """The indices of sparse and nested tensors, each of which is read, are limited in the same way."""
    found = statedict.open(io.BytesIO(make())).object["w"]
    with pytest.raises(LimitError, match="expansion"):
        materialize([found], library("numpy"))


def test_a_state_of_rows_is_not_looked_through():
    """Rows of a table cover their storages exactly, so they are not checked."""
    out = io.BytesIO()
    statedict.save(StateDict({f"w{n}": np.full(4, n) for n in range(600)}), out)
    out.seek(0)
    require_in_proportion(leaf for _, leaf in statedict.open(out).state_dict().leaves())
