"""`torch.nn.utils` by the same name, as far as models need it to be run: packed sequences, in `rnn`."""

from . import rnn as rnn

__all__ = ["rnn"]
