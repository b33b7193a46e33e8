"""`torch.nn.utils` by the same name, as far as models use it to be run: packed sequences, in `rnn`."""

from . import rnn as rnn
