"""A run of several processes: one checkpoint of all, resumed on any number of them."""

import subprocess
import sys

import pytest
from tests.training.objects import computed_facts
from tests.training.ranks import answers as ranks

import statedict
from statedict import CheckpointManager
from statedict.cli import main

pytest.importorskip("torch")

NAMES = ["0.weight", "0.bias", "1.weight", "1.bias"]


RESUMED = ["resume:fsdp:4", "resume:tp:2", "resume:ddp:2", "resume:fsdp:1", "resume:plain:1"]


def flat(model):
    return [value for tensor in model for value in tensor]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A run that two ranks of FSDP2 saved; then other ranks resumed it: FSDP2, tensor parallel, DDP, and one process."""
    directory = tmp_path_factory.mktemp("sharded") / "run"
    phases = ["save:fsdp:2", *RESUMED, "part:plain:1", "misfit:plain:2", "misfit:fsdp:2", "broken:fsdp:2"]
    return directory, dict(zip(phases, ranks(directory, *phases)))


@pytest.mark.slow
@pytest.mark.parametrize("phase", RESUMED)
def test_a_run_goes_on_with_another_number_of_ranks(sharded, phase):
    """All parts of model and optimizer are there, exactly, and the step after the resume is that of the run itself."""
    _, told = sharded
    saved = told["save:fsdp:2"][0]
    for rank, resumed in enumerate(told[phase]):
        assert (resumed["step"], resumed["metrics"], resumed["count"]) == (2, {"n": 2}, 2)
        assert resumed["values"] == {"epoch": 2, "pair": [1, 2]}
        assert saved["saved"] == resumed["saved"]
        names = [f"module.{name}" for name in NAMES] if ":ddp:" in phase else NAMES
        assert resumed["reports"] == {"model": [True, names], "optimizer": [True, names], "counter": [True, ["count"]]}
        assert flat(resumed["next"]) == pytest.approx(flat(saved["next"]), abs=1e-6)
        if rank < 2:
            assert told["save:fsdp:2"][rank]["drawn"] == resumed["drawn"], "each rank has its own random state"


@pytest.mark.slow
def test_the_manifest_has_the_checksums_of_the_files_of_all_ranks(sharded):
    """Each rank records them while it writes; they equal those of the files' bytes."""
    manager = CheckpointManager(sharded[0])
    files = manager._run.manifest(manager.latest.path).files
    assert {"model/__0_0.distcp", "model/__1_0.distcp", "model/.metadata", "random-00001.pt"} <= {*files}
    assert files == computed_facts(manager.latest.path)


@pytest.mark.slow
def test_one_process_loads_a_part_with_every_option(sharded):
    """One process reads a checkpoint that several ranks wrote like any other, with every option."""
    _, told = sharded
    assert told["part:plain:1"] == [{"loaded": NAMES[:2], "weight": told["save:fsdp:2"][0]["saved"][0]}]


@pytest.mark.slow
def test_what_does_not_fit_is_refused_on_every_rank_before_anything_changes(sharded):
    """Missing and unexpected names, or another shape: all are told, nothing is loaded. Then each option of a load works."""
    _, told = sharded
    for answer in [*told["misfit:plain:2"], *told["misfit:fsdp:2"]]:
        names, shape = answer["told"]
        assert "LoadError" in names
        assert "weight" in names
        assert "LoadError" in shape
        assert "1.weight" in shape
        assert answer["same"]
        assert answer["part"] == NAMES[:2]


@pytest.mark.slow
def test_a_load_that_fails_on_one_rank_ends_the_resume_on_all(sharded):
    """The error names the rank that failed. An object that is not sharded may be on some ranks only."""
    _, told = sharded
    first, second = told["broken:fsdp:2"]
    assert first == {"told": "RankError: rank 1 failed: no room here", "count": 2}
    assert second == {"told": "OSError: no room here", "count": 0}


@pytest.mark.slow
@pytest.mark.parametrize("saved", ["save:fsdp:1", "save:plain:1", "save:tp:2"])
def test_the_values_decide_how_a_run_is_saved(tmp_path, saved):
    """A sharded model is saved in parts, by one rank too; a plain one of one process as a file: all go on from both."""
    directory = tmp_path / "run"
    wanted, *others = ranks(directory, saved, "resume:plain:1", "resume:fsdp:1", "resume:tp:2", "resume:fsdp:4")
    newest = directory / "step-0000000002"
    assert (newest / "model").is_dir() == (saved != "save:plain:1")
    assert (newest / "counter.pt").is_file()
    for resumed in others:
        assert all(rank["saved"] == wanted[0]["saved"] for rank in resumed)
        assert flat(resumed[0]["next"]) == pytest.approx(flat(wanted[0]["next"]), abs=1e-6)
        assert resumed[0]["reports"]["optimizer"] == [True, NAMES]


@pytest.mark.slow
def test_inspect_and_convert_read_it_without_torch(sharded, tmp_path, capsys):
    """The directory that ranks wrote is a format as any other: listed, and made one file, by a process that has no torch."""
    directory, told = sharded
    assert {path.name for path in directory.iterdir()} == {".lock", "step-0000000001", "step-0000000002"}
    model = directory / "step-0000000002" / "model"
    script = (
        "import sys\nsys.modules['torch'] = None\nfrom statedict.cli import main\n"
        "try:\n    main(['inspect', sys.argv[1], '--flat'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "main(['convert', *sys.argv[1:]])\n"
    )
    target = tmp_path / "model.safetensors"
    done = subprocess.run([sys.executable, "-c", script, model, target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in NAMES)
    loaded = statedict.load(target, backend="numpy")
    assert list(loaded) == NAMES
    saved = told["save:fsdp:2"][0]["saved"]
    assert [loaded[name].ravel().tolist() for name in NAMES] == saved[:4]
    with pytest.raises(SystemExit) as ended:
        main(["runs", str(directory)])
    assert (ended.value.code or 0, capsys.readouterr().out.count("n 2")) == (0, 1)


@pytest.mark.slow
def test_saving_an_optimizer_without_state_gives_it_none(tmp_path):
    """PyTorch would take a step with gradients of zero, which counts. Without its model, an optimizer is not saved."""
    for answers in ranks(tmp_path / "run", "untrained:fsdp:2", "untrained:fsdp:1"):
        for *found, told in answers:
            assert found == [0, 0, 0.1, True]
            assert "Adam is saved by the names of its parameters" in told
            assert "pass its model to save(), too" in told


@pytest.mark.slow
def test_sharded_tensors_of_other_objects_are_refused_at_once(tmp_path):
    """Only modules and optimizers are saved in parts; an object that rank 0 would save alone must not have DTensors."""
    (answers,) = ranks(tmp_path / "run", "other_shards:fsdp:2")
    for told, left in answers:
        assert "'average' has sharded tensors, and is neither a PyTorch module nor an optimizer" in told
        assert left == 0


@pytest.mark.slow
def test_values_that_only_one_rank_has_are_saved(tmp_path):
    """Of the buffers that several ranks have, those of the first are; a value of different kinds is refused by name."""
    (answers,) = ranks(tmp_path / "run", "stages:plain:2")
    for answer in answers:
        told = answer.pop("told")
        assert answer == {"stage0.running_mean": [1, 1], "before.deep": [1], "stage1.running_mean": [2, 2]}
        assert "'param_groups.0.lr' is of different kinds on ranks 0 and 1" in told


@pytest.mark.slow
def test_the_stages_of_a_pipeline(tmp_path):
    """Ranks with different parameters resume their own, and one process all: a name is unexpected if no rank has it."""
    (answers,) = ranks(tmp_path / "run", "pipeline:plain:2")
    for answer in answers:
        other_options, unexpected = answer["told"]
        assert answer["same"] == [True, True, 8]
        assert answer["ok"] == [True, True]
        assert "Unexpected key(s) in state_dict" in unexpected
        assert "3.weight" in unexpected
        assert "0.weight" not in unexpected
        assert (
            "the optimizers of ranks 0 and 1 have different parameters, and parameter groups with different"
            in other_options
        )


@pytest.mark.slow
def test_four_ranks_save_and_two_resume(tmp_path):
    """DDP's model is saved once, by its bare names; asynchronous saves are waited for, and need no second way."""
    directory = tmp_path / "run"
    saved, fewer, failed, locked = ranks(directory, "save:ddp:4", "resume:fsdp:2", "fail:fsdp:2", "locked:plain:2")
    assert all(resumed["saved"] == saved[0]["saved"] for resumed in fewer)
    # A rank that fails fails the save on all, at once, and leaves nothing; the next one works.
    for answer in failed:
        assert "no state here" in answer["told"]
        assert answer["left"] == [".lock", "step-0000000001", "step-0000000002"]
    assert (directory / "step-0000000011").is_dir()
    assert all("another manager in this process" in answer["told"] for answer in locked)


@pytest.mark.slow
def test_objects_in_lists_and_dicts_of_several_ranks(tmp_path):
    """Each is saved by all ranks under its path, and resumed into the same structure, with a report of its own."""
    (answers,) = ranks(tmp_path / "run", "structure:fsdp:2")
    for answer in answers:
        assert answer["same"]
        assert (answer["count"], answer["values"]) == (7, {"counts": [None, "x"]})
        assert answer["reports"] == ["counts/0", "models/a", "models/b", "optimizers/0", "optimizers/1"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_all_ranks_get_the_same_answer_when_to_save(tmp_path, size):
    """The clock and the functions of rank 0 count, and SIGTERM at any rank, after whose save all ranks end."""
    kind = "plain" if size == 3 else "background"
    told, meanwhile, raised = ranks(
        tmp_path / "run", f"asks:{kind}:{size}", f"meanwhile:{kind}:{size}", f"raises:plain:{size}"
    )
    # At step 1 the function; then 75 seconds later, at step 4; at step 6 the signal.
    assert told == [{"saved": [1, 4, 6], "came": [6], "there": [1, 4, 6]}] * size
    assert [answer["came"] for answer in meanwhile] == [[2]] * size
    assert raised == [
        "ZeroDivisionError: division by zero",
        *["RankError: rank 0 failed: ZeroDivisionError: division by zero"] * (size - 1),
    ]


@pytest.mark.slow
def test_what_follows_a_save_is_done_by_the_first_rank(tmp_path):
    """after_save is called there, may pin, and may not resume; its error is told to all ranks, and the checkpoint stays."""
    (answers,) = ranks(tmp_path / "run", "follows:plain:2")
    first, second = answers
    assert (first.pop("called"), second.pop("called")) == ([1, 2, 3, 4], [])
    assert "AfterSaveError" in first["told"][0]
    assert "resume() needs all ranks" in first.pop("told")[0]
    assert "RankError: rank 0 failed" in second.pop("told")[0]
    assert first == second == {
        "there": [[1, True], [3, True], [4, False]], "pruned": [[[1, False]], [[1, False]], []], "count": 1,
    }  # fmt: skip
