"""What an error suggests was tried: whoever follows it succeeds; and where nothing works, nothing is suggested."""

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import statedict
from statedict.errors import LoadError

CALL = re.compile(r"^    (.*load_state_dict\(model, source.*\)|print\(.*\))$", re.MULTILINE)


def followed(call, names):
    """What comes of a call that was printed."""
    return eval(call, names)  # noqa: S307


def state(module, prefix=""):
    return {prefix + name: value.clone() for name, value in module.state_dict().items()}


def tower():
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))


class Net(nn.Module):
    def __init__(self, classes=4, head="head"):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.LayerNorm(8))
        self.add_module(head, nn.Linear(8, classes))


class Adapted(nn.Module):
    """A layer with LoRA beside it, under the name that a library gives it."""

    def __init__(self, base, name):
        super().__init__()
        self.add_module(name, base)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, base.out_features, bias=False)})


def adapted(name):
    net = Net()
    net.backbone[0] = Adapted(net.backbone[0], name)
    return net


def layers(parts, prefix=""):
    made = nn.ModuleList(nn.ModuleDict({name: make() for name, make in parts.items()}) for _ in range(3))
    return state(nn.ModuleDict({"layers": made}), prefix), nn.ModuleDict({"layers": made})


def attention(query):
    return {query: lambda: nn.Linear(3, 3), "norm": lambda: nn.LayerNorm(3)}


def bert():
    inside = {"encoder": nn.Linear(3, 3), "pooler": nn.ModuleDict({"dense": nn.Linear(3, 3)})}
    return nn.ModuleDict({"bert": nn.ModuleDict(inside), "classifier": nn.Linear(3, 2)})


def masked_language_model():
    return {
        **state(nn.Linear(3, 3), "bert.encoder."),
        **state(nn.Linear(3, 3), "cls.predictions.transform.dense."),
        **state(nn.LayerNorm(3), "cls.predictions.transform.LayerNorm."),
        "cls.predictions.bias": torch.ones(9),
    }


def vocabulary(rows, **heads):
    return nn.ModuleDict({"embed": nn.Embedding(rows, 4), **heads})


TRANSPOSED = {
    name: value.T.contiguous() if value.ndim == 2 else value for name, value in state(nn.Linear(4, 12)).items()
}
# The model, the source, and what the error's suggestions have; none where nothing would work.
SITUATIONS = {
    "a prefix": (tower(), state(tower(), "backbone."), ['rename="backbone.{*p} -> {*p}")']),
    "a part of the model": (
        nn.ModuleDict({"backbone": tower(), "x": nn.Linear(1, 1)}),
        state(tower()),
        ["into='backbone'"],
    ),
    "Lightning, with a loss": (
        tower(),
        {**state(tower(), "model."), "loss_fn.w": torch.ones(2)},
        ["rename=\"model.{*p} -> {*p}\", include='model')"],
    ),
    "MoCo": (
        tower(),
        {**state(tower(), "module.encoder_q."), **state(tower(), "module.encoder_k."), "module.queue": torch.ones(3)},
        ['"module.encoder_q.{*p} -> {*p}"', '"module.encoder_k.{*p} -> {*p}"'],
    ),
    "another head, alone": (nn.Linear(8, 3), {"weight": torch.zeros(10, 8), "bias": torch.zeros(10)}, []),
    "another head": (Net(), state(Net(10)), ["mismatched={'head': 'skip'})"]),
    "another head below a prefix": (
        Net(),
        state(Net(10), "model."),
        ["\"model.{*p} -> {*p}\", mismatched={'head': 'skip'}"],
    ),
    "a head of another name": (Net(), state(Net(2, "fc")), ["allow_missing='head', allow_unexpected='fc'"]),
    "no head": (Net(), state(Net().backbone, "backbone."), ["allow_missing='head'"]),
    "a prefix, and other shapes": (
        nn.Sequential(nn.Linear(4, 3)),
        {"backbone.0.weight": torch.zeros(16, 8), "backbone.0.bias": torch.zeros(16)},
        [],
    ),
    "two rules": (
        layers(attention("q"))[1],
        layers(attention("query"), "model.")[0],
        ["rename=['model.layers.{i}.query.{*p} -> layers.{i}.q.{*p}', 'model.{*p} -> {*p}']"],
    ),
    "a layer of another meaning": (bert(), masked_language_model(), ["print(statedict.match(model, source))"]),
    "a convolution of size 1": (nn.Linear(4, 3), state(nn.Conv2d(4, 3, 1)), ['"weight -> weight | reshape 3 4"']),
    "a linear layer for one": (nn.Conv2d(4, 3, 1), state(nn.Linear(4, 3)), ['"weight -> weight | reshape 3 4 1 1"']),
    "transposed": (nn.Linear(4, 12), TRANSPOSED, ['"weight -> weight | transpose"']),
    "a number for a vector": (
        nn.ParameterDict({"p": nn.Parameter(torch.zeros(1))}),
        {"p": torch.tensor(5.0)},
        ['"p -> p | reshape 1"'],
    ),
    "a larger vocabulary": (
        vocabulary(60, out=nn.Linear(4, 2)),
        state(vocabulary(50, out=nn.Linear(4, 2))),
        ["{'embed.weight': 'slice'}"],
    ),
    "a larger vocabulary and its head": (
        vocabulary(60, out=nn.Linear(4, 60)),
        state(vocabulary(50, out=nn.Linear(4, 50))),
        ["{'embed.weight': 'slice', 'out.weight': 'slice', 'out.bias': 'slice'}"],
    ),
    "three in one": (
        nn.ModuleDict({"qkv": nn.Linear(3, 9)}),
        {name: value for part in "qkv" for name, value in state(nn.Linear(3, 3), f"{part}.").items()},
        ["print(statedict.match(model, source))"],
    ),
    "LoRA in the source": (Net(), state(adapted("base_layer")), ["print(statedict.match(model, source))"]),
    "LoRA of another name in the source": (Net(), state(adapted("base")), ["print(statedict.match(model, source))"]),
    "LoRA in the model": (adapted("base_layer"), state(Net()), ["print(statedict.match(model, source))"]),
    "a checkpoint inside": (
        tower(),
        statedict.StateDict({"state": {"model": state(tower())}, "epoch": 3}),
        ["root='state/model'"],
    ),
    "weight norm in the source": (
        nn.Sequential(nn.Linear(3, 2)),
        state(nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2)))),
        [],
    ),
    "spectral norm in the model": (
        nn.Sequential(parametrizations.spectral_norm(nn.Linear(3, 2))),
        state(nn.Sequential(nn.Linear(3, 2))),
        [],
    ),
    "a pruned source": (
        nn.Sequential(nn.Linear(3, 2)),
        state(nn.Sequential(prune.identity(nn.Linear(3, 2), "weight"))),
        [],
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_is_suggested_works(situation):
    """Each call that the error prints does what is asked for, and there are no others than those."""
    model, source, expected = SITUATIONS[situation]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(LoadError) as caught:
        statedict.load_state_dict(model, source)
    calls = CALL.findall(str(caught.value))
    assert len(calls) == len(expected)
    for call, part in zip(calls, expected):
        assert part in call
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    names = {"statedict": statedict, "load_state_dict": statedict.load_state_dict, "model": model, "source": source}
    for call in calls:
        if call.startswith("print"):
            assert followed(call, names | {"print": lambda found: found}).steps
        else:
            report = followed(call, names)
            assert report.ok
            assert report.loaded


def test_a_sub_module_into_a_bare_one(tmp_path):
    """With the caller's own arguments, what is suggested has those that are needed."""
    statedict.save(Net(), tmp_path / "net.pt")
    with pytest.raises(LoadError) as caught:
        statedict.load_state_dict(nn.Linear(8, 4), tmp_path / "net.pt", include="head")
    (call,) = CALL.findall(str(caught.value))
    assert call == "load_state_dict(model, source, include='head', rename=\"head.{*p} -> {*p}\")"
    names = {"load_state_dict": statedict.load_state_dict, "model": nn.Linear(8, 4), "source": tmp_path / "net.pt"}
    assert followed(call, names).ok


def test_what_is_fixed_stays(tmp_path):
    """The part of the model and the root that were asked for are in every call."""
    model = nn.ModuleDict({"part": tower()})
    source = {"one": state(tower(), "x."), "two": {"w": torch.ones(1)}}
    with pytest.raises(LoadError) as caught:
        statedict.load_state_dict(model, source, into="part", root="one")
    (call,) = CALL.findall(str(caught.value))
    assert call == "load_state_dict(model, source, into='part', root='one', rename=\"x.{*p} -> {*p}\")"
    assert followed(call, {"load_state_dict": statedict.load_state_dict, "model": model, "source": source}).ok


def test_what_the_loader_refuses_is_not_suggested():
    """A call that is fine by names and shapes, and fails for the values, is not advice."""
    model = nn.Linear(2, 2).half()
    source = {f"net.{name}": value.float() * 0 + 1e9 for name, value in state(nn.Linear(2, 2)).items()}
    with pytest.raises(LoadError) as caught:
        statedict.load_state_dict(model, source)
    assert CALL.findall(str(caught.value)) == ["print(statedict.match(model, source))"]


def test_a_dry_run_is_advised_too():
    """A dry run's report has the same suggestions, and can be kept, pickled and printed afterwards."""
    report = statedict.load_state_dict(tower(), state(tower(), "backbone."), dry_run=True)
    assert report.attempt is None
    assert [one.call for one in report.suggestions] == [
        'load_state_dict(model, source, rename="backbone.{*p} -> {*p}")'
    ]
    partly = statedict.load_state_dict(tower(), state(tower(), "backbone."), strict=False)
    assert partly.suggestions == report.suggestions


def test_parts_of_a_weight_are_not_meant_for_it():
    """A near miss that would load and be wrong is not offered; what the parts are is said instead."""
    with pytest.raises(
        LoadError, match=r"'0\.weight' .* is stored in parts in the source: merge the parts into one weight"
    ) as caught:
        statedict.load_state_dict(*SITUATIONS["weight norm in the source"][:2])
    assert "did you mean" not in str(caught.value)
    with pytest.raises(LoadError, match="is stored in parts in the model, but as one weight in the source") as caught:
        statedict.load_state_dict(*SITUATIONS["spectral norm in the model"][:2])
    assert "did you mean" not in str(caught.value)


def test_a_report_says_all_keys_matched_only_where_they_did():
    """PyTorch's words are kept for loads of everything."""
    net = Net()
    nothing = statedict.load_state_dict(net, {"zzz": torch.ones(1)}, allow_missing="*", allow_unexpected="*")
    assert repr(nothing) == "LoadReport(missing_keys=[], unexpected_keys=[], 0 loaded, 13 allowed)"
    skipped = statedict.load_state_dict(net, state(Net(10)), mismatched="skip")
    assert repr(skipped).endswith(", 2 skipped)")
    assert repr(statedict.load_state_dict(net, Net())) == "<All keys matched successfully>"
    excluded = statedict.load_state_dict(net, {}, exclude="*")
    assert "0 loaded" in repr(excluded)


def test_the_root_that_was_taken_is_told(tmp_path):
    """Where a file has a model and its average, the report names the one that was loaded, and the other."""
    torch.save({"model": state(tower()), "ema": state(tower())}, tmp_path / "run.pt")
    report = statedict.load_state_dict(tower(), tmp_path / "run.pt")
    assert (report.root, report.other_roots) == ("model", ["ema"])
    assert str(report) == "Loaded 4 tensors; used root 'model', the source also has 'ema'"
    assert statedict.load_state_dict(tower(), tmp_path / "run.pt", root="ema").other_roots == []
    with pytest.raises(LoadError) as caught:
        statedict.load_state_dict(
            nn.ModuleDict({"a": nn.Linear(3, 3)}), {"model": state(tower()), "ema": state(nn.Linear(3, 3), "a.")}
        )
    assert CALL.findall(str(caught.value)) == ["load_state_dict(model, source, root='ema')"]


def test_a_refused_load_says_that_nothing_was_changed():
    """The error of a refused load counts the tensors that would fit, and says that nothing was changed."""
    with pytest.raises(LoadError, match=r"\n\nNothing was changed: 2 missing; 11 tensors would fit\n"):
        statedict.load_state_dict(Net(), state(Net().backbone, "backbone."))


def test_advice_never_hides_the_error():
    """A hook that raises when a suggestion is tried leaves the error that the load was refused with."""
    model, calls = tower(), []

    def hook(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise KeyError("a hook")

    model.register_load_state_dict_pre_hook(hook)
    with pytest.raises(LoadError, match="Missing key") as caught:
        statedict.load_state_dict(model, state(tower(), "backbone."))
    assert len(calls) > 1
    assert not any("rename" in call for call in CALL.findall(str(caught.value)))
