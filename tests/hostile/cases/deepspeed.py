"""Folders of DeepSpeed whose files run code, contradict each other, or lie about what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..build import pickles as p
from ..build import zero
from ..build.shards import write_all
from ..build.torch_zips import as_torch_writes
from ._case import Case, Gives

W = {"w": [1.0, 2.0, 3.0, 4.0]}
RANK_1, SHAPES = zero.optimizer_file(1), "param_shapes"
FLAT, FLAT_3 = "single_partition_of_fp32_groups", "fp32_flat_groups"


def _case(
    name: str, what: str, files: Callable[[], Mapping[str, bytes]], gives: Gives = "error", values: object = W
) -> Case:
    def place(folder: Path) -> Path:
        step, made = folder / name, files()
        for file in made:
            (step / file).parent.mkdir(parents=True, exist_ok=True)
        return write_all(step, made)

    return Case(f"zero_{name}", gives, what, place, values, placed=True)  # type: ignore[arg-type]


def _model(stage: int = 2, **changes: bytes) -> Callable[[], Mapping[str, bytes]]:
    name = f"zero_pp_rank_0_{zero.MODEL}" if stage == 3 else zero.MODEL
    return lambda: {**zero.files(stage), name: zero.model_states(**changes)}


def _rank(stage: int = 2, rank: int = 1, **changes: bytes) -> Callable[[], Mapping[str, bytes]]:
    return lambda: {**zero.files(stage), zero.optimizer_file(rank): zero.optimizer_states(rank, stage, **changes)}


def _parameter(content: bytes, file: str = zero.UNIVERSAL) -> Callable[[], Mapping[str, bytes]]:
    return lambda: {**zero.universal(), file: as_torch_writes(p.pickled(content))}


def _both(**changes: bytes) -> dict[str, bytes]:
    return zero.files() | {zero.optimizer_file(rank): zero.optimizer_states(rank, 2, **changes) for rank in range(2)}


def _shapes(**shapes: bytes) -> bytes:
    return p.list_(zero.named(shapes))


CASES = [
    _case("ok_2", "ZeRO 2", zero.files, "loads"),
    _case("ok_3", "ZeRO 3", lambda: zero.files(3), "loads"),
    _case("ok_universal", "a universal checkpoint", zero.universal, "loads"),
    _case("runs_in_optimizer", "the loss scaler is a call of a shell", _rank(loss_scaler=p.shell()), "unsafe"),
    _case("runs_as_stage", "the stage is a call of a shell", _rank(zero_stage=p.shell()), "unsafe"),
    _case("runs_in_model", "the scheduler is a call of a shell", _model(lr_scheduler=p.shell()), "unsafe"),
    _case("runs_in_universal", "beside a parameter is a call of a shell",
          _parameter(zero.named({"param": p.tensor(), "cat_dim": p.shell()})), "unsafe"),
    _case("runs_later", "the same in a file that is opened when it is read",
          _parameter(zero.named({"param": p.tensor(), "cat_dim": p.shell()}), "zero/w/exp_avg.pt"), "unsafe"),
    _case("count_differs", "a rank says that it is one of three", _rank(partition_count=p.integer(3))),
    _case("count_huge", "both ranks say that they are of 2**40, so that the others have padding",
          lambda: _both(partition_count=p.integer(1 << 40)), "loads"),
    _case("count_nothing", "both ranks say that they are of none", lambda: _both(partition_count=p.integer(0))),
    _case("count_laughs", "a partition_count of text", _rank(partition_count=p.text("2"))),
    _case("stage_differs", "one rank has the vectors of ZeRO 3",
          lambda: {**zero.files(), RANK_1: zero.optimizer_states(1, 3)}),
    _case("rank_twice", "two files are of one rank",
          lambda: {**zero.files(), "bf16_" + RANK_1: zero.optimizer_states(1, 2)}),
    _case("rank_beyond", "a third rank of two",
          lambda: {**zero.files(), zero.optimizer_file(2): zero.optimizer_states(1, 2)}),
    _case("states_twice", "model states of ZeRO 2 and of ZeRO 3",
          lambda: {**zero.files(), f"zero_pp_rank_0_{zero.MODEL}": zero.model_states()}),
    _case("vector_short", "the vector of a rank has one element",
          _rank(**{FLAT: p.list_(p.tensor(p.storage(numel=2), size=(1,)))}, rank=0)),
    _case("vector_short_3", "the same with ZeRO 3",
          _rank(3, **{FLAT_3: p.list_(p.tensor(p.storage(numel=2), size=(1,)))})),
    _case("vector_beyond", "the vectors exceed their storages: both files are damaged, and the module is left",
          lambda: _both(**{FLAT: p.list_(p.tensor(p.storage(numel=2), size=(1 << 40,)))}), "loads"),
    _case("vector_expanded", "the vector of a rank is one element, again and again",
          _rank(**{FLAT: p.list_(p.tensor(p.storage(numel=2), size=(1 << 40,), stride=(0,)))})),
    _case("vector_matrix", "the vector of a rank is a matrix",
          _rank(**{FLAT: p.list_(p.tensor(p.storage(numel=2), size=(1, 2), stride=(2, 1)))})),
    _case("vectors_more", "a rank has two vectors",
          _rank(**{FLAT: p.list_(*[p.tensor(p.storage(numel=2), size=(2,))] * 2)})),
    _case("groups_refer", "a parameter group is of a vector that is not there",
          _rank(base_optimizer_state=zero.named({"state": p.dict_(), "param_groups": zero.param_groups(1 << 40)}))),
    _case("paddings", "more paddings than parameters",
          _rank(rank=0, param_alignment_paddings=p.list_(p.list_(*map(p.integer, (0, 0)))))),
    _case("padding_negative", "a negative padding",
          _rank(rank=0, param_alignment_paddings=p.list_(p.list_(p.integer(-2))))),
    _case("shape_huge", "a parameter of 2**62 elements", _model(**{SHAPES: _shapes(w=zero.size(1 << 62))})),
    _case("shape_huge_3", "the same with ZeRO 3", _model(3, **{SHAPES: _shapes(w=zero.size(1 << 62))})),
    _case("shape_beyond", "a parameter larger than any address", _model(**{SHAPES: _shapes(w=zero.size(1 << 64))})),
    _case("shape_negative", "a negative size", _model(**{SHAPES: _shapes(w=zero.size(-4))})),
    _case("shape_deep", "a thousand dimensions", _model(**{SHAPES: _shapes(w=zero.size(*[1] * 1000, 4))})),
    _case("shape_empty", "no element, and impossible", _model(**{SHAPES: _shapes(w=zero.size(0, 1 << 62, 1 << 62))})),
    _case("shape_text", "shapes of text", _model(**{SHAPES: p.list_(p.text("w"))})),
    _case("name_twice", "two groups with one name", _model(**{SHAPES: p.list_(*[zero.named({"w": zero.size(4)})] * 2)})),
    _case("name_not_text", "a name that is a number", _model(**{SHAPES: p.list_(p.dict_((p.integer(1), zero.size(4))))})),
    _case("shared_with_itself", "a parameter that shares itself", _model(shared_params=zero.named({"w": p.text("w")})),
          "loads"),
    _case("frozen_shape", "a frozen parameter has another shape",
          _model(frozen_param_shapes=zero.named({"f": zero.size(2, 2)}),
                 frozen_param_fragments=zero.named({"f": p.tensor()}))),
    _case("frozen_missing", "a frozen parameter is not in the file",
          _model(frozen_param_shapes=zero.named({"f": zero.size(4)}))),
    _case("frozen_short_3", "a part of a frozen parameter is too short",
          _model(3, frozen_param_shapes=zero.named({"f": zero.size(4, 4)}),
                 frozen_param_fragments=zero.named({"f": p.tensor()}))),
    _case("module_text", "the module is text", _model(module=p.text("w"))),
    _case("universal_text", "a parameter is text", _parameter(zero.named({"param": p.text("w")}))),
    _case("universal_flat", "a flat parameter has another size", _parameter(p.tensor(size=(3,)))),
    _case("universal_state_shape", "a moment has another shape than the weights",
          _parameter(zero.named({"param": p.tensor(size=(2,))}), "zero/w/exp_avg.pt")),
]  # fmt: skip
