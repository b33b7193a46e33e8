"""PyTorch's own table of modules with sample inputs: every layer that is here is constructed and called as it says."""

import pytest
import torch
from torch.testing._internal.common_modules import module_db

from statedict import nn

# Losses need labels and gradients, lazy modules a first call; fractional pooling draws its windows at random.
ABSENT = {"LazyConv", "Loss", "FractionalMaxPool"}
HERE = [info for info in module_db if hasattr(nn, info.module_cls.__name__)]


def mirrored(value):
    """A constructor's or call's argument of PyTorch's as ours."""
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    if isinstance(value, torch.nn.TransformerEncoderLayer):
        attention, bias = value.self_attn, value.linear1.bias is not None
        return nn.TransformerEncoderLayer(
            attention.embed_dim,
            attention.num_heads,
            value.linear1.out_features,
            value.dropout.p,
            mirrored(value.activation),
            value.norm1.eps,
            attention.batch_first,
            value.norm_first,
            bias,
        )
    if callable(value) and getattr(value, "__name__", None) in nn.functional.__all__:
        return getattr(nn.functional, value.__name__)
    if isinstance(value, (tuple, list)):
        return type(value)(mirrored(item) for item in value)
    if isinstance(value, dict):
        return {key: mirrored(item) for key, item in value.items() if key not in ("device", "dtype")}
    return value


def test_what_is_absent_is_absent_on_purpose():
    """Only losses, lazy and fractional modules of PyTorch's table are missing."""
    absent = {info.module_cls.__name__ for info in module_db} - {info.module_cls.__name__ for info in HERE}
    assert all(any(word in name for word in ABSENT) for name in absent)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("info", HERE, ids=lambda info: info.module_cls.__name__)
@pytest.mark.filterwarnings("ignore")
def test_sample_inputs(info, training, same, same_state):
    """State dict, repr, output and what the call leaves in the buffers are PyTorch's, for every sample input."""
    torch.manual_seed(0)  # the samples are random
    kind = getattr(nn, info.module_cls.__name__)
    samples = info.module_inputs_func(info, "cpu", torch.float32, requires_grad=False, training=training)
    assert samples or training
    for sample in samples:
        made = sample.constructor_input
        theirs = info.module_cls(*made.args, **made.kwargs).train(training)
        ours = kind(*mirrored(made.args), **mirrored(made.kwargs)).train(training)
        ours.load_state_dict(theirs.state_dict())
        same_state(theirs.state_dict(), ours.state_dict())
        assert repr(theirs) == repr(ours)
        if sample.forward_input is not None:
            given = sample.forward_input
            with torch.no_grad():
                expected = theirs(*given.args, **given.kwargs)
            # Twelve layers that each normalise four numbers, as Transformer's sample has them, tell rounding tenfold.
            same(expected, ours(*mirrored(given.args), **mirrored(given.kwargs)), atol=1e-5)
            same_state(theirs.state_dict(), ours.state_dict())
