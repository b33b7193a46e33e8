"""Every scheduler of PyTorch, and whatever else has `state_dict` and `load_state_dict`: read, and loaded all or nothing."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils

from statedict.errors import LoadError, NotAStateError
from statedict.state import Opaque, leaf_of
from statedict.torch.optimizers._schedulers import read_stateful, write_stateful

# PyTorch 2.7's SequentialLR calls `step` in a way that it warns of.
pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")


class Decay:
    """A callable object, whose settings LambdaLR and CyclicLR save."""

    def __init__(self, factor):
        self.factor = factor
        self.calls = [0]

    def __call__(self, epoch):
        return self.factor**epoch


def sequential(optimizer):
    first = lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=2)
    return lr_scheduler.SequentialLR(optimizer, [first, lr_scheduler.ExponentialLR(optimizer, 0.9)], [3])


SCHEDULERS = {
    "LambdaLR of an object": lambda o: lr_scheduler.LambdaLR(o, Decay(0.9)),
    "LambdaLR of a function": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, Decay(0.9)),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4, 4], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.5, total_iters=4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "SequentialLR": sequential,
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 5),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 2, scale_fn=Decay(0.9)),
    "CyclicLR by mode": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 2, mode="triangular2"),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.5, 30),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "SWALR": lambda o: swa_utils.SWALR(o, 0.05, 3),
}


def build(name, lr=0.1):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr, momentum=0.9)
    return optimizer, SCHEDULERS[name](optimizer)


def step(optimizer, scheduler, times):
    rates = []
    for _ in range(times):
        optimizer.step()
        scheduler.step(*([1.0] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def shown(scheduler):
    """Everything in a scheduler, as text; functions and weak references by what they are."""

    def plain(value):
        if isinstance(value, (Decay, lr_scheduler.LRScheduler)):
            return plain({k: v for k, v in vars(value).items() if k != "optimizer"})
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return type(value).__name__ if callable(value) else repr(value)

    return plain(scheduler)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedules_go_on_as_with_pytorch(name):
    """A scheduler loaded here goes on exactly as one loaded by PyTorch."""
    optimizer, scheduler = build(name)
    step(optimizer, scheduler, 3)
    state = read_stateful(scheduler)
    assert shown(state) == shown(scheduler.state_dict())
    ends = []
    for load in (lambda s, state: s.load_state_dict(state), write_stateful):
        other, loaded = build(name)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        load(loaded, copy.deepcopy(state))
        ends.append((shown(loaded), step(other, loaded, 5), shown(loaded)))
    assert ends[0] == ends[1]
    assert ends[1][1] == step(optimizer, scheduler, 5)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_source_is_neither_shared_nor_changed(name):
    """The state given is as it was, down to the order of its names, and later steps do not reach it."""
    optimizer, scheduler = build(name)
    step(optimizer, scheduler, 2)
    state = read_stateful(scheduler)
    before, order = shown(state), list(state)
    other, loaded = build(name)
    write_stateful(loaded, state)
    assert order == list(state)
    step(other, loaded, 2)
    for value in vars(loaded).values():
        if isinstance(value, list):
            value.append("more")
        if isinstance(value, Decay):
            value.calls.append("more")
    assert before == shown(state)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_failing_loader_is_undone(name, monkeypatch):
    """A loader that raises after it has changed everything it can reach leaves the scheduler as it was."""
    optimizer, scheduler = build(name)
    step(optimizer, scheduler, 3)
    state = copy.deepcopy(read_stateful(scheduler))
    other, loaded = build(name)
    own = type(loaded).load_state_dict

    def failing(self, state):
        own(self, state)
        self.base_lrs = "broken"
        self.optimizer.param_groups[0]["lr"] = 99
        raise ArithmeticError("half-way")

    monkeypatch.setattr(type(loaded), "load_state_dict", failing)
    before, attributes = shown(loaded), dict(vars(loaded))
    with pytest.raises(ArithmeticError, match="half-way") as caught:
        write_stateful(loaded, state)
    assert caught.value.__notes__ == ["Nothing was changed: everything that the attempt had modified was restored."]
    assert before == shown(loaded)
    assert list(attributes) == list(vars(loaded))
    assert other.param_groups[0]["lr"] != 99


def test_too_few_functions_are_undone():
    """A state for more groups than there are fails inside PyTorch's loader, and is undone."""
    two = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.ones(1))]}, {"params": [nn.Parameter(torch.ones(1))]}], lr=0.1
    )
    many = lr_scheduler.LambdaLR(two, [Decay(0.5), Decay(0.25)])
    _, loaded = build("LambdaLR of an object")
    before = shown(loaded)
    with pytest.raises(IndexError):
        write_stateful(loaded, many.state_dict())
    assert before == shown(loaded)


def test_another_schedulers_state_is_refused():
    """A state that lacks the scheduler's settings is another class's; not strictly, PyTorch's loader decides."""
    _, scheduler = build("StepLR")
    _, other = build("CosineAnnealingLR")
    before = shown(scheduler)
    with pytest.raises(
        LoadError,
        match=r"the state lacks 'step_size', 'gamma', which StepLR has: it was probably saved from another class",
    ) as caught:
        write_stateful(scheduler, other.state_dict())
    assert before == shown(scheduler)
    assert caught.value.report.unexpected == ["T_max", "eta_min"]
    outcome = write_stateful(scheduler, other.state_dict(), strict=False)
    assert (outcome.missing, scheduler.T_max) == (["step_size", "gamma"], 5)


def test_states_of_other_versions_load():
    """Private names may be missing and others too many, as between versions of PyTorch."""
    _, scheduler = build("StepLR")
    state = {key: value for key, value in scheduler.state_dict().items() if key != "_is_initial"} | {"verbose": False}
    outcome = write_stateful(scheduler, state)
    assert (outcome.unexpected, outcome.missing) == (["verbose"], [])


def test_unknown_objects_are_refused():
    """Inert data of an unknown class does not get into a scheduler."""
    _, scheduler = build("StepLR")
    state = scheduler.state_dict() | {"hooks": [Opaque("some", "Thing")]}
    with pytest.raises(LoadError, match=r"the state contains an object of the unknown class some\.Thing"):
        write_stateful(scheduler, state)


def test_a_judge_decides_before_anything_changes():
    """The judge sees the outcome first; what it raises is passed on."""
    _, scheduler = build("StepLR")
    before = shown(scheduler)

    def judge(outcome):
        assert shown(scheduler) == before
        raise LookupError(", ".join(outcome.missing))

    with pytest.raises(LookupError, match="step_size, gamma, last_epoch"):
        write_stateful(scheduler, {"base_lrs": [9]}, judge=judge)
    assert before == shown(scheduler)


# gradient scalers, averages, and others


def test_gradient_scalers():
    """An enabled GradScaler goes on where it was; a disabled one has no state, and the state of one is refused."""
    scaler, other, off = (torch.amp.GradScaler("cpu", enabled=on, init_scale=8.0) for on in (True, True, False))
    scaler.scale(torch.ones(1))
    scaler._scale.fill_(4.0)
    other.scale(torch.ones(1))
    write_stateful(other, read_stateful(scaler))
    assert (other.get_scale(), read_stateful(off)) == (4.0, {})
    write_stateful(off, {})
    with pytest.raises(RuntimeError, match="saved from a disabled instance"):
        write_stateful(other, {})


def test_tensors_that_a_loader_wrote_into_are_put_back():
    """A loader that fills the object's tensors before it fails is undone: small ones wherever they are, and its state's."""

    class Average:
        def __init__(self):
            self.mean = torch.zeros(100_000)
            self.scale = torch.ones(())
            self.seen = {"deep": [torch.ones(2)]}

        def state_dict(self):
            return {"mean": self.mean}

        def load_state_dict(self, state):
            self.mean.copy_(state["mean"])
            self.scale.fill_(5)
            self.seen["deep"][0].fill_(5)
            self.seen["more"] = 1
            raise ArithmeticError

    average = Average()
    with pytest.raises(ArithmeticError):
        write_stateful(average, {"mean": torch.ones(100_000)})
    assert (average.mean.sum(), average.scale, average.seen["deep"][0].tolist()) == (0.0, 1.0, [1.0, 1.0])
    assert list(average.seen) == ["deep"]


def test_unread_leaves_are_read():
    """Leaves in a state become tensors before the object's loader sees them."""

    class Keeps:
        def load_state_dict(self, state):
            self.state = state

    keeps, tensor = Keeps(), torch.arange(3.0)
    write_stateful(keeps, {"a": [leaf_of(tensor)]})
    tensor.zero_()
    assert keeps.state["a"][0].tolist() == [0.0, 1.0, 2.0]


def test_a_process_wide_object_is_not_walked():
    """Objects that lead to the whole process, such as loggers, are neither walked nor restored."""
    import logging

    class Logs:
        def __init__(self):
            self.log = logging.getLogger("statedict.test")
            self.value = 1

        def load_state_dict(self, state):
            self.log.marked = True
            self.value = 2
            raise ArithmeticError

    logs = Logs()
    with pytest.raises(ArithmeticError):
        write_stateful(logs, {})
    assert (logs.value, logging.getLogger("statedict.test").marked) == (1, True)


def test_objects_without_state_are_refused():
    """An object without `state_dict` or `load_state_dict` is refused by a TypeError."""
    with pytest.raises(NotAStateError, match=r"int has no state_dict method"):
        read_stateful(3)
    with pytest.raises(NotAStateError, match=r"int has no load_state_dict method"):
        write_stateful(3, {})
