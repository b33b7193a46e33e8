"""Folders with a model in each of several folders: pipelines of diffusers, models of sentence-transformers.

A model's root is the name of its folder (`unet`, `2_Dense`). Folders without weights (tokenizers, schedulers) are left out.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, NoReturn

from statedict.files import Folder

from ...errors import FormatError
from .._folder_table import is_weights, parts
from .._limits import Limits
from .._names import PIPELINE
from ..checkpoint._checkpoint import Checkpoint
from ..many_files._weights import read_weights
from ._roots import MODEL, Member, read_roots
from ._values import read_values

CONFIG = "config.json"
# Classes of a pipeline's parts that have no weights.
WITHOUT_WEIGHTS = re.compile(r".*(?:Tokenizer|TokenizerFast|Scheduler|Processor|FeatureExtractor)")


def read_submodels(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of the models in the folders of a folder. Models that the index of a pipeline lists but that
    are missing are named.

    Other weights at the top of a pipeline are the whole pipeline in one file, for other programs.
    """
    members: dict[str, Member] = {}
    if PIPELINE not in folder.files:
        members = {MODEL: partial(read_weights, folder, limits)} if is_weights(folder) else {}
    found = parts(folder)
    members |= {name: name for name in found}
    listed = read_values(folder, PIPELINE, limits).object if PIPELINE in folder.files else {}
    for name, what in listed.items() if isinstance(listed, dict) else ():
        if name not in found and _has_weights(folder, name, what):
            members[name] = partial(_missing, folder, name)
    return read_roots(folder, "submodels", members, limits)


def _has_weights(folder: Folder, name: str, what: Any) -> bool:
    """Return whether an entry of a pipeline's index is a model: `[library, class]`."""
    if not (isinstance(what, list) and len(what) == 2 and isinstance(what[1], str)):
        return False
    return CONFIG in folder.folder(name).files if name in folder.folders else not WITHOUT_WEIGHTS.fullmatch(what[1])


def _missing(folder: Folder, name: str) -> NoReturn:
    raise FormatError(f"{PIPELINE} lists this model, but its weights are missing", file=folder.path_of(name))
