"""The plugin of docs/how-to/plugin.md works as it stands, once it is installed."""

import re
from pathlib import Path

import numpy as np
import pytest

import statedict
from statedict.errors import FormatError

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "plugin.md"


@pytest.fixture
def page(install):
    install("tensors", re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1])


def test_the_format_of_the_page_is_read_and_written(page, tmp_path):
    """A state comes back from a file of the format."""
    state = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.zeros((0, 3)), "n": np.array(3)}
    statedict.save(state, tmp_path / "a.tensors")
    assert statedict.open(tmp_path / "a.tensors").format == "tensors"
    loaded = statedict.load(tmp_path / "a.tensors", backend="numpy")
    assert {name: array.tolist() for name, array in loaded.items()} == {n: a.tolist() for n, a in state.items()}


def test_every_truncation_of_it_is_refused(page, tmp_path):
    """A file that ends early is refused wherever it ends."""
    path = tmp_path / "a.tensors"
    statedict.save({"weight": np.ones((2, 3))}, path)
    raw = path.read_bytes()
    for size in range(8, len(raw)):
        path.write_bytes(raw[:size])
        with pytest.raises(FormatError):
            statedict.open(path)
