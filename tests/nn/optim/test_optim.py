"""Optimizers step as PyTorch's do, and their states move between the two."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import statedict
from statedict import nn
from statedict.errors import LoadError

positive = st.sampled_from([0.0, 0.1, 0.9])


@st.composite
def optimizers(draw):
    """(class name, settings) that both accept."""
    kind = draw(st.sampled_from(["SGD", "Adam", "AdamW"]))
    chosen = {
        "lr": draw(st.sampled_from([0.1, 0.01])),
        "weight_decay": draw(positive),
        "maximize": draw(st.booleans()),
    }
    if kind == "SGD":
        chosen["momentum"] = draw(positive)
        chosen["nesterov"] = bool(chosen["momentum"]) and draw(st.booleans())
        chosen["dampening"] = 0 if chosen["nesterov"] else draw(positive)
    else:
        chosen |= {"betas": (draw(positive), draw(positive)), "eps": 1e-3, "amsgrad": draw(st.booleans())}
    if kind == "Adam":
        chosen["decoupled_weight_decay"] = draw(st.booleans())
    return kind, chosen


def pair(kind, chosen, shapes=((3, 2), (3,)), groups=False):
    """PyTorch's optimizer and ours, with equal parameters, some in a group of their own."""
    theirs = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    ours = [nn.Parameter(p.detach().numpy().copy()) for p in theirs]
    given_ = []
    for parameters in (theirs, ours):
        if groups:
            parameters = [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.5}]
        given_.append(parameters)
    return getattr(torch.optim, kind)(given_[0], **chosen), getattr(nn.optim, kind)(given_[1], **chosen)


def parameters_of(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def step(theirs, ours, skip=()):
    """One step of both with the same gradients; those of `skip` have none."""
    for i, (p, q) in enumerate(zip(parameters_of(theirs), parameters_of(ours))):
        p.grad = None if i in skip else torch.randn(p.shape)
        q.grad = None if i in skip else p.grad.numpy()
    theirs.step()
    ours.step()


def assert_alike(theirs, ours, same):
    same(parameters_of(theirs), parameters_of(ours), atol=1e-5)
    expected, actual = theirs.state_dict(), ours.state_dict()
    assert actual["param_groups"] == expected["param_groups"]
    assert list(actual["state"]) == list(expected["state"])
    for number, values in expected["state"].items():
        assert list(values) == list(actual["state"][number])
        same(list(values.values()), list(actual["state"][number].values()), atol=1e-5)


@settings(max_examples=60)
@given(drawn=optimizers(), groups=st.booleans(), skip=st.sampled_from([(), (0,), (1,)]))
def test_steps_and_states(drawn, groups, skip, same):
    """Parameters, states and settings are PyTorch's after any number of steps, with and without groups."""
    torch.manual_seed(0)
    theirs, ours = pair(*drawn, groups=groups)
    assert_alike(theirs, ours, same)
    for _ in range(3):
        step(theirs, ours, skip)
        assert_alike(theirs, ours, same)


@settings(max_examples=30)
@given(drawn=optimizers(), through_file=st.booleans())
def test_runs_move_between_the_two(drawn, through_file, same, tmp_path_factory):
    """A run that began with either goes on with the other, step for step."""
    torch.manual_seed(0)
    theirs, ours = pair(*drawn)
    for _ in range(2):
        step(theirs, ours)
    kind, _ = drawn
    continued = getattr(nn.optim, kind)(
        [nn.Parameter(p.detach().numpy().copy()) for p in parameters_of(theirs)], lr=1.0
    )
    back = getattr(torch.optim, kind)([torch.nn.Parameter(torch.tensor(p.data)) for p in parameters_of(ours)], lr=1.0)
    path = tmp_path_factory.mktemp("run") / "optimizer.pt"
    if through_file:
        torch.save(theirs.state_dict(), path)
        with statedict.open(path) as file:
            continued.load_state_dict(file.object)
    else:
        continued.load_state_dict(theirs.state_dict())
    statedict.save({"optimizer": ours.state_dict(), "epoch": 2}, path)
    back.load_state_dict(torch.load(path)["optimizer"])
    for _ in range(2):
        gradients = [torch.randn(p.shape) for p in parameters_of(theirs)]
        for optimizer in (theirs, ours, continued, back):
            for p, g in zip(parameters_of(optimizer), gradients):
                p.grad = g.clone() if isinstance(p, torch.Tensor) else g.numpy()
            optimizer.step()
    assert_alike(theirs, ours, same)
    assert_alike(theirs, continued, same)
    assert_alike(back, ours, same)


@settings(max_examples=30)
@given(drawn=optimizers(), given_as=st.sampled_from(["state", "optimizer"]))
def test_live_runs_move_by_the_public_verb(drawn, given_as, same):
    """`load_state_dict` takes either's live state, or the optimizer itself, into the other; memory is not shared."""
    torch.manual_seed(0)
    theirs, ours = pair(*drawn)
    step(theirs, ours)
    kind, _ = drawn
    continued = getattr(nn.optim, kind)([nn.Parameter(np.array(p.data)) for p in parameters_of(ours)], lr=1.0)
    back = getattr(torch.optim, kind)([torch.nn.Parameter(torch.tensor(p.data)) for p in parameters_of(ours)], lr=1.0)
    sources = (theirs, ours) if given_as == "optimizer" else (theirs.state_dict(), ours.state_dict())
    for optimizer, source in zip((continued, back), sources):
        statedict.load_state_dict(optimizer, source)
    everyone = (theirs, ours, continued, back)
    for _ in range(2):
        gradients = [torch.randn(p.shape) for p in parameters_of(theirs)]
        for optimizer in everyone:
            for p, g in zip(parameters_of(optimizer), gradients):
                p.grad = g.clone() if isinstance(p, torch.Tensor) else g.numpy().copy()
            optimizer.step()
    assert_alike(theirs, ours, same)
    assert_alike(theirs, continued, same)
    assert_alike(back, ours, same)


@pytest.mark.parametrize("library", ["numpy", "torch", "array_api_strict", "jax.numpy"])
def test_arrays_of_any_library_become_state_of_torch(library):
    """Arrays of any library become state of torch by name, before hooks see them; arrays without numbers are refused."""
    lib = pytest.importorskip(library)
    ours = nn.optim.SGD([(name, nn.Parameter(lib.zeros((2, 3)))) for name in "ab"], lr=0.1, momentum=0.9)
    ours.step(grads={"a": lib.zeros((2, 3)), "b": lib.ones((2, 3))})
    reordered = {name: torch.nn.Parameter(torch.zeros(2, 3)) for name in "ba"}
    theirs = torch.optim.SGD(list(reordered.items()), lr=1.0, momentum=0.9)
    seen = []
    theirs.register_load_state_dict_pre_hook(lambda optimizer, state: seen.append(state["state"][1]["momentum_buffer"]))
    statedict.load_state_dict(theirs, ours)
    assert theirs.state[reordered["b"]]["momentum_buffer"].tolist() == [[1.0] * 3] * 2
    assert [type(value) for value in seen] == [torch.Tensor]
    state = ours.state_dict()
    state["state"][0]["momentum_buffer"] = np.array([["a"] * 3] * 2, object)
    with pytest.raises(LoadError, match=r"'momentum_buffer' must have shape .* has ndarray"):
        statedict.load_state_dict(theirs, state)


def test_arrays_that_a_class_of_its_own_keeps_stay_arrays():
    """The state of an optimizer that is not PyTorch's stays as it is: it need not consist of tensors."""

    class Counting(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        def step(self, closure=None):
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["seen"] = np.ones(2)

    one, other = (Counting([torch.nn.Parameter(torch.ones(2))]) for _ in range(2))
    one.step()
    statedict.load_state_dict(other, one)
    (state,) = other.state.values()
    assert type(state["seen"]) is np.ndarray


def test_gradients_given_to_step():
    """Gradients may be given by position or by name; None leaves a parameter as it is."""
    model = nn.Linear(1, 1)
    weight, bias = model.weight.data.copy(), model.bias.data.copy()
    nn.optim.SGD(model.parameters(), lr=1.0).step(grads=[np.ones((1, 1), np.float32), None])
    assert (model.weight.data == weight - 1).all()
    assert (model.bias.data == bias).all()
    by_name = nn.optim.SGD(model.named_parameters(), lr=1.0)
    by_name.step(grads={"bias": np.ones(1, np.float32)})
    assert (model.bias.data == bias - 1).all()
    with pytest.raises(ValueError, match="gradients for unknown parameters: 'other'"):
        by_name.step(grads={"other": 1})
    with pytest.raises(ValueError, match="1 gradients for 2 parameters"):
        by_name.step(grads=[None])


def test_closures(lib):
    """A closure is called first, and its loss returned."""
    layer = lib.nn.Linear(1, 1)
    optimizer = lib.optim.SGD(layer.parameters(), lr=0.1)
    assert optimizer.step(lambda: 3.5) == 3.5


def test_states_are_live_and_loads_are_copies():
    """A state dict shows later steps; what was loaded is the optimizer's own."""
    (theirs, ours), other = pair("Adam", {}), pair("Adam", {})[1]
    step(theirs, ours)
    state = ours.state_dict()
    before = state["state"][0]["exp_avg"].copy()
    other.load_state_dict(state)
    step(theirs, ours)
    assert (state["state"][0]["exp_avg"] != before).any()
    assert (other.state_dict()["state"][0]["exp_avg"] == before).all()


def test_zero_grad():
    """Gradients are forgotten, or filled with zeros."""
    theirs, ours = pair("SGD", {"lr": 0.1})
    step(theirs, ours)
    ours.zero_grad(set_to_none=False)
    assert not any(p.grad.any() for p in parameters_of(ours))
    ours.zero_grad()
    assert all(p.grad is None for p in parameters_of(ours))


def test_names_bring_states_to_their_parameters():
    """Where both have names, a state finds its parameter though the order changed."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = nn.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    optimizer.step(grads={name: np.full(p.shape, i, "f4") for i, (name, p) in enumerate(model.named_parameters())})
    swapped = nn.optim.SGD(list(model.named_parameters())[::-1], lr=0.1, momentum=0.9)
    swapped.load_state_dict(optimizer.state_dict())
    assert all(
        (optimizer.state[p]["momentum_buffer"] == swapped.state[p]["momentum_buffer"]).all() for p in model.parameters()
    )
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_states_that_do_not_fit(both, raised):
    """A different number of groups or parameters is refused in PyTorch's words."""
    texts = []
    for lib in both:
        two = [lib.nn.Parameter(lib.xp.ones((2,))), lib.nn.Parameter(lib.xp.ones((2,)))]
        one = lib.optim.SGD(two[:1], lr=0.1)
        state = lib.optim.SGD(two, lr=0.1).state_dict()
        groups = lib.optim.SGD([{"params": two[:1]}, {"params": two[1:]}], lr=0.1).state_dict()
        texts += [raised(lambda one=one, s=s: one.load_state_dict(s)) for s in (state, groups)]
    assert texts[:2] == texts[2:]
    assert texts[0][0] == "ValueError"


def test_states_that_pytorch_would_fail_on_later():
    """State of another optimizer, of other shapes, or values that are not a state are refused; nothing is changed."""
    theirs, ours = pair("SGD", {"lr": 0.1, "momentum": 0.9})
    step(theirs, ours)
    adam = pair("Adam", {"lr": 0.25})[1]
    with pytest.raises(LoadError, match=r"lacks 'step', 'exp_avg', 'exp_avg_sq'.*saved by another class of optimizer"):
        adam.load_state_dict(ours.state_dict())
    turned = pair("SGD", {"lr": 0.1}, shapes=((3,), (3, 2)))[1]
    with pytest.raises(LoadError, match=r"has shape \[3, 2\], but the parameter has \[3\]"):
        turned.load_state_dict(ours.state_dict())
    for wrong in ([1], {"state": {}}, {"model": 1}):
        with pytest.raises(LoadError, match="not an optimizer's state dict: expected 'state' and 'param_groups'"):
            adam.load_state_dict(wrong)
    assert adam.param_groups[0]["lr"] == 0.25
    assert not adam.state


def test_settings_of_old_states():
    """Settings that an old state lacks are this optimizer's, as are settings of no group."""
    theirs, ours = pair("Adam", {})
    step(theirs, ours)
    state = copy.deepcopy(ours.state_dict())
    for name in ("maximize", "decoupled_weight_decay", "foreach"):
        del state["param_groups"][0][name]
    state["param_groups"][0]["initial_lr"] = 0.5
    ours.load_state_dict(state)
    assert ours.param_groups[0]["maximize"] is False
    assert ours.param_groups[0]["initial_lr"] == 0.5
    step(theirs, ours)


@pytest.mark.parametrize(
    "made",
    [
        lambda o, p: o.SGD([], lr=0.1),
        lambda o, p: o.SGD(p, lr=0.1),
        lambda o, p: o.SGD([3], lr=0.1),
        lambda o, p: o.SGD([{"params": {p}}], lr=0.1),
        lambda o, p: o.SGD([p], lr=-1),
        lambda o, p: o.SGD([p], momentum=-1),
        lambda o, p: o.SGD([p], weight_decay=-1),
        lambda o, p: o.SGD([p], nesterov=True),
        lambda o, p: o.Adam([p], eps=-1),
        lambda o, p: o.Adam([p], betas=(1.0, 0.9)),
        lambda o, p: o.Adam([p], betas=(0.9, -1)),
        lambda o, p: o.AdamW([p], lr=-1.0),
        lambda o, p: o.SGD([{"params": [p]}, {"params": [p]}], lr=0.1),
        lambda o, p: o.SGD([("a", p), p], lr=0.1),
        lambda o, p: o.SGD([{"params": [("a", p)]}, {"params": [p]}], lr=0.1),
        lambda o, p: o.SGD([p], lr=0.1).add_param_group([p]),
    ],
)
def test_what_is_refused(both, raised, made):
    """Bad settings and parameters raise PyTorch's kinds of errors, and mostly its texts."""
    found = [raised(lambda lib=lib: made(lib.optim, lib.nn.Parameter(lib.xp.ones((2,))))) for lib in both]
    assert found[0][0] == found[1][0]
    if "organized in ordered collections" not in found[0][1] and "but got" not in found[0][1]:
        assert found[0][1][:40] == found[1][1][:40]


def test_duplicates_are_warned_of(both):
    """A parameter that is twice in a group is warned of, and stepped twice, as in PyTorch."""
    for lib in both:
        p = lib.nn.Parameter(lib.xp.ones((1,)))
        with pytest.warns(UserWarning, match="duplicate parameters"):
            lib.optim.SGD([p, p], lr=0.1)


def test_reprs(both):
    """An optimizer prints its settings as PyTorch's does."""
    texts = {repr(lib.optim.Adam([lib.nn.Parameter(lib.xp.ones((1,)))], lr=0.5)) for lib in both}
    assert len(texts) == 1


def test_training_goes_down():
    """A regression with gradients computed by hand finds its answer."""
    layer = nn.Linear(2, 1)
    optimizer = nn.optim.Adam(layer.parameters(), lr=0.05)
    x = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    y = x @ np.array([[2.0], [-1.0]], np.float32) + 0.5
    for _ in range(300):
        error = layer(x) - y
        layer.weight.grad = (error.T @ x) * (2 / 50)
        layer.bias.grad = error.mean(axis=0) * 2
        optimizer.step()
    assert math.isclose(layer.weight.data[0, 0], 2, abs_tol=1e-2)
    assert math.isclose(layer.bias.data[0], 0.5, abs_tol=1e-2)
