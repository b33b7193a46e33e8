"""The policy of `weights_only`, and PyTorch's texts for what it refuses."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

UNSAFE = (
    "In PyTorch 2.6, we changed the default value of the `weights_only` argument in `torch.load` from `False` to `True`. "
    "Re-running `torch.load` with `weights_only` set to `False` will likely succeed, but it can result in arbitrary code "
    "execution. Do it only if you got the file from a trusted source."
)
DOCUMENTATION = (
    "\n\nCheck the documentation of torch.load to learn more about types accepted by default with weights_only "
    "https://pytorch.org/docs/stable/generated/torch.load.html."
)


class Refused(pickle.UnpicklingError):
    """A restricted load refuses something; `explained` adds PyTorch's explanation."""


def only_weights(asked: bool | None, pickle_module: Any) -> bool:
    """Return whether to load only weights: the argument, or the environment, or (None) unless a pickle module is given."""
    wanted = asked if asked is not None else pickle_module is None and hasattr(torch.version, "git_version")
    force, force_not = _is_set("TORCH_FORCE_WEIGHTS_ONLY_LOAD"), _is_set("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    if force and force_not:
        raise RuntimeError(
            "Only one of `TORCH_FORCE_WEIGHTS_ONLY_LOAD` or `TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD` should be set, but both "
            "were set."
        )
    if force:
        return True
    if force_not and asked is None:
        warnings.warn(
            "Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD detected, since the"
            "`weights_only` argument was not explicitly passed to `torch.load`, forcing weights_only=False.",
            UserWarning,
            stacklevel=3,
        )
        return False
    return bool(wanted)


def _is_set(variable: str) -> bool:
    return os.getenv(variable, "0").lower() in ("1", "y", "yes", "true")


@contextmanager
def explained() -> Iterator[None]:
    """Translate Refused into the error that PyTorch raises, which says what to do."""
    try:
        yield
    except Refused as refused:
        raise pickle.UnpicklingError(explanation(str(refused))) from None


def explanation(problem: str) -> str:
    """PyTorch's text for a problem: whether the file can be trusted, and how to allow its classes."""
    if re.search(r"(\S+) must be (\S+) to load", problem):
        return f"Weights only load failed. {problem}\n {UNSAFE}\n"
    if re.search(r"GLOBAL (\S+) was not an allowed global by default\.", problem):
        return (
            "Weights only load failed. This file can still be loaded, to do so you have two options, "
            f"\033[1mdo those steps only if you trust the source of the checkpoint\033[0m. \n\t(1) {UNSAFE}\n"
            "\t(2) Alternatively, to load with `weights_only=True` please check the recommended steps in the following "
            f"error message.\n\tWeightsUnpickler error: {problem}{DOCUMENTATION}"
        )
    request = (
        "Please file an issue with the following so that we can make `weights_only=True` compatible with your use case: "
        "WeightsUnpickler error: "
    )
    asked = "" if re.search(r"whose module (\S+) is blocked", problem) else request
    return f"Weights only load failed. {UNSAFE}\n{asked}\n\n{problem}{DOCUMENTATION}"
