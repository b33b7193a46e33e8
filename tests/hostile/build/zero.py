"""Checkpoints of DeepSpeed: a parameter "w" of four float32, of which each of two ranks has a half."""

from __future__ import annotations

from collections.abc import Mapping

from . import pickles as p
from .torch_zips import as_torch_writes
from .zips import FOUR

MODEL = "mp_rank_00_model_states.pt"
UNIVERSAL = "zero/w/fp32.pt"
STAGE = "deepspeed.runtime.zero.config", "ZeroStageEnum"


def optimizer_file(rank: int) -> str:
    return f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"


def named(values: Mapping[str, bytes]) -> bytes:
    return p.dict_(*((p.text(key), value) for key, value in values.items()))


def size(*numbers: int) -> bytes:
    return p.call(p.name("torch", "Size"), p.integers(numbers))


def model_states(**changes: bytes) -> bytes:
    values = {
        "module": named({"w": p.tensor()}),
        "buffer_names": p.list_(),
        "param_shapes": p.list_(named({"w": size(4)})),
        "shared_params": p.dict_(),
        "ds_version": p.text("0.19.8"),
    }
    return as_torch_writes(p.pickled(named({**values, **changes})))


def optimizer_states(rank: int, stage: int, **changes: bytes) -> bytes:
    half = p.tensor(p.storage(numel=2), size=(2,))
    state = named({"state": p.dict_((p.integer(0), named({"exp_avg": half}))), "param_groups": param_groups(0)})
    values = {
        "zero_stage": p.call(p.name(*STAGE), p.integer(stage)),
        "partition_count": p.integer(2),
        "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups": p.list_(half),
        "optimizer_state_dict" if stage == 3 else "base_optimizer_state": state,
    }
    content = named({"optimizer_state_dict": named({**values, **changes})})
    return as_torch_writes(p.pickled(content), {"0": FOUR[8 * rank : 8 * rank + 8]})


def param_groups(*numbers: int) -> bytes:
    return p.list_(named({"params": p.list_(*map(p.integer, numbers))}))


def files(stage: int = 2) -> dict[str, bytes]:
    """The files of a folder, by name."""
    states = {f"zero_pp_rank_{rank}_{MODEL}" if stage == 3 else MODEL: model_states() for rank in range(stage - 1)}
    return {**states, **{optimizer_file(rank): optimizer_states(rank, stage) for rank in range(2)}}


def universal() -> dict[str, bytes]:
    """The files of a universal checkpoint, by name."""
    parameter = as_torch_writes(p.pickled(named({"param": p.tensor()})))
    facts = as_torch_writes(p.pickled(named({"param_groups": param_groups(0)})), {})
    return {
        MODEL: model_states(),
        "zero/optimizer_state.pt": facts,
        UNIVERSAL: parameter,
        "zero/w/exp_avg.pt": parameter,
    }
