"""The audit: every kind of finding with a fix that works when pasted, and no alarm on PyTorch's own modules."""

import copy
import warnings
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass
from typing import Any, get_args

import pytest
import torch
from tests.cost import calls
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.testing._internal.common_modules import module_db

from statedict.torch.audit._find import audit
from statedict.torch.audit._findings import _WHY, AuditFinding, Kind


class Module(nn.Module):
    """A module with the given plain attributes."""

    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


def found(model, optimizer=None):
    return [(f.kind, f.path) for f in audit(model, optimizer)]


def fixes(model, optimizer=None):
    return [f.fix for f in audit(model, optimizer)]


Pair = namedtuple("Pair", "left right")


@dataclass
class Settings:
    mean: Any
    name: str = "x"


# no alarm


def modules():
    for info in module_db:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs = info.module_inputs_func(
                info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
            )
        for given in inputs[:1]:
            yield pytest.param(info.module_cls, given.constructor_input, id=info.name)


@pytest.mark.parametrize(("kind", "given"), list(modules()))
@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:Lazy modules")
def test_pytorchs_own_modules_give_no_alarm(kind, given):
    """None of PyTorch's modules has a finding, except that lazy ones have no shapes yet."""
    model = nn.Sequential(kind(*given.args, **given.kwargs))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if list(model.parameters()) else None
    lazy = [name for name, p in (*model.named_parameters(), *model.named_buffers()) if nn.parameter.is_lazy(p)]
    assert [("uninitialized", name) for name in lazy] == found(model, optimizer)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_pytorchs_utilities_give_no_alarm():
    """Weight norm, spectral norm, parametrizations and pruning, old and new, run and copied, have no finding."""
    linears = [nn.Linear(3, 3) for _ in range(6)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(linears[0])
        nn.utils.spectral_norm(linears[1])
    parametrizations.weight_norm(linears[2])
    parametrizations.spectral_norm(linears[3])
    parametrizations.orthogonal(linears[4])
    prune.l1_unstructured(linears[5], "weight", amount=0.5)
    model = nn.Sequential(*linears)
    assert found(model) == []
    model(torch.ones(1, 3)).sum().backward()
    assert found(model) == []
    model.eval()
    with torch.no_grad():
        model(torch.ones(1, 3))
    assert found(model) == []


@pytest.mark.parametrize(
    "wrap", [lambda m: torch.optim.swa_utils.AveragedModel(m), lambda m: copy.deepcopy(m), nn.DataParallel]
)
def test_wrappers_give_no_alarm(wrap):
    """Averages, copies and data-parallel wrappers have no finding."""
    assert found(wrap(nn.Sequential(nn.LSTM(2, 2), nn.BatchNorm1d(2)))) == []


def test_back_references_and_views_give_no_alarm():
    """A parent kept in a list, an alias of a registered parameter, and a cycle of lists are not findings."""
    child = Module()
    parent = nn.Sequential(child, nn.Linear(2, 2))
    loop = [1]
    loop.append(loop)
    child.up, child.loop = [parent], loop
    assert found(child) == []
    child.alias, child.view = [parent[1].weight], parent[1].weight.data[0]
    child.result = parent[1].weight * 2
    assert found(parent) == []


def test_a_class_that_saves_its_tensors_itself_gives_no_alarm():
    """Tensors in plain attributes of a class with extra state are that class's affair; hidden modules are found still."""

    class Saves(Module):
        def get_extra_state(self):
            return self.table

    assert found(Saves(table=torch.ones(2), parts=[nn.ReLU()])) == [("hidden module", "parts[0]")]


# what is hidden


@pytest.mark.parametrize(
    ("value", "path", "fix"),
    [
        (lambda t: t, "x", 'self.register_buffer("x", x)'),
        (lambda t: [1, t], "x[1]", 'self.register_buffer("x_1", x[1])'),
        (lambda t: (t,), "x[0]", 'self.register_buffer("x_0", x[0])'),
        (lambda t: {t}, "x[0]", 'self.register_buffer("x_0", x[0])'),
        (lambda t: deque([t]), "x[0]", 'self.register_buffer("x_0", x[0])'),
        (lambda t: {"key": t}, "x['key']", "self.register_buffer(\"x_key\", x['key'])"),
        (lambda t: OrderedDict({3: [t]}), "x[3][0]", 'self.register_buffer("x_3_0", x[3][0])'),
        (lambda t: Pair(None, t), "x.right", 'self.register_buffer("x_right", x.right)'),
        (lambda t: Settings(t), "x.mean", 'self.register_buffer("x_mean", x.mean)'),
        (lambda t: {"deep": [Settings((t,))]}, "x['deep'][0].mean[0]", None),
    ],
)
def test_plain_tensors_are_found_wherever_they_are(value, path, fix):
    """A tensor in an attribute, or in any container there, is found with its path and a fix."""
    model = nn.Sequential(Module(x=value(torch.ones(2)), y="text", z=[1, None, "a"]))
    (only,) = audit(model)
    assert (only.kind, only.path) == ("plain tensor", f"0.{path}")
    assert fix in (None, only.fix)
    assert "not in state_dict()" in only.why


def test_hidden_parameters_and_modules_are_found():
    """Parameters and modules in lists, dicts and elsewhere are found, each once, and the fix registers them."""
    linear, shared = nn.Linear(1, 1), nn.Parameter(torch.ones(1))
    model = Module(
        blocks=[linear, nn.ReLU()], named={"a": nn.Linear(1, 1)}, odd={1: nn.Identity()}, ps=[shared, shared]
    )
    model.deep = [[nn.Parameter(torch.ones(1))]]
    model.__dict__["direct"] = nn.Linear(1, 1)
    assert found(model) == [
        ("hidden module", "blocks[0]"),
        ("hidden module", "blocks[1]"),
        ("hidden module", "named['a']"),
        ("hidden module", "odd[1]"),
        ("hidden parameter", "ps[0]"),
        ("hidden parameter", "deep[0][0]"),
        ("hidden module", "direct"),
    ]
    assert fixes(model) == [
        "self.blocks = torch.nn.ModuleList(blocks)",
        "self.blocks = torch.nn.ModuleList(blocks)",
        "self.named = torch.nn.ModuleDict(named)",
        'self.add_module("odd_1", odd[1])',
        "self.ps = torch.nn.ParameterList(ps)",
        'self.register_parameter("deep_0_0", deep[0][0])',
        'self.add_module("direct", direct)',
    ]


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(2),
        [torch.ones(2)],
        {"k-1": torch.ones(2)},
        [nn.Parameter(torch.ones(2))],
        {"k": nn.Parameter(torch.ones(2))},
        {1: nn.Parameter(torch.ones(2))},
        [nn.Linear(1, 1)],
        {"k": nn.Linear(1, 1)},
        Settings(nn.Linear(1, 1)),
    ],
    ids=repr,
)
def test_the_fix_works_when_it_is_pasted(value):
    """The code given for the constructor registers the thing: the mended model has it in its state, and no finding."""
    (only,) = audit(Module(x=value))
    mended = Module()
    exec(only.fix, {"self": mended, "x": value, "torch": torch})
    assert found(mended) == []
    assert len(mended.state_dict()) == (2 if "module" in only.kind else 1)


# what is registered


def test_buffers():
    """Buffers that are not saved, or that a gradient flows into and no optimizer trains, are found."""
    model = Module()
    model.register_buffer("cache", torch.ones(1), persistent=False)
    model.register_buffer("scale", torch.ones(1, requires_grad=True))
    model.register_buffer("fine", torch.ones(1))
    model.register_buffer("none", None)
    assert found(model) == [("non-persistent buffer", "cache"), ("buffer with gradient", "scale")]
    assert fixes(model) == ['self.register_buffer("cache", cache)', "self.scale = torch.nn.Parameter(scale)"]


def test_ties_and_shared_modules():
    """One parameter under two names and one module at two places are found once each, with all their names."""
    model = nn.ModuleDict({"embed": nn.Embedding(4, 2), "head": nn.Linear(2, 4, bias=False)})
    model["head"].weight = model["embed"].weight
    model["again"] = model["twice"] = nn.Linear(1, 1)
    assert found(model) == [("shared module", "again"), ("tied", "embed.weight")]
    shared, tied = audit(model)
    assert "(embed.weight, head.weight)" in tied.why
    assert "(again, twice)" in shared.why
    for one in (shared, tied):
        exec(
            one.fix.replace("model.again", "model['again']").replace("model.twice", "model['twice']"),
            {"model": model, "copy": copy},
        )
    assert found(model) == [("tied", "embed.weight")]


def test_overlapping_memory():
    """Different parameters over the same elements are found; neighbours in one buffer are not."""
    flat = torch.zeros(10)
    model = Module(
        a=nn.Parameter(flat[:4]), b=nn.Parameter(flat[4:8]), c=nn.Parameter(flat[6:]), d=nn.Parameter(flat[9:])
    )
    assert found(model) == [("overlapping", "c"), ("overlapping", "d")]
    assert [f.why.split()[3] for f in audit(model)] == ["b", "c"]


def test_tensors_without_elements():
    """Meta tensors and lazy parameters are found."""
    model = nn.ModuleList([nn.Linear(2, 2, device="meta"), nn.LazyLinear(2)])
    assert found(model) == [
        ("meta", "0.weight"),
        ("meta", "0.bias"),
        ("uninitialized", "1.weight"),
        ("uninitialized", "1.bias"),
    ]
    model[0].to_empty(device="cpu")
    assert [kind for kind, _ in found(model)] == ["uninitialized"] * 2


def test_names_that_cannot_be_loaded():
    """A child whose name has a dot, or is empty, is found: PyTorch saves it and cannot load it."""
    model = Module()
    setattr(model, "a.b", nn.Linear(1, 1))
    setattr(model, "", nn.ReLU())
    assert found(model) == [("name", "a.b"), ("name", "")]
    assert fixes(model) == ['self.add_module("a_b", ...)', 'self.add_module("child", ...)']


def test_a_module_inside_itself():
    """A cycle of modules ends the walk, and is found; cutting it as told leaves nothing to find."""
    model = nn.Module()
    model.inner = nn.Module()
    model.inner.outer = model
    (only,) = audit(model)
    assert (only.kind, only.path) == ("endless", "inner.outer")
    exec(only.fix, {"model": model})
    assert found(model) == []


# the optimizer


def test_what_the_optimizer_holds():
    """Parameters that it does not hold, that it holds frozen, and that only it has, are found; the fixes mend it."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    stray = nn.Parameter(torch.ones(1))
    model[0].bias.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    optimizer = torch.optim.SGD([{"params": [model[0].weight, model[0].bias]}, {"params": [stray]}], lr=0.1)
    assert found(model, optimizer) == [
        ("frozen", "0.bias"),
        ("not trained", "1.weight"),
        ("not saved", "optimizer.param_groups[1]['params'][0]"),
    ]
    assert "SGD(model.parameters(), ...)" in fixes(model, optimizer)[2]
    for fix in fixes(model, optimizer)[:2]:
        exec(fix, {"model": model, "optimizer": optimizer})
    assert [kind for kind, _ in found(model, optimizer)] == ["not saved"]


def test_replaced_parameters_are_seen():
    """A parameter that was replaced after the optimizer was made is trained and not saved, and the new one not trained."""
    model = nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.Adam(model.parameters())
    model.load_state_dict(model.state_dict(), assign=True)
    assert found(model, optimizer) == [
        ("not trained", "weight"),
        ("not saved", "optimizer.param_groups[0]['params'][0]"),
    ]


def test_several_optimizers_are_one():
    """With several optimizers, a parameter is held when one of them holds it."""
    model = nn.Linear(2, 2)
    two = [torch.optim.SGD([parameter], lr=0.1) for parameter in model.parameters()]
    assert found(model, two) == []
    assert [kind for kind, _ in found(model, two[:1])] == ["not trained"]
    assert found(nn.Linear(1, 1, bias=False), two[1:])[1] == ("not saved", "optimizer.param_groups[0]['params'][0]")


# findings, and what an audit costs


def test_a_finding_reads_well():
    """A finding says where, why and what to do, and is a frozen value."""
    (only,) = audit(Module(mean=torch.ones(1)))
    assert str(only) == (
        "mean: a plain tensor attribute is not in state_dict(), and does not move with the model. "
        'Fix: self.register_buffer("mean", mean)'
    )
    assert only == AuditFinding(only.kind, only.path, only.why, only.fix)
    with pytest.raises(AttributeError):
        only.path = "x"


def test_every_kind_has_words():
    """Every kind of finding has its sentence."""
    assert set(get_args(Kind)) == set(_WHY)


def test_nothing_is_changed():
    """An audit changes neither the model nor its attributes."""
    model = Module(x=[torch.ones(1)], lin=nn.Linear(1, 1))
    before, state = dict(vars(model)), copy.deepcopy(model.state_dict())
    audit(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert before == vars(model)
    assert str(state) == str(model.state_dict())


def test_an_audit_is_linear_and_not_recursive():
    """A list of 100,000 tensors, 5,000 nested lists and a chain of 3,000 modules do not exceed the recursion limit; four
    times the model takes about four times the calls."""

    def model(tensors, depth, modules):
        deep = innermost = []
        for _ in range(depth):
            innermost.append([])
            innermost = innermost[0]
        innermost.append(torch.ones(1))
        chain = last = Module(many=list(torch.zeros(tensors)), deep=deep)
        for _ in range(modules):
            last.next = nn.Module()
            last = last.next
        return chain

    assert len(audit(model(100_000, 5_000, 3_000))) == 100_001
    large, small = model(6_000, 800, 400), model(1_500, 200, 100)
    assert calls(lambda: audit(large)) <= 6 * calls(lambda: audit(small))


class HeadOnly(nn.Sequential):
    """Its own `state_dict` leaves its body out."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        found = super().state_dict(*args, **kwargs)
        for name in [name for name in found if name.endswith("0.weight")]:
            del found[name]
        return found


def test_names_that_an_own_state_dict_leaves_out() -> None:
    """A `state_dict` of a class's own that drops names is told of, at any depth."""
    model = nn.ModuleDict({"part": HeadOnly(nn.Linear(2, 2), nn.Linear(2, 2))})
    [found] = [finding for finding in audit(model) if finding.kind == "own state"]
    assert (found.path, "omits 0.weight" in found.why) == ("part", True)
