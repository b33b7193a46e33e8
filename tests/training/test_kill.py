"""A slice of what `kill`, `kill_ranks` and `calls` in this directory do at length (`python -m tests.training.kill`)."""

import pytest
from tests import forked

pytest.importorskip("torch")


def run(name, *arguments):
    done = forked.run(f"tests.training.{name}", *arguments, action="default", timeout=200)
    if "Operation not permitted" in done.stderr:
        pytest.skip("a process may not trace its own child here")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0  wrong" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("way", [[], ["--asynchronous"]], ids=["synchronous", "asynchronous"])
def test_killed_while_it_resumes_saves_uploads_or_prunes_a_run_goes_on(tmp_path, way):
    """After each SIGKILL: resumed from the last durable step with exact values; uploads are complete, no litter."""
    run("kill", "--times", "12", "--folder", tmp_path, *way)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "every"), [([], "13"), (["--asynchronous"], "16")], ids=["synchronous", "asynchronous"]
)
def test_killed_after_system_calls_of_a_save_a_run_goes_on(tmp_path, way, every):
    """A run that is killed after every so many system calls of a save, in any thread, resumes with exact values."""
    run("calls", "--every", every, "--folder", tmp_path, *way)


@pytest.mark.slow
@pytest.mark.parametrize("way", [["--ranks", "2"], ["--ranks", "4", "--sharded"]], ids=["2 ranks", "4 ranks, sharded"])
def test_a_run_goes_on_after_any_rank_was_killed_during_its_saves(tmp_path, way):
    """After each SIGKILL the others are told which rank it was, and the next life resumes from the last durable step."""
    run("kill_ranks", "--times", "5", "--folder", tmp_path, *way)
