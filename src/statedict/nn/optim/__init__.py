"""Optimizers for given gradients, with PyTorch's state dicts: SGD, Adam, AdamW."""

from ._adam import Adam, AdamW
from ._optimizer import Optimizer
from ._sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
