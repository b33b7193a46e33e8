"""What it costs to start: which modules come in, and which do not."""

import subprocess
import sys

import pytest

from statedict import nn


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_brings_in_nothing_heavy():
    """The package comes without torch, array-api-compat, NumPy's random numbers, SciPy and anything for the terminal."""
    loaded = run("import sys; from statedict import nn; nn.Module; nn.functional.relu; print(*sys.modules)")
    assert "numpy" in loaded
    heavy = {"torch", "array_api_compat", "numpy.random", "scipy", "rich", "click", "ml_dtypes", "jax", "fsspec"}
    assert not heavy & set(loaded)


def test_importing_alone_imports_no_arrays():
    """NumPy comes with the first name that is used, so that asking for the package costs a program nothing."""
    assert not {"numpy", "statedict.tree"} & set(run("import sys, statedict.nn; print(*sys.modules)"))


def test_layers_are_imported_when_they_are_named():
    """A model of linear layers does not import convolutions, attention or optimizers."""
    loaded = run("import sys; from statedict import nn; nn.Linear(2, 2); print(*sys.modules)")
    ours = {name.removeprefix("statedict.nn.") for name in loaded if name.startswith("statedict.nn.")}
    assert "layers._linear" in ours
    assert not {"layers._convolution", "layers._attention", "optim", "functional._pooling"} & ours


@pytest.mark.parametrize("package", [nn, nn.functional])
def test_every_name_is_there(package):
    """Names that are imported late are there, are what static tools see, and unknown ones raise AttributeError."""
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert len(set(package.__all__)) == len(package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        package.Nothing


@pytest.mark.parametrize("package", ["", "functional"])
def test_static_names_are_the_late_ones(package):
    """What type checkers are told is what can be imported."""
    import ast
    from importlib import import_module
    from pathlib import Path

    module = import_module(f"statedict.nn.{package}".rstrip("."))
    tree = ast.parse(Path(module.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert sorted(alias.asname for node in block.body for alias in node.names) == sorted(module.__all__)


def test_torch_is_never_imported():
    """No file of the package imports torch: its arrays come in through the array API standard."""
    loaded = run(
        "import sys; sys.modules['torch'] = None\n"
        "from statedict import nn\n"
        "import numpy as np\n"
        "for name in nn.__all__: getattr(nn, name)\n"
        "net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LSTM(8, 3))\n"
        "net.load_state_dict(net.state_dict())\n"
        "nn.optim.Adam(net.parameters()).state_dict()\n"
        "print(net(np.zeros((1, 1, 4, 4), np.float32))[0].shape)"
    )
    assert loaded == ["(1,", "3)"]
