"""The part of `torch.nn.utils` that models need for inference: packed sequences, in `rnn`."""

from . import rnn

__all__ = ["rnn"]
