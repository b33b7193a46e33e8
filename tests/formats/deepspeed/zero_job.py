"""Save a model as a job of DeepSpeed 0.19.8 does, one rank after the other, without DeepSpeed.

The layout is that of real checkpoints: `save` was compared with them, key by key. What must be read again is returned.
"""

import enum
import math
import sys
import types
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

SHAPES = {
    "scale": (1,),
    "odd": (3, 5, 7),
    "embed.weight": (11, 6),
    "body.0.weight": (6, 6),
    "body.0.bias": (6,),
    "norm.weight": (6,),
}
BUFFERS = {"table": torch.arange(4.0) / 7, "norm.count": torch.tensor(5), "body.0.mask": torch.tensor([True, False])}
MOMENTS = ("exp_avg", "exp_avg_sq")
OF_RANKS = ("single_partition_of_fp32_groups", "param_slice_mappings")
OPTIONS = {
    name: value for name, value in torch.optim.AdamW([torch.zeros(1)]).param_groups[0].items() if name != "params"
}
STEP = 3
VERSION = "0.19.8"


@contextmanager
def classes():
    """Provide the classes of DeepSpeed that a pickle names, while a file is written."""
    stages = enum.IntEnum("ZeroStageEnum", "optimizer_states gradients weights")
    # CPython 3.11.0 to 3.11.3 would pickle a member as getattr(class, name).
    stages.__reduce_ex__ = lambda self, protocol: (type(self), (self.value,))
    made = {
        "deepspeed.runtime.zero.config": stages,
        "deepspeed.runtime.fp16.loss_scaler": type("LossScaler", (), {}),
        "deepspeed.utils.tensor_fragment": dataclass(
            type("fragment_address", (), {"__annotations__": {"numel": int, "start": int}})
        ),
    }
    names = {".".join(module.split(".")[:end]) for module in made for end in range(1, module.count(".") + 2)}
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    for module, made_class in made.items():
        made_class.__module__, made_class.__qualname__ = module, made_class.__name__
        setattr(sys.modules[module], made_class.__name__, made_class)
    try:
        yield types.SimpleNamespace(**{each.__name__: each for each in made.values()})
    finally:
        for name in names:
            del sys.modules[name]


@dataclass
class Job:
    """How the model is trained.

    Attributes:
        kind: how the names of the optimizer's files begin.
        groups: the names of the parameters of each group; with ZeRO 3, of each sub-group.
        frozen: names of parameters that are not trained; ZeRO 1 does not list them.
        tied: a name → the name of the parameter that it shares.
        mp, mps: the number of the mp_rank, and how many there are.
        layers: whether the module is in files of layers, as that of a pipeline is.
    """

    stage: int
    ranks: int = 2
    kind: str = "bf16_zero"
    dtype: torch.dtype = torch.bfloat16
    shapes: dict = field(default_factory=lambda: dict(SHAPES))
    groups: list | None = None
    frozen: tuple = ()
    tied: dict = field(default_factory=dict)
    elastic: bool = False
    paddings: list | None = None
    seed: int = 0
    mp: int = 0
    mps: int = 1
    layers: bool = False

    def __post_init__(self):
        generator = torch.Generator().manual_seed(self.seed)
        self.values = {
            key: {name: torch.randn(shape, generator=generator) for name, shape in self.shapes.items()}
            for key in ("fp32", *MOMENTS)
        }
        trained = [name for name in self.shapes if name not in self.frozen]
        self.groups = self.groups or [trained]

    # what must be read again

    def model(self):
        """The fp32 weights, as `zero_to_fp32.py` gives them, and the frozen parameters that ZeRO 1 does not list."""
        weights = {name: self.values["fp32"][name] for group in self.groups for name in group}
        frozen = {name: self.values["fp32"][name].to(self.dtype) for name in self.frozen}
        shared = {name: weights[owner] for name, owner in self.tied.items()}
        return {**BUFFERS, **frozen, **weights, **shared}

    def optimizer(self):
        return {
            name: {key: self.values[key][name] for key in MOMENTS} | {"step": torch.tensor(float(STEP))}
            for group in self.groups
            for name in group
        }

    # what is saved

    def module(self):
        names = [*self.shapes, *self.tied]
        if self.stage == 3:
            weights = {name: torch.empty(0, dtype=self.dtype) for name in names}
        else:
            whole = {name: value.to(self.dtype) for name, value in self.values["fp32"].items()}
            weights = {name: whole[self.tied.get(name, name)] for name in names}
        return OrderedDict({**weights, **BUFFERS})

    def parts(self, value):
        """The parts of a tensor of each rank, with ZeRO 3: of equal size, the last padded."""
        size = -(-value.numel() // self.ranks)
        flat = torch.nn.functional.pad(value.reshape(-1), (0, size * self.ranks - value.numel()))
        return flat.split(size) if size else [flat] * self.ranks

    def flat(self, key, group):
        """The flat vector of each rank."""
        values = [self.values[key][name] for name in self.groups[group]]
        if self.stage == 3:
            return [torch.cat(parts) for parts in zip(*map(self.parts, values))]
        paddings = self.paddings[group] if self.paddings else [0] * len(values)
        padded = [torch.nn.functional.pad(value.reshape(-1), (0, n)) for value, n in zip(values, paddings)]
        whole = torch.cat(padded)
        whole = torch.nn.functional.pad(whole, (0, -len(whole) % (2 * self.ranks)))
        return [part.clone() for part in whole.split(len(whole) // self.ranks)]

    def padding(self, group, rank):
        """The padding at the end of the flat vector of a rank."""
        needed = sum(math.prod(self.shapes[name]) for name in self.groups[group])
        needed += sum(self.paddings[group]) if self.paddings else 0
        return -needed % (2 * self.ranks) if rank == self.ranks - 1 else 0

    def model_states(self, rank):
        frozen = {name: self.values["fp32"][name].to(self.dtype) for name in self.frozen}
        fragments = {
            name: self.parts(value)[rank].clone() if self.stage == 3 else value for name, value in frozen.items()
        }
        lists = self.stage > 1
        return {
            "module": None if self.layers else self.module(),
            "buffer_names": list(BUFFERS),
            "optimizer": None,
            "param_shapes": [
                OrderedDict((name, torch.Size(self.shapes[name])) for name in group) for group in self.groups
            ],
            "frozen_param_shapes": OrderedDict((name, value.shape) for name, value in frozen.items())
            if lists
            else None,
            "shared_params": dict(self.tied) if rank == 0 else {},
            "frozen_param_fragments": OrderedDict(fragments) if lists else None,
            "lr_scheduler": {"last_epoch": STEP, "_last_lr": [1e-3]},
            "data_sampler": None,
            "random_ltd": None,
            "skipped_steps": 0,
            "global_steps": STEP,
            "global_samples": 8 * STEP,
            "dp_world_size": self.ranks,
            "mp_world_size": self.mps,
            "checkpoint_parallel_dimensions": {"pp_degree": 1, "tp_degree": 1},
            "ds_config": {"zero_optimization": {"stage": self.stage}},
            "ds_version": VERSION,
            "epoch": 7,
        }

    def optimizer_states(self, rank, known):
        flat = {key: [self.flat(key, group)[rank] for group in range(len(self.groups))] for key in ("fp32", *MOMENTS)}
        scaler = known.LossScaler()
        scaler.__dict__.update(cur_scale=1.0, dynamic=False)
        state = [
            {"step": torch.tensor(float(STEP)), **{key: flat[key][n] for key in MOMENTS}}
            for n in range(len(self.groups))
        ]
        optimizer = {
            "state": dict(enumerate(state)),
            "param_groups": [{**OPTIONS, "params": [number]} for number in range(len(self.groups))],
        }
        facts = {"loss_scaler": scaler, "dynamic_loss_scale": False, "overflow": False}
        if self.stage == 3:
            saved = {
                "zero_stage": known.ZeroStageEnum(3),
                **facts,
                "partition_count": self.ranks,
                "optimizer_state_dict": optimizer,
                "fp32_flat_groups": flat["fp32"],
            }
        else:
            cut = [len(whole) - self.padding(n, rank) for n, whole in enumerate(flat["fp32"])]
            lean = [
                {key: value[: cut[n]] if key in MOMENTS else value for key, value in each.items()}
                for n, each in enumerate(state)
            ]
            saved = {
                **facts,
                "clip_grad": 1.0,
                "base_optimizer_state": lean if self.elastic else optimizer,
                "single_partition_of_fp32_groups": [whole[: cut[n]] for n, whole in enumerate(flat["fp32"])],
                "zero_stage": known.ZeroStageEnum(self.stage),
                "group_paddings": [self.padding(n, rank) for n in range(len(self.groups))],
                "param_alignment_paddings": self.paddings or [[0] * len(group) for group in self.groups],
                "partition_count": [self.ranks] * len(self.groups),
                "ds_version": VERSION,
                "param_slice_mappings": self.mappings(rank, known),
            }
        return {"optimizer_state_dict": saved, "ds_config": {}, "ds_version": VERSION}

    def mappings(self, rank, known):
        found = []
        for group in range(len(self.groups)):
            size, at, inside = len(self.flat("fp32", group)[0]), 0, OrderedDict()
            for n, name in enumerate(self.groups[group]):
                numel = math.prod(self.shapes[name])
                low, high = max(at, rank * size), min(at + numel, (rank + 1) * size)
                if low < high:
                    inside[name] = known.fragment_address(high - low, low - rank * size)
                at += numel + (self.paddings[group][n] if self.paddings else 0)
            found.append(inside)
        return found

    def save(self, folder):
        """Write `folder/global_step3` and `folder/latest`; return the folder of the step."""
        step = Path(folder) / "global_step3"
        step.mkdir(parents=True, exist_ok=True)
        (step.parent / "latest").write_text(step.name)
        with classes() as known:
            for rank in range(self.ranks):
                if self.stage == 3:
                    torch.save(self.model_states(rank), step / f"zero_pp_rank_{rank}_{self.model_file()}")
                elif rank == 0:
                    torch.save(self.model_states(rank), step / self.model_file())
                torch.save(self.optimizer_states(rank, known), step / self.optimizer_file(rank))
        return step

    def optimizer_file(self, rank):
        return f"{self.kind}_pp_rank_{rank}_mp_rank_{self.mp:02d}_optim_states.pt"

    def model_file(self):
        return f"mp_rank_{self.mp:02d}_model_states.pt"

    def save_layers(self, step):
        """Write the parameters `LAYER.NAME` in the model's dtype, a file for each layer."""
        for layer in filter(str.isdecimal, {name.partition(".")[0] for name in self.shapes}):
            inside = {
                name.partition(".")[2]: value.to(self.dtype)
                for name, value in self.values["fp32"].items()
                if name.startswith(f"{layer}.")
            }
            torch.save(OrderedDict(inside), step / f"layer_{int(layer):02d}-model_states.pt")

    def save_universal(self, folder):
        """Write what `ds_to_universal.py` makes of the checkpoint; return its folder."""
        step = Path(folder) / "global_step3_universal"
        flat = self.stage == 3
        for name in (name for group in self.groups for name in group):
            inside = step / "zero" / name
            inside.mkdir(parents=True)
            for key in ("fp32", *MOMENTS):
                value = self.values[key][name]
                torch.save(value.reshape(-1) if flat else {"cat_dim": 0, "param": value}, inside / f"{key}.pt")
            if not flat:
                torch.save(torch.tensor(float(STEP)), inside / "step.pt")
        with classes() as known:
            saved = self.optimizer_states(0, known)["optimizer_state_dict"]
            optimizer = saved["optimizer_state_dict"] if flat else saved.pop("base_optimizer_state")
            kept = {key: value for key, value in saved.items() if key not in OF_RANKS} | {
                "param_groups": optimizer["param_groups"]
            }
            torch.save(kept, step / "zero" / "optimizer_state.pt")
            if not flat:
                self.save_untrained(step)
            for rank in range(self.ranks if flat else 1):
                name = f"zero_pp_rank_{rank}_{self.model_file()}" if flat else self.model_file()
                torch.save(self.model_states(rank), step / name)
        return step

    def save_untrained(self, step):
        """Write the tensors that the optimizer does not have, in fp32 whatever their dtype."""
        for name, value in self.module().items():
            if not (step / "zero" / name).exists():
                (step / "zero" / name).mkdir()
                torch.save({"param": value.float()}, step / "zero" / name / "fp32.pt")


def change(path, edit):
    """Change the content of a file that DeepSpeed wrote."""
    with classes():
        content = torch.load(path, weights_only=False)
        edit(content)
        torch.save(content, path)
