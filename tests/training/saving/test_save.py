"""What one process writes."""

import pytest
import torch
from tests.training.objects import Value, computed_facts

from statedict import CheckpointManager
from statedict.errors import SaveError
from statedict.training.saving import _frozen


def training():
    """A model with frozen, tied and large parameters, its optimizer, and an object with an array."""
    encoder = torch.nn.Linear(64, 64).requires_grad_(False)
    model = torch.nn.Sequential(
        encoder, torch.nn.Embedding(64, 64), torch.nn.Linear(64, 64), torch.nn.Linear(640, 1000)
    )
    model[2].weight = model[1].weight
    model.register_buffer("transposed", torch.ones(5, 3, dtype=torch.bfloat16).t())
    optimizer = torch.optim.Adam(filter(lambda parameter: parameter.requires_grad, model.parameters()))
    sum(parameter.square().sum() for parameter in model.parameters()).backward()
    optimizer.step()
    return {"model": model, "optimizer": optimizer, "value": Value(3.0)}


@pytest.mark.parametrize("where", ["directory", "store"])
@pytest.mark.parametrize("options", [{}, {"durable": False}, {"asynchronous": True}], ids=str)
def test_the_manifest_has_the_checksums_of_the_files(tmp_path, monkeypatch, where, options):
    """They are recorded while each file is written, and equal those of its bytes, whatever was saved."""
    monkeypatch.setattr(_frozen, "WORTH_SHARING", 1)
    if where == "store":
        pytest.importorskip("fsspec")
    run = str(tmp_path / "run") if where == "directory" else f"memory://{tmp_path.name}/run"
    objects = training()
    with CheckpointManager(run, **options) as manager:
        for step in (1, 2):
            manager.save(step, {"loss": 0.5}, epoch=step, pair=(step, 2), table=Value().array, empty=(), **objects)
    for saved in manager.checkpoints:
        manifest = manager._run.manifest(saved.path)
        assert manifest.files == computed_facts(saved.path)
        assert {"optimizer.pt", "value.pt", "values.pt", "random.pt", "model-00002-of-00002.pt"} <= {*manifest.files}


@pytest.mark.parametrize(
    "lost", [{"value.pt"}, {"model-00001-of-00002.pt"}, {"value.pt", "model-00002-of-00002.pt"}], ids=len
)
def test_a_save_whose_files_are_deleted_meanwhile_fails(tmp_path, monkeypatch, lost):
    """A manifest without one of the files written is not written, be it one of several shards; nothing is left behind."""
    from statedict.training.run_directory import _run

    monkeypatch.setattr(_frozen, "WORTH_SHARING", 1)
    listed = _run.relative
    monkeypatch.setattr(_run, "relative", lambda path: [name for name in listed(path) if name not in lost])
    text = ", ".join(map(repr, sorted(lost))) + " (was|were) deleted by another program"
    with CheckpointManager(tmp_path, random=False) as manager, pytest.raises(SaveError, match=text):
        manager.save(1, **training())
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}
