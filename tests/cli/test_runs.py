"""statedict runs: what a run has on disk, and what rules would keep of it."""

import json

import pytest
import torch
from tests.formats.runs import layouts
from torch import nn

import statedict


@pytest.fixture
def run(tmp_path):
    with statedict.CheckpointManager(tmp_path / "run", keep=statedict.last(9), random=False) as manager:
        for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0)):
            manager.save(step, {"loss": loss}, epoch=step, tags=(step,))
    return tmp_path / "run"


def test_list(call, run):
    """Every checkpoint with its step, size and metrics; the newest last."""
    ended = call("runs", run)
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split() for line in ended.out.splitlines()]
    assert [row[0] for row in rows[1:-1]] == ["10", "20", "30"]
    assert "loss 1" in ended.out
    assert rows[-1][:2] == ["3", "checkpoints,"]


def test_a_checkpoint_with_a_damaged_manifest_is_told(call, run):
    """A checkpoint that cannot be listed is named on standard error with the reason, also if it is the only one."""
    (run / "step-0000000030" / "manifest.json").write_bytes(b"{")
    ended = call("runs", run)
    assert (ended.code, "2 checkpoints" in ended.out) == (0, True)
    assert ended.err.startswith(
        f"statedict: step-0000000030 is not listed: {run / 'step-0000000030' / 'manifest.json'}"
    )
    for step in (10, 20):
        (run / f"step-00000000{step}" / "manifest.json").unlink()
    told = call("runs", run, "--json").err.splitlines()
    assert [line.split()[1] for line in told] == [f"step-00000000{step}" for step in (10, 20, 30)]


def test_rules(call, run):
    """Rules show what they would keep, and delete nothing."""
    options = ["--keep-last", "1", "--keep-best", "loss"]
    told = json.loads(call("runs", run, *options, "--json").out)["checkpoints"]
    assert [(fact["step"], fact["kept"], fact["metrics"]) for fact in told] == [
        (10, False, {"loss": 3.0}), (20, True, {"loss": 1.0}), (30, True, {"loss": 2.0}),
    ]  # fmt: skip
    assert call("runs", run, "--keep-every", "20").out.count("would be deleted: no rule keeps it") == 1
    assert len(json.loads(call("runs", run, "--json").out)["checkpoints"]) == 3


def steps(run):
    return [saved.step for saved in statedict.CheckpointManager(run).checkpoints]


def test_the_runs_own_rules(call, tmp_path):
    """--prune --dry-run without rules goes by those that the run was saved under, and says why each stays or goes."""
    keep = statedict.any_of(statedict.last(1), statedict.best("loss"))
    with statedict.CheckpointManager(
        tmp_path, keep=statedict.any_of(keep, statedict.every(1)), random=False
    ) as manager:
        for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0)):
            manager.save(step, {"loss": loss})
    with statedict.CheckpointManager(tmp_path, keep=keep, random=False) as manager:
        manager.prune(statedict.every(1))
    told = json.loads(call("runs", tmp_path, "--prune", "--dry-run", "--json").out)
    assert (told["rules"], told["pruned"]) == ("any_of(any_of(last(1), best('loss', 1, 'min')), every(1))", False)
    assert {fact["step"]: fact["why"] for fact in told["checkpoints"]} == {
        10: ["every(1)"], 20: ["best('loss', 1, 'min')", "every(1)"], 30: ["last(1)", "every(1)"],
    }  # fmt: skip
    assert steps(tmp_path) == [10, 20, 30]


def test_prune(call, run):
    """--prune deletes what no rule keeps, and tells which that was; --dry-run tells the same, and deletes nothing."""
    options = ["--keep-last", "1", "--keep-best", "loss:1:max", "--prune"]
    dry = call("runs", run, *options, "--dry-run")
    assert dry.code == 0
    assert "would be deleted: no rule keeps it" in dry.out
    assert dry.out.splitlines()[-1].startswith("1 checkpoint would be deleted, ")
    assert steps(run) == [10, 20, 30]
    done = call("runs", run, *options)
    assert done.out.split() == dry.out.replace("would be deleted", "deleted").split()
    assert steps(run) == [10, 30]
    assert {path.name for path in run.iterdir() if path.name.startswith(".")} == {".lock"}


def test_prune_while_the_run_is_written(call, run):
    """A run that somebody saves in is not pruned by anybody else: exit code 2; a preview is harmless."""
    with statedict.CheckpointManager(run, keep=statedict.last(9), random=False) as manager:
        manager.save(40, {"loss": 9.0})
        ended = call("runs", run, "--prune", "--keep-last", "1")
        assert (ended.code, ended.out) == (2, "")
        assert "another manager in this process is writing this run" in ended.err
        assert call("runs", run, "--prune", "--dry-run", "--keep-last", "1").out.count("would be deleted: ") == 3
    assert steps(run) == [10, 20, 30, 40]


def test_prune_needs_rules(call, tmp_path):
    """A run that is kept by a function of somebody's own cannot be pruned without rules."""
    with statedict.CheckpointManager(tmp_path, keep=lambda saved: {1, 2}, random=False) as manager:
        manager.save(1)
        manager.save(2)
    ended = call("runs", tmp_path, "--prune")
    assert (ended.code, ended.out) == (2, "")
    assert "does not have retention rules" in " ".join(ended.err.replace("│", "").split())
    assert call("runs", tmp_path, "--prune", "--keep-last", "1").code == 0
    assert steps(tmp_path) == [2]


@pytest.mark.parametrize("asked", ["", "loss:0", ":2", "loss:0:max"])
def test_a_best_that_is_none(call, run, asked):
    """A rule that names no metric, or would keep nothing, is a mistake: exit code 2."""
    ended = call("runs", run, "--keep-best", asked)
    assert (ended.code, ended.out) == (2, "")
    assert "--keep-best needs METRIC" in ended.err


def test_an_empty_directory(call, tmp_path):
    """A directory without checkpoints is an empty list, and stays as it is."""
    assert call("runs", tmp_path).out == "0 checkpoints, 0 B\n"
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_not_a_run(call, run):
    """The path of a checkpoint is an error that names its run."""
    ended = call("runs", run / "step-0000000010")
    assert (ended.code, ended.out) == (2, "")
    assert f"this is a checkpoint, not a run: pass its run, '{run}'" in " ".join(ended.err.split())


def test_a_directory_without_checkpoints_that_has_something_else(call, tmp_path):
    """A hint on stderr says what shows it."""
    (tmp_path / "model.pt").touch()
    ended = call("runs", tmp_path)
    assert (ended.code, ended.out) == (0, "0 checkpoints, 0 B\n")
    assert f"statedict inspect {tmp_path} shows what it contains" in " ".join(ended.err.split())
    assert call("runs", tmp_path, "--json").err == ""


def test_mistakes(call, tmp_path):
    """A directory or a URL that is not there is a mistake: exit code 2, and nothing on stdout."""
    pytest.importorskip("fsspec")
    for options in ([], ["--json"]):
        ended = call("runs", "memory://nowhere/run", *options)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err == "statedict: memory://nowhere/run: no such file\n"
    ended = call("runs", tmp_path / "nowhere")
    assert (ended.code, ended.out) == (2, "")
    assert "nowhere" in ended.err


def test_a_metric_that_no_checkpoint_has(call, run, tmp_path):
    """A misspelt metric is a mistake, before anything is deleted; a run without checkpoints has no metrics to compare."""
    ended = call("runs", run, "--prune", "--keep-best", "los")
    assert (ended.code, ended.out) == (2, "")
    said = " ".join(ended.err.replace("│", "").split())
    assert "no checkpoint of this run has a metric 'los'; available: loss" in said
    assert steps(run) == [10, 20, 30]
    (tmp_path / "none").mkdir()
    assert call("runs", tmp_path / "none", "--keep-best", "los").code == 0


def test_a_run_of_another_framework(call, tmp_path):
    """Checkpoints of another framework are listed with what is known without opening them."""
    layouts.transformers(tmp_path)
    ended = call("runs", tmp_path)
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split() for line in ended.out.splitlines()]
    assert [(row[0], row[-1]) for row in rows[1:-1]] == [("9", "checkpoint-9"), ("500", "newest)")]
    assert "eval_loss 0.002" in ended.out
    told = json.loads(call("runs", tmp_path, "--json").out)
    assert told.keys() == {"schema", "checkpoints"}
    assert [(fact["step"], fact["newest"], fact["metrics"]) for fact in told["checkpoints"]] == [
        (9, False, {"eval_loss": 1 / 9}), (500, True, {"eval_loss": 0.002}),
    ]  # fmt: skip


@pytest.mark.parametrize("options", [["--prune"], ["--prune", "--dry-run"], ["--keep-last", 1], ["--dry-run"]])
def test_checkpoints_of_others_are_not_deleted(call, tmp_path, options):
    """Retention rules are for our own checkpoints: exit code 2, and nothing is deleted."""
    layouts.lightning(tmp_path)
    ended = call("runs", tmp_path, *options)
    assert (ended.code, ended.out) == (2, "")
    assert "these checkpoints were not saved by CheckpointManager" in " ".join(ended.err.replace("│", "").split())
    assert len(list(tmp_path.rglob("*.ckpt"))) == 2


# F8: the run and its steps in every command


@pytest.fixture
def trained(tmp_path):
    """Two steps of a run, and the model of the second."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    with statedict.CheckpointManager(tmp_path / "runs" / "a", keep=statedict.last(9)) as manager:
        for step in (1, 2):
            model(torch.ones(1, 4)).sum().backward()
            optimizer.step()
            manager.save(step, {"loss": 1 / step}, model=model, optimizer=optimizer, epoch=step)
    return tmp_path / "runs" / "a", model


@pytest.mark.parametrize("inside", ["", "step-0000000002"])
def test_every_command_takes_a_run_or_a_step(call, trained, tmp_path, inside):
    """`inspect`, `verify`, `view`, `convert`, `diff`, `merge` and `match` read the newest step, or the given one."""
    run, model = trained
    path = run / inside
    assert "root model" in call("inspect", path).out
    assert "metadata 'statedict.step': '2'" in call("inspect", path).out
    assert call("inspect", path, "--root", "optimizer").code == 0
    ended = call("verify", path)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{path}: sound\n")
    assert call("diff", path, run / "step-0000000002").code == 0
    assert call("diff", path, run / "step-0000000001").code == 1
    assert call("view", path, "--output", tmp_path / "page.html").code == 0
    ended = call("convert", path, tmp_path / "model.safetensors")
    assert "not converted: 'optimizer', 'random/" in ended.err
    assert not statedict.diff(model, tmp_path / "model.safetensors")
    assert call("convert", path, tmp_path / "all.pt", "--root", "*").code == 0
    assert statedict.load(tmp_path / "all.pt")["epoch"] == 2
    assert call("merge", path, path, "-o", tmp_path / "merged.pt").code == 0
    assert call("match", path, "--keys", tmp_path / "model.safetensors").code == 0


def test_a_file_of_the_run_is_not_overwritten(call, trained):
    """A command does not write to a file in the folder that it reads, at any depth."""
    run, _ = trained
    before = (run / "step-0000000001" / "model.pt").read_bytes()
    ended = call("convert", run, run / "step-0000000001" / "model.pt")
    assert ended.code == 2
    assert "is an input of this command and would be lost" in " ".join(ended.err.replace("│", "").split())
    assert (run / "step-0000000001" / "model.pt").read_bytes() == before


def test_a_damaged_step_is_not_sound(call, trained):
    """Damage of any file is exit code 1; a damaged newer step is an error of the run."""
    run, _ = trained
    raw = bytearray((run / "step-0000000002" / "random.pt").read_bytes())
    raw[len(raw) // 2] ^= 1
    (run / "step-0000000002" / "random.pt").write_bytes(raw)
    ended = call("verify", run)
    assert ended.code == 1
    assert "error: random.pt: the file is damaged: its CRC-32 is " in ended.out
    (run / "step-0000000002" / "manifest.json").write_bytes(b"")
    ended = call("verify", run)
    assert ended.code == 1
    assert "error: step-0000000002: " in ended.out
    assert call("verify", run / "step-0000000001").code == 0


def aged(run, *hours):
    """Save the checkpoints of a run again, at so many hours."""
    from datetime import UTC, datetime, timedelta

    from statedict.training import _clock

    options = {"keep": statedict.last(9), "random": False}
    with pytest.MonkeyPatch.context() as patch, statedict.CheckpointManager(run, **options) as manager:
        for saved, hour in zip(manager.checkpoints, hours, strict=True):
            time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
            patch.setattr(_clock, "now", lambda time=time: time)
            manager.save(saved.step, saved.metrics, tags=(saved.step,))


@pytest.mark.parametrize(
    ("options", "rules", "kept"),
    [
        (["--keep-within", "7d"], "any_of(within(days=7))", [20, 30]),
        (["--keep-within", "12.5h"], "any_of(within(hours=12.5))", [30]),
        (["--keep-every", "90m", "--keep-every", 20], "any_of(every(minutes=90), every(20))", [10, 20, 30]),
        (["--keep-every", "9d"], "any_of(every(days=9))", [10, 30]),
        (["--at-most", "1kB"], "at_most('1kB')", [30]),
        (["--at-most", "1MB"], "at_most('1MB')", [10, 20, 30]),
        (["--keep-last", 2, "--at-most", "1MB"], "at_most('1MB', any_of(last(2)))", [20, 30]),
    ],
)
def test_every_rule_has_an_option(call, run, options, rules, kept):
    """What is kept is what the rule of the same name keeps, and a preview deletes nothing."""
    aged(run, 0, 200, 300)
    told = json.loads(call("runs", run, "--prune", "--dry-run", *options, "--json").out)
    assert told["rules"] == rules
    assert [fact["step"] for fact in told["checkpoints"] if fact["kept"]] == kept
    assert steps(run) == [10, 20, 30]
    assert call("runs", run, "--prune", *options).code == 0
    assert steps(run) == kept


@pytest.mark.parametrize("option", ["--keep-every", "--keep-within", "--at-most"])
@pytest.mark.parametrize("given", ["", "0", "0h", "-1", "3w", "many"])
def test_a_time_or_a_size_that_is_none(call, run, option, given):
    """A mistake: exit code 2, with what is expected."""
    ended = call("runs", run, option, given, "--prune")
    assert (ended.code, ended.out) == (2, "")
    expected = {"--keep-every": "a number of at least 1, or a time such as 30m", "--at-most": "a size must be"}
    assert expected.get(option, "a time such as 30m, 12h or 7d") in " ".join(ended.err.replace("│", "").split())
    assert steps(run) == [10, 20, 30]


def test_pins(call, run):
    """A pinned step is shown, and kept by every rule; --dry-run only shows what a pin would do."""
    options = ["--keep-last", 1, "--prune"]
    dry = json.loads(call("runs", run, "--pin", 10, *options, "--dry-run", "--json").out)["checkpoints"]
    assert [(fact["pinned"], fact["why"]) for fact in dry] == [
        (True, ["pinned"]), (False, ["no rule keeps it"]), (False, ["last(1)"]),
    ]  # fmt: skip
    assert not any(saved.pinned for saved in statedict.CheckpointManager(run).checkpoints)
    listed = call("runs", run, "--pin", 10, "--pin", 20, "--unpin", 30)
    assert [line.split()[-1] for line in listed.out.splitlines()[1:3]] == ["pinned", "pinned"]
    done = call("runs", run, "--unpin", 20, *options)
    assert "kept: pinned" in done.out
    assert steps(run) == [10, 30]


def test_a_pin_while_the_run_is_written(call, run):
    """A training that saves there does not have to be stopped."""
    with statedict.CheckpointManager(run, keep=statedict.last(1), random=False) as manager:
        manager.save(40)
        manager.save(50)
        assert call("runs", run, "--pin", 50).code == 0
        manager.save(60)
        assert steps(run) == [50, 60]


def test_a_pin_of_a_step_that_is_not_there(call, run):
    """A mistake, before anything else is done."""
    ended = call("runs", run, "--pin", 11, "--pin", 12, "--unpin", 10, "--prune", "--keep-last", 1)
    assert (ended.code, ended.out) == (2, "")
    assert "--pin: this run does not have the step 11, 12" in " ".join(ended.err.replace("│", "").split())
    assert steps(run) == [10, 20, 30]
