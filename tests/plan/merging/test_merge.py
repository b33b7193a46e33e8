"""merge: one state of several, each tensor alone in memory; NumPy by hand is the oracle."""

import re
import tracemalloc
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.errors import CollisionError, MergeError
from statedict.plan import merge
from statedict.state import Leaf, StateDict, Storage, contiguous, dtype

RNG = np.random.default_rng(3)


def states(count, kind="f4", **more):
    return [
        {"w": RNG.normal(size=(3, 4)).astype(kind), "b": RNG.normal(size=4).astype(kind), **more} for _ in range(count)
    ]


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=7))
def test_average_by_hand(weights):
    """The weighted mean, weights not needing to add up to one."""
    some = states(len(weights), "f8")
    merged = merge(some, weights=weights).numpy()
    for name in ("w", "b"):
        expected = sum(weight * state[name] for weight, state in zip(weights, some)) / sum(weights)
        assert np.allclose(merged[name], expected, rtol=1e-12)


def test_an_average_of_equals_is_exact():
    """The average of a state with itself is itself, to the bit, in float32."""
    (one,) = states(1)
    merged = merge([one] * 3).numpy()
    assert all(np.array_equal(merged[name], one[name]) for name in one)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_added_up_in_float32(kind):
    """Many small float16 numbers are summed in float32; the result is float16 again."""
    some = [{"w": np.array([1.0], kind)}] + [{"w": np.array([2**-10], kind)}] * 63
    merged = merge(some, weights=[1.0] * 64).numpy()["w"]
    assert merged.dtype == kind
    assert float(merged[0]) == pytest.approx((1 + 63 * 2**-10) / 64, rel=2**-8)
    assert dtype("float32").numpy == merge(states(2)).spec("w").dtype.numpy


def test_task_arithmetic_by_hand():
    """The base plus each weighted difference from it."""
    base, one, two = states(3, "f8")
    merged = merge([one, two], "task_arithmetic", weights=[0.5, -2], base=base).numpy()
    assert np.allclose(merged["w"], base["w"] + 0.5 * (one["w"] - base["w"]) - 2 * (two["w"] - base["w"]))
    assert np.allclose(merge([one], "task_arithmetic", base=base).numpy()["b"], one["b"])


@pytest.mark.parametrize("along", [0, 0.25, 0.5, 1])
def test_slerp_by_hand(along):
    """Along the arc between two tensors: equal norms stay, and the angle is divided as asked."""
    a, b = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    merged = merge([{"w": a}, {"w": b}], "slerp", weights=along).numpy()["w"]
    assert np.allclose(merged, [np.cos(along * np.pi / 2), np.sin(along * np.pi / 2), 0])


@pytest.mark.parametrize(("a", "b"), [([1.0, 2], [2.0, 4]), ([1.0, 2], [-1.0, -2]), ([0.0, 0], [1.0, 1])])
def test_slerp_on_a_line(a, b):
    """Tensors on one line, without an arc between them, are interpolated linearly."""
    merged = merge([{"w": np.array(a)}, {"w": np.array(b)}], "slerp").numpy()["w"]
    assert merged.tolist() == ((np.array(a) + b) / 2).tolist()


def test_union():
    """All names of all states; one name in two states is a collision unless it is one tensor."""
    shared = np.ones(2)
    merged = merge([{"a": shared, "b": 1}, {"a": shared, "c": 2}], "union")
    assert dict(merged) == {"a": shared, "b": 1, "c": 2}
    assert merged["a"] is shared
    with pytest.raises(CollisionError, match=r"sources\[0\]\['a'\].*sources\[2\]\['a'\].*would both become 'a'"):
        merge([{"a": np.ones(2)}, {"b": 1}, {"a": np.ones(2)}], "union")
    metadata = [OrderedDict({"": {"version": 1}, "m": {}}), OrderedDict({"": {"version": 2}, "n": {}})]
    both = merge([StateDict({"m.a": 1}, metadata[0]), StateDict({"n.a": 1}, metadata[1])], "union")
    assert both._metadata == {"": {"version": 1}, "m": {}, "n": {}}


def test_only_floats_are_averaged():
    """Step counts, masks and objects are taken from the first state."""
    one, two = states(2)
    one |= {"steps": np.array(10), "mask": np.array([True]), "extra": {"a": 1}}
    two |= {"steps": np.array(20), "mask": np.array([False]), "extra": None}
    merged = merge([one, two])
    assert merged["steps"] is one["steps"]
    assert merged["mask"] is one["mask"]
    assert merged["extra"] is one["extra"]


def test_names_that_differ_are_listed():
    """States with different names are refused; the error lists the names, folded, and the state."""
    full = {f"layers.{i}.w": np.ones(2) for i in range(4)}
    less = {name: full[name] for name in list(full)[:1]}
    with pytest.raises(
        MergeError, match=re.escape("sources[2] does not have layers.{1…3}.w and has the extra x")
    ) as caught:
        merge([full, full, {**less, "x": np.ones(1)}])
    assert caught.value.names == ("layers.1.w", "layers.2.w", "layers.3.w", "x")
    with pytest.raises(MergeError, match=re.escape("sources[1] has different shapes for layers.{2,3}.w")):
        merge([full, {**full, "layers.2.w": np.ones(3), "layers.3.w": 5}])
    with pytest.raises(MergeError, match=r"sources\[1\] does not have .*, … \(30 names\)$"):
        merge([{chr(97 + n % 26) * (n + 1): 1 for n in range(30)}, {}])
    with pytest.raises(MergeError, match="'a' is not a strided tensor in every source"):
        merge([{"a": np.ones(2)}, {"a": type("Odd", (), {"shape": (2,), "dtype": "float32"})()}])


def test_wrapped_states_merge():
    """A DDP checkpoint is averaged with a bare one, in the first one's names and with its metadata."""
    bare, wrapped = {"w": np.zeros(2)}, StateDict({"module.w": np.ones(2)}, OrderedDict({"module": {"version": 2}}))
    assert merge([bare, wrapped]).numpy()["w"].tolist() == [0.5, 0.5]
    assert merge([wrapped, bare])._metadata == {"module": {"version": 2}}


@pytest.mark.parametrize("kind", ["i8", "f4"])
def test_an_averaged_model_merges(kind):
    """The number of updates that AveragedModel keeps is that of the first source, if it has one; the others need none."""
    plain, other = states(2)
    averaged = {"n_averaged": np.ones((), kind), **{f"module.{name}": value for name, value in other.items()}}
    expected = (plain["w"] + other["w"]) / 2
    merged = merge([plain, averaged]).numpy()
    assert merged.keys() == plain.keys()
    assert np.allclose(merged["w"], expected)
    merged = merge([averaged, plain]).numpy()
    assert merged.keys() == averaged.keys()
    assert np.allclose(merged["module.w"], expected)


def test_ties_stay():
    """A tensor that is tied in every state is tied in the result."""
    some = []
    for _ in range(2):
        shared = RNG.normal(size=3)
        some.append({"a": shared, "b": shared, "c": RNG.normal(size=3)})
    assert merge(some).tied == [("a", "b")]
    assert merge([some[0], {**some[1], "b": np.ones(3)}]).tied == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], "average"), "sources is empty"),
        ((states(2), "mean"), "method must be one of 'average', 'ema', 'slerp', .*'union', not 'mean'"),
        ((states(3), "slerp"), "needs exactly two states, not 3"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, message):
    """A method that does not exist, or cannot be applied, is refused."""
    with pytest.raises(ValueError, match=message):
        merge(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1]}, "expected one number for each of the 2 sources"),
        ({"weights": 0.5}, "expected one number for each of the 2 sources"),
        ({"weights": [1, -1]}, "add up to zero"),
        ({"weights": [1, float("nan")]}, "expected finite numbers"),
        ({"weights": ["a", 1]}, "expected finite numbers"),
        ({"method": "slerp", "weights": [0.5, 0.5]}, "'slerp' needs one number"),
        ({"base": {}}, "base= is not used by method='average', only by 'task_arithmetic', 'ties', 'dare_linear'"),
        ({"method": "task_arithmetic"}, "method='task_arithmetic' needs base="),
        ({"method": "ties"}, "method='ties' needs base= and density="),
        ({"method": "union", "weights": [1, 2]}, "weights= is not used by method='union'"),
        ({"method": "ties", "base": {}, "density": 0}, "density=0: expected the share of elements to keep"),
        ({"method": "dare_ties", "base": {}, "density": 1.5}, "density=1.5: expected the share"),
        ({"method": "ema"}, "method='ema' needs decay="),
        ({"method": "ema", "decay": 2}, "decay=2: expected a number from 0 to 1"),
        ({"method": "extract_lora", "base": {}, "rank": 4}, "'extract_lora' needs exactly one state, not 2"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    """Weights and a base are refused by methods that do not use them."""
    with pytest.raises(ValueError, match=message):
        merge(states(2), **options)


class File:
    """A fake file of float32 numbers that is nowhere in memory."""

    def __init__(self, value):
        self.value = np.float32(value).tobytes()

    def read_into(self, reads, *, verify=True):
        for _, _, into in reads:
            into[:] = self.value * (len(into) // 4)

    def verify(self, storages): ...

    def view(self, storage, *, writable=False):
        return None


def test_many_large_files_in_the_memory_of_a_few_tensors():
    """An average of 32 takes the memory of a few tensors in float64, not of 32."""
    elements = 1 << 19
    some = []
    for n in range(32):
        leaf = Leaf(contiguous(dtype("float32"), (elements,)), Storage(File(n), ("f", n), elements * 4))
        some.append({"w": leaf})
    merged = merge(some, "average")
    tracemalloc.start()
    result = merged.numpy()["w"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result[0] == result[-1] == 15.5
    assert peak < 12 * 8 * elements


def test_pytorch_states():
    """The average of three PyTorch models is what PyTorch computes, and their own load_state_dict takes it."""
    torch = pytest.importorskip("torch")
    models = [torch.nn.Linear(3, 2) for _ in range(3)]
    merged = merge([model.state_dict() for model in models])
    expected = torch.stack([model.weight.detach() for model in models]).double().mean(0).float()
    assert torch.allclose(merged["weight"], expected, atol=1e-7)
    assert str(models[0].load_state_dict(merged)) == "<All keys matched successfully>"


def test_lazy_bits_tell_tied_tensors_apart():
    """Two views of the same memory, one of them negated, are merged each for itself; so are casts of a load."""
    torch = pytest.importorskip("torch")
    import statedict

    z = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    state = {"a": z.imag, "b": z.conj().imag}
    assert merge([state, state]).numpy()["b"].tolist() == [-3.0, -4.0]
    model = torch.nn.Module()
    for name in state:
        model.register_buffer(name, torch.zeros(2, dtype=torch.float64))
    statedict.load_state_dict(model, state, dtype="float64")
    assert (model.a.tolist(), model.b.tolist()) == ([3.0, 4.0], [-3.0, -4.0])


def test_texts_that_differ_are_told():
    """Metadata texts that all sources agree on are kept; those that differ are dropped, and a warning names them."""
    some = [StateDict(state) for state in states(2)]
    for number, state in enumerate(some):
        state.texts = {"format": "pt", "step": str(number), **({"only": "here"} if number else {})}
    with pytest.warns(UserWarning, match=r"not merged: the metadata 'step', which differs between the sources$"):
        merged = merge(some)
    assert merged.texts == {"format": "pt", "only": "here"}
    many = [StateDict({f"x{n}": 1}) for n in range(2)]
    for number, state in enumerate(many):
        state.texts = {f"k{n}": str(number) for n in range(12)}
    with pytest.warns(UserWarning, match=r"'k9' and 2 more, which differs"):
        merge(many, "union")
