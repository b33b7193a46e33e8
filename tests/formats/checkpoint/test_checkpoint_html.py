"""How a notebook shows a Checkpoint: format, roots and other content, escaped and short."""

import io

import numpy as np

import statedict
from statedict.formats.torch_archive import archive_parts, emit
from statedict.state import Opaque


def shown(value):
    file = io.BytesIO()
    statedict.save(value, file)
    file.seek(0)
    with statedict.open(file) as checkpoint:
        return checkpoint._repr_html_()


def test_a_run():
    """Format, size and producer; each root's tensors, folded; what lies beside them."""
    layers = {f"layers.{i}.weight": np.zeros((2, 2), np.float32) for i in range(3)}
    html = shown({"model": statedict.StateDict(layers), "epoch": 7, "note": "<b>hello</b>"})
    assert ": torch, " in html
    assert "root &#x27;model&#x27;" in html
    assert "3 tensors, 12 elements, 48 bytes (3 float32)" in html
    assert "<code>layers.{0…2}.weight  ×3</code></td><td>float32 [2, 2]</td>" in html
    assert "<code>epoch: 7</code>" in html
    assert "&lt;b&gt;hello&lt;/b&gt;" in html


def test_a_state_dict_alone():
    """A file that is one state dict has no root to name."""
    html = shown({"w": np.zeros(2)})
    assert "root" not in html
    assert "<code>w</code></td><td>float64 [2]</td>" in html


def test_code_is_named():
    """Imports that would run code are listed on the page, and are not run."""
    pickled = emit({"f": Opaque("os", "system")}, store=lambda leaf: None)
    file = io.BytesIO(b"".join(bytes(chunk) for part in archive_parts(pickled, []) for chunk in part.chunks()))
    with statedict.open(file) as checkpoint:
        html = checkpoint._repr_html_()
    assert "would run code if unpickled" in html
    assert "<code>os.system</code>" in html


def test_it_is_short():
    """Hundreds of roots, values and names make a page of at most 40 kB."""
    roots = {f"model{i}": statedict.StateDict({f"w{j}x": np.zeros(1) for j in range(60)}) for i in range(60)}
    html = shown({**roots, **{f"value{i}": "x" * 1000 for i in range(500)}})
    assert "… and 49 more" in html
    assert "… and 475 more" in html
    assert len(html) < 40_000
