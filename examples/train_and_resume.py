"""A training that can be killed at any time: start it again, and it resumes from the last save.

    python examples/train_and_resume.py RUN_DIRECTORY [STEPS]

Five lines use the manager. It saves the optimizer, the scheduler and all random generators too, so that an interrupted run
ends with the same weights as an uninterrupted one.
"""

import sys

import torch
from torch import nn

import statedict


def main(directory: str, steps: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1000)

    with statedict.CheckpointManager(directory) as manager:
        resumed = manager.resume(model=model, optimizer=optimizer, scheduler=scheduler)
        start = resumed.step if resumed else 0
        print(f"starting at step {start}")
        for step in range(start + 1, steps + 1):
            points = torch.rand(256, 2) * 2 - 1
            wanted = (points[:, :1] * points[:, 1:]).sign()
            loss = nn.functional.mse_loss(model(points), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            if step % 50 == 0 or step == steps:
                manager.save(step, {"loss": loss.item()}, model=model, optimizer=optimizer, scheduler=scheduler)
                print(f"step {step}: loss {loss.item():.4f}, saved")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200)
