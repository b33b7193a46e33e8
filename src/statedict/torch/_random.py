"""The state of torch's global random generators: of the CPU, and of every CUDA device if CUDA was used."""

from __future__ import annotations

from typing import Any

import torch


def read_random() -> dict[str, Any]:
    """Return `{"cpu": uint8 tensor, "cuda": [uint8 tensor, …]}`. Partner of `write_random`.

    CUDA is included only if it was used, because reading its state would initialise it.

    >>> state = read_random()
    >>> first = torch.rand(2)
    >>> write_random(state)
    >>> bool((first == torch.rand(2)).all())
    True
    """
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def write_random(state: dict[str, Any]) -> None:
    """Restore the generators. Partner of `read_random`.

    The states of CUDA devices that this machine does not have are ignored.
    """
    torch.set_rng_state(state["cpu"].cpu())
    if torch.cuda.is_available():
        for device, found in enumerate(state.get("cuda", ())[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(found.cpu(), device)
