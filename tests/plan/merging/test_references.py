"""Merges against their reference implementations: PEFT's for TIES and DARE, PyTorch's for averages over time."""

import tracemalloc
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from statedict.plan import merge
from statedict.plan.merging._random_mask import random_mask
from statedict.plan.merging._sparse import _mask_of_largest
from statedict.state import Box, read_array, region

torch = pytest.importorskip("torch")
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def states(count, dtype=torch.float32, shape=(37, 29)):
    """A base and states trained from it."""
    torch.manual_seed(count)
    base = torch.randn(shape)
    return [(base + 0.1 * n * torch.randn(shape)).to(dtype) for n in range(count + 1)]


def merged(tensors, method, **options):
    base, *others = [{"w": tensor} for tensor in tensors]
    return merge(others, method, base=base, **options).torch()["w"]


def deltas(tensors):
    return [tensor - tensors[0] for tensor in tensors[1:]]


@pytest.mark.filterwarnings("ignore:The density")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "density"), [(1, 0.5), (2, 0.2), (3, 0.8), (4, 1)])
def test_ties_is_what_peft_computes(dtype, count, density):
    """Equal to `peft.utils.merge_utils.ties`, to the bit, if no two elements at the threshold are equal.

    That is so for up to four sources: PyTorch adds up more of them in another order.
    """
    reference = pytest.importorskip("peft.utils.merge_utils")
    tensors = [tensor.to(dtype) for tensor in states(count, torch.float64)]
    if dtype in (torch.bfloat16, torch.float16):  # most magnitudes occur several times: take some that do not
        tensors = distinct(count, dtype)
    weights = [0.3 + number for number in range(count)]
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    change = reference.ties(deltas(tensors), torch.tensor(weights, dtype=wide), density)
    expected = (tensors[0] + change).to(dtype)
    assert torch.equal(merged(tensors, "ties", weights=weights, density=density), expected)


def distinct(count, dtype):
    """A base of zeros, and states whose magnitudes are all different: steps of one unit of the dtype."""
    torch.manual_seed(0)
    values = torch.arange(1, 257, dtype=torch.float32).sqrt().to(dtype).unique()
    values = torch.cat([values, -256 * values, *([65536 * values] if dtype is torch.bfloat16 else [])])
    return [torch.zeros(len(values), dtype=dtype)] + [values[torch.randperm(len(values))] for _ in range(count)]


def test_the_first_of_equal_magnitudes_are_kept():
    """Where the reference keeps any of several equal elements, the first are kept; the number is the same."""
    base, other = torch.zeros(8), torch.tensor([1.0, -1, 1, 1, 2, -2, 1, 0])
    found = merged([base, other], "ties", density=0.5)
    assert found.tolist() == [1, -1, 0, 0, 2, -2, 0, 0]
    assert merged([base, other], "ties", density=0.1).tolist() == [0] * 8
    assert merged([base[:0], other[:0]], "ties", density=0.5).tolist() == []


@given(
    arrays(
        st.sampled_from(["f4", "f8"]),
        st.integers(1, 40),
        elements=st.floats(0, width=32, allow_nan=False) | st.sampled_from([0, 1, float("inf")]),
    ),
    st.data(),
)
def test_the_largest_are_those_of_a_stable_sort(sizes, data):
    """Found by counting bits, the largest elements are those that a stable sort puts first."""
    count = data.draw(st.integers(1, len(sizes)))
    expected = np.zeros(len(sizes), bool)
    expected[np.argsort(-sizes, kind="stable")[:count]] = True
    assert np.array_equal(_mask_of_largest(sizes, count), expected)


def test_ties_needs_one_copy_of_a_tensor_and_its_masks():
    """Thresholds are found without a copy of the magnitudes, whose dtype is float32."""
    tensors = [np.random.default_rng(number).normal(size=1 << 23).astype("float32") for number in range(3)]
    base, *others = [{"w": tensor} for tensor in tensors]
    mixed = merge(others, "ties", base=base, density=0.2)
    tracemalloc.start()
    for _ in mixed.leaf("w").storage.source.stream(mixed.leaf("w").storage, 0, 4 << 23):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (4 + 2) * (1 << 23) + (24 << 20)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize(("count", "density"), [(1, 0.5), (3, 0.3), (4, 1)])
def test_dare_is_what_peft_computes(monkeypatch, dtype, method, count, density):
    """Equal to the functions of `peft.utils.merge_utils`, to the bit, if they draw the same elements."""
    reference = pytest.importorskip("peft.utils.merge_utils")
    tensors = states(count, dtype)
    masks = (
        torch.tensor(read_array(random_mask(tensors[0].shape, f"7/{number}/w", density))) for number in range(count)
    )
    monkeypatch.setattr(torch, "bernoulli", lambda probabilities: next(masks).to(probabilities.dtype))
    weights = [0.3 + number for number in range(count)]
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    with pytest.warns(UserWarning, match="no pruning") if density == 1 else nullcontext():
        change = getattr(reference, method)(deltas(tensors), torch.tensor(weights, dtype=wide), density)
    expected = (tensors[0] + change).to(dtype)
    assert torch.equal(merged(tensors, method, weights=weights, density=density, seed=7), expected)


def test_random_elements_do_not_depend_on_how_they_are_read():
    """Any box of a mask, read in any order, is that part of the whole; masks have their density and are independent."""
    mask = random_mask((300, 200), "key", 0.3)
    whole = read_array(mask)
    for offsets, sizes in [((7, 0), (2, 200)), ((0, 0), (300, 200)), ((299, 3), (1, 5)), ((5, 6), (70, 80))]:
        part = whole[tuple(slice(at, at + size) for at, size in zip(offsets, sizes))]
        assert np.array_equal(read_array(region(mask, Box(offsets, sizes))), part)
    other = read_array(random_mask((300, 200), "other", 0.3))
    assert abs(whole.mean() - 0.3) < 0.01
    assert abs((whole & other).mean() - 0.09) < 0.01


def test_seeds_names_and_sources_draw_different_elements():
    """DARE draws other elements for another seed, tensor or source, and the same ones again for the same."""
    torch.manual_seed(0)
    base, tuned = torch.zeros(100), torch.randn(100)
    bases, tuneds = ({"a": each, "b": each.clone()} for each in (base, tuned))

    def drawn(seed, sources=(tuneds,)):
        return merge(sources, "dare_linear", base=bases, density=0.5, seed=seed).torch()

    assert torch.equal(drawn(1)["a"], drawn(1)["a"])
    assert torch.equal(drawn(0)["a"], merge([tuneds], "dare_linear", base=bases, density=0.5).torch()["a"])
    assert not torch.equal(drawn(1)["a"], drawn(2)["a"])
    assert not torch.equal(drawn(1)["a"], drawn(1)["b"])
    assert not torch.equal(drawn(1, [tuneds, tuneds])["a"], 2 * drawn(1)["a"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_ema_is_what_pytorch_computes(dtype):
    """Equal to an AveragedModel with `get_ema_avg_fn`, to the bit, in the models' dtype."""
    from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

    torch.manual_seed(0)
    models = []
    for _ in range(5):
        models.append(torch.nn.Linear(8, 6).to(dtype))
        with torch.no_grad():
            models[-1].weight.copy_(torch.randn(6, 8, dtype=dtype))
    average = AveragedModel(models[0], avg_fn=get_ema_avg_fn(0.9))
    for model in models:
        average.update_parameters(model)
    found = merge([model.state_dict() for model in models], "ema", decay=0.9).torch()
    for name, expected in average.module.state_dict().items():
        assert torch.equal(found[name], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_average_is_what_pytorch_computes(dtype):
    """The mean is that of an AveragedModel (SWA) that averages in float64, rounded once."""
    from torch.optim.swa_utils import AveragedModel

    models = [torch.nn.Linear(8, 6).to(dtype) for _ in range(4)]
    average = AveragedModel(torch.nn.Linear(8, 6).double())
    for model in models:
        average.update_parameters(model.double())
    found = merge([{n: v.to(dtype) for n, v in model.state_dict().items()} for model in models]).torch()
    for name, expected in average.module.state_dict().items():
        assert torch.allclose(found[name].double(), expected, rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_task_arithmetic_is_what_peft_computes(dtype):
    """Within two units in the last place of the largest term: PEFT rounds each difference, we only the result."""
    reference = pytest.importorskip("peft.utils.merge_utils")
    tensors, weights = states(3, dtype), [0.5, -0.25, 1.0]
    expected = tensors[0] + reference.task_arithmetic(deltas(tensors), torch.tensor(weights))
    found = merged(tensors, "task_arithmetic", weights=weights).float()
    largest = torch.stack([tensor.float().abs() for tensor in tensors]).amax(0)
    assert ((found - expected.float()).abs() <= 2 * torch.finfo(dtype).eps * largest).all()


@pytest.mark.parametrize("along", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slerp_is_the_formula_of_mergekit(dtype, along):
    """sin((1-t)θ)/sin θ · a + sin(tθ)/sin θ · b, with θ between the normalised tensors, in float32 as mergekit does."""
    torch.manual_seed(0)
    a, b = torch.randn(9, 7).to(dtype), torch.randn(9, 7).to(dtype)
    x, y = a.float().numpy(), b.float().numpy()
    angle = np.arccos(np.sum(x / np.linalg.norm(x) * (y / np.linalg.norm(y))))
    expected = np.sin(angle - angle * along) / np.sin(angle) * x + np.sin(angle * along) / np.sin(angle) * y
    found = merge([{"w": a}, {"w": b}], "slerp", weights=along).torch()["w"].float().numpy()
    largest = np.maximum(np.abs(x), np.abs(y))
    assert (np.abs(found - expected) <= 4 * torch.finfo(dtype).eps * largest).all()


def test_complex_numbers_have_no_sign():
    """TIES and DARE refuse complex tensors."""
    states = [{"w": torch.ones(2, dtype=torch.complex64)}] * 2
    with pytest.raises(ValueError, match="'w' is complex: its elements do not have a sign"):
        merge(states[1:], "ties", base=states[0], density=0.5)
