"""Folders as frameworks write them: the names of their files, and what is in each."""

from __future__ import annotations

import io
import json
import random
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

import statedict


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


class Training:
    """A model after a step, with its optimizer and scheduler."""

    def __init__(self, seed: int = 0) -> None:
        self.model = model(seed)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1 * (seed + 1))
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2 + seed)
        self.model(torch.randn(3, 4)).sum().backward()
        self.optimizer.step()
        self.scheduler.step()


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Write each object to its file: JSON, safetensors, bytes as they are, or a file of torch.save."""
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            path.write_bytes(value)
        elif name.endswith(".json"):
            path.write_text(json.dumps(value))
        elif name.endswith(".safetensors"):
            statedict.save(value, path)
        else:
            torch.save(value, path)
    return folder


def accelerate(folder: Path, trainings: list[Training], *, safe: bool = True, ranks: int = 1, **more: Any) -> Path:
    """accelerate 1.15, `save_state`: the first model, optimizer and scheduler without a number, then `_1` …"""
    files: dict[str, Any] = {}
    for n, training in enumerate(trainings):
        end = f"_{n}" if n else ""
        files[f"model{end}.safetensors" if safe else f"pytorch_model{end}.bin"] = training.model.state_dict()
        files[f"optimizer{end}.bin"] = training.optimizer.state_dict()
        files[f"scheduler{end}.bin"] = training.scheduler.state_dict()
    for rank in range(ranks):
        files[f"random_states_{rank}.pkl"] = {
            "step": rank,
            "random_state": random.Random(rank).getstate(),
            "numpy_random_seed": np.random.RandomState(rank).get_state(),
            "torch_manual_seed": torch.get_rng_state(),
        }
    return write(folder, {**files, **{name.replace("__", "."): value for name, value in more.items()}})


def distributed(folder: Path, state: dict[str, Any]) -> None:
    """torch.distributed.checkpoint, saved by one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that there is one process
        dcp.save(state, checkpoint_id=folder, no_dist=True)


# A number that is not finite, as transformers logs it.
TRAINER = {"global_step": 4, "epoch": 1.0, "log_history": [{"loss": float("nan"), "step": 4, "more": {"a": [[1]]}}]}


def trainer(folder: Path, training: Training, **more: Any) -> Path:
    """transformers 5.24, `checkpoint-N` of Trainer; `more` are further files, `__` in a name is a dot."""
    files = {
        "config.json": {"model_type": "bert"},
        "model.safetensors": training.model.state_dict(),
        "optimizer.pt": training.optimizer.state_dict(),
        "rng_state.pth": {"python": random.Random(0).getstate(), "cpu": torch.get_rng_state()},
        "scheduler.pt": training.scheduler.state_dict(),
        "trainer_state.json": TRAINER,
        "training_args.bin": {"lr": 0.1},
    }
    more = {name.replace("__", "."): value for name, value in more.items()}
    return write(folder, {name: value for name, value in {**files, **more}.items() if value is not None})


def skorch(folder: Path, training: Training, prefix: str = "", *, safe: bool = False) -> Path:
    """skorch 1.4, the `dirname` of Checkpoint, or of TrainEndCheckpoint with its prefix."""
    files: dict[str, Any] = {f"{prefix}history.json": [{"epoch": 1, "train_loss": 0.5}]}
    if safe:  # the same name, another format
        buffer = io.BytesIO()
        statedict.save(training.model.state_dict(), buffer, format="safetensors")
        return write(folder, {**files, f"{prefix}params.pt": buffer.getvalue()})
    files[f"{prefix}params.pt"] = training.model.state_dict()
    files[f"{prefix}optimizer.pt"] = training.optimizer.state_dict()
    return write(folder, {**files, f"{prefix}criterion.pt": nn.NLLLoss().state_dict()})


PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "safety_checker": [None, None],
    "requires_safety_checker": False,
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
}


def pipeline(folder: Path, *, variant: str = "", suffix: str = "safetensors") -> Path:
    """diffusers 0.42, `save_pretrained` of a pipeline."""
    end = f"{variant and '.'}{variant}.{suffix}"
    return write(
        folder,
        {
            "model_index.json": PIPELINE,
            f"unet/diffusion_pytorch_model{end}": model(1).state_dict(),
            "unet/config.json": {},
            f"text_encoder/model{end}": model(2).state_dict(),
            "text_encoder/config.json": {},
            "tokenizer/tokenizer_config.json": {},
            "scheduler/scheduler_config.json": {},
        },
    )


def sb3(path: Path, training: Training) -> Path:
    """Stable-Baselines3 2.9, `save`: a zip of stored members."""
    data = {"gamma": 0.99, "num_timesteps": 32, "policy_class": {":type:": "x", ":serialized:": "gASV"}}
    objects = {
        "pytorch_variables.pth": {},
        "policy.pth": training.model.state_dict(),
        "policy.optimizer.pth": training.optimizer.state_dict(),
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps(data))
        for name, value in objects.items():
            with archive.open(name, mode="w") as file:
                torch.save(value, file)
        archive.writestr("_stable_baselines3_version", "2.9.2")
        archive.writestr("system_info.txt", "- OS: Linux")
    return path


def saved(value: Any) -> bytes:
    """Return the bytes of a file of torch.save."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def mar(path: Path, state: dict[str, Any], compression: int) -> Path:
    """torch-model-archiver: a zip, compressed unless `--archive-format zip-store` is given."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", '{"model": {"serializedFile": "model.pt"}}')
        archive.writestr("model.pt", saved(state))
        archive.writestr("handler.py", "raise SystemExit")
    return path


def tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar as Python writes it."""
    with tarfile.open(path, "w:") as archive:
        for name, raw in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return path


def nemo(path: Path, state: dict[str, Any]) -> Path:
    """NeMo: a tar of a folder with the configuration and the weights."""
    return tar(path, {"./model_config.yaml": b"a: 1", "./model_weights.ckpt": saved(state)})
