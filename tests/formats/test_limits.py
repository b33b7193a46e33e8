"""Limits are inclusive: a file that uses exactly a limit is read, and one that needs more is refused by the limit's name."""

from __future__ import annotations

import io
import pickle
import pickletools

import numpy as np
import pytest
from tests.hostile.build import npz, pickles, tensors, torch_zips

from statedict import formats
from statedict.errors import LimitError
from statedict.formats import Limits

THREE = (1, 2, 2)
RECORDS = pickle.dumps(np.zeros(1, [("outer", [("inner", "f4")])]), 2)
TEXT = pickle.dumps("x" * 100, 2)
COLLIDING = (pickles.integer(k * (2**61 - 1)) + b"N" for k in range(1, 10))  # Python's hash of these is 0
FOUR_DEEP = ((((1,),),),)
# The limit, a file, and how much of the limit the file uses.
EXACT = {
    "dimensions of a tensor": (
        "dimensions",
        torch_zips.torch_zip(pickles.state(w=pickles.tensor(size=THREE, stride=(4, 2, 1)))),
        3,
    ),
    "dimensions in a header": ("dimensions", tensors.safetensors({"w": tensors.entry(shape=THREE)}), 3),
    "dimensions of an array": ("dimensions", npz.npy(npz.HEADER.replace("(4,)", str(THREE))), 3),
    "members": ("zip_members", npz.npz(a=npz.npy(), b=npz.npy()), 2),
    "name of a member": ("zip_name_bytes", npz.npz(w=npz.npy()), len("w.npy")),
    "depth of a dtype": ("dtype_depth", RECORDS, 3),
    "fields of a dtype": ("dtype_fields", RECORDS, 3),
    "text": ("string_bytes", TEXT, 100),
    "bytes": ("string_bytes", pickle.dumps(b"x" * 100, 4), 100),
    "pickle": ("pickle_bytes", TEXT, len(TEXT)),
    "opcodes": ("operations", TEXT, len(list(pickletools.genops(TEXT)))),
    "depth of a key": ("key_depth", pickle.dumps({FOUR_DEEP: 0}, 2), 4),
    "values of a key": ("key_items", pickle.dumps({(1,) * 9: 0}, 2), 9),
    "keys with one hash": ("equal_hashes", pickles.pickled(b"}(", *COLLIDING, b"u"), 9),
    "integer": ("long_bytes", pickle.dumps(1 << 66, 2), 9),
    "header": ("json_bytes", tensors.safetensors(), len(tensors.safetensors()) - 8 - 16),
    "depth of a header": ("json_depth", tensors.safetensors(), 3),
}


@pytest.mark.parametrize("name", EXACT)
def test_exactly_the_limit_is_read_and_one_more_refused(name):
    """The limit itself is allowed; with the limit one lower the error names it, and says how to raise it."""
    limit, raw, used = EXACT[name]
    formats.open(io.BytesIO(raw), limits=Limits(**{limit: used})).close()
    with pytest.raises(LimitError, match=rf"exceeds the limit of {used - 1:,} .*Limits\({limit}=…\)"):
        formats.open(io.BytesIO(raw), limits=Limits(**{limit: used - 1}))
