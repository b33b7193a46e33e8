"""Loading by sound rules: decided first, then all or nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from statedict import tree
from statedict.errors import ChecksumError, LoadError, NotAStateError
from statedict.state import Leaf, Read, StateDict, Storage, contiguous, dtype, leaf_of
from statedict.torch import HOST


class Blocks:
    """A Source over bytes, which fails at the read or verification that it is told to."""

    def __init__(self, *, fail_read: int | None = None, fail_verify: bool = False) -> None:
        self.fail_read, self.fail_verify = fail_read, fail_verify
        self.reads: list[int] = []
        self.verified = 0

    def leaf(self, array: np.ndarray[Any, Any]) -> Leaf:
        raw = array.tobytes()
        spec = contiguous(dtype(str(array.dtype)), array.shape)
        return Leaf(spec, Storage(self, ("block", id(raw), len(raw)), len(raw), raw))

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        if verify:
            self.verify([read.storage for read in reads])
        for storage, start, into in reads:
            if len(self.reads) == self.fail_read:
                into[: len(into) // 2] = bytes(len(into) // 2)
                raise OSError("the disk is gone")
            self.reads.append(len(into))
            into[:] = storage.where[start : start + len(into)]

    def verify(self, storages: Iterable[Storage]) -> None:
        self.verified += len(list(storages))
        if self.fail_verify:
            raise ChecksumError("one bit is wrong")

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        return None


def write(module: nn.Module, state: Any, **options: Any) -> tree.Outcome:
    return tree.write(HOST, module, state, **options)


def trace(module: nn.Module) -> Any:
    """All that a refused load must leave as it was: objects, elements, flags, attributes."""
    found = []
    for path, part in module.named_modules():
        attributes = {k: v for k, v in vars(part).items() if not k.startswith("_") and k != "training"}
        for name, value in (*part._parameters.items(), *part._buffers.items()):
            found.append((path, name, id(value), facts(value)))
        found.append((path, type(part), repr(attributes), list(part._modules)))
    return found


def facts(value: torch.Tensor | None) -> Any:
    if value is None or torch.nn.parameter.is_lazy(value):
        return type(value)
    return value.tolist(), value.dtype, value.stride(), value.data_ptr(), value.requires_grad, type(value)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def ones(module: nn.Module) -> dict[str, Any]:
    return {key: torch.ones_like(value) for key, value in module.state_dict().items()}


# nothing happens


@pytest.mark.parametrize("spoilt", ["0.weight", "1.running_mean", "2.bias"])
@pytest.mark.parametrize("value", [torch.ones(5, 5), "text", torch.empty(4, device="meta"), torch.ones(7).to_sparse()])
@pytest.mark.parametrize("assign", [False, True])
def test_one_misfit_anywhere_leaves_everything(spoilt: str, value: Any, assign: bool) -> None:
    """Wherever the one value that does not fit stands, no parameter and no buffer changes, and neither does the source."""
    made = model()
    state = ones(made) | {spoilt: value}
    before = trace(made), list(state), [id(value) for value in state.values()]
    with pytest.raises(LoadError, match=r"^Error\(s\) in loading state_dict for Sequential:\n\t"):
        write(made, state, assign=assign)
    assert (trace(made), list(state), [id(value) for value in state.values()]) == before


class Loader(nn.Linear):
    """A module with a loader of its own, which changes all that it can reach before it fails."""

    fails = True

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.calls: list[str] = []
        self.settings = {"scale": [1.0, 2.0]}
        self.cache = torch.zeros(2)

    def _load_from_state_dict(self, state: Any, prefix: str, *args: Any) -> None:
        self.calls.append(prefix)
        self.settings["scale"].append(3.0)
        self.other = "new"
        self.cache += 1
        with torch.no_grad():
            self.weight.fill_(7)
        state[prefix + "bias"].fill_(9)
        super()._load_from_state_dict(state, prefix, *args)
        self.register_buffer("late", torch.ones(1))
        self.bias.requires_grad_(False)
        if self.fails:
            raise ValueError("no")


def test_what_a_failing_loader_did_is_undone() -> None:
    """Elements, registered entries, flags, attributes and what is in them, and the caller's tensors, are put back."""
    made = nn.Sequential(nn.Linear(2, 2), Loader(2, 2), nn.Linear(2, 2))
    state = ones(made)
    before, source = trace(made), {key: value.tolist() for key, value in state.items()}
    with pytest.raises(ValueError, match="no"):
        write(made, state)
    assert trace(made) == before
    assert {key: value.tolist() for key, value in state.items()} == source


def test_classes_and_memory_that_a_loader_changed_are_restored() -> None:
    """A parameter gets its class back, and a storage that was freed its size and its bytes."""

    class Marked(nn.Parameter):
        pass

    made = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = {name: value.tolist() for name, value in made.state_dict().items()}

    def hook(*args: Any) -> None:
        made[0].weight.__class__ = Marked
        made[1].weight.untyped_storage().resize_(0)
        raise ValueError("no")

    made[1].register_load_state_dict_pre_hook(hook)
    with pytest.raises(ValueError, match="no"):
        write(made, ones(made))
    assert type(made[0].weight) is nn.Parameter
    assert {name: value.tolist() for name, value in made.state_dict().items()} == before


def test_a_loader_sees_what_came_before() -> None:
    """Modules that were loaded earlier have their new values when a module's own loader runs, as under PyTorch."""
    made = nn.Sequential(nn.Linear(2, 2), Loader(2, 2))
    made[1].fails = False
    seen = []
    made[1].register_load_state_dict_pre_hook(lambda *args: seen.append(made[0].weight.tolist()))
    write(made, ones(made))
    assert seen == [[[1, 1], [1, 1]]]


@pytest.mark.parametrize("kind", ["register_load_state_dict_pre_hook", "register_load_state_dict_post_hook"])
@pytest.mark.parametrize("at", ["", "0", "1", "2"])
def test_what_a_failing_hook_did_is_undone(kind: str, at: str) -> None:
    """What a failing hook did, also to other modules, is undone."""
    made = model()

    def hook(*args: Any) -> None:
        with torch.no_grad():
            for part in (*made.parameters(), *made.buffers()):
                part.zero_()
        made[2].weight = nn.Parameter(torch.ones(1))
        del made[1]._buffers["running_var"]
        made[0].bias = None
        made.add_module("late", nn.Linear(1, 1))
        raise KeyError("hook")

    getattr(made.get_submodule(at), kind)(hook)
    before = trace(made)
    with pytest.raises(KeyError, match="hook"):
        write(made, ones(made))
    assert trace(made) == before


# what the caller gave stays the caller's


def test_assign_leaves_the_callers_state_alone() -> None:
    """`assign` writes neither to the metadata nor to the flags of the tensors of the caller's state (pytorch#188166)."""
    made = nn.Linear(2, 2)
    made.weight.requires_grad_(False)
    state = OrderedDict(weight=nn.Parameter(torch.ones(2, 2)), bias=torch.ones(2))
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    write(made, state, assign=True)
    assert state._metadata == {"": {"version": 1}}  # type: ignore[attr-defined]
    assert state["weight"].requires_grad
    assert not made.weight.requires_grad
    assert made.weight.data_ptr() == state["weight"].data_ptr()


def test_an_assign_flag_left_in_metadata_is_not_obeyed() -> None:
    """A state that went through an assigning load of PyTorch's is loaded as any other."""
    made = nn.Linear(2, 2)
    state = OrderedDict(weight=torch.ones(2, 2), bias=torch.ones(2))
    state._metadata = OrderedDict({"": {"version": 1, "assign_to_params_buffers": True}})  # type: ignore[attr-defined]
    objects = id(made.weight), made.weight.data_ptr()
    write(made, state)
    assert (id(made.weight), made.weight.data_ptr()) == objects


def test_names_must_be_strings() -> None:
    """Another key is named, with its type."""
    with pytest.raises(NotAStateError, match=r"the names in a state dict must be strings, but this one has 3 \(int\)"):
        write(nn.Linear(1, 1), {3: torch.ones(1)})
    with pytest.raises(NotAStateError, match="Expected state_dict to be dict-like, got <class 'list'>"):
        write(nn.Linear(1, 1), [1])


# what PyTorch accepts silently


def test_a_child_whose_name_has_a_dot_is_loaded() -> None:
    """A model with a child whose name has a dot loads its own state, which PyTorch calls unexpected."""
    made = nn.Module()
    made._modules["a.b"] = nn.Linear(1, 1)
    made._modules["a"] = nn.Sequential(nn.Linear(1, 1))
    outcome = write(made, ones(made))
    assert outcome.unexpected == []
    assert made._modules["a.b"].weight.item() == 1


def test_a_tensor_left_on_meta_is_missing() -> None:
    """PyTorch reports success and the tensor stays without elements; `assign` gives it some."""
    made = nn.Linear(2, 2, device="meta")
    with pytest.raises(LoadError, match=r'Missing key\(s\) in state_dict: "weight", "bias"'):
        write(made, {"weight": torch.ones(2, 2), "bias": torch.ones(2)})
    write(made, {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, assign=True)
    assert made.weight.tolist() == [[1, 1], [1, 1]]
    assert isinstance(made.weight, nn.Parameter)


# ties


def tied() -> nn.Module:
    made = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    made[1].weight = made[0].weight
    return made


def test_ties_hold_across_a_hook() -> None:
    """Slots that were written before a hook ran count too."""
    made = tied()
    made[1].register_load_state_dict_pre_hook(lambda *args: None)
    with pytest.raises(LoadError, match="differ in the checkpoint"):
        write(made, {"0.weight": torch.zeros(2, 2), "1.weight": torch.ones(2, 2)})
    write(made, {"0.weight": torch.ones(2, 2), "1.weight": torch.ones(2, 2)}, assign=True)
    assert made[0].weight is made[1].weight


def test_parameters_that_share_memory_are_one_tensor() -> None:
    """Two parameters that share memory are one tensor."""
    made = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    made[1].weight = nn.Parameter(made[0].weight.data)
    with pytest.raises(LoadError, match="differ in the checkpoint"):
        write(made, {"0.weight": torch.zeros(2, 2), "1.weight": torch.ones(2, 2)})


# values that are read


def lazily(source: Blocks, module: nn.Module, value: float = 1) -> StateDict:
    arrays = {key: np.full(tuple(v.shape), value, v.numpy().dtype) for key, v in module.state_dict().items()}
    return StateDict({key: source.leaf(array) for key, array in arrays.items()})


def test_leaves_are_read_straight_into_the_model() -> None:
    """All in one call of their source, verified before; the tensors keep their memory, and their version moves on."""
    made, source = model(), Blocks()
    places = [value.data_ptr() for value in made.state_dict().values()]
    versions = [value._version for value in made.parameters()]
    state = lazily(source, made)
    outcome = write(made, state)
    assert sorted(source.reads) == sorted(value.nbytes for value in made.state_dict().values())
    assert source.verified == len(source.reads)
    assert outcome.loaded == list(made.state_dict())
    assert [value.data_ptr() for value in made.state_dict().values()] == places
    assert all((value == 1).all() for value in made.state_dict().values())
    assert all(now > then for now, then in zip((v._version for v in made.parameters()), versions))


# All in one stage, straight into the tensors, in many stages.
@pytest.mark.parametrize(("small", "stage"), [(1 << 16, 1 << 23), (0, 1 << 23), (1 << 16, 40)])
@pytest.mark.parametrize("failing", range(9))
def test_a_read_that_fails_is_undone(failing: int, small: int, stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever read it is, and however the tensor was to come, the model is as it was."""
    monkeypatch.setattr("statedict.torch.modules._stages.SMALL", small)
    monkeypatch.setattr("statedict.torch.modules._stages.STAGE", stage)
    made = model()
    count = len(made.state_dict())
    before = trace(made)
    with pytest.raises(OSError, match="the disk is gone"):
        write(made, lazily(Blocks(fail_read=failing), made))
    assert count == 9
    assert trace(made) == before


@pytest.mark.parametrize(("small", "stage"), [(1 << 16, 1 << 23), (0, 1 << 23), (1 << 16, 40)])
def test_each_tensor_gets_its_own_elements(small: int, stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they come: tensors of one shape are staged together, and none gets its neighbour's elements."""
    monkeypatch.setattr("statedict.torch.modules._stages.SMALL", small)
    monkeypatch.setattr("statedict.torch.modules._stages.STAGE", stage)
    made = nn.ModuleList([nn.Linear(3, 2).to(dtype) for dtype in (torch.float32, torch.float64, torch.float32)])
    made.append(nn.BatchNorm1d(3))
    given = {
        name: torch.arange(value.numel()).reshape(value.shape).to(value.dtype)
        for name, value in made.state_dict().items()
    }
    given = {name: value + index for index, (name, value) in enumerate(given.items())}
    source = Blocks()
    write(made, StateDict({name: source.leaf(value.numpy()) for name, value in given.items()}))
    assert {name: value.tolist() for name, value in made.state_dict().items()} == {
        name: value.tolist() for name, value in given.items()
    }


# Read straight into the tensors; in many stages.
@pytest.mark.parametrize("small", [0, 1 << 16])
def test_a_read_that_fails_without_room_for_a_backup_says_what_changed(
    small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checksums are settled first, and the error names the tensors that were read by then, and the one that failed."""
    monkeypatch.setattr("statedict.torch.modules._read_into.have_room", lambda nbytes: False)
    monkeypatch.setattr("statedict.torch.modules._read_into.GROUP", 1)
    monkeypatch.setattr("statedict.torch.modules._stages.SMALL", small)
    monkeypatch.setattr("statedict.torch.modules._stages.STAGE", 1)
    made, source = model(), Blocks(fail_read=3)
    before = {key: value.tolist() for key, value in made.state_dict().items()}
    with pytest.raises(OSError, match="the disk is gone") as caught:
        write(made, lazily(source, made))
    assert source.verified == 9
    changed = [key for key, value in made.state_dict().items() if value.tolist() != before[key]]
    assert caught.value.__notes__ == [
        f"There is no backup of the model, and 4 of its tensors have changed ({', '.join(list(before)[:4])}). "
        "All others are unchanged."
    ]
    assert set(changed) <= set(list(before)[:4])
    damaged = Blocks(fail_verify=True)
    with pytest.raises(ChecksumError):
        write(made, lazily(damaged, made))
    assert damaged.reads == []


def test_a_tensor_too_large_for_a_backup_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tensor alone may be larger than the memory that there is: it is torn, and the error counts it."""
    monkeypatch.setattr("statedict.torch.modules._read_into.have_room", lambda nbytes: False)
    monkeypatch.setattr("statedict.torch.modules._stages.SMALL", 0)
    made = model()
    with pytest.raises(OSError, match="the disk is gone") as caught:
        write(made, lazily(Blocks(fail_read=3), made))
    assert "9 of its tensors have changed" in caught.value.__notes__[0]


@pytest.mark.parametrize("assign", [False, True])
def test_checksums_are_settled_before_the_first_byte_lands(assign: bool) -> None:
    """Checksums are verified before the first byte is written, unless `verify=False`."""
    made = model()
    before = trace(made)
    with pytest.raises(ChecksumError, match="one bit is wrong"):
        write(made, lazily(Blocks(fail_verify=True), made), assign=assign)
    assert trace(made) == before
    lax = tree.Rules(sound=True, verify=False)
    write(made, lazily(Blocks(fail_verify=True), made), assign=assign, rules=lax)
    assert made[0].weight[0, 0] == 1


def test_leaves_that_lie_otherwise_come_by_a_buffer() -> None:
    """Strided, cast, conjugated, scalar saved as a vector, channels-last: the model's layout wins."""
    made = nn.Module()
    made.register_buffer("strided", torch.zeros(2, 3))
    made.register_buffer("cast", torch.zeros(3, dtype=torch.float64))
    made.register_buffer("conj", torch.zeros(2, dtype=torch.complex64))
    made.register_buffer("scalar", torch.tensor(0))
    made.register_buffer("image", torch.zeros(1, 2, 3, 3).to(memory_format=torch.channels_last))
    source = Blocks()
    square = source.leaf(np.arange(6, dtype=np.float32).reshape(3, 2))
    conj = source.leaf(np.array([1 + 2j, 3 - 4j], np.complex64))
    state = {
        "strided": Leaf(square.spec._replace(shape=(2, 3), strides=(1, 2)), square.storage),
        "cast": source.leaf(np.arange(3, dtype=np.float32)),
        "conj": Leaf(conj.spec, conj.storage, conj.traits._replace(conj=True)),
        "scalar": source.leaf(np.array([5])),
        "image": source.leaf(np.arange(18, dtype=np.float32).reshape(1, 2, 3, 3)),
    }
    write(made, state)
    assert made.strided.tolist() == [[0, 2, 4], [1, 3, 5]]
    assert made.cast.tolist() == [0, 1, 2]
    assert made.conj.tolist() == [1 - 2j, 3 + 4j]
    assert made.scalar.item() == 5
    assert made.image.is_contiguous(memory_format=torch.channels_last)
    assert made.image.flatten().tolist() == list(range(18))


def test_large_casts_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of another dtype than the model's is read a bufferful at a time, wherever it begins in its storage."""
    monkeypatch.setattr("statedict.torch.modules._read_into.PIECE", 20)
    made = nn.Module()
    made.register_buffer("cast", torch.zeros(4, 3, dtype=torch.float64))
    source = Blocks()
    leaf = source.leaf(np.arange(13, dtype=np.float32))
    write(made, {"cast": Leaf(contiguous(dtype("float32"), (4, 3), 1), leaf.storage)})
    assert made.cast.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
    assert source.reads == [20, 20, 8]


def test_loaders_and_hooks_get_arrays() -> None:
    """Code that looks at a value of a file gets a tensor; what nobody looks at is read at the end, in one call."""
    made, source = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), Blocks()
    seen = []

    def hook(module: Any, state: Any, prefix: str, *rest: Any) -> None:
        seen.append((type(state[prefix + "bias"]), prefix + "weight" in state, len(state), dict(state).keys()))
        state[prefix + "bias"] = state.pop(prefix + "bias") * 2

    made[1].register_load_state_dict_pre_hook(hook)
    write(made, lazily(source, made))
    assert seen == [(torch.Tensor, True, 2, {"1.weight": 0, "1.bias": 0}.keys())]
    assert made[1].bias.tolist() == [2, 2]
    assert made[1].weight.tolist() == [[1, 1], [1, 1]]


def test_numpy_arrays_are_values() -> None:
    """NumPy arrays are accepted as values, which PyTorch refuses."""
    made = nn.Linear(2, 1)
    write(made, {"weight": np.array([[1, 2]], np.float32), "bias": np.array([3], ">f4")})
    assert (made.weight.tolist(), made.bias.tolist()) == ([[1, 2]], [3])


# tensors that are not ordinary


def test_tensors_that_cannot_be_written_to_are_told_before() -> None:
    """Inference tensors and expanded ones; PyTorch writes the former and complains afterwards."""
    with torch.inference_mode():
        frozen = torch.zeros(2)
    for place in (frozen, torch.zeros(1).expand(2)):
        made = nn.Sequential(nn.Linear(1, 1), nn.Module())
        made[1].register_buffer("x", place)
        before = trace(made)
        with pytest.raises(LoadError, match=r'While copying the parameter named "1.x".*an exception occurred'):
            write(made, {"0.weight": torch.ones(1, 1), "0.bias": torch.ones(1), "1.x": torch.ones(2)})
        assert trace(made) == before


class Tagged(torch.Tensor):
    """A tensor subclass that refuses elements above 5."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.copy_ and (args[1] > 5).any():
            raise ValueError("above five")
        return super().__torch_function__(func, types, args, kwargs or {})


def test_subclasses_are_tried_on_a_copy() -> None:
    """What only the class itself can tell is known before anything is written."""
    made = nn.Sequential(nn.Linear(1, 1), nn.Module())
    made[1].register_buffer("x", torch.zeros(2).as_subclass(Tagged))
    state = ones(made) | {"1.x": torch.tensor([1.0, 9.0])}
    before = trace(made)
    with pytest.raises(LoadError, match=r"exception occurred : \('above five',\)"):
        write(made, state)
    assert trace(made) == before
    write(made, state | {"1.x": torch.tensor([1.0, 2.0])})
    assert isinstance(made[1].x, Tagged)
    assert made[1].x.tolist() == [1, 2]


def test_sparse_tensors_are_copied() -> None:
    """Sparse tensors are copied into sparse ones, also from a file's leaves."""
    made = nn.Module()
    made.register_buffer("x", torch.zeros(2, 2).to_sparse())
    write(made, {"x": torch.eye(2).to_sparse()})
    assert made.x.to_dense().tolist() == [[1, 0], [0, 1]]
    write(made, {"x": leaf_of(2 * torch.eye(2).to_sparse())})
    assert made.x.to_dense().tolist() == [[2, 0], [0, 2]]


def test_lazy_modules_become_lazy_again() -> None:
    """A parameter that the load gave its shape has none when the load is refused."""
    made = nn.Sequential(nn.LazyLinear(2), nn.Linear(2, 2))
    state = {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2), "1.weight": torch.ones(1), "1.bias": torch.ones(2)}
    before = trace(made)
    with pytest.raises(LoadError, match=r"size mismatch for 1\.weight"):
        write(made, state)
    assert trace(made) == before
    write(made, state | {"1.weight": torch.ones(2, 2)})
    assert made[0].weight.tolist() == torch.ones(2, 3).tolist()


@pytest.fixture
def swapping() -> Iterable[None]:
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.usefixtures("swapping")
def test_swaps_are_undone() -> None:
    """A tensor that cannot be swapped, because something refers to it weakly, refuses the whole load."""
    import weakref

    made = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = [(id(value), value.tolist()) for value in made.parameters()]
    held = weakref.ref(made[1].bias)
    with pytest.raises(LoadError, match=r'While swapping the parameter named "1\.bias"'):
        write(made, ones(made))
    assert [(id(value), value.tolist()) for value in made.parameters()] == before
    del held
    write(made, lazily(Blocks(), made))
    assert [(id(value), (value == 1).all().item()) for value in made.parameters()] == [(i, True) for i, _ in before]


def test_modules_that_rewrite_their_names_load() -> None:
    """Parametrizations, old and new weight and spectral norm: round trips, and old names for new modules."""
    for wrap in (
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.orthogonal,
        nn.utils.spectral_norm,
    ):
        one, two = (nn.Sequential(wrap(nn.Linear(3, 3)), nn.BatchNorm1d(3)) for _ in range(2))
        state = deepcopy(one.state_dict())
        write(two, state)
        assert {k: v.tolist() for k, v in two.state_dict().items()} == {k: v.tolist() for k, v in state.items()}
    new = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    write(new, {"weight_g": torch.ones(3, 1), "weight_v": torch.ones(3, 3), "bias": torch.ones(3)})
    assert new.parametrizations.weight.original0.tolist() == torch.ones(3, 1).tolist()


@pytest.mark.parametrize("read", [True, False], ids=["file", "memory"])
def test_freed_memory_is_no_place_to_copy_to(read: bool) -> None:
    """A parameter whose storage was freed is an error, not the end of the process; nothing else changes."""
    made, source = nn.Linear(2, 2), Blocks()
    state = lazily(source, nn.Linear(2, 2)) if read else {name: value + 1 for name, value in made.state_dict().items()}
    before = made.bias.tolist()
    made.weight.untyped_storage().resize_(0)
    with pytest.raises(LoadError, match="storage has been freed"):
        write(made, state)
    assert made.bias.tolist() == before


def test_freed_memory_is_nothing_to_copy_from() -> None:
    """A value whose storage was freed is an error too."""
    made, given = nn.Linear(2, 2), nn.Linear(2, 2).state_dict()
    before = trace(made)
    given["weight"].untyped_storage().resize_(0)
    with pytest.raises(LoadError, match="storage has been freed"):
        write(made, given)
    assert trace(made) == before
