"""The state of torch's global random generators: the CPU's, and every CUDA device's that has been used."""

from __future__ import annotations

from typing import Any

import torch


def read_random() -> dict[str, Any]:
    """`{"cpu": uint8 tensor, "cuda": [uint8 tensor, …]}`; the partner of `write_random`.

    CUDA is asked only if it was used: asking would start it.

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
    """Put the generators back; the partner of `read_random`.

    A state of CUDA devices that this machine does not have is left out: there is nothing to put back.
    """
    torch.set_rng_state(state["cpu"].cpu())
    if torch.cuda.is_available():
        for device, found in enumerate(state.get("cuda", ())[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(found.cpu(), device)
