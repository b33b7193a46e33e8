"""The torch host: modules, optimizers and tensors over this library's engine, under PyTorch's public signatures."""

from ._library import TORCH as TORCH
