"""The part of `torch.nn.utils` that models need for inference: packed sequences, in `rnn`."""

from . import rnn as rnn

__all__ = ["rnn"]
