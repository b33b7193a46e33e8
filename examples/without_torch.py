"""Run a model that was trained with PyTorch, without PyTorch.

    python examples/without_torch.py FILE

The class is written as for PyTorch; only the import differs. FILE holds the state dict of the same class in PyTorch.
"""

import sys

import numpy as np

import statedict
from statedict import nn


class Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.head = nn.Linear(8 * 4 * 4, 10)

    def forward(self, pixels: nn.Parameter) -> nn.Parameter:
        return self.head(self.features(pixels))


def main(file: str) -> None:
    model = Digits().eval()
    print(statedict.load_state_dict(model, file))
    pixels = np.linspace(0, 1, 2 * 64, dtype=np.float32).reshape(2, 1, 8, 8)
    print(np.asarray(model(pixels)).round(4).tolist())


if __name__ == "__main__":
    main(sys.argv[1])
