"""A training in each framework, interrupted after a save and started again, ends like one that was not interrupted."""

from functools import partial

import pytest
from tests.integrations import trainings
from tests.integrations.interrupt import outcomes

CASES = [
    *[("loop", {}, step) for step in (2, 6, 8)],
    ("lightning", {}, 2),
    ("lightning", {}, 6),
    ("lightning", {"val_check_interval": 0.5}, 10),
    ("lightning", {"accumulate_grad_batches": 2}, 4),
    ("lightning", {"max_steps": 16}, 10),
    ("lightning", {"max_steps": 16}, 12),
    ("transformers", {}, 2),
    ("transformers", {}, 8),
    ("transformers", {"save_strategy": "epoch"}, 6),
    ("transformers", {"gradient_accumulation_steps": 2}, 4),
    *[(name, {}, step) for name in ("accelerate", "torchtitan") for step in (4, 6)],
]


@pytest.mark.parametrize(("name", "options", "step"), CASES)
def test_resumes_bit_for_bit(monkeypatch, tmp_path, name, options, step):
    """Interrupted in the middle or at the end of an epoch, training ends with the same bits."""
    training = partial(trainings.TRAININGS[name], **options)
    resumed, expected = outcomes(monkeypatch, tmp_path, training, step)
    assert resumed == expected
