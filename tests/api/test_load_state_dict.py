"""`statedict.load_state_dict` on PyTorch's modules: strict, all or nothing, from memory and from files."""

import io

import numpy as np
import pytest
import torch
from tests.archives import packed, unpacked
from torch import nn

import statedict
from statedict.errors import ChecksumError, LoadError


@pytest.fixture
def model(api):
    return api.fill(api.Net(), 0)


@pytest.fixture
def state(api):
    return api.plain(api.fill(api.Net(), 1))


def missing_last(state):
    del state["embed.weight"], state["head.weight"]  # tied: either would do for both


def unexpected_last(state):
    state["zzz"] = torch.ones(1)


def misshapen_last(state):
    state["head.weight"] = torch.ones(4, 7)


def misshapen_both(state):
    state["embed.weight"] = state["head.weight"] = torch.ones(5, 6)


def not_a_tensor(state):
    state["head.weight"] = "text"


SPOILED = [missing_last, unexpected_last, misshapen_last, misshapen_both, not_a_tensor]


def test_it_is_pytorchs(model, state, api):
    """A load has the values and the result of PyTorch's, and the module keeps its tensors."""
    weight, pointer = model.conv.weight, model.conv.weight.data_ptr()
    report = statedict.load_state_dict(model, state)
    assert api.bits(model.state_dict()) == api.bits(state)
    assert report == ([], [])
    assert repr(report) == "<All keys matched successfully>"
    assert report.ok
    assert model.conv.weight is weight
    assert weight.data_ptr() == pointer


@pytest.mark.parametrize("where", ["memory", "zip", "legacy", "safetensors"])
@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_all_or_nothing(tmp_path, model, state, api, where, spoil):
    """A misfit in the last tensor leaves model and source bit for bit as they were."""
    if spoil is not_a_tensor and where == "safetensors":
        pytest.skip("safetensors has tensors only")
    spoil(state)
    source = state
    if where == "safetensors":
        source = tmp_path / "model.safetensors"
        statedict.save(statedict.StateDict({name: value.clone() for name, value in state.items()}), source)
    elif where != "memory":
        source = tmp_path / "model.pt"
        torch.save(state, source, _use_new_zipfile_serialization=where == "zip")
    before, names, content = (
        api.bits(model.state_dict()),
        list(state),
        None if where == "memory" else source.read_bytes(),
    )
    for strict in (True, False):
        if strict is False and spoil in (missing_last, unexpected_last):
            continue
        with pytest.raises(LoadError, match=r"^Error\(s\) in loading state_dict for Net:\n"):
            statedict.load_state_dict(model, source, strict)
        assert api.bits(model.state_dict()) == before
    assert list(state) == names
    assert content is None or source.read_bytes() == content


def test_a_checksum_error_in_the_last_record_changes_nothing(tmp_path, model, state, api):
    """Damage is found before the first byte lands; `verify=False` does not look."""
    path = tmp_path / "model.pt"
    statedict.save(statedict.StateDict(state), path)
    api.damage_last_record(path)
    before = api.bits(model.state_dict())
    with pytest.raises(ChecksumError, match=r"model\.pt"):
        statedict.load_state_dict(model, path)
    assert api.bits(model.state_dict()) == before
    with pytest.raises(ChecksumError, match=r"model\.pt"):
        statedict.load_state_dict(api.Net(), path, assign=True)
    assert statedict.load_state_dict(model, path, verify=False).ok


def test_texts_and_results_are_as_pytorchs_when_not_strict(model, state):
    """`strict=False` reports what PyTorch reports."""
    del state["conv.bias"]
    state["more"] = torch.ones(1)
    expected = model.load_state_dict(state, strict=False)
    report = statedict.load_state_dict(model, state, strict=False)
    missing, unexpected = report
    assert (missing, unexpected) == (expected.missing_keys, expected.unexpected_keys)


def test_deviations_can_be_said_beforehand(model, state, api):
    """Patterns allow what is missing or unexpected, and nothing else; the report says what they allowed."""
    del state["conv.bias"]
    state["more.a"] = torch.ones(1)
    report = statedict.load_state_dict(model, state, allow_missing="conv.*", allow_unexpected="more")
    assert report.ok
    assert report.allowed == ["conv.bias", "more.a"]
    del state["conv.weight"], state["norm.bias"]
    before = api.bits(model.state_dict())
    with pytest.raises(LoadError) as caught:
        statedict.load_state_dict(model, state, allow_missing="conv.*", allow_unexpected=["more"])
    assert caught.value.report.missing == ["norm.bias"]
    assert caught.value.report.unexpected == []
    assert api.bits(model.state_dict()) == before


@pytest.mark.parametrize("spoil", [lambda state: None, *SPOILED])
@pytest.mark.parametrize("from_file", [False, True])
def test_a_dry_run_tells_the_same_and_changes_nothing(tmp_path, model, state, api, spoil, from_file):
    """The report of `dry_run=True` is that of the load, which raises or not; the model stays."""
    spoil(state)
    source = state
    if from_file:
        source = tmp_path / "model.pt"
        torch.save(state, source)
    before = api.bits(model.state_dict())
    dry = statedict.load_state_dict(model, source, dry_run=True)
    assert api.bits(model.state_dict()) == before
    try:
        real = statedict.load_state_dict(model, source)
    except LoadError as error:
        real = error.report
    assert dry.to_dict() == real.to_dict() | {"dry_run": True}
    assert str(dry).splitlines()[1:] == str(real).splitlines()[1:]


def test_a_meta_model_comes_to_life_from_a_file(tmp_path, state, api):
    """`assign=True` needs no memory first, keeps ties, requires_grad and parameters, from each format."""
    for suffix in ("pt", "safetensors"):
        path = tmp_path / f"model.{suffix}"
        statedict.save(statedict.StateDict(state, state._metadata), path)
        with torch.device("meta"):
            model = api.Net()
        report = statedict.load_state_dict(model, path, assign=True)
        assert report.ok
        assert api.bits(model.state_dict()) == api.bits(state)
        assert model.head.weight is model.embed.weight
        assert all(isinstance(value, nn.Parameter) and value.requires_grad for value in model.parameters())


def test_assign_takes_dtype_and_device_of_the_source(tmp_path, state, api):
    """The tensors themselves take the places, of the file's dtype or that which `dtype` says."""
    path = tmp_path / "model.pt"
    torch.save(state, path)
    with torch.device("meta"):
        model = api.Net()
    statedict.load_state_dict(model, path, assign=True, dtype="bfloat16", device="cpu")
    assert model.conv.weight.dtype == torch.bfloat16
    assert model.norm.num_batches_tracked.dtype == torch.int64
    assert torch.equal(model.conv.weight.float(), state["conv.weight"].bfloat16().float())


def test_dtypes_by_pattern(state, api):
    """`dtype` is one for all floating-point tensors, or by pattern."""
    with torch.device("meta"):
        model = api.Net()
    report = statedict.load_state_dict(model, state, assign=True, dtype={"conv": torch.float16, "norm.*": "float64"})
    assert model.conv.bias.dtype == torch.float16
    assert model.norm.weight.dtype == torch.float64
    assert model.embed.weight.dtype == torch.float32
    assert report.ok


def test_the_models_dtype_wins_and_casts_are_told(tmp_path, state, api):
    """A half-precision model takes a float32 file as PyTorch rounds it, and the report lists every cast."""
    path = tmp_path / "model.pt"
    torch.save(state, path)
    model, expected = api.Net().to(torch.bfloat16), api.Net().to(torch.bfloat16)
    expected.load_state_dict(state)
    for source in (path, state):
        report = statedict.load_state_dict(api.fill(model, 5), source)
        assert api.bits(model.state_dict()) == api.bits(expected.state_dict())
        assert {(cast.found, cast.wanted) for cast in report.cast} == {("float32", "bfloat16")}
        assert "conv.weight" in [cast.name for cast in report.cast]


class Scaled(nn.Linear):
    """A module with code of its own on both ways, as quantised layers have."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = destination[prefix + "weight"] * 2

    def _load_from_state_dict(self, state_dict, prefix, *args):
        state_dict[prefix + "weight"] = state_dict[prefix + "weight"] / 2
        super()._load_from_state_dict(state_dict, prefix, *args)


def test_overridden_loaders_read_from_files(tmp_path, api):
    """A module's own `_load_from_state_dict` gets tensors, whatever the source, and its changes stay out of the source."""
    source, model = nn.Sequential(Scaled(2, 2), nn.Linear(2, 2)), nn.Sequential(Scaled(2, 2), nn.Linear(2, 2))
    statedict.save(source, tmp_path / "model.pt")
    given = source.state_dict()
    before = api.bits(given)
    for state in (tmp_path / "model.pt", given):
        api.fill(model, 3)
        statedict.load_state_dict(model, state)
        assert torch.equal(model[0].weight, source[0].weight)
        assert torch.equal(model[1].bias, source[1].bias)
    assert api.bits(given) == before


def test_hooks_rename_what_comes_from_a_file(tmp_path):
    """Pre-hooks may pop, rename and compute; post-hooks may forgive."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))

    def rename(module, state_dict, prefix, *args):
        state_dict[prefix + "weight"] = state_dict.pop(prefix + "gamma") + 1

    def forgive(module, incompatible):
        incompatible.missing_keys.clear()

    model[0].register_load_state_dict_pre_hook(rename)
    model.register_load_state_dict_post_hook(forgive)
    torch.save({"0.gamma": torch.ones(2, 2), "0.bias": torch.zeros(2)}, tmp_path / "old.pt")
    kept = model[1].weight.detach().clone()
    report = statedict.load_state_dict(model, tmp_path / "old.pt")
    assert report.ok
    assert torch.equal(model[0].weight, torch.full((2, 2), 2.0))
    assert torch.equal(model[1].weight, kept)


def test_extra_state_from_files(tmp_path):
    """Extra state of plain values goes through files of both sides."""

    class Counter(nn.Module):
        def __init__(self, count):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.count = {"n": count, "t": torch.tensor(float(count)), "size": (torch.Size([2]), torch.float16)}

        def get_extra_state(self):
            return self.count

        def set_extra_state(self, state):
            self.count = state

    for save in (statedict.save, lambda model, path: torch.save(model.state_dict(), path)):
        model = Counter(1)
        save(Counter(7), tmp_path / "model.pt")
        statedict.load_state_dict(model, tmp_path / "model.pt")
        assert model.count == Counter(7).count
        assert type(model.count["t"]) is torch.Tensor
        assert type(model.count["size"][0]) is torch.Size
        with statedict.open(tmp_path / "model.pt") as checkpoint:
            opened = checkpoint.state_dict()["_extra_state"]
        assert torch.equal(opened["t"], torch.tensor(7.0))


@pytest.mark.parametrize(
    "kind", ["path", "file", "checkpoint", "state", "mapping", "numpy", "module", "nested", "root"]
)
def test_every_kind_of_source(tmp_path, model, api, kind):
    """Paths, files, Checkpoints, states, mappings (of arrays too), modules, and roots of a training checkpoint."""
    other = api.fill(api.Net(), 1)
    path, run = tmp_path / "model.pt", tmp_path / "run.pt"
    torch.save(other.state_dict(), path)
    torch.save({"model": other.state_dict(), "ema": {"shadow": model.state_dict()}, "epoch": 3}, run)
    with statedict.open(path) as checkpoint:
        source, options = {
            "path": (path, {}),
            "file": (io.BytesIO(path.read_bytes()), {}),
            "checkpoint": (checkpoint, {}),
            "state": (statedict.state_dict(other), {}),
            "mapping": (dict(other.state_dict()), {}),
            "numpy": ({name: np.asarray(value) for name, value in other.state_dict().items()}, {}),
            "module": (other, {}),
            "nested": ({"model": other.state_dict(), "epoch": 3}, {}),
            "root": (run, {"root": "model"}),
        }[kind]
        statedict.load_state_dict(model, source, **options)
    assert api.bits(model.state_dict()) == api.bits(other.state_dict())


def test_a_root_below_a_root(tmp_path, model, api):
    """Roots are joined by slashes."""
    other = api.fill(api.Net(), 1)
    torch.save({"model": model.state_dict(), "ema": {"shadow": other.state_dict()}}, tmp_path / "run.pt")
    statedict.load_state_dict(model, tmp_path / "run.pt", root="ema/shadow")
    assert api.bits(model.state_dict()) == api.bits(other.state_dict())


def test_a_model_loads_its_own_live_state(model, api):
    """A state that aliases the model, whole or permuted, is read before it is written."""
    before = api.plain(model)
    statedict.load_state_dict(model, statedict.state_dict(model))
    assert api.bits(model.state_dict()) == api.bits(before)
    twins = api.fill(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), 2)
    first, second = api.plain(twins[0]), api.plain(twins[1])
    live = statedict.state_dict(twins)
    statedict.load_state_dict(twins, {f"{1 - int(name[0])}{name[1:]}": value for name, value in live.items()})
    assert api.bits(twins[0].state_dict()) == api.bits(second)
    assert api.bits(twins[1].state_dict()) == api.bits(first)


def test_devices_by_pattern(tmp_path, state, api):
    """`device` places what is assigned, by pattern, with ties kept; a dry run reads nothing."""
    torch.save(state, tmp_path / "model.pt")
    for device in ("cpu", {"conv": "cpu", "*": torch.device("cpu")}):
        with torch.device("meta"):
            model = api.Net()
        assert statedict.load_state_dict(model, tmp_path / "model.pt", assign=True, device=device, dry_run=True).ok
        assert model.conv.weight.is_meta
        statedict.load_state_dict(model, tmp_path / "model.pt", assign=True, device=device)
        assert api.bits(model.state_dict()) == api.bits(state)
        assert model.head.weight is model.embed.weight
    with torch.device("meta"):
        model = api.Net()
    # the meta device stands for one that another pattern leaves alone
    report = statedict.load_state_dict(
        model, tmp_path / "model.pt", assign=True, device={"conv": "meta", "norm": "cpu"}, allow_missing="conv"
    )
    assert report.allowed == ["conv.weight", "conv.bias"]
    assert model.conv.weight.is_meta
    assert not model.norm.weight.is_meta


def test_a_file_of_a_gpu_loads_without_one(tmp_path, model, state, api):
    """Tensors that were saved from a GPU that is not here go where the model is; assigned ones to the CPU."""
    statedict.save(statedict.StateDict(state), tmp_path / "model.pt")
    members = unpacked(tmp_path / "model.pt")
    pickled = members["archive/data.pkl"]
    members["archive/data.pkl"] = pickled.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:7")
    assert members["archive/data.pkl"] != pickled
    (tmp_path / "gpu.pt").write_bytes(packed(members))
    expected = torch.load(tmp_path / "gpu.pt", map_location="cpu", weights_only=True)
    statedict.load_state_dict(model, tmp_path / "gpu.pt")
    assert api.bits(model.state_dict()) == api.bits(expected)
    with torch.device("meta"):
        empty = api.Net()
    statedict.load_state_dict(empty, tmp_path / "gpu.pt", assign=True)
    assert api.bits(empty.state_dict()) == api.bits(expected)
    assert statedict.load(tmp_path / "gpu.pt")["conv.bias"].device.type == "cpu"


@pytest.mark.parametrize("kinds", ["rounding", ["truncation", "trunc"]])
def test_a_kind_of_cast_that_there_is_not(model, state, kinds):
    """A misspelt kind would allow nothing: the error lists those that there are; one may come alone."""
    with pytest.raises(
        ValueError, match=r"is not a kind of lossy cast; use one of 'imaginary', 'overflow', 'truncation'"
    ):
        statedict.load_state_dict(model, state, allow_casts=kinds)
    assert statedict.load_state_dict(model, state, allow_casts="truncation").ok


def test_a_state_dict_method_of_its_own_is_asked(tmp_path):
    """What a class adds in its own `state_dict` is saved, snapshot and compared, as with PyTorch."""

    class Adding(nn.Linear):
        def state_dict(self, *args, **kwargs):
            state = super().state_dict(*args, **kwargs)
            state[kwargs.get("prefix", "") + "more"] = torch.ones(1)
            return state

    model = Adding(2, 2)
    statedict.save(model, tmp_path / "model.pt")
    assert list(torch.load(tmp_path / "model.pt", weights_only=True)) == ["weight", "bias", "more"]
    assert list(statedict.state_dict(model, prefix="a.")) == list(model.state_dict(prefix="a."))
    assert list(statedict.snapshot(model)) == ["weight", "bias", "more"]
    assert not statedict.diff(model, tmp_path / "model.pt")
    assert statedict.load_state_dict(nn.Linear(2, 2), model, allow_unexpected="more").ok


def lazily_normed():
    made = nn.LazyBatchNorm1d()
    made(torch.ones(2, 4))
    return made


@pytest.mark.parametrize("how", ["state", "file", "assign"])
def test_lazy_buffers(tmp_path, how):
    """Lazy modules take states of initialised ones, buffers included."""
    given, made = lazily_normed(), nn.LazyBatchNorm1d()
    statedict.save(given, tmp_path / "a.pt")
    source = given.state_dict() if how == "state" else tmp_path / "a.pt"
    statedict.load_state_dict(made, source, assign=how == "assign")
    assert all(torch.equal(one, other) for one, other in zip(made.state_dict().values(), given.state_dict().values()))


@pytest.mark.parametrize("make", [nn.LazyBatchNorm1d, lambda: nn.LazyLinear(4)])
def test_lazy_modules_that_were_saved_uninitialised(tmp_path, make):
    """What holds nothing yet is saved, copied and loaded as that; an initialised module refuses it."""
    statedict.save(make(), tmp_path / "a.pt")
    made = make()
    statedict.load_state_dict(made, tmp_path / "a.pt")
    statedict.load_state_dict(made, statedict.snapshot(make()))
    assert made.has_uninitialized_params()
    # Some of PyTorch's own loaders say so first, in its words.
    with pytest.raises(RuntimeError, match=r"is not initialized in the state|an uninitialized parameter"):
        statedict.load_state_dict(lazily_normed(), tmp_path / "a.pt", strict=False)


def test_a_refused_load_leaves_lazy_buffers_lazy():
    """A lazy buffer that was filled is without elements again when the load is refused."""
    made = nn.Sequential(nn.LazyBatchNorm1d(), nn.Linear(2, 2))
    given = nn.Sequential(lazily_normed(), nn.Linear(3, 3))
    with pytest.raises(LoadError, match="size mismatch"):
        statedict.load_state_dict(made, given)
    assert made[0].has_uninitialized_params()


def test_a_model_on_meta_is_told_of():
    """Where slots have no memory the refusal says so and advises `assign=True`."""
    with torch.device("meta"):
        empty = nn.Linear(4, 2)
    with pytest.raises(
        LoadError, match=r"2 missing names are in the source, but the model's tensors are on the meta device"
    ) as error:
        statedict.load_state_dict(empty, nn.Linear(4, 2))
    assert error.value.report.suggestions[0].call == "load_state_dict(model, source, assign=True)"
    renamed = {f"x.{name}": value for name, value in nn.Linear(4, 2).state_dict().items()}
    call = 'load_state_dict(model, source, assign=True, rename="x.{*p} -> {*p}")'
    for options in ({}, {"rename": "x.{*p} -> {*p}"}):
        with pytest.raises(LoadError, match=r"; 0 tensors would fit\n") as error:
            statedict.load_state_dict(empty, renamed, **options)
        assert [one.call for one in error.value.report.suggestions] == [call]


def test_buffers_that_stay_on_meta_are_named():
    """A meta model that was loaded may have non-persistent buffers without values still."""
    with torch.device("meta"):
        model = nn.Linear(2, 2)
        model.register_buffer("frequencies", torch.ones(2), persistent=False)
    report = statedict.load_state_dict(model, nn.Linear(2, 2), assign=True)
    assert "still on the meta device, without values: frequencies" in report.notes[0]
    assert "frequencies" in str(report)


class Part(nn.Module):
    """Saves its head only, and completes what it loads."""

    def __init__(self):
        super().__init__()
        self.frozen, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def state_dict(self, *args, **kwargs):
        found = super().state_dict(*args, **kwargs)
        for name in [name for name in found if "frozen." in name]:
            del found[name]
        return found

    def load_state_dict(self, state, strict=True, assign=False):
        frozen = {f"frozen.{name}": value for name, value in self.frozen.state_dict().items()}
        return super().load_state_dict({**frozen, **state}, strict, assign)


def test_a_pair_of_own_methods_is_honoured(tmp_path):
    """A class's own `state_dict` and `load_state_dict` are both used for the root."""
    given, made = Part(), Part()
    statedict.save(given, tmp_path / "a.pt")
    assert repr(statedict.load_state_dict(made, tmp_path / "a.pt")) == "<All keys matched successfully>"
    assert torch.equal(made.head.weight, given.head.weight)


@pytest.mark.parametrize("options", [{}, {"dry_run": True}])
def test_what_own_methods_did_is_undone(options):
    """A refused load, and a dry run, leave no trace of what such a method wrote."""
    made = Part()
    before = {name: value.clone() for name, value in nn.Module.state_dict(made).items()}
    state = {"head.weight": torch.zeros(2, 4), "head.bias": torch.zeros(2)}
    if options:
        statedict.load_state_dict(made, state, **options)
    else:
        with pytest.raises(
            LoadError, match=r"^Error\(s\) in loading state_dict for Part:\n\tsize mismatch for head.bias"
        ):
            statedict.load_state_dict(made, state | {"head.bias": torch.zeros(3)})
    assert all(torch.equal(value, before[name]) for name, value in nn.Module.state_dict(made).items())


def test_own_methods_may_be_allowed_names():
    """Names that are allowed to be missing are, for such a method too; others are not."""
    state = {"head.weight": torch.zeros(2, 4)}
    assert statedict.load_state_dict(Part(), state, allow_missing="head.bias").allowed == ["head.bias"]
    with pytest.raises(LoadError, match=r'Missing key\(s\) in state_dict: "head\.bias"'):
        statedict.load_state_dict(Part(), state, allow_missing="head.weight")


class Renaming(nn.Module):
    """Knows its older names when it loads."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def load_state_dict(self, state, strict=True, assign=False):
        return super().load_state_dict({name.replace("old.", "head."): state[name] for name in state}, strict, assign)


@pytest.mark.parametrize("source", ["mapping", "file", "module"])
def test_an_own_load_state_dict_alone_is_honoured(tmp_path, source):
    """A class that overrides `load_state_dict` only is loaded by it, whatever the source."""
    given = nn.ModuleDict({"old": nn.Linear(4, 2)})
    statedict.save(given, tmp_path / "a.pt")
    made = Renaming()
    statedict.load_state_dict(made, {"mapping": given.state_dict(), "file": tmp_path / "a.pt", "module": given}[source])
    assert torch.equal(made.head.weight, given["old"].weight)
    with pytest.raises(LoadError, match=r'Missing key\(s\) in state_dict: "head\.weight", "head\.bias"'):
        statedict.load_state_dict(made, {"other": torch.ones(1)})
    assert torch.equal(made.head.weight, given["old"].weight)


def test_an_own_load_state_dict_does_not_lose_elements():
    """Lossy casts are refused for a class with a loader of its own, too, and every cast is in the report."""
    state = {"head.weight": torch.full((2, 4), 1e300, dtype=torch.float64), "head.bias": torch.ones(2).double()}
    made = Renaming()
    before = made.head.weight.clone()
    with pytest.raises(LoadError, match=r'"head\.weight": casting float64 .* would lose values \(overflow\)'):
        statedict.load_state_dict(made, state)
    assert torch.equal(made.head.weight, before)
    report = statedict.load_state_dict(made, state, allow_casts="overflow")
    assert [cast.kind for cast in report.cast] == ["overflow", "rounding"]
    assert made.head.weight.isinf().all()


@pytest.mark.parametrize(
    "make", [lambda: torch.nn.Linear(2, 2), lambda: torch.optim.SGD([torch.nn.Parameter(torch.ones(2))])]
)
def test_a_dry_run_does_not_claim_to_have_loaded(make):
    """The report of a dry run says that nothing was loaded, in both of its texts."""
    obj = make()
    report = statedict.load_state_dict(obj, obj.state_dict(), dry_run=True)
    assert report.ok
    assert report.dry_run
    assert str(report).startswith("Dry run: would load ")
    assert repr(report).endswith(" would be loaded (dry run))")
    assert not statedict.load_state_dict(obj, obj.state_dict()).dry_run


@pytest.mark.parametrize("options", [{"include": "bias"}, {"exclude": "weight"}])
def test_a_selection_is_told(options):
    """If names were left out, the report says so instead of that all keys matched."""
    linear = torch.nn.Linear(2, 2)
    report = statedict.load_state_dict(linear, linear.state_dict(), **options)
    assert repr(report) == "LoadReport(missing_keys=[], unexpected_keys=[], 1 loaded, 1 excluded)"
    assert str(report) == "Loaded 1 tensor (1 excluded)"
