"""Every optimizer of PyTorch, captured, loaded and stepped on: the exact pair and the sound one, bit for bit."""

import copy
from collections import OrderedDict, namedtuple
from functools import partial

import pytest
import torch
from tests.cost import calls, seconds
from torch.testing._internal.common_optimizers import optim_db

import statedict
from statedict.torch.optimizers._exact import optimizer_load_state_dict, optimizer_state_dict
from statedict.torch.optimizers._read import read_optimizer
from statedict.torch.optimizers._write import write_optimizer

STOCK_STATE_DICT = torch.optim.Optimizer.state_dict
STOCK_LOAD = torch.optim.Optimizer.load_state_dict
CASES = [
    pytest.param(info.optim_cls, given.kwargs, id=f"{info.optim_cls.__name__}-{given.desc}")
    for info in optim_db
    for given in info.optim_inputs_func("cpu")
]
FLAGGED = [
    pytest.param(info.optim_cls, {**given.kwargs, flag: True}, id=f"{info.optim_cls.__name__}-{flag}")
    for info in optim_db
    for given in info.optim_inputs_func("cpu")[:1]
    for flag in ("foreach", "fused")
    if flag in info.supported_impls and (flag != "fused" or "cpu" in info.supports_fused_on)
]


def build(kind, options, seed=0):
    torch.manual_seed(seed)
    bias = kind.__name__ != "Muon"
    model = torch.nn.Sequential(torch.nn.Linear(4, 3, bias=bias), torch.nn.Tanh(), torch.nn.Linear(3, 2, bias=bias))
    return model, kind(model.parameters(), **copy.deepcopy(options))


def step(model, optimizer, times, start=0):
    for n in range(start, start + times):
        torch.manual_seed(n)
        inputs = torch.randn(5, 4)

        def closure(inputs=inputs):
            optimizer.zero_grad()
            loss = (model(inputs).tanh() ** 2).sum()
            loss.backward()
            if isinstance(optimizer, torch.optim.SparseAdam):
                for parameter in model.parameters():
                    parameter.grad = parameter.grad.to_sparse()
            return loss

        optimizer.step(closure)


def bits(value):
    """A state as plain values that compare equal when they are bit for bit the same."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), str(value.device), tuple(value.shape), value.detach().cpu().numpy().tobytes()
    if isinstance(value, dict):
        return type(value), {key: bits(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [bits(entry) for entry in value]
    return type(value), repr(value)


def trained(kind, options):
    model, optimizer = build(kind, options)
    step(model, optimizer, 3)
    return model, optimizer


@pytest.mark.parametrize(("kind", "options"), CASES + FLAGGED)
def test_state_is_pytorchs(kind, options):
    """`optimizer_state_dict` gives what PyTorch gives, the same objects inside."""
    _, optimizer = trained(kind, options)
    ours, stock = optimizer_state_dict(optimizer), STOCK_STATE_DICT(optimizer)
    assert bits(stock) == bits(ours)
    assert list(stock["state"]) == list(ours["state"])
    assert all(ours["state"][key] is value for key, value in stock["state"].items())


@pytest.mark.parametrize(("kind", "options"), CASES + FLAGGED)
def test_training_goes_on_bit_for_bit(kind, options):
    """After a load, exact or sound, training goes on as it does after PyTorch's own load."""
    model, optimizer = trained(kind, options)
    ends = []
    for load in (STOCK_LOAD, optimizer_load_state_dict, write_optimizer):
        other, loaded = build(kind, options, seed=1)
        other.load_state_dict(model.state_dict())
        load(loaded, copy.deepcopy(STOCK_STATE_DICT(optimizer)))
        before = bits(STOCK_STATE_DICT(loaded))
        step(other, loaded, 3, start=3)
        ends.append((before, bits(STOCK_STATE_DICT(loaded)), bits(list(other.parameters()))))
    assert ends[0] == ends[1] == ends[2]


@pytest.mark.parametrize(("kind", "options"), CASES + FLAGGED)
def test_what_is_read_is_pytorchs_with_names(kind, options):
    """`read_optimizer` gives PyTorch's state and the parameters' names, and stock PyTorch loads it."""
    model, optimizer = trained(kind, options)
    state = read_optimizer(optimizer, model)
    assert [name for group in state["param_groups"] for name in group.pop("param_names")] == [
        name for name, _ in model.named_parameters()
    ]
    assert bits(STOCK_STATE_DICT(optimizer)) == bits(state)
    _, other = build(kind, options, seed=1)
    STOCK_LOAD(other, copy.deepcopy(read_optimizer(optimizer, model)))
    assert bits(STOCK_STATE_DICT(other)["state"]) == bits(state["state"])


def test_only_fused_and_capturable_step_counts_are_cast():
    """A step count stays as it is, unless its group is capturable or fused; then it is float32 on the device."""
    for flags in ({}, {"capturable": True}, {"fused": True}):
        loaded = []
        for load in (STOCK_LOAD, optimizer_load_state_dict, write_optimizer):
            _, optimizer = build(torch.optim.Adam, {})
            moments = {"exp_avg": torch.ones(3, 4), "exp_avg_sq": torch.ones(3, 4)}
            state = {0: {"step": torch.tensor(300, dtype=torch.int64), **moments}}
            groups = STOCK_STATE_DICT(optimizer)["param_groups"]
            load(optimizer, {"state": state, "param_groups": [{**groups[0], **flags}]})
            loaded.append(bits(STOCK_STATE_DICT(optimizer)))
        assert loaded[0] == loaded[1] == loaded[2]


Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize(
    "value",
    [
        [torch.ones(2, dtype=torch.float64), 3],
        (torch.ones(2, dtype=torch.int32), {"step": torch.tensor(1.0, dtype=torch.float64)}),
        OrderedDict(a=torch.ones(1, dtype=torch.bfloat16), b=None),
        {"nested": {"step": torch.tensor(7)}},
        Pair(1, 2),
        {1, 2},
        3.5,
        None,
    ],
)
def test_odd_values_come_out_as_pytorch_has_them(value):
    """Containers in a parameter's state are rebuilt as PyTorch rebuilds them, down to the error for a namedtuple."""
    results = []
    for load in (STOCK_LOAD, optimizer_load_state_dict):
        _, optimizer = build(torch.optim.SGD, {"lr": 0.1})
        saved = {
            "state": {1: {"x": value}, "other": {"y": 1}},
            "param_groups": STOCK_STATE_DICT(optimizer)["param_groups"],
        }
        try:
            load(optimizer, saved)
            results.append(bits(STOCK_STATE_DICT(optimizer)))
        except TypeError as error:
            results.append(str(error))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda saved: saved["param_groups"].append(saved["param_groups"][0]),
        lambda saved: saved["param_groups"][0]["params"].pop(),
        lambda saved: saved.pop("param_groups"),
        lambda saved: saved.pop("state"),
        lambda saved: saved["param_groups"][0].pop("params"),
    ],
)
def test_errors_are_pytorchs(spoil):
    """What PyTorch refuses is refused with the same error."""
    errors = []
    for load in (STOCK_LOAD, optimizer_load_state_dict):
        _, optimizer = build(torch.optim.SGD, {"lr": 0.1})
        saved = STOCK_STATE_DICT(optimizer)
        spoil(saved)
        with pytest.raises((ValueError, KeyError)) as caught:
            load(optimizer, saved)
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]


def with_hooks(optimizer, log):
    optimizer.register_state_dict_pre_hook(lambda o: log.append("save"))
    optimizer.register_state_dict_post_hook(lambda o, s: log.append(("saved", sorted(s))))
    optimizer.register_state_dict_post_hook(lambda o, s: {**s, "extra": 1})

    def without_extra(optimizer, state):
        log.append(("load", sorted(state)))
        del state["extra"]

    optimizer.register_load_state_dict_pre_hook(without_extra)
    optimizer.register_load_state_dict_pre_hook(lambda o, s: {**s, "state": {}})
    optimizer.register_load_state_dict_post_hook(lambda o: log.append(("loaded", len(o.state))))
    return optimizer


def test_hooks_run_as_in_pytorch():
    """All four kinds of hooks are called in PyTorch's order, with its arguments, and may replace the state."""
    logs = []
    exact, sound = (optimizer_state_dict, optimizer_load_state_dict), (read_optimizer, write_optimizer)
    for save, load in ((STOCK_STATE_DICT, STOCK_LOAD), exact, sound):
        log = []
        _, optimizer = trained(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})
        with_hooks(optimizer, log)
        saved = save(optimizer)
        assert saved["extra"] == 1
        load(optimizer, saved)
        assert saved["extra"] == 1
        assert not optimizer.state
        logs.append(log)
    assert logs[0] == logs[1] == logs[2]


def test_duplicates_and_names_are_numbered_as_in_pytorch():
    """Duplicate parameters, several groups and names give PyTorch's numbers."""
    one, two, three = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = torch.optim.SGD([{"params": [one, two, one]}, {"params": [three], "lr": 3.0}], lr=0.1, momentum=0.9)
    sum(p.sum() for p in (one, two, three)).backward()
    optimizer.step()
    assert bits(STOCK_STATE_DICT(optimizer)) == bits(optimizer_state_dict(optimizer))
    ends = []
    for load in (STOCK_LOAD, optimizer_load_state_dict, write_optimizer):
        load(optimizer, copy.deepcopy(STOCK_STATE_DICT(optimizer)))
        ends.append(bits(STOCK_STATE_DICT(optimizer)))
    assert ends[0] == ends[1] == ends[2]


def test_names_follow_the_saved_state_or_stay():
    """`param_names` of the saved state replace the optimizer's, and stay where the saved state has none."""
    model = torch.nn.Linear(2, 1)
    named = torch.optim.SGD(model.named_parameters(), lr=0.1)
    plain = torch.optim.SGD(model.parameters(), lr=0.2)
    renamed = copy.deepcopy(STOCK_STATE_DICT(named))
    renamed["param_groups"][0]["param_names"] = ["a", "b"]
    for target, source in ((named, STOCK_STATE_DICT(plain)), (plain, renamed), (named, renamed)):
        ends = []
        for load in (STOCK_LOAD, optimizer_load_state_dict):
            optimizer = copy.deepcopy(target)
            load(optimizer, copy.deepcopy(source))
            ends.append(bits(STOCK_STATE_DICT(optimizer)))
        assert ends[0] == ends[1]


def test_state_of_a_stray_tensor_is_pytorchs_key_error():
    """State of a tensor that is in no group raises KeyError, as in PyTorch."""
    _, optimizer = build(torch.optim.SGD, {"lr": 0.1})
    optimizer.state[torch.ones(1)] = {}
    with pytest.raises(KeyError):
        STOCK_STATE_DICT(optimizer)
    with pytest.raises(KeyError):
        optimizer_state_dict(optimizer)


def test_calls_of_a_load(tmp_path):
    """A load from a file takes less than 400 calls for each parameter of Adam, which has three tensors."""

    def cost(count):
        parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(count)]
        optimizer = torch.optim.Adam(parameters)
        state = {n: {key: torch.ones(2) for key in ("exp_avg", "exp_avg_sq")} for n in range(count)}
        state = {n: {"step": torch.tensor(1.0), **entries} for n, entries in state.items()}
        groups = STOCK_STATE_DICT(optimizer)["param_groups"]
        statedict.save({"state": state, "param_groups": groups}, tmp_path / "adam.pt", durable=False)
        return calls(lambda: statedict.load_state_dict(optimizer, tmp_path / "adam.pt"))

    cost(40)  # What is imported and compiled once.
    assert cost(140) - cost(40) < 400 * 100


def test_loading_is_linear():
    """Eight times the parameters take nowhere near sixty-four times as long, as they do in PyTorch."""

    def loading(count):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1)) for _ in range(count)], lr=0.1)
        state = {n: {"momentum_buffer": torch.ones(1)} for n in range(count)}
        saved = {"state": state, "param_groups": STOCK_STATE_DICT(optimizer)["param_groups"]}
        loads = (optimizer_load_state_dict, write_optimizer)
        return [seconds(partial(load, optimizer, saved), 3) for load in loads]

    for large, small in zip(loading(8_000), loading(1_000)):
        assert large <= 32 * small
