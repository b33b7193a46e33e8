"""Saves what trainers save, with the classes of project.py in it. Run by test_foreign.py.

python make.py FOLDER
"""

import datetime
import pathlib
import sys

import numpy as np
import project
import torch


def trained():
    """A model that has taken a step, and its optimizer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def lightning():
    """What Lightning's Trainer writes."""
    model, optimizer = trained()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    node = project.Node({})
    node._content["child"] = project.Node([1, "x", torch.ones(3)], parent=node)
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 4}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.25), "best_k_models": {}}
        },
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
        "hparams_name": "kwargs",
        "hyper_parameters": project.AttributeDict(config=project.Config(8, project.Activation.RELU, [1]), node=node),
    }


def trainer():
    """What many scripts write: everything, nested."""
    model, optimizer = trained()
    return {
        "checkpoint": {"model": model.state_dict(), "ema": {"state_dict": model.state_dict(), "decay": 0.999}},
        "optimizer": optimizer.state_dict(),
        "args": project.namespace(),
        "rng": {"torch": torch.get_rng_state(), "numpy": np.random.RandomState(0).get_state()},
        "best": np.float64(0.5),
        "saved": datetime.datetime(2024, 1, 2, 3, 4, 5),
        "where": pathlib.PurePosixPath("runs/1"),
        "frame": project.Frame({"loss": np.arange(4.0), "step": np.arange(4)}),
        "slotted": project.Slotted(),
        "points": [project.Point(1.0, 2.0), project.Point(3.0, 4.0)],
        "history": project.History([1, 2, torch.zeros(2)], 5),
    }


def module():
    """A whole module."""
    torch.manual_seed(0)
    return project.Net()


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    for make in (lightning, trainer, module):
        for suffix, options in {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}.items():
            torch.save(make(), folder / f"{make.__name__}.{suffix}", **options)
    torch.save(module().state_dict(), folder / "module-state.pt")
