"""Runs as frameworks leave them on disk: their names, with a small state in each file.

The names were compared with those that transformers 5.24, accelerate 1.15, Lightning 2.6, DeepSpeed 0.19 and torchtitan's
trainer (2026-08-21) wrote; those of torchtune and Megatron-LM are from their documentation.
"""

import json
import warnings

import torch


def model(number):
    return {"weight": torch.full((2, 2), float(number)), "bias": torch.zeros(2)}


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def transformers(run, steps=(9, 500)):
    """`save_total_limit` keeps the newest; the history has the evaluations of all steps so far."""
    history = []
    for step in steps:
        folder = run / f"checkpoint-{step}"
        save(folder / "pytorch_model.bin", model(step))
        save(folder / "optimizer.pt", {"state": {}, "param_groups": [{"params": []}]})
        save(folder / "training_args.bin", {"seed": 0})
        history += [
            {"loss": 2.0, "learning_rate": 1e-3, "step": step},
            {"eval_loss": 1 / step, "eval_runtime": 0.5, "eval_samples_per_second": 9.0, "step": step},
        ]
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": history}))
    return run


def accelerate(project, count=11):
    for number in range(count):
        save(project / "checkpoints" / f"checkpoint_{number}" / "pytorch_model.bin", model(number))
        save(project / "checkpoints" / f"checkpoint_{number}" / "optimizer.bin", {"state": {}, "param_groups": []})
    return project


def torchtitan(dump, steps=(9, 10)):
    import torch.distributed.checkpoint as dcp

    for step in steps:
        with warnings.catch_warnings(action="ignore"):  # of a single process
            dcp.save({"model": model(step)}, checkpoint_id=dump / "checkpoint" / f"step-{step}")
    return dump


def torchtune(output, epochs=(0, 1)):
    for epoch in epochs:
        save(output / f"epoch_{epoch}" / "model-00001-of-00001.bin", model(epoch))
    return output


def deepspeed(run, tags=("global_step9", "global_step10"), latest="global_step10"):
    for number, tag in enumerate(tags):
        save(run / tag / "weights.pt", model(number))
    (run / "latest").write_text(latest)
    return run


def megatron(run, iterations=(9, 10), latest="10"):
    for iteration in iterations:
        save(run / f"iter_{iteration:07d}" / "weights.pt", model(iteration))
    (run / "latest_checkpointed_iteration.txt").write_text(f"{latest}\n")
    return run


def lightning(root, version=0, names=("epoch=0-step=9.ckpt", "epoch=1-step=18.ckpt")):
    for number, name in enumerate(names):
        folder = root / "lightning_logs" / f"version_{version}"
        save(folder / "checkpoints" / name, {"state_dict": model(10 * version + number), "epoch": number})
        (folder / "hparams.yaml").write_text("{}\n")
    return root
