"""The same layer code on every array library: PyTorch's arrays, strict standard arrays, and JAX's where it is installed.

`array_api_strict` has nothing beside the array API standard: what runs on it needs nothing else of a library, CuPy for one.
"""

import copy
import importlib
import importlib.util
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import statedict
from statedict import nn

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


NUMBERS = np.array([[1, 2], [0, 4]])
HIDDEN = np.array([[False, True, False, False], [False, False, False, True]])
LAYERS = [
    (nn.Linear(4, 3), normal(2, 5, 4)),
    (nn.Bilinear(4, 3, 2), normal(2, 4), normal(2, 3)),
    (nn.Embedding(5, 3, max_norm=0.5), NUMBERS),
    (nn.EmbeddingBag(5, 3), np.array([1, 2, 3, 0]), np.array([0, 2, 2])),
    (nn.EmbeddingBag(5, 3, mode="max", padding_idx=2), NUMBERS),
    (nn.EmbeddingBag(5, 3, mode="sum"), NUMBERS, None, normal(2, 2)),
    (nn.Conv1d(4, 6, 3, padding=1, groups=2), normal(2, 4, 9)),
    (nn.Conv2d(3, 4, 3, stride=2, padding="valid", dilation=2), normal(2, 3, 9, 9)),
    (nn.Conv2d(3, 4, 3, padding="same", padding_mode="circular"), normal(3, 9, 9)),
    (nn.Conv3d(2, 2, 2, padding=1, padding_mode="reflect"), normal(1, 2, 4, 4, 4)),
    (nn.ConvTranspose1d(4, 2, 3, stride=2, groups=2, output_padding=1), normal(1, 4, 5)),
    (nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1), normal(1, 4, 5, 5)),
    (nn.MaxPool1d(2, padding=1), normal(1, 3, 7)),
    (nn.MaxPool2d(3, 2, 1, return_indices=True, ceil_mode=True), normal(1, 3, 7, 8)),
    (nn.AvgPool2d(3, 2, 1, count_include_pad=False), normal(1, 3, 7, 8)),
    (nn.LPPool2d(2, 3), normal(1, 3, 7, 8)),
    (nn.AdaptiveAvgPool2d((3, None)), normal(1, 3, 7, 8)),
    (nn.AdaptiveMaxPool2d((3, 2), return_indices=True), normal(1, 3, 7, 8)),
    (nn.BatchNorm2d(3), normal(2, 3, 4, 4)),
    (nn.InstanceNorm2d(3, affine=True, track_running_stats=True), normal(2, 3, 4, 4)),
    (nn.LayerNorm(4), normal(2, 4)),
    (nn.RMSNorm(4), normal(2, 4)),
    (nn.GroupNorm(2, 4), normal(2, 4, 3)),
    (nn.LocalResponseNorm(2), normal(2, 4, 3)),
    (nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2), normal(5, 2, 3)),
    (nn.LSTM(3, 4), normal(5, 1, 3)),
    (nn.GRU(3, 4, 2, batch_first=True), normal(2, 5, 3)),
    (nn.RNN(3, 4, nonlinearity="relu"), normal(5, 3)),
    (nn.RNNCell(3, 4), normal(2, 3)),
    (nn.LSTMCell(3, 4), normal(2, 3)),
    (nn.GRUCell(3, 4), normal(3)),
    (nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True), *[normal(4, 2, 8)] * 3, HIDDEN),
    (nn.Transformer(8, 2, 1, 1, 16), normal(3, 2, 8), normal(4, 2, 8)),
    (nn.Dropout2d(0.5), normal(3, 4, 2, 2)),
    (nn.AlphaDropout(0.5), normal(3, 4)),
    (nn.Flatten(), normal(2, 3, 4)),
    (nn.Unflatten(1, (2, -1)), normal(2, 6)),
    (nn.Sequential(nn.PReLU(3), nn.ELU(), nn.GELU(), nn.Softplus(), nn.Hardswish()), normal(2, 3, 4)),
    (nn.Sequential(nn.Sigmoid(), nn.Mish(), nn.SELU(), nn.CELU(), nn.LogSigmoid()), normal(3, 4)),
    (nn.Sequential(nn.Hardshrink(), nn.Softshrink(), nn.Tanhshrink(), nn.Softsign()), normal(3, 4)),
    (nn.Sequential(nn.Threshold(0.1, 20), nn.RReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.SiLU()), normal(3, 4)),
    (nn.Sequential(nn.GELU("tanh"), nn.GLU(), nn.Softmax(1), nn.LogSoftmax(1)), normal(2, 4)),
    (nn.ReplicationPad2d(1), normal(1, 2, 3, 3)),
    (nn.ConstantPad1d((1, -1), 2.0), normal(1, 2, 3)),
]


@pytest.fixture(params=["torch", "array_api_strict", "jax.numpy"])
def xp(request):
    if importlib.util.find_spec(request.param.partition(".")[0]) is None:
        pytest.skip(f"{request.param} is not installed")
    return importlib.import_module(request.param)


def assert_close(expected, actual, xp):
    if isinstance(expected, tuple):
        for one, other in zip(expected, actual):
            assert_close(one, other, xp)
    elif expected is None:
        assert actual is None
    else:
        assert type(actual) is type(xp.asarray(np.zeros(1)))
        found = np.asarray(actual)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype or xp.__name__ == "jax.numpy"
        assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda case: type(case[0]).__name__)
def test_layers(xp, layer, training):
    """Every layer gives, on arrays of another library, arrays of that library with NumPy's elements; buffers too."""
    if training and xp.__name__ == "jax.numpy":
        pytest.skip("JAX compiles each operation anew, which takes minutes; the last test trains with it")
    module, *inputs = layer
    ours = copy.deepcopy(module).train(training)
    theirs = copy.deepcopy(module).train(training).to(xp)
    nn.manual_seed(0)
    expected = ours(*inputs)
    nn.manual_seed(0)
    given = [None if x is None else xp.asarray(x.copy()) for x in inputs]
    assert_close(expected, theirs(*given), xp)
    for name, value in ours.state_dict().items():
        assert_close(value, theirs.state_dict()[name], xp)


def test_states(xp):
    """A module of another library's arrays is saved, loaded from NumPy's and its own, copied, and moved back."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).to(xp)
    kind = type(xp.asarray(np.zeros(1)))
    assert all(type(value) is kind for value in model.state_dict().values())
    model.load_state_dict({name: np.ones(value.shape, np.float32) for name, value in model.state_dict().items()})
    assert all(type(value) is kind for value in model.state_dict().values())
    assert (np.asarray(model[0].weight) == 1).all()
    other = copy.deepcopy(model)
    other.load_state_dict({name: value * 2 for name, value in model.state_dict().items()})
    assert (np.asarray(other[0].weight) == 2).all()
    assert (np.asarray(model[0].weight) == 1).all()
    back = copy.deepcopy(other).to(np)
    assert type(back[0].weight.data) is np.ndarray
    back[0].weight.data[0, 0] = 5
    assert (np.asarray(other[0].weight) == 2).all()
    if hasattr(xp, "float16"):
        assert str(model.half()[0].weight.dtype).endswith("float16")
    model.requires_grad_(False).zero_grad()
    if xp.__name__ != "array_api_strict":
        assert type(model.to("cpu")[0].weight.data) is kind


def test_a_failed_load_is_undone(xp):
    """What a module's own loader did to arrays of another library is put back when it raises."""

    class Fails(nn.Linear):
        def _load_from_state_dict(self, *args):
            super()._load_from_state_dict(*args)
            raise ValueError("midway")

    model = nn.Sequential(nn.Linear(2, 2), Fails(2, 2)).to(xp)
    before = {name: np.asarray(value).copy() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="midway"):
        model.load_state_dict({name: value * 0 for name, value in model.state_dict().items()})
    assert all((np.asarray(value) == before[name]).all() for name, value in model.state_dict().items())


def test_files(xp, tmp_path):
    """A module's state goes into a file and out of it, whichever library its arrays are of."""
    if xp.__name__ == "array_api_strict":
        pytest.skip("array_api_strict gives its memory to NumPy only as a copy with a warning")
    model, path = nn.Linear(2, 3).to(xp), tmp_path / "model.safetensors"
    statedict.save(model.state_dict(), path)
    other = nn.Linear(2, 3).to(xp)
    statedict.load_state_dict(other, path)
    assert (np.asarray(other.weight) == np.asarray(model.weight)).all()
    again = pickle.loads(pickle.dumps(model))
    assert (np.asarray(again.weight) == np.asarray(model.weight)).all()


def test_optimizers(xp):
    """A step with arrays of another library gives NumPy's numbers, and the same state."""
    for kind, chosen in (("SGD", {"momentum": 0.9}), ("AdamW", {"amsgrad": True})):
        ours = nn.Linear(2, 3)
        theirs = copy.deepcopy(ours).to(xp)
        optimizers = [getattr(nn.optim, kind)(m.parameters(), lr=0.1, **chosen) for m in (ours, theirs)]
        for _ in range(3):
            gradients = [normal(3, 2), normal(3)]
            optimizers[0].step(grads=gradients)
            optimizers[1].step(grads=[xp.asarray(g.copy()) for g in gradients])
        assert_close(ours.weight.data, theirs.weight.data, xp)
        states = [optimizer.state_dict()["state"][0] for optimizer in optimizers]
        for name, value in states[0].items():
            assert_close(value, states[1][name], xp)
        again = getattr(nn.optim, kind)(theirs.parameters(), lr=0.1, **chosen)
        again.load_state_dict(optimizers[0].state_dict())
        assert_close(
            states[0]["momentum_buffer" if kind == "SGD" else "exp_avg"],
            next(iter(again.state.values()))["momentum_buffer" if kind == "SGD" else "exp_avg"],
            xp,
        )


def test_libraries_do_not_mix(xp):
    """An input of another library than the module's is refused, and the error says how to move one."""
    if xp.__name__ == "array_api_strict":
        pytest.skip("array_api_strict arrays are taken for NumPy's by nobody")
    with pytest.raises(TypeError, match="all arrays of an operation must be from one library"):
        nn.Linear(2, 2)(xp.asarray(normal(1, 2)))


def test_bfloat16_moves():
    """A dtype that NumPy cannot hand over by DLPack moves all the same."""
    torch = pytest.importorskip("torch")
    model = nn.Linear(2, 2).bfloat16()
    back = copy.deepcopy(model).float()
    with pytest.raises(TypeError):
        model.to(torch)
    model.float().to(torch).bfloat16()
    assert model.weight.dtype == torch.bfloat16
    assert_allclose(model.float().to(np).weight.data, back.weight.data)


def test_training_with_jax():
    """`jax.grad` over `functional_call` trains a model with BatchNorm, and leaves no traced array behind."""
    jax = pytest.importorskip("jax")
    nn.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)).to(jax.numpy)
    x = jax.numpy.asarray(normal(64, 2))
    y = (x[:, :1] * x[:, 1:]) + 0.5
    optimizer = nn.optim.Adam(model.named_parameters(), lr=0.02)

    def loss(params):
        return ((nn.functional_call(model, params, (x,)) - y) ** 2).mean()

    gradients = jax.jit(jax.value_and_grad(loss))
    first = None
    for _ in range(150):
        value, grads = gradients({name: p.data for name, p in model.named_parameters()})
        first = value if first is None else first
        optimizer.step(grads=grads)
    assert value < first / 4
    kept = model.state_dict().values()
    assert not any(isinstance(array, jax.core.Tracer) for array in kept)
