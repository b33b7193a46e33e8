"""Snapshots: independent, ties kept, memory reused, and never slow."""

import copy
import time
import warnings
from collections import OrderedDict, namedtuple
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing._internal.common_modules import module_db

import statedict
from statedict._arrays import Copy, copied_again
from statedict.errors import NotAStateError, SaveError
from statedict.state import StateDict, leaf_of
from statedict.torch._snapshot import snapshot
from statedict.torch.snapshots._copy_tensors import copies
from statedict.torch.snapshots._copy_tree import take


def bits(tensor):
    return tensor.dtype, tensor.shape, tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()


def addresses(tree):
    return {name: value.data_ptr() for name, value in tree.items() if isinstance(value, torch.Tensor)}


def storages(tensors):
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def modules():
    """Every module of PyTorch's own database, with the first of its inputs."""
    for info in module_db:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs = info.module_inputs_func(
                info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
            )
        if inputs:
            yield pytest.param(info.module_cls, inputs[0].constructor_input, id=info.name)


# what it holds


@pytest.mark.parametrize(("kind", "given"), list(modules()))
@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:Lazy modules")
def test_a_snapshot_is_the_modules_state(kind, given):
    """A snapshot of any of PyTorch's modules has the names, values and metadata of its state, and is independent of it."""
    module = kind(*given.args, **given.kwargs)
    state, taken = module.state_dict(), snapshot(module)
    assert isinstance(taken, StateDict)
    assert list(state) == list(taken)
    assert state._metadata == taken._metadata
    for name, value in state.items():
        assert nn.parameter.is_lazy(value) == nn.parameter.is_lazy(taken[name])
        assert nn.parameter.is_lazy(value) or bits(value) == bits(taken[name])
    if not any(map(nn.parameter.is_lazy, state.values())):
        assert not storages(state.values()) & storages(taken.values()) - {0}
    taken._metadata[""]["version"] = "changed"
    assert module.state_dict()._metadata[""] != {"version": "changed"}


def test_training_does_not_change_a_snapshot():
    """What the model does afterwards is not seen in the snapshot, and what is done to the snapshot is not in the model."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    taken = snapshot(model)
    kept = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    assert all(torch.equal(kept[name], taken[name]) for name in kept)
    live = copy.deepcopy(model.state_dict())
    for value in taken.values():
        value.zero_()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in live.items())
    assert not any(value.requires_grad for value in taken.values())


def test_a_modules_own_state_dict_is_asked():
    """A model whose class overrides `state_dict` is copied as that gives it."""

    class Prefixed(nn.Linear):
        def state_dict(self, *args, **kwargs):
            return OrderedDict((f"inner.{name}", value) for name, value in super().state_dict(*args, **kwargs).items())

    assert list(snapshot(Prefixed(2, 1))) == ["inner.weight", "inner.bias"]


def test_an_optimizers_snapshot_loads_in_pytorch():
    """An optimizer's snapshot has PyTorch's layout and is independent."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    taken = snapshot(optimizer)
    before = copy.deepcopy(taken)
    optimizer.step()
    assert bits(before["state"][0]["exp_avg"]) == bits(taken["state"][0]["exp_avg"])
    assert taken["state"][0]["step"] == 1.0
    other = torch.optim.Adam(nn.Linear(2, 1).parameters())
    other.load_state_dict(taken)
    assert other.param_groups[0]["lr"] == 0.1


def test_schedulers_and_scalers_are_snapshot_through_their_state():
    """Whatever has a `state_dict()` is copied; a bound method in it does not drag its owner along."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])
    scheduler.method = scheduler.get_lr
    taken = snapshot(scheduler)
    optimizer.step()
    scheduler.step()
    assert (taken["last_epoch"], scheduler.last_epoch) == (0, 1)
    assert taken["method"].__self__ is scheduler
    assert taken["milestones"] == scheduler.milestones
    assert taken["milestones"] is not scheduler.milestones


Point = namedtuple("Point", "x label")


class Holder:
    def __init__(self, inside):
        self.inside = inside


def test_other_values_are_copied_deeply():
    """Lists, named tuples and objects among the tensors are copied, and what they shared they share."""
    weight, names = torch.ones(2), ["a"]
    tree = {"w": weight, "p": Point(weight, names), "o": Holder(weight), "n": names, "s": {1, 2}, "k": {3: (names,)}}
    taken = snapshot(tree)
    assert taken["w"] is taken["p"].x is taken["o"].inside is not weight
    assert isinstance(taken["p"], Point)
    names.append("b")
    assert [["a"], ["a"], {1, 2}, ["a"]] == [taken["n"], taken["p"].label, taken["s"], taken["k"][3][0]]


def test_unread_leaves_and_nested_states_are_copied():
    """Leaves are read into memory of their own, and a StateDict in a dict stays one."""
    weight = torch.arange(4.0)
    taken = snapshot({"lazy": leaf_of(weight), "model": StateDict({"w": weight}, {"": {"version": 2}})})
    weight.zero_()
    assert [0, 1, 2, 3] == taken["lazy"].tolist() == taken["model"]["w"].tolist()
    assert taken["model"]._metadata == {"": {"version": 2}}


def test_what_has_no_state_is_refused():
    """An object without state is a TypeError that says so."""
    with pytest.raises(NotAStateError, match="int has no state: it is not a mapping"):
        snapshot(3)


def test_parameters_come_as_plain_tensors():
    """What trains does not come along: parameters in a dict become plain tensors, without gradient or hooks."""
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    taken = snapshot({"p": parameter})["p"]
    assert (torch.Tensor, False, None) == (type(taken), taken.requires_grad, taken.grad)


# strides, dtypes, kinds


def dtypes():
    """Every dtype whose tensors PyTorch itself can copy."""
    for dtype in sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str):
        try:
            torch.zeros(64, dtype=torch.uint8).view(dtype).clone()
        except (RuntimeError, NotImplementedError):
            continue
        yield dtype


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    DTYPES = list(dtypes())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_copied(dtype):
    """Tensors of every dtype are copied bit for bit, alone and as views of one storage."""
    raw = torch.randint(0, 2, (64,), dtype=torch.uint8)
    whole = raw.view(dtype)
    one, two, alone = copies([whole[: len(whole) // 2], whole, raw.clone().view(dtype)])
    assert raw.tolist() == two.view(torch.uint8).tolist() == alone.view(torch.uint8).tolist()
    assert one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr() != raw.data_ptr()


TENSORS = {
    "permuted": lambda: torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
    "every other column": lambda: torch.arange(24.0).reshape(4, 6)[:, ::2],
    "a corner": lambda: torch.arange(24.0).reshape(4, 6)[1:3, 2:4],
    "expanded": lambda: torch.ones(3).expand(4, 3),
    "channels last": lambda: torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "a number": lambda: torch.tensor(3.0),
    "empty": lambda: torch.empty(0, 3),
    "a tail": lambda: torch.arange(10)[9:],
    "conjugate": lambda: torch.ones(4, dtype=torch.complex64).mul(1j).conj(),
    "negative": lambda: torch.ones(4, dtype=torch.complex64).mul(1j).conj().imag,
    "sparse": lambda: torch.eye(3).to_sparse(),
    "compressed": lambda: torch.eye(4).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.arange(4.0), 0.1, 0, torch.qint8),
    "of a graph": lambda: torch.arange(4.0, requires_grad=True) * 2,
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:torch.quantize_per_tensor")
def test_values_and_strides_are_those_of_clone(name):
    """A copy has the values and the strides that PyTorch's `clone` gives."""
    tensor = TENSORS[name]()
    (copied,) = copies([tensor])
    expected = tensor.detach().clone()
    assert expected.dtype == copied.dtype
    assert expected.layout == copied.layout
    shown = [t.dequantize() if t.is_quantized else t.to_dense() for t in (expected, copied)]
    assert torch.equal(*shown)
    if tensor.layout is torch.strided and tensor.numel():
        assert expected.stride() == copied.stride()
        assert not storages([tensor]) & storages([copied])
    assert not copied.requires_grad


def test_meta_and_lazy_tensors_stay_what_they_are():
    """Tensors without elements are copied as such."""
    meta, lazy = copies([torch.ones(2, device="meta"), nn.parameter.UninitializedParameter()])
    assert meta.is_meta
    assert nn.parameter.is_lazy(lazy)


def test_subclasses_are_copied_by_their_own_clone():
    """A tensor subclass keeps its class, and its own idea of a copy."""

    class Marked(torch.Tensor):
        pass

    tensor = torch.ones(2).as_subclass(Marked)
    (copied,) = copies([tensor])
    assert type(copied) is Marked
    assert copied.data_ptr() != tensor.data_ptr()


def test_inference_mode_leaves_no_trace():
    """A snapshot made in inference mode, or of inference tensors, can be overwritten outside it."""
    model = nn.Linear(2, 2)
    with torch.inference_mode():
        taken, inference = snapshot(model), torch.ones(2)
    (copied,) = copies([inference])
    assert not copied.is_inference()
    before = addresses(taken)
    assert before == addresses(snapshot(model, out=taken))
    assert torch.equal(snapshot({"a": torch.zeros(2)}, out={"a": inference})["a"], torch.zeros(2))


def test_a_freed_storage_is_an_error():
    """A tensor whose storage was freed is refused: PyTorch's `clone` would end the process."""
    tensor = torch.ones(2)
    tensor.untyped_storage().resize_(0)
    with pytest.raises(SaveError, match=r"a tensor of shape \[2\] has no memory"):
        copies([tensor])


# ties


def relation(tensors):
    """Which bytes of each tensor are bytes of which other: for every pair, where one begins relative to the other."""
    shown = []
    for tensor in tensors:
        offsets = torch.zeros(tensor.shape, dtype=torch.int64)
        for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride())):
            view = [1] * tensor.dim()
            view[dim] = size
            offsets += (torch.arange(size) * stride).view(view)
        start = tensor.data_ptr()
        shown.append([start + int(offset) * tensor.itemsize for offset in offsets.reshape(-1)])
    firsts = {}
    return [[firsts.setdefault(address, (n, m)) for m, address in enumerate(places)] for n, places in enumerate(shown)]


@st.composite
def views(draw):
    """Some views, of several strides and dtypes, of a few storages."""
    bases = [torch.arange(64, dtype=torch.float32) + 100 * n for n in range(draw(st.integers(1, 3)))]
    found = []
    for _ in range(draw(st.integers(1, 6))):
        base = draw(st.sampled_from(bases))
        if draw(st.booleans()):
            base = base.view(torch.int16)
        size, stride = draw(st.integers(1, 8)), draw(st.integers(1, 4))
        offset = draw(st.integers(0, base.numel() - (size - 1) * stride - 1))
        found.append(base.as_strided((size,), (stride,), offset))
    return found


@settings(max_examples=150)
@given(views(), st.integers(0, 3))
def test_overlaps_are_kept(tensors, spoilt):
    """Tensors overlap in the copy exactly where they overlapped, also when it goes into memory that is there."""
    made = copies(tensors)
    assert relation(tensors) == relation(made)
    assert all(torch.equal(a, b) for a, b in zip(tensors, made))
    kept = list(made)
    if spoilt < len(kept):
        kept[spoilt] = torch.zeros(3)
    again = copies(tensors, kept)
    assert relation(tensors) == relation(again)
    assert all(torch.equal(a, b) for a, b in zip(tensors, again))


def test_tied_weights_stay_tied():
    """Two names of one parameter are one tensor's memory in the snapshot, and no other two are."""
    model = nn.ModuleDict({name: nn.Linear(3, 3) for name in ("embed", "middle", "head")})
    model["head"].weight = model["embed"].weight
    taken = snapshot(model)
    assert taken.tied == [("embed.weight", "head.weight")]
    taken["head.weight"][0, 0] = 7.0
    assert taken["embed.weight"][0, 0] == 7.0


def test_a_far_corner_of_a_large_storage_does_not_cost_the_whole():
    """Two small views at the ends of a large storage are copied for what they show."""
    whole = torch.zeros(1_000_000)
    first, last = copies([whole[:2], whole[-2:]])
    assert first.untyped_storage().nbytes() + last.untyped_storage().nbytes() <= 64


def test_each_small_tensor_has_a_storage_of_its_own():
    """Small tensors lie in one arena but are not tied: saving or resizing one does not concern another."""
    taken = snapshot({str(n): torch.full((3,), float(n)) for n in range(5)})
    tensors = list(taken.values())
    assert [tensor.untyped_storage().nbytes() for tensor in tensors] == [12] * 5
    assert [b.data_ptr() - a.data_ptr() for a, b in pairwise(tensors)] == [64] * 4
    tensors[0].share_memory_()
    assert tensors[0].tolist() == [0.0, 0.0, 0.0]


# memory that is reused


def test_memory_is_reused():
    """A second snapshot into the first has its memory and the new values."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 700_000 // 4))
    model[0].bias = model[1].bias
    first = snapshot(model)
    before = addresses(first)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    second = snapshot(model, out=first)
    assert before == addresses(second)
    assert all(torch.equal(value, second[name]) for name, value in model.state_dict().items())
    assert second.tied == first.tied == [("0.bias", "1.bias")]


def test_optimizer_memory_is_reused():
    """An optimizer's snapshot is reused likewise, also where the state has grown since."""
    model = nn.Linear(3, 3)
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    first = snapshot(optimizer)
    optimizer.state[model.weight]["more"] = torch.ones(2)
    optimizer.step()
    second = snapshot(optimizer, out=first)
    assert addresses(first["state"][0]).items() <= addresses(second["state"][0]).items()
    assert second["state"][0]["step"] == 2.0
    assert second["state"][0]["more"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "other",
    [
        lambda w: w.new_zeros(5),
        lambda w: w.new_zeros(2, 2, dtype=torch.float64),
        lambda w: w.new_zeros(2, 2).t(),
        lambda w: w.new_zeros(2, 2).requires_grad_(),
        lambda w: nn.Parameter(w.new_zeros(2, 2)),
        lambda w: w,
        lambda w: w.detach(),
        lambda w: torch.zeros(2, 2, device="meta"),
        lambda w: "text",
        lambda w: None,
    ],
)
def test_memory_that_does_not_fit_is_left_alone(other):
    """Memory of another layout, or live in the source, is not taken; the rest of the snapshot is reused all the same."""
    weight = torch.arange(4.0).reshape(2, 2)
    bias, kept = torch.ones(3), torch.zeros(3)
    offered = other(weight)
    taken = snapshot({"w": weight, "b": bias}, out={"w": offered, "b": kept, "gone": torch.ones(1)})
    assert list(taken) == ["w", "b"]
    assert torch.equal(taken["w"], weight)
    assert taken["w"] is not offered
    assert taken["w"].data_ptr() != weight.data_ptr()
    assert torch.equal(taken["b"], bias)


def test_memory_that_is_shared_where_the_source_is_not_is_left_alone():
    """Offered tensors that overlap each other are not taken where the source's tensors do not."""
    shared = torch.zeros(3)
    taken = snapshot({"a": torch.ones(3), "b": torch.full((3,), 2.0)}, out={"a": shared, "b": shared[:]})
    assert [taken["a"].tolist(), taken["b"].tolist()] == [[1.0] * 3, [2.0] * 3]
    tied = torch.ones(3)
    untied = snapshot({"a": tied, "b": tied[1:]}, out={"a": torch.zeros(3), "b": torch.zeros(2)})
    untied["a"].fill_(5)
    assert untied["b"].tolist() == [5.0, 5.0]


def test_a_live_state_is_never_written():
    """`out` that is the model's own live state is not memory to reuse."""
    model = nn.Linear(2, 2)
    live = model.state_dict()
    taken = snapshot(model, out=live)
    assert not storages(taken.values()) & storages(live.values())


def test_reusing_memory_is_about_as_quick_as_copying_it():
    """200 MB into memory that is there costs a few times the copy at most (fresh memory costs up to ten times it)."""
    state = {str(n): torch.full((64, 1024), float(n)) for n in range(800)}
    taken = snapshot(state)
    into, values = list(taken.values()), list(state.values())

    def seconds(act):
        times = []
        for _ in range(3):
            start = time.thread_time()
            act()
            times.append(time.thread_time() - start)
        return min(times)

    assert seconds(lambda: snapshot(state, out=taken)) < 5 * seconds(lambda: torch._foreach_copy_(into, values)) + 0.1


# other devices


class RecordedStreams:
    """Stands for `torch.cuda` where there is none: what is asked of streams, in order."""

    def __init__(self, log):
        self.log = log

    def Stream(self, device):
        self.log.append("stream")
        return self

    def current_stream(self, device):
        return "model's"

    def wait_stream(self, other):
        self.log.append(f"wait for {other}")

    def stream(self, stream):
        return torch.no_grad()

    def synchronize(self):
        self.log.append("synchronize")


def test_one_stream_and_one_wait_per_device(monkeypatch):
    """A CUDA device's copies are queued on one stream, behind the model's, and waited for once."""
    from statedict.torch.snapshots import _copy_tensors as _copies

    log = []
    monkeypatch.setattr(torch, "cuda", RecordedStreams(log))
    into = [torch.zeros(2), torch.zeros(3)]
    _copies._copy_cuda(torch.device("cuda", 0), into, [torch.ones(2), torch.ones(3)]).synchronize()
    assert log == ["stream", "wait for model's", "synchronize"]
    assert [t.tolist() for t in into] == [[1.0, 1.0], [1.0, 1.0, 1.0]]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_models_come_to_pinned_memory():
    """A CUDA model's snapshot lies in pinned memory, is complete on return, keeps ties, and is reused."""
    model = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 512)).cuda()
    model[1].weight = model[0].weight
    with torch.no_grad():
        for _ in range(20):
            model[0].weight.add_(1.0)
    taken = snapshot(model)
    assert all(not value.is_cuda and value.is_pinned() for value in taken.values())
    assert taken.tied == [("0.weight", "1.weight")]
    assert all(torch.equal(value.cpu(), taken[name]) for name, value in model.state_dict().items())
    before = addresses(taken)
    assert before == addresses(snapshot(model, out=taken))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copies_stay_on_their_device():
    """Unless the host is asked for, a copy is on the device of its original."""
    one, two = copies([torch.ones(3, device="cuda"), torch.ones(3, device="cuda")[1:]])
    assert one.is_cuda
    assert two.is_cuda


# memory that nobody else has


def retaken(first, second):
    """What `take` gives of one tree, and then of another in the memory of the first."""
    before = copied_again(first, Copy(None))
    return before.tree, copied_again(second, before).tree


def layers():
    return StateDict({f"w{n}": torch.full((2, 3), float(n)) for n in range(40)} | {"big": torch.ones(3000)})


def test_what_is_taken_again_lies_where_it_lay():
    """Tensors of the same names and layouts are copied to where the copy before lies; the metadata is the new one."""
    state = StateDict({name: value + 1 for name, value in layers().items()}, {"": {"version": 2}})
    before = take(StateDict(layers(), {"": {"version": 1}}))
    places = addresses(before[0])
    again = copied_again(state, Copy(*before)).tree
    assert list(again) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in again.items())
    assert addresses(again) == places
    assert again._metadata == {"": {"version": 2}}
    assert again._metadata is not state._metadata


def optimizer_state(step, rate, betas=(0.9, 0.99), second="exp_avg"):
    tied = torch.full((2000,), step + 0.5)
    return {
        "state": {0: {"step": torch.tensor(step), second: tied}, 1: {"step": step, "exp_avg": tied}},
        "param_groups": [{"lr": rate, "betas": betas, "params": [0, 1], "note": None}],
    }


@pytest.mark.parametrize("has_guards", [True, False])
def test_an_optimizers_state_is_taken_again(monkeypatch, has_guards):
    """Tensors, which may be tied, and plain values of a tree are replaced in the copy, also without PyTorch's guards."""
    if not has_guards:
        monkeypatch.delattr(torch._C._dynamo.guards, "TensorGuards")
    tree, memory = take(optimizer_state(1, 0.1))
    for later in (optimizer_state(2, -0.0), optimizer_state(3, 0.0, (0.5, 0.99)), optimizer_state(4, 7, None)):
        assert memory.refill(later) is (later["param_groups"][0]["betas"] is not None)
        if memory.refill(later):
            assert repr(tree) == repr(later)
            assert tree["state"][0]["exp_avg"] is tree["state"][1]["exp_avg"]
            assert tree["state"][0]["exp_avg"] is not later["state"][0]["exp_avg"]


def test_a_state_with_parameters_and_buffers_of_one_shape_is_taken_again():
    """Trained and frozen parameters and buffers are of different kinds, and their copies of one."""
    norm = torch.nn.BatchNorm1d(3)
    norm.bias.requires_grad_(False)
    state = dict(norm.named_parameters()) | dict(norm.named_buffers())
    tree, memory = take(state)
    norm.running_mean += 2
    assert memory.refill(state)
    assert tree["running_mean"].tolist() == [2, 2, 2]


def test_a_state_with_tensors_without_elements_is_taken_again():
    """A state with tensors without elements, as a rank may have, is copied into the same memory again."""
    tree, memory = take({"w": torch.ones(2), "a": torch.zeros(0, 3), "b": torch.zeros(0, 3)})
    assert memory.refill({"w": torch.zeros(2), "a": torch.zeros(0, 3), "b": torch.zeros(0, 3)})
    assert tree["w"].tolist() == [0, 0]
    assert not memory.refill({"w": torch.zeros(2), "a": torch.zeros(0, 4), "b": torch.zeros(0, 3)})


OTHER_FORMS = {
    "another key": lambda: optimizer_state(2, 0.2, second="sum"),
    "other key types": lambda: {
        **optimizer_state(2, 0.2),
        "state": dict(zip((False, True), optimizer_state(2, 0.2)["state"].values())),
    },
    "a tuple with a tensor": lambda: optimizer_state(2, 0.2, (torch.ones(1), 0.5)),
    "one dict twice": lambda: {**optimizer_state(2, 0.2), "state": dict.fromkeys((0, 1), optimizer_state(2, 0.2))},
    "another value": lambda: optimizer_state(2, object()),
    "not a mapping": lambda: [1],
}


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_a_state_of_another_form_changes_nothing(name):
    """A copy is not overwritten with a state that has other keys, containers or kinds of values."""
    tree, memory = take(optimizer_state(1, 0.1))
    assert not memory.refill(OTHER_FORMS[name]())
    assert repr(tree) == repr(optimizer_state(1, 0.1))


def with_metadata(metadata):
    state = OrderedDict(w=torch.ones(2))
    state._metadata = metadata
    return state


UNUSUAL = {
    "a key of negative zero": ({0.0: 1}, {-0.0: 1}),
    "metadata that is a number": (with_metadata({}), with_metadata(5)),
    "metadata that is a tuple": (with_metadata(()), with_metadata(())),
    "a state that is a tuple": ((1, torch.ones(2)), (2, torch.zeros(2))),
    "a state that is a number": (1, 2),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_states_are_copied_as_they_are(name):
    """What cannot be overwritten, or is equal to another state without being the same, is copied anew."""
    first, second = UNUSUAL[name]
    assert repr(retaken(first, second)[1]) == repr(second)
    assert getattr(retaken(first, second)[1], "_metadata", None) == getattr(second, "_metadata", None)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_does_not_end_the_process():
    """A nested tensor, which PyTorch's guards cannot look at, may take the place of another one."""
    second = {"w": torch.nested.nested_tensor([torch.ones(2), torch.zeros(1)])}
    assert repr(retaken({"w": torch.ones(2)}, second)[1]) == repr(second)


def test_tensors_inside_other_values_stay_there():
    """A state with a list of one tensor is copied as that, the second time too."""
    state = StateDict({"w": torch.ones(2), "extra": [torch.zeros(3)]})
    for again in retaken(state, state):
        assert again["w"].tolist() == [1, 1]
        assert [part.tolist() for part in again["extra"]] == [[0, 0, 0]]


CHANGES = {
    "another shape": lambda w: w.reshape(3, 2),
    "other strides": lambda w: w.reshape(3, 2).t(),
    "another dtype": lambda w: w.double(),
    "a view": lambda w: torch.stack([w, w])[1],
    "it overlaps itself": lambda w: torch.arange(8.0).as_strided((2, 2, 2), (1, 1, 5)),
    "negative": lambda w: torch.ones(6, dtype=torch.complex64).mul(1j).conj().imag.reshape(2, 3),
    "sparse": lambda w: w.to_sparse(),
    "no elements": lambda w: w[:0],
    "not a tensor": lambda w: 7,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_has_changed_is_copied_as_it_is(name):
    """Whatever else is in a tensor's place before or after, both copies are right."""
    other = layers()
    other["w7"] = CHANGES[name](other["w7"] + 1)
    for first, second in ((layers(), other), (other, layers()), (other, other)):
        _, again = retaken(first, second)
        assert list(again) == list(second)
        for one, expected in zip(again.values(), second.values()):
            shown = [
                each.to_dense() if isinstance(each, torch.Tensor) else torch.tensor(each) for each in (one, expected)
            ]
            assert torch.equal(*shown)


def test_ties_that_come_and_go_are_kept():
    """A copy has the ties of its time, however the tensors were tied when its memory was made."""
    apart, tied = layers(), layers()
    tied["w3"] = tied["w2"]
    viewed = layers()
    viewed["w3"] = viewed["w2"].view(2, 3)
    for first, second in ((apart, tied), (tied, apart), (viewed, tied), (apart, viewed), (tied, viewed)):
        _, again = retaken(first, second)
        assert again.tied == second.tied
        assert all(torch.equal(value, second[name]) for name, value in again.items())


def test_a_freed_storage_is_an_error_the_second_time_too():
    """A tensor that has lost its memory since is refused."""
    state = layers()
    before = Copy(*take(state))
    state["w5"].untyped_storage().resize_(0)
    with pytest.raises(SaveError, match=r"a tensor of shape \[2, 3\] has no memory"):
        copied_again(state, before)


@settings(max_examples=60)
@given(views(), views())
def test_overlaps_are_kept_in_memory_of_others(first, second):
    """Tensors overlap in a copy where they overlapped, whatever lay in its memory before."""
    _, again = retaken(dict(enumerate(first)), dict(enumerate(second)))
    assert relation(second) == relation(list(again.values()))
    assert all(torch.equal(a, b) for a, b in zip(second, again.values()))


def test_an_optimizers_dicts_are_its_own():
    """The copy of an optimizer's state shares no dict and no list with it, and follows its parameters' names."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    taken = statedict.snapshot(optimizer)
    taken["state"][0].clear()
    taken["param_groups"][0]["lr"] = 7
    assert set(optimizer.state[model.weight]) == {"step", "exp_avg", "exp_avg_sq"}
    assert optimizer.param_groups[0]["lr"] == 0.001
