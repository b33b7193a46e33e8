"""What training does not change is written once, whatever it is called, and at a cost in proportion."""

import pytest
import torch
from tests.cost import calls

from statedict import CheckpointManager, StateDict
from statedict.training.saving import _frozen


class Odd(torch.nn.Module):
    """Frozen parameters whose names are patterns, and one that trains."""

    def __init__(self, count, size=4):
        super().__init__()
        for number in range(count):
            weight = torch.full((size,), float(number))
            self.register_parameter(f"w[{number}]*", torch.nn.Parameter(weight, requires_grad=False))
        self.register_parameter("w[1]0", torch.nn.Parameter(torch.zeros(2)))


@pytest.fixture
def worth(monkeypatch):
    """A few bytes are worth sharing."""
    monkeypatch.setattr(_frozen, "WORTH_SHARING", 1)


def test_names_are_not_patterns(tmp_path, worth):
    """A parameter called `w[1]*` is itself: not what the pattern fits, and nothing else."""
    model, again = Odd(12), Odd(12)
    with CheckpointManager(tmp_path, random=False) as manager:
        for step in (1, 2):
            torch.nn.init.constant_(model.get_parameter("w[1]0"), step)
            manager.save(step, model=model)
            for parameter in again.parameters():
                parameter.data.fill_(-1)
            assert manager.resume(model=again).step == step
            assert all(map(torch.equal, model.parameters(), again.parameters()))
    one, other = (tmp_path / f"step-000000000{step}" for step in (1, 2))
    assert (one / "model-00001-of-00002.pt").samefile(other / "model-00001-of-00002.pt")
    assert list(torch.load(other / "model-00002-of-00002.pt")) == ["w[1]0"]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_frozen_tensors_that_are_not_strided_are_saved_with_the_rest(tmp_path, worth):
    """Sparse and quantised ones have no place in a shard, and the model is saved and resumed all the same."""

    def model(value):
        made = torch.nn.Module()
        made.linear = torch.nn.Linear(3, 3).requires_grad_(False)
        torch.nn.init.constant_(made.linear.weight, value)
        made.sparse = torch.nn.Parameter((torch.eye(3) * value).to_sparse(), requires_grad=False)
        levels = torch.tensor([1, int(value)], dtype=torch.uint8)
        made.register_buffer("quantised", torch._make_per_tensor_quantized_tensor(levels, 0.5, 0))
        return made

    saved, again = model(2.0), model(3.0)
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1, model=saved)
        manager.resume(model=again)
    assert torch.equal(saved.linear.weight, again.linear.weight)
    assert torch.equal(saved.sparse.to_dense(), again.sparse.to_dense())
    assert torch.equal(saved.quantised.dequantize(), again.quantised.dequantize())


def test_many_frozen_parameters_cost_in_proportion(worth):
    """Four times as many take about four times as many calls."""
    costs = []
    for count in (200, 800):
        model = Odd(count)
        state = dict(model.state_dict())
        names = frozenset(state) - {"w[1]0"}
        costs.append(calls(lambda state=state, names=names: _frozen.split(StateDict(state), names)))
    assert costs[1] < 6 * costs[0]
