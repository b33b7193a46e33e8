"""CheckpointManager: saved, kept, resumed, and never worse off than before."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests import forked
from tests.training.objects import Counter

import statedict
from statedict import CheckpointManager, any_of, best, every, last
from statedict.errors import FormatError, LockedError, SaveError, UnknownFormatError, UnknownNameError


def trainer(seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)


def train(parts, steps):
    model, optimizer, scheduler = parts
    for _ in range(steps):
        optimizer.zero_grad()
        (model(torch.randn(16, 4)) - random.random() - np.random.rand()).square().mean().backward()
        optimizer.step()
        scheduler.step()


def named(parts):
    return dict(zip(("model", "optimizer", "scheduler"), parts))


def equal_states(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(tmp_path, asynchronous):
    """Model, optimizer, scheduler and all random state come back: both runs end with the same bits."""
    random.seed(1), np.random.seed(1)
    straight = trainer()
    train(straight, 3)
    with CheckpointManager(tmp_path, asynchronous=asynchronous) as manager:
        manager.save(3, metrics={"loss": 0.5}, epoch=1, **named(straight))
        train(straight, 4)
    train(trainer(9), 2)
    again = trainer(7)
    with CheckpointManager(tmp_path) as manager:
        resumed = manager.resume(**named(again))
    assert (resumed.step, resumed.metrics, resumed.values) == (3, {"loss": 0.5}, {"epoch": 1})
    train(again, 4)
    assert equal_states(straight[0], again[0])
    assert straight[2].state_dict() == again[2].state_dict()


def test_a_first_run_resumes_from_nothing(tmp_path):
    """An empty or absent directory is no error: there is nothing to resume from."""
    assert CheckpointManager(tmp_path / "new").resume(model=torch.nn.Linear(1, 1)) is None
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_is_plain_files(tmp_path):
    """Each object's state opens with torch alone, and the manifest with any JSON reader."""
    model, optimizer, _ = trainer()
    with CheckpointManager(tmp_path) as manager:
        manager.save(7, model=model, optimizer=optimizer, epoch=2, pair=(1, 2))
    (path,) = tmp_path.glob("step-*")
    assert list(model.state_dict()) == list(torch.load(path / "model.pt", weights_only=True))
    torch.optim.Adam(model.parameters()).load_state_dict(torch.load(path / "optimizer.pt", weights_only=True))
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["step"], manifest["values"]) == (7, {"epoch": 2})
    assert {p.name for p in path.iterdir()} == {*manifest["files"], "manifest.json"}


def test_a_policy_prunes_and_the_newest_stays(tmp_path):
    """What no policy keeps goes once its successor is there; best and latest are properties of what is on disk."""
    with CheckpointManager(tmp_path, keep=any_of(last(1), every(4), best("loss"))) as manager:
        for step, loss in enumerate([5, 1, 3, 2, 4, 3]):
            manager.save(step, metrics={"loss": loss}, counter=Counter())
        assert [saved.step for saved in manager.checkpoints] == [0, 1, 4, 5]
        assert (manager.latest.step, manager.best("loss").step) == (5, 1)
        assert manager.best("loss", mode="max").step == 0
        assert manager.best("accuracy") is None
        with pytest.raises(ValueError, match='mode must be "min" or "max", not \'lowest\''):
            manager.best("loss", mode="lowest")


def test_saving_a_step_again_replaces_it(tmp_path):
    """The second save of a step takes the first one's place, in one step."""
    counter = Counter()
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, counter=counter)
        counter.count = 5
        manager.save(1, counter=counter)
        counter.count = 0
        manager.resume(counter=counter)
    assert counter.count == 5
    assert {"step-0000000001", ".lock"} == {p.name for p in tmp_path.iterdir()}


def test_a_step_whose_replacement_died_between_two_names_is_still_there(tmp_path):
    """Where the system cannot swap two names at once, the old one is put back before anybody resumes from an older step."""
    with CheckpointManager(tmp_path) as manager:
        for step in (1, 2):
            manager.save(step, counter=Counter())
    (tmp_path / "step-0000000002").rename(tmp_path / ".old-step-0000000002-0badcafe")
    with CheckpointManager(tmp_path) as manager:
        assert manager.resume(counter=Counter()).step == 2
    assert {".lock", "step-0000000001", "step-0000000002"} == {p.name for p in tmp_path.iterdir()}


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: flip(path / "model.pt"), "CRC-32"),
        (lambda path: os.truncate(path / "model.pt", 100), "has 100 bytes, expected"),
        (lambda path: (path / "model.pt").unlink(), "the file is missing"),
        (lambda path: (path / "manifest.json").unlink(), "manifest is missing"),
        (lambda path: (path / "manifest.json").write_bytes(b""), "empty"),
        (lambda path: flip(path / "manifest.json"), "manifest|CRC"),
        (lambda path: [p.unlink() for p in path.iterdir()], "manifest is missing"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_kept(tmp_path, damage, reason):
    """Resume takes the newest that verifies, says why it passed others over, and never deletes those."""
    model = torch.nn.Linear(30, 30)
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, model=model)
        first = statedict.snapshot(model)
        torch.nn.init.zeros_(model.weight)
        manager.save(2, model=model)
    damage(tmp_path / "step-0000000002")
    with CheckpointManager(tmp_path, keep=last(1)) as manager:
        resumed = manager.resume(model=model)
        assert resumed.step == 1
        assert torch.equal(first["weight"], model.weight)
        (passed,) = resumed.passed_over
        assert passed.step == 2
        assert passed.path.is_dir()
        assert __import__("re").search(reason, passed.reason)
        for step in (2, 3):
            manager.save(step, model=model)
        assert [saved.step for saved in manager.checkpoints] == [3]
        assert passed.path.is_dir()


def test_a_run_whose_checkpoints_are_all_damaged_says_so(tmp_path):
    """Starting anew silently would lose the run: it is an error that lists the reasons."""
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, model=torch.nn.Linear(2, 2))
        flip(tmp_path / "step-0000000001" / "model.pt")
        # Told again and again: whoever starts the program anew automatically must not lose the run.
        for _ in range(2):
            with pytest.raises(FormatError, match="all checkpoints are damaged: step 1"):
                manager.resume()


def test_two_managers_do_not_share_a_directory(tmp_path):
    """The second writer is refused by name; readers are not, and the lock goes with its holder."""
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, counter=Counter())
        other = CheckpointManager(tmp_path)
        with pytest.raises(LockedError, match="another manager in this process"):
            other.save(2, counter=Counter())
        assert other.resume(counter=Counter()).step == 1
    other.save(2, counter=Counter())
    other.close()


FORKED = """
import os, sys
from statedict import CheckpointManager
with CheckpointManager(sys.argv[1], asynchronous=True) as manager:
    manager.save(1, epoch=1)
    manager.wait()  # a fork copies locks as they are: one that a thread holds stays locked in the child
    hear, tell = os.pipe()
    if not os.fork():
        os.close(tell)
        os.read(hear, 1)  # lives on until its parent has ended
        with CheckpointManager(sys.argv[1]) as other:
            other.save(2, epoch=2)
        os._exit(0)
"""


def test_a_forked_child_does_not_hold_the_lock(tmp_path):
    """A worker that outlives the training (as those that load data) does not keep the next one from saving."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED, tmp_path], check=True, timeout=60)
    for _ in range(600):
        if (tmp_path / "step-0000000002").exists():
            break
        time.sleep(0.05)
    assert (tmp_path / "step-0000000002").exists()


def test_a_rerun_behind_the_newest_keeps_what_it_saves(tmp_path):
    """What was saved just now is there when save returns, even where the policy counts from a newer step."""
    with CheckpointManager(tmp_path, keep=last(2)) as manager:
        for step in (10, 11, 3):
            manager.save(step, counter=Counter())
        assert [saved.step for saved in manager.checkpoints] == [3, 10, 11]
        manager.save(4, counter=Counter())
        assert [saved.step for saved in manager.checkpoints] == [4, 10, 11]


def test_a_working_directory_may_change(tmp_path, monkeypatch):
    """A relative directory is where it was when the manager was made."""
    monkeypatch.chdir(tmp_path)
    with CheckpointManager("run") as manager:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        manager.save(1, counter=Counter())
    assert (tmp_path / "run" / "step-0000000001").is_dir()


def test_some_objects_into_a_changed_model(tmp_path):
    """Only what is given is resumed, with the options of load_state_dict."""
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, model=torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)), counter=Counter())
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 5))
        resumed = manager.resume(model=model, options={"model": {"exclude": "1"}})
        assert list(resumed.reports["model"].loaded) == ["0.weight", "0.bias"]
        with pytest.raises(UnknownNameError, match="'modle' is not in the checkpoint; did you mean 'model'"):
            manager.resume(modle=model)


def test_an_optimizer_is_matched_by_name(tmp_path):
    """State follows its parameter when the order of parameters changes."""
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    model = torch.nn.ModuleDict({"a": a, "b": b})
    optimizer = torch.optim.Adam([*a.parameters(), *b.parameters()])
    (model["a"](torch.ones(1, 2)).sum() * 3 + model["b"](torch.ones(1, 2)).sum()).backward()
    optimizer.step()
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, model=model, optimizer=optimizer)
        other = torch.optim.Adam([*b.parameters(), *a.parameters()])
        manager.resume(model=model, optimizer=other)
    for parameter in model.parameters():
        assert torch.equal(optimizer.state[parameter]["exp_avg"], other.state[parameter]["exp_avg"])


def test_an_asynchronous_save_is_of_the_moment_it_was_asked_for(tmp_path):
    """Training goes on at once, and the checkpoint does not follow it."""
    model = torch.nn.Linear(300, 300)
    with CheckpointManager(tmp_path, asynchronous=True) as manager:
        kept = []
        for step in range(4):
            torch.nn.init.constant_(model.weight, step)
            manager.save(step, model=model)
            torch.nn.init.constant_(model.weight, -1)
            kept.append(step)
        manager.wait()
        manager.resume(model=model)
    assert (model.weight == 3).all()


def test_a_plain_value_is_of_that_moment_too(tmp_path):
    """A list that training goes on appending to is saved as it was."""
    history, manager = [1], CheckpointManager(tmp_path, asynchronous=True)
    with manager:
        manager.save(1, history=history, model=torch.nn.Linear(1000, 1000))
        history.append(2)
        assert manager.resume().values == {"history": [1]}


def test_a_metric_may_be_an_array_of_one_element(tmp_path):
    """A loss as it comes is a number in the manifest; what is none is refused before anything is written."""
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, {"loss": torch.tensor(0.5), "accuracy": np.float32(0.25), "seen": np.int64(3)})
        assert dict(manager.latest.metrics) == {"loss": 0.5, "accuracy": 0.25, "seen": 3}
        with pytest.raises(TypeError, match="the metric 'loss' has the type complex: a metric must be a number"):
            manager.save(2, {"loss": 1j})
        assert [saved.step for saved in manager.checkpoints] == [1]


def test_an_error_in_the_background_is_raised_at_the_next_call(tmp_path):
    """A save that failed behind training's back is not forgotten, is told once, and the next one works."""
    with CheckpointManager(tmp_path, asynchronous=True) as manager:
        for call in (lambda: manager.save(2, counter=Counter()), manager.wait, manager.close):
            manager.save(1, oops=lambda: None)
            while manager._background.running:
                time.sleep(0.001)
            with pytest.raises(SaveError, match="lambda"):
                call()
        manager.save(3, counter=Counter())
        manager.wait()
        assert manager.latest.step == 3
    assert {".lock", "step-0000000003"} == {p.name for p in tmp_path.iterdir()}


def test_sigterm_finishes_the_write_in_hand(tmp_path):
    """With on_sigterm the save in flight is completed, and the process ends as the signal says."""
    script = (
        "import os, signal, sys, torch\nfrom statedict import CheckpointManager\n"
        "manager = CheckpointManager(sys.argv[1], asynchronous=True, on_sigterm=True)\n"
        "manager.save(1, model=torch.nn.Linear(1500, 1500))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\nimport time; time.sleep(60)\n"
    )
    done = forked.run("-c", script, tmp_path)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert CheckpointManager(tmp_path).resume(model=torch.nn.Linear(1500, 1500)).step == 1


def test_sigterm_in_the_middle_of_a_save_comes_after_it(tmp_path):
    """A save that the main thread itself is at ends first; without on_sigterm the signal ends it as ever."""
    script = (
        "import os, signal, sys\nfrom statedict import CheckpointManager\n"
        "class Ended:\n"
        "    def state_dict(self):\n        os.kill(os.getpid(), signal.SIGTERM)\n        return {}\n"
        "    def load_state_dict(self, state): pass\n"
        "CheckpointManager(sys.argv[1], on_sigterm=sys.argv[2] == 'True').save(1, ended=Ended(), epoch=1)\n"
    )
    for asked, steps in ((False, []), (True, [1])):
        done = subprocess.run([sys.executable, "-c", script, tmp_path, str(asked)], timeout=100, check=False)
        assert done.returncode == -signal.SIGTERM
        assert steps == [saved.step for saved in CheckpointManager(tmp_path).checkpoints]


def test_sigterm_is_left_as_it_was_found(tmp_path):
    """A manager that is closed has no part in signals any more."""
    before = signal.getsignal(signal.SIGTERM)
    with CheckpointManager(tmp_path, on_sigterm=True):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def frozen_backbone():
    model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(700, 700), "head": torch.nn.Linear(700, 2)})
    model["backbone"].requires_grad_(False)
    return model


def disk_usage(directory):
    files = {(p.stat().st_ino, p.stat().st_size) for p in directory.rglob("*") if p.is_file()}
    return sum(size for _, size in files)


def test_frozen_parameters_are_written_once(tmp_path):
    """A run that trains a head writes the head; each checkpoint is whole, and none needs another."""
    model = frozen_backbone()
    with CheckpointManager(tmp_path, keep=last(2), random=False) as manager:
        manager.save(1, model=model)
        once = disk_usage(tmp_path)
        for step in range(2, 6):
            torch.nn.init.constant_(model["head"].weight, step)
            manager.save(step, model=model)
        assert disk_usage(tmp_path) < once * 1.05
        shutil.rmtree(tmp_path / "step-0000000004")
        again = frozen_backbone()
        manager.resume(model=again)
    assert equal_states(model, again)


def test_a_backbone_that_was_changed_is_written_again(tmp_path):
    """Shards are shared by their content, not by hope."""
    model = frozen_backbone()
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, model=model)
        torch.nn.init.zeros_(model["backbone"].weight)
        manager.save(2, model=model)
        again = frozen_backbone()
        manager.resume(model=again)
    assert equal_states(model, again)
    assert disk_usage(tmp_path) > 2 * 700 * 700 * 4


def test_damage_to_a_shared_tensor_is_not_passed_on(tmp_path):
    """A shard that is no longer what was written is not shared again: the next checkpoint has the values of the model."""
    model = frozen_backbone()
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, model=model)
        flip(tmp_path / "step-0000000001" / "model-00001-of-00002.pt")
        manager.save(2, model=model)
        again = frozen_backbone()
        assert (manager.resume(model=again).step, equal_states(model, again)) == (2, True)


def test_a_checkpoint_copied_out_is_whole(tmp_path):
    """One file made of a shared checkpoint holds every tensor."""
    model = frozen_backbone()
    with CheckpointManager(tmp_path / "run") as manager:
        for step in (1, 2):
            manager.save(step, model=model)
        with statedict.open(manager.latest.path / "model.pt.index.json") as checkpoint:
            statedict.save(checkpoint.state_dict(), tmp_path / "model.pt")
    shutil.rmtree(tmp_path / "run")
    loaded = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())
    assert list(loaded) == list(model.state_dict())


def test_pruning_can_be_previewed(tmp_path):
    """A dry run says what would go, and the newest is never among it."""
    with CheckpointManager(tmp_path, keep=last(5)) as manager:
        for step in range(4):
            manager.save(step, counter=Counter())
        assert [saved.step for saved in manager.prune(last(1), dry_run=True)] == [0, 1, 2]
        assert len(manager.checkpoints) == 4
        assert [saved.step for saved in manager.prune(last(2))] == [0, 1]
        assert [saved.step for saved in manager.checkpoints] == [2, 3]


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"timeout": None}, TypeError, r"timeout= must be a timedelta such as timedelta\(minutes=30\), not None"),
        ({"timeout": 60}, TypeError, r"timeout= must be a timedelta such as timedelta\(minutes=30\), not 60 \(int\)"),
        ({"busy": "drop"}, ValueError, 'busy= must be "wait" or "replace", not \'drop\''),
        ({"after_save": 3}, TypeError, r"after_save= must be a function that takes the checkpoint, not 3 \(int\)"),
    ],
)
def test_options_that_are_not_valid(tmp_path, options, error, told):
    """Invalid options are refused when the manager is made, not when they are first used."""
    with pytest.raises(error, match=told):
        CheckpointManager(tmp_path, **options)


def test_a_checkpoint_or_a_file_is_not_a_run(tmp_path):
    """A manager of one would find no checkpoints, and so begin the training anew."""
    with CheckpointManager(tmp_path / "run") as manager:
        manager.save(3, counter=Counter())
    with pytest.raises(
        UnknownFormatError,
        match=r"this is a checkpoint, not a run: pass its run, '.*/run', and to resume from it, at=3",
    ):
        CheckpointManager(manager.latest.path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="a run is a directory, and this is a file"):
        CheckpointManager(tmp_path / "file").save(1)


def test_a_damaged_checkpoint_is_not_passed_over_when_it_is_named(tmp_path):
    """Another one was not asked for."""
    with CheckpointManager(tmp_path / "run") as manager:
        manager.save(1, counter=Counter())
        manager.save(2, counter=Counter())
        (manager.latest.path / "counter.pt").write_bytes(b"")
        with pytest.raises(FormatError, match="the file has 0 bytes"):
            manager.resume(at=2, counter=Counter())
        assert manager.resume(at=1, counter=Counter()).step == 1


@pytest.mark.parametrize("metrics", [torch.nn.Linear(1, 1), 3, [("loss", 1)]])
def test_metrics_that_are_no_mapping_are_refused(tmp_path, metrics):
    """The mistake is `save(step, model)`: the message says how objects are given."""
    with (
        CheckpointManager(tmp_path / "run") as manager,
        pytest.raises(
            TypeError, match=r"metrics must be a mapping of names to numbers, not .*save\(step, model=model\)"
        ),
    ):
        manager.save(1, metrics)


def test_a_policy_of_a_newer_version_is_unknown(tmp_path):
    """`rules` raises an error that names the run; the checkpoint itself is valid."""
    from statedict.formats import runs

    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1)
    step = tmp_path / "step-0000000001"
    (step / runs.MANIFEST).write_bytes(runs.dump(replace(runs.read(step), keep=["monthly", 1])))
    manager = CheckpointManager(tmp_path)
    assert [saved.step for saved in manager.checkpoints] == [1]
    with pytest.raises(
        FormatError, match=r"the manifest has an unknown policy: \['monthly', 1\] is not a retention policy"
    ):
        _ = manager.rules


def test_a_saved_checkpoint_is_a_path(tmp_path):
    """A Saved is accepted where a path is: it opens, loads, and names its directory."""
    model, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    with CheckpointManager(tmp_path / "run") as manager:
        manager.save(1, {"loss": 0.5}, model=model)
        assert statedict.load_state_dict(other, manager.best("loss")).ok
        with statedict.open(manager.latest) as checkpoint:
            assert "model" in checkpoint.roots
    assert torch.equal(model.weight, other.weight)
