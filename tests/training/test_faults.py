"""What a failing system does to a run: nothing that was saved is lost, and the next save works once it can."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from statedict import CheckpointManager, last
from statedict.errors import DiskFullError

CALLS = {
    "open",
    "close",
    "mkdir",
    "rename",
    "replace",
    "fsync",
    "pwritev",
    "pwrite",
    "posix_fallocate",
    "unlink",
    "rmdir",
}


def model_of(step):
    model = torch.nn.Linear(20, 20)
    torch.nn.init.constant_(model.weight, step)
    return model


def save(directory, step):
    with CheckpointManager(directory, keep=last(2), random=False) as manager:
        manager.save(step, model=model_of(step))


def die_at(count):
    """Kill this process as soon as its `count`-th call that changes the file system has returned."""
    seen = 0

    def watch(frame, event, function):
        nonlocal seen
        if event == "c_return" and function.__name__ in CALLS and function.__module__ == "posix":
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)


def dies(directory, step, count):
    """Save in a child that dies at its `count`-th call; whether it did."""
    child = os.fork()
    if not child:
        try:
            die_at(count)
            save(directory, step)
            sys.setprofile(None)
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the save failed by itself"
    return os.WIFSIGNALED(status)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="forking a process with threads warns since Python 3.12")
def test_death_after_any_system_call_of_a_save_loses_nothing(tmp_path):
    """After each, resume succeeds from the last durable step with exact values, and litter does not grow."""
    for step in (0, 1, 2):
        save(tmp_path, step)
    step, count = 3, 1
    while dies(tmp_path, step, count):
        with CheckpointManager(tmp_path, keep=last(2), random=False) as manager:
            model = model_of(-1)
            resumed = manager.resume(model=model)
            assert resumed.step in (step - 1, step)
            assert not resumed.passed_over
            assert bool((model.weight == resumed.step).all())
        hidden = [path for path in tmp_path.iterdir() if path.name.startswith((".saving", ".trash", ".old"))]
        assert len(hidden) <= 1
        if resumed.step == step:
            step += 1
        count += 1
    assert count > 15, "the calls were not seen"


def test_a_full_disk_loses_nothing_and_the_next_save_works(tmp_path):
    """On a small file system: the error says what is needed and free, the old checkpoint resumes, room makes it work."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        with CheckpointManager(disk / "run", keep=last(1), random=False) as manager:
            manager.save(1, model=model_of(1))
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(900_000))
            with pytest.raises(DiskFullError, match=r"bytes are needed and .* are free"):
                manager.save(2, model=torch.nn.Linear(300, 300))
            assert [saved.step for saved in manager.checkpoints] == [1]
            assert manager.resume(model=model_of(0)).step == 1
            ballast.unlink()
            manager.save(3, model=model_of(3))
            assert [saved.step for saved in manager.checkpoints] == [3]
        hidden = [path.name for path in (disk / "run").iterdir() if path.name.startswith(".") and path.name != ".lock"]
        assert hidden == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_directory_that_nobody_may_write_to(tmp_path):
    """The error is the system's, and names the directory; what is in it still resumes."""
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    save(tmp_path, 1)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError):
            save(tmp_path, 2)
        assert CheckpointManager(tmp_path).resume(model=model_of(0)).step == 1
    finally:
        tmp_path.chmod(0o755)
