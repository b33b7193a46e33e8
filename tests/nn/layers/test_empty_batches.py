"""No samples at all: what PyTorch gives of them, or refuses."""

import pytest
import torch

CASES = {
    "Linear": [(4, 3), (0, 4)],
    "Bilinear": [(4, 3, 2), (0, 4), (0, 3)],
    "Conv1d": [(4, 6, 3), (0, 4, 9)],
    "Conv2d": [(3, 4, 3), (0, 3, 9, 9)],
    "Conv3d": [(2, 2, 2), (0, 2, 4, 4, 4)],
    "ConvTranspose2d": [(4, 2, 3), (0, 4, 5, 5)],
    "MaxPool2d": [(2,), (0, 3, 8, 8)],
    "AvgPool2d": [(2,), (0, 3, 8, 8)],
    "LPPool2d": [(2, 3), (0, 3, 8, 8)],
    "AdaptiveAvgPool2d": [((3, 2),), (0, 3, 7, 8)],
    "AdaptiveMaxPool2d": [((3, 2),), (0, 3, 7, 8)],
    "BatchNorm1d": [(3,), (0, 3)],
    "BatchNorm2d": [(3,), (0, 3, 4, 4)],
    "InstanceNorm2d": [(3,), (0, 3, 4, 4)],
    "LayerNorm": [(4,), (0, 4)],
    "RMSNorm": [(4,), (0, 4)],
    "GroupNorm": [(2, 4), (0, 4, 3)],
    "LocalResponseNorm": [(2,), (0, 4, 3)],
    "MultiheadAttention": [(4, 2), (3, 0, 4), (3, 0, 4), (3, 0, 4)],
    "TransformerEncoderLayer": [(4, 2, 8), (3, 0, 4)],
    "TransformerDecoderLayer": [(4, 2, 8), (3, 0, 4), (2, 0, 4)],
    "RNN": [(4, 3), (5, 0, 4)],
    "GRU": [(4, 3, 2), (5, 0, 4)],
    "LSTM": [(4, 3, 2), (5, 0, 4)],
    "LSTMCell": [(4, 3), (0, 4)],
    "Softmax": [(1,), (0, 4)],
    "GLU": [(), (0, 4)],
    "Flatten": [(), (0, 3, 4)],
    "Unflatten": [(1, (2, 2)), (0, 4)],
    "ReflectionPad2d": [(1,), (0, 3, 4, 4)],
    "CircularPad1d": [(1,), (0, 3, 4)],
}


@pytest.mark.parametrize("kind", CASES)
def test_empty_batches(kind, twins, same):
    """A batch without samples gives as many results as in PyTorch."""
    args, *shapes = CASES[kind]
    theirs, ours = twins(kind, *args)
    given = [torch.zeros(shape) for shape in shapes]
    same(theirs.eval()(*given), ours.eval()(*[tensor.numpy() for tensor in given]))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_sequences_without_steps(both, raised, kind):
    """A sequence has one step at least."""
    made = [
        raised(lambda lib=lib: getattr(lib.nn, kind)(3, 4)(lib.xp.zeros((0, 2, 3), dtype=lib.xp.float32)))
        for lib in both
    ]
    assert made[0] == made[1]
    assert made[0][0] == "RuntimeError"
