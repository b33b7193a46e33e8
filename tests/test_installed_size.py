"""How much `pip install statedict` puts on a disk: the library and all that it depends on."""

from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

import statedict


def needed(name, found):
    """The names of a distribution and of all that it requires here, without extras."""
    if name not in found:
        found.append(name)
        for text in distribution(name).requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(requirement.name.lower().replace("_", "-"), found)
    return found


def nbytes(name):
    """Bytes of the files of a distribution, without the byte code that pip makes of them."""
    files = [Path(str(file.locate())) for file in distribution(name).files or () if file.suffix != ".pyc"]
    return sum(file.stat().st_size for file in files if file.is_file())


def test_it_is_at_most_75_megabytes():
    """Everything together is at most 75 MB; PyTorch is not among it."""
    names = needed("statedict", [])
    assert {"numpy", "ml-dtypes", "rich", "click"} < set(names)
    assert "torch" not in names
    own = sum(file.stat().st_size for file in Path(statedict.__file__).parent.rglob("*") if file.suffix != ".pyc")
    sizes = {name: nbytes(name) for name in names if name != "statedict"} | {"statedict": own}
    assert all(sizes.values()), sizes
    assert sum(sizes.values()) <= 75e6, sizes
