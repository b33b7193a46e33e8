"""Read `.pt2` files of torch.export and AOTInductor: the tensors of their programs, without the programs.

Theory of operation. There are three layouts, all of them zip archives:

- PyTorch 2.9 and later: one folder with `archive_format`. For each program NAME (`model` if there is only one),
  `data/weights/NAME_weights_config.json` maps the names of tensors to members (`_payloads`), and
  `data/constants/NAME_constants_config.json` does so for constants: buffers that are not persistent, tensors in the code,
  and objects.
- PyTorch 2.8: the same with `data/weights/NAME.pt` and `data/constants/NAME.pt`, which are files of torch.save.
- PyTorch 2.1 to 2.7: no folder, and files of torch.save named `serialized_state_dict.pt` and so on.

AOTInductor adds `data/aotinductor/NAME/`: compiled code, and perhaps `weights_config.json` with weights in files of
torch.save. Neither code nor the graph (`models/NAME.json`) is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

from statedict.files import File
from statedict.state import StateDict, few

from ...errors import FormatError, LimitError, UnknownFormatError
from .._limits import LIMITS, Limits
from .._names import FLAT_PROGRAM, PACKAGE
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..zip._archive import Archive, open_zip
from ._payloads import Payloads
from ._read import check_members, read_extras, read_facts, top_folder

STATE_DICT = "state_dict"
WEIGHTS, CONSTANTS, INPUTS, COMPILED = "data/weights/", "data/constants/", "data/sample_inputs/", "data/aotinductor/"
UNNAMED = (
    "AOTInductor compiles the weights into the library, without names: save the model's state dict with torch.save, or "
    "compile it with aot_inductor.package_constants_in_so=False and "
    "aot_inductor.package_constants_on_disk_format='pickle_weights'"
)

# A root, and how to read it; the function returns None if the archive does not have it.
Part = tuple[str, Callable[[], Any]]


def read_exported(file: File, limits: Limits = LIMITS, archive: Archive | None = None) -> Checkpoint:
    """Open the Checkpoint in a `.pt2` file.

    Its roots are named like the attributes of an ExportedProgram: `state_dict`, `constants`, `example_inputs`; `weights` are
    those of AOTInductor. If the file contains several programs, the roots of each are below its name. A root other than a
    state dict that cannot be read is left out, unless all are.
    """
    archive = archive or open_zip(file, limits)
    flat = FLAT_PROGRAM in archive.members
    folder = "" if flat or PACKAGE in archive.members else top_folder(archive)
    facts = read_facts(archive, folder)
    payloads = Payloads(archive, folder, facts.get("byteorder") == "big", limits)
    names = [""] if flat else _programs(archive, folder)
    programs: dict[str, Any] = {}
    failed: dict[str, Exception] = {}
    for name in names:
        above = f"{name}/" if len(names) > 1 else ""
        found = _read_parts(_flat_parts(payloads) if flat else _parts(payloads, name), above, failed)
        if found:
            programs[name] = found
    if not programs and failed:
        raise next(iter(failed.values()))
    if not programs:
        listed = few([name.removeprefix(folder) for name in archive.members])
        raise UnknownFormatError(
            f"this package contains no tensors; its members: {listed}", file=file.name, hint=UNNAMED
        )
    tree = programs if len(names) > 1 else programs.get(names[0], {})
    payloads.settle(tree)
    return Checkpoint(
        file.name,
        "pt2",
        tree,
        size=file.size,
        producer="torch.export",
        globals=list(dict.fromkeys(payloads.globals)),
        notes=archive.notes,
        metadata=facts | read_extras(archive, folder + ("extra_files/" if flat else "extra/"), limits),
        checks=lambda: chain(_problems(failed), check_members(archive, *payloads.stores), payloads.check()),
        close=file.close,
        unopened=failed,
    )


def _programs(archive: Archive, folder: str) -> list[str]:
    """Return the names of the programs and compiled models in a package, in the order of its members."""
    found: dict[str, None] = {}
    for member in archive.members:
        for before, after in NAMED:
            name = member.removeprefix(folder + before).removesuffix(after)
            if member == f"{folder}{before}{name}{after}" and name:
                found[name.partition("/")[0] if before == COMPILED else name] = None
    return list(found)


def _parts(payloads: Payloads, name: str) -> list[Part]:
    """Return the parts of a program, those of PyTorch 2.8 and those of later versions."""
    return [
        (STATE_DICT, partial(payloads.saved, f"{WEIGHTS}{name}.pt")),
        (STATE_DICT, partial(payloads.described, f"{WEIGHTS}{name}_weights_config.json", WEIGHTS, "weight_")),
        ("constants", partial(payloads.saved, f"{CONSTANTS}{name}.pt")),
        ("constants", partial(payloads.described, f"{CONSTANTS}{name}_constants_config.json", CONSTANTS, "tensor_")),
        ("example_inputs", partial(payloads.saved, f"{INPUTS}{name}.pt")),
        ("weights", partial(payloads.compiled, f"{COMPILED}{name}/weights_config.json", WEIGHTS)),
    ]


def _flat_parts(payloads: Payloads) -> list[Part]:
    # PyTorch 2.1 used the suffix .json for the same content.
    members = {STATE_DICT: "serialized_state_dict", "constants": "serialized_constants"}
    parts = [
        (root, partial(payloads.saved, f"{stem}{end}")) for root, stem in members.items() for end in (".pt", ".json")
    ]
    return [*parts, ("example_inputs", partial(payloads.saved, "serialized_example_inputs.pt"))]


def _read_parts(parts: list[Part], above: str, failed: dict[str, Exception]) -> dict[str, Any]:
    """Return the parts by root, the first of each root that exists; add to `failed` those that cannot be read."""
    found: dict[str, Any] = {}
    for root, read in parts:
        try:
            value = read()
        except LimitError:
            raise
        except (FormatError, OSError) as error:
            if root == STATE_DICT:
                raise
            failed[above + root] = error
        else:
            if value is not None:
                # An empty state dict is a root only if it is a StateDict.
                found.setdefault(root, value or StateDict() if root == STATE_DICT else value)
    return found


def _problems(failed: Mapping[str, Exception]) -> Iterator[Finding]:
    for root, error in failed.items():
        yield Finding("error", root, f"cannot be read: {error}")


NAMED = (
    ("models/", ".json"),
    (WEIGHTS, "_weights_config.json"),
    (WEIGHTS, ".pt"),
    (COMPILED, ""),
)
