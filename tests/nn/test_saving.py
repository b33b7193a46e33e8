"""Saving and loading: PyTorch's results and texts, and nothing changed where a load is refused."""

import pickle
import warnings
from collections import OrderedDict, UserDict
from functools import partial

import numpy as np
import pytest
import torch
from tests.cost import calls

import statedict
from statedict import nn
from statedict.errors import LoadError
from statedict.tree import EXACT, SOUND, write


def net(lib, tied=False):
    model = lib.nn.Sequential(OrderedDict(a=lib.nn.Linear(2, 3), b=lib.nn.BatchNorm1d(3), c=lib.nn.Linear(2, 3)))
    if tied:
        model.c.weight = model.a.weight
    return model


def elements(model):
    return {name: np.asarray(value).copy() for name, value in model.state_dict().items()}


def unchanged(model, before):
    return all(np.array_equal(before[name], value) for name, value in elements(model).items())


def test_state_dicts_alias_the_model():
    """The values are the arrays themselves; `keep_vars` gives the Parameters; metadata says versions."""
    model = net_ours()
    state = model.state_dict()
    assert state["a.weight"] is model.a.weight.data
    assert model.state_dict(keep_vars=True)["a.weight"] is model.a.weight
    assert state._metadata["b"] == {"version": 2}
    given = {}
    assert model.state_dict(destination=given, prefix="x.") is given
    assert next(iter(given)) == "x.a.weight"


def net_ours(tied=False):
    from types import SimpleNamespace

    return net(SimpleNamespace(nn=nn), tied)


def test_positional_arguments(both):
    """The old positional arguments are taken, with PyTorch's warning."""
    for lib in both:
        given = OrderedDict()
        with pytest.warns(FutureWarning, match="Positional args are being deprecated, use kwargs instead"):
            assert net(lib).state_dict(given, "x.", True) is given
        assert next(iter(given)) == "x.a.weight"


def test_files_go_both_ways(tmp_path):
    """A state saved by either is loaded by the other, through every format."""
    for name in ("model.pt", "model.safetensors", "model.npz"):
        path = tmp_path / name
        theirs, ours = (
            torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)),
            nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)),
        )
        statedict.save(ours.state_dict(), path)
        statedict.load_state_dict(theirs, path)
        x = torch.randn(4, 2)
        assert np.allclose(theirs.eval()(x).detach().numpy(), ours.eval()(x.numpy()), atol=1e-6)
        torch.nn.init.ones_(theirs[0].weight)
        statedict.save(theirs.state_dict(), path)
        statedict.load_state_dict(ours, path)
        assert (ours[0].weight == 1).all()
    statedict.save({"model": ours.state_dict(), "epoch": 3}, tmp_path / "nested.pt")
    nested = torch.load(tmp_path / "nested.pt")
    assert str(theirs.load_state_dict(nested["model"])) == "<All keys matched successfully>"
    assert nested["model"]._metadata["1"] == {"version": 2}
    torch.save(theirs.state_dict(), tmp_path / "plain.pt")
    with statedict.open(tmp_path / "plain.pt") as file:
        assert str(ours.load_state_dict(file.state_dict())) == "<All keys matched successfully>"


def test_arrays_of_other_libraries_are_taken():
    """A state of torch tensors, of Parameters or of an unread file fills NumPy's parameters."""
    model, theirs = net_ours(), torch.nn.Linear(2, 3)
    model.a.load_state_dict(theirs.state_dict())
    assert (model.a.weight.data == theirs.weight.detach().numpy()).all()
    model.c.load_state_dict(model.a.state_dict(keep_vars=True))
    assert (model.c.weight.data == model.a.weight.data).all()
    model.a.load_state_dict(UserDict(model.c.state_dict()))


@pytest.mark.parametrize(
    "change",
    [
        lambda state, xp: state.pop("a.bias"),
        lambda state, xp: state.update({"d.weight": xp.zeros((1,))}),
        lambda state, xp: state.update({"a.weight": xp.zeros((5, 5)), "c.bias": xp.zeros((1, 3))}),
        lambda state, xp: state.update({"a.weight": 3}),
        lambda state, xp: state.update({"a.weight": None, "c.weight": "text"}),
        lambda state, xp: state.update({"b.num_batches_tracked": xp.zeros((2,))}),
        lambda state, xp: state.update({"b.running_mean": xp.zeros(())}),
        lambda state, xp: state.clear(),
        lambda state, xp: state.update({"a.weight.more": xp.zeros((1,)), "b": xp.zeros((1,))}),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_what_does_not_fit(both, raised, strict, change):
    """Missing, unexpected and unfitting entries give PyTorch's text or its result; a refused load changes nothing."""
    found = []
    for lib in both:
        model = net(lib)
        state = OrderedDict(model.state_dict())
        change(state, lib.xp)
        for key in list(state)[:2]:
            if hasattr(state[key], "shape"):
                state[key] = state[key] * 0
        before = elements(model)
        error = raised(partial(model.load_state_dict, state, strict=strict))
        if error is not None and lib.name == "statedict":
            assert unchanged(model, before)
        result = None if error else tuple(map(list, model.load_state_dict(state, strict=strict)))
        found.append((error, result))
    assert found[0] == found[1]


def test_what_is_no_state(both, raised):
    """A state that is not a mapping is refused in PyTorch's words."""
    texts = {raised(lambda lib=lib: net(lib).load_state_dict([1])) for lib in both}
    assert texts == {("TypeError", "Expected state_dict to be dict-like, got <class 'list'>.")}


def test_old_scalars(both):
    """A vector of one element fills a scalar, as states of PyTorch 0.3 need."""
    for lib in both:
        norm = lib.nn.BatchNorm1d(2)
        norm.load_state_dict({**norm.state_dict(), "num_batches_tracked": lib.xp.asarray([7])})
        assert int(norm.num_batches_tracked) == 7


def test_casts_are_pytorchs(both, same):
    """Elements are cast to the module's dtype, losses included, as PyTorch casts them."""
    results = []
    for lib in both:
        layer = lib.nn.BatchNorm1d(3).half()
        state = {
            **layer.state_dict(),
            "weight": lib.xp.asarray([1.00001, 70000.0, -1e-9]),
            "bias": lib.xp.asarray([1, 2, 3]),
            "num_batches_tracked": lib.xp.asarray(3.7),
        }
        layer.load_state_dict(state)
        results.append(list(layer.state_dict().values()))
    same(*results)


def test_assigning(lib):
    """`assign=True` takes the arrays themselves, with their dtype; the parameter's flag stays."""
    layer = lib.nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    state = {"weight": lib.xp.ones((2, 2), dtype=lib.xp.float64), "bias": lib.xp.ones((2,), dtype=lib.xp.float64)}
    layer.load_state_dict(state, assign=True)
    assert layer.weight.dtype == lib.xp.float64
    state["weight"][0, 0] = 7
    assert float(layer.state_dict()["weight"][0, 0]) == 7
    assert isinstance(layer.weight, lib.nn.Parameter)
    assert (layer.weight.requires_grad, layer.bias.requires_grad) == (True, False)


def test_two_values_for_a_tied_parameter_are_named():
    """Two different values for a tied parameter are an error that names both."""
    model = net_ours(tied=True)
    state = model.state_dict()
    with pytest.raises(RuntimeError, match=r'"a\.weight" and "c\.weight" are tied in the model'):
        model.load_state_dict({**state, "c.weight": state["a.weight"] + 1})


def test_extra_state(lib):
    """A class without extra state does not expect any, and has none to give."""
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"_extra_state"'):
        lib.nn.ReLU().load_state_dict({"_extra_state": 1})
    with pytest.raises(RuntimeError):
        lib.nn.ReLU().get_extra_state()
    with pytest.raises(RuntimeError):
        lib.nn.ReLU().set_extra_state(1)


def test_state_hooks(lib):
    """All hooks around saving and loading run in PyTorch's order, with its arguments."""
    model, seen = lib.nn.Sequential(lib.nn.Linear(1, 1)), []
    layer = model[0]
    layer.register_state_dict_pre_hook(lambda m, prefix, keep: seen.append(("pre", m is layer, prefix, keep)))
    layer.register_state_dict_post_hook(lambda m, state, prefix, local: state.update({f"{prefix}more": 1}))
    model._register_state_dict_hook(lambda m, state, prefix, local: OrderedDict(state, last=local["version"]))
    layer._register_load_state_dict_pre_hook(
        lambda state, prefix, local, strict, missing, unexpected, errors: state.pop(f"{prefix}more")
    )
    layer.register_load_state_dict_pre_hook(lambda m, *rest: seen.append(("load", m is layer, rest[1], len(rest))))
    model.register_load_state_dict_post_hook(lambda m, keys: keys.unexpected_keys.clear())
    state = model.state_dict()
    assert list(state) == ["0.weight", "0.bias", "0.more", "last"]
    model.load_state_dict(state)
    assert seen == [("pre", True, "0.", False), ("load", True, "0.", 7)]
    handle = layer.register_load_state_dict_pre_hook(lambda *a: seen.append("never"))
    handle.remove()
    other = lib.nn.ReLU()
    other.register_state_dict_post_hook(lambda *a: {})
    with pytest.raises(RuntimeError, match="state_dict post-hook must return None"):
        other.state_dict()


def test_a_hook_is_registered_one_way(lib):
    """A function that is a public post-hook cannot be a private one too."""
    layer = lib.nn.ReLU()

    def hook(*args):
        return None

    layer.register_state_dict_post_hook(hook)
    with pytest.raises(RuntimeError, match="Cannot register the same function as the state dict post hook"):
        layer._register_state_dict_hook(hook)


def test_overridden_loaders(lib):
    """Modules that rename old names in `_load_from_state_dict` and save more in `_save_to_state_dict` work as in PyTorch."""

    class Renamed(lib.nn.Linear):
        _version = 3

        def _save_to_state_dict(self, destination, prefix, keep_vars):
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "kind"] = "linear"

        def _load_from_state_dict(self, state, prefix, local, strict, missing, unexpected, errors):
            if local.get("version", 1) < 3:
                state[prefix + "weight"] = state.pop(prefix + "kernel")
            state.pop(prefix + "kind", None)
            super()._load_from_state_dict(state, prefix, local, strict, missing, unexpected, errors)

    model = lib.nn.Sequential(Renamed(2, 2))
    state = model.state_dict()
    assert list(state) == ["0.weight", "0.bias", "0.kind"]
    assert state._metadata["0"] == {"version": 3}
    state["0.kernel"] = state.pop("0.weight") * 0
    state._metadata["0"]["version"] = 1
    model.load_state_dict(state)
    assert not model[0].weight.detach().any()


def test_exact_rules_have_pytorchs_effects():
    """By exact rules what came before a failure stays done, and the failure is a line of text."""
    model = net_ours()
    state = {**model.state_dict(), "a.weight": np.zeros((3, 2)), "c.weight": np.zeros((9, 9))}
    with pytest.raises(LoadError, match=r"size mismatch for c\.weight"):
        write(nn.HOST, model, state, rules=EXACT)
    assert not model.a.weight.data.any()
    outcome = write(nn.HOST, model, {**state, "c.weight": np.ones((3, 2))}, rules=EXACT, assign=True)
    assert "c.weight" in outcome.loaded
    assert (model.c.weight == 1).all()


def test_outcomes_say_what_was_cast():
    """A load tells which tensors changed dtype, and how."""
    model = nn.BatchNorm1d(2)
    state = model.state_dict()
    state.update({name: array.astype("f8") for name, array in state.items()})
    outcome = write(nn.HOST, model, state, rules=SOUND.allowing("truncation"))
    assert [(cast.name, cast.kind) for cast in outcome.casts] == [
        ("weight", "rounding"),
        ("bias", "rounding"),
        ("running_mean", "rounding"),
        ("running_var", "rounding"),
        ("num_batches_tracked", "truncation"),
    ]


CASTS = [
    ("float64", "float16", 1e6, "overflow"),
    ("bfloat16", "float16", 1e30, "overflow"),
    ("uint8", "int8", 200, "overflow"),
    ("uint8", "int8", 100, "widening"),
    ("int64", "uint64", -(2**60), "overflow"),
    ("uint64", "int64", 2**63 - 1, "widening"),
    ("float32", "int32", 1.5, "truncation"),
    ("float32", "int32", np.nan, "overflow"),
    ("float8_e5m2", "bfloat16", 1.0, "widening"),
    ("complex64", "float32", 1j, "imaginary"),
]


@pytest.mark.parametrize(("found", "wanted", "value", "kind"), CASTS)
def test_kinds_of_casts(found, wanted, value, kind):
    """The report has the kind of each cast; those that lose elements are refused unless they are allowed."""
    from statedict.state import dtype

    module = nn.Module()
    module.x = nn.Buffer(np.zeros(1, dtype(wanted).numpy))
    state = {"x": np.array([value], dtype(found).numpy)}
    lossy = kind in ("overflow", "truncation", "imaginary")
    if lossy:
        with pytest.raises(statedict.LoadError, match=kind):
            statedict.load_state_dict(module, state)
    report = statedict.load_state_dict(module, state, allow_casts=(kind,) if lossy else ())
    assert [tuple(cast) for cast in report.cast] == [("x", found, wanted, kind)]


def test_a_bare_array_that_cannot_be_written():
    """A read-only array that was put into the store itself is not overwritten: the load says what to do."""
    module = nn.Module()
    module._buffers["table"] = np.broadcast_to(np.float32(1), (2,))
    with pytest.raises(RuntimeError, match="Register it as a Buffer"):
        module.load_state_dict({"table": np.zeros(2)})
    module.load_state_dict({"table": np.zeros(2)}, assign=True)
    assert module.table.tolist() == [0, 0]


def test_loading_many_layers_is_linear():
    """Four times the layers take about four times the calls; PyTorch's loader compares all with all: sixteen times."""

    def loading(count):
        layers = nn.ModuleList(nn.Identity() for _ in range(count))
        for layer in layers:
            layer.register_buffer("x", np.zeros(1))
        state = layers.state_dict()
        return lambda: layers.load_state_dict(state)

    loading(10)()
    assert calls(loading(2000)) <= 8 * calls(loading(500))


def test_states_pickle_as_plain_dicts():
    """What `state_dict` gives is an OrderedDict with `_metadata`: its pickle names nothing of this library."""
    state = pickle.dumps(net_ours().state_dict())
    assert b"statedict" not in state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert type(pickle.loads(state)) is OrderedDict


def test_bytes_of_a_file_move_once(tmp_path):
    """Leaves of the parameters' own dtype are read straight into their memory; others by way of a copy."""
    import tracemalloc

    model, path = nn.Linear(1000, 2000), tmp_path / "model.pt"
    statedict.save(model.state_dict(), path)
    other = nn.Linear(1000, 2000)
    array = other.weight.data
    with statedict.open(path) as file:
        state = file.state_dict()
        tracemalloc.start()
        other.load_state_dict(state)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert other.weight.data is array
        assert (array == model.weight.data).all()
        # What is remembered in case reading fails, and nothing else.
        assert peak < 1.5 * array.nbytes
        double = nn.Linear(1000, 2000).double()
        double.load_state_dict(state)
    assert (double.weight.data == model.weight.data).all()


@pytest.mark.parametrize("large", [False, True])
def test_a_file_that_cannot_be_read_to_its_end(tmp_path, monkeypatch, large):
    """If reading fails, the model is as it was; without memory for a backup, the error says which arrays have changed."""
    from statedict.nn import _arrivals
    from statedict.state import Leaf, StateDict

    monkeypatch.setattr(_arrivals, "have_room", lambda nbytes: not large)
    model, path = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), tmp_path / "model.pt"
    statedict.save({name: array * 0 for name, array in model.state_dict().items()}, path)
    before = elements(model)

    class Torn:
        def __init__(self, source):
            self.source = source

        def read_into(self, reads, *, verify=True):
            self.source.read_into(reads[:1])
            raise OSError("the disk is gone")

        def verify(self, storages):
            pass

        def view(self, storage, *, writable=False):
            return None

    with statedict.open(path) as file:
        leaves = dict(file.state_dict().leaves())
        torn = Torn(next(iter(leaves.values())).storage.source)
        for leaf in leaves.values():
            assert isinstance(leaf, Leaf)
            leaf.storage.source = torn
        with pytest.raises(OSError, match="the disk is gone") as error:
            model.load_state_dict(StateDict(leaves))
    assert unchanged(model, before) is not large
    assert [note[-65:] for note in getattr(error.value, "__notes__", ())] == [
        "1 of its tensors has changed (0.weight). All others are unchanged."[-65:]
    ] * large


def test_tensors_that_numpy_has_no_array_for():
    """A sparse tensor is refused; tensors with gradients, of bfloat16 and views are looked into where they lie."""
    layer = nn.Linear(2, 2)
    weight = torch.eye(2, dtype=torch.bfloat16, requires_grad=True)
    layer.load_state_dict({"weight": weight, "bias": torch.arange(4.0)[::2]})
    assert layer.weight.data.tolist() == [[1, 0], [0, 1]]
    assert layer.bias.data.tolist() == [0, 2]
    with pytest.raises(
        RuntimeError, match=r"expected torch\.Tensor or Tensor-like object from checkpoint but received"
    ):
        layer.load_state_dict({"weight": torch.eye(2).to_sparse(), "bias": torch.zeros(2)})


@pytest.mark.parametrize("assign", [False, True])
def test_arrays_of_text_are_no_weights(assign):
    """An array that no tensor can have is refused, and the layer is as it was."""
    layer = nn.Linear(2, 2)
    before = layer.weight.data.copy()
    with pytest.raises(LoadError, match=r"parameter named \"bias\", expected torch\.Tensor .* but received .*ndarray"):
        statedict.load_state_dict(layer, {"weight": np.ones((2, 2)), "bias": np.array(["a", "b"])}, assign=assign)
    assert np.array_equal(layer.weight.data, before)
