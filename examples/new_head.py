"""Fine-tune a pretrained model: load everything except the head, and train only a new head for other classes.

    python examples/new_head.py

Nothing is dropped silently: excluded names (`exclude`) are listed in the report. Any other difference raises an error,
and the model is then unchanged.
"""

import torch
from torch import nn

import statedict


class Net(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.head = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


def main() -> None:
    torch.manual_seed(0)
    statedict.save(statedict.state_dict(Net(classes=10)), "pretrained.pt")  # stands for a file that you downloaded

    model = Net(classes=3)
    report = statedict.load_state_dict(model, "pretrained.pt", exclude="head")
    print(report)

    model.backbone.requires_grad_(False)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    x, y = torch.randn(64, 8), torch.randint(3, (64,))
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    statedict.save(statedict.state_dict(model), "fine-tuned.pt")


if __name__ == "__main__":
    main()
