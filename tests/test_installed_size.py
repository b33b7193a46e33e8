"""How much `pip install statedict` puts on a disk: the library and all that it depends on."""

from importlib.metadata import distribution, version
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
    """Everything together is at most 75 MB, 95 MB with ml-dtypes 0.5; PyTorch is not part of it."""
    names = needed("statedict", [])
    assert {"numpy", "ml-dtypes", "rich", "click"} < set(names)
    assert "torch" not in names
    own = sum(file.stat().st_size for file in Path(statedict.__file__).parent.rglob("*") if file.suffix != ".pyc")
    sizes = {name: nbytes(name) for name in names if name != "statedict"} | {"statedict": own}
    assert all(sizes.values()), sizes
    # ml-dtypes 0.5 takes 23 to 25 MB, 0.6 takes 2 MB.
    limit = 95e6 if version("ml-dtypes").startswith("0.5") else 75e6
    assert sum(sizes.values()) <= limit, sizes
