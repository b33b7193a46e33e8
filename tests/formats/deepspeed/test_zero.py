"""Tests for the folders of one step that DeepSpeed saves with ZeRO 1, 2 or 3."""

import shutil

import pytest
import torch
from tests.formats.deepspeed.zero_job import MOMENTS, SHAPES, Job, change
from tests.hostile.build import pickles, zero
from tests.hostile.build.shards import write_all

import statedict
from statedict.errors import FormatError, PartError
from statedict.state import Parts, read_array

SMALL = [name for name, shape in SHAPES.items() if len(shape) == 1]
LARGE = [name for name in SHAPES if name not in SMALL]
TIED = {"head.weight": "embed.weight"}
JOBS = {
    **{f"zero{stage}": Job(stage) for stage in (1, 2, 3)},
    **{f"zero{stage}-groups": Job(stage, groups=[LARGE, SMALL], tied=TIED) for stage in (1, 2, 3)},
    **{
        f"zero{stage}-frozen": Job(
            stage, groups=[["scale", "embed.weight", "body.0.bias"], ["norm.weight"]], frozen=("odd", "body.0.weight")
        )
        for stage in (1, 2, 3)
    },
    **{
        f"zero{stage}-{ranks}-ranks": Job(stage, ranks, groups=[LARGE, SMALL])
        for stage in (2, 3)
        for ranks in (1, 3, 64)
    },
    "fp32": Job(2, kind="zero", dtype=torch.float32),
    "fp16": Job(3, kind="zero", dtype=torch.float16),
    "elastic": Job(2, ranks=3, groups=[LARGE, SMALL], elastic=True),
    "paddings": Job(2, groups=[LARGE, SMALL], paddings=[[1, 2, 0], [3, 0, 1]]),
}


@pytest.fixture(params=JOBS)
def job(request):
    return JOBS[request.param]


def equal(leaf, tensor):
    """Whether a leaf has the dtype, shape and elements of a tensor."""
    wide = tensor.view(torch.uint8) if tensor.dtype is torch.bfloat16 and tensor.ndim else tensor
    array = read_array(leaf)
    array = array.view("u1") if tensor.dtype is torch.bfloat16 and tensor.ndim else array
    same = str(leaf.spec.dtype) == str(tensor.dtype).removeprefix("torch.") and leaf.spec.shape == tuple(tensor.shape)
    return same and (array == wide.numpy()).all()


def test_the_weights_are_those_of_the_optimizer_in_fp32(job, tmp_path):
    """`model` has the fp32 weights by name, buffers, and frozen and shared parameters, in the order of the module."""
    with statedict.open(job.save(tmp_path)) as checkpoint:
        state = checkpoint.state_dict()
        expected = job.model()
        assert checkpoint.format == "deepspeed"
        assert checkpoint.producer == "DeepSpeed 0.19.8"
        assert list(state) == [name for name in job.module() if name in expected]
        assert [name for name in state if not equal(state.leaf(name), expected[name])] == []


def test_the_optimizer_has_the_names_of_parameters(job, tmp_path):
    """`optimizer` has each parameter's moments and step by its name, and so have the parameter groups."""
    with statedict.open(job.save(tmp_path)) as checkpoint:
        optimizer, expected = checkpoint.object["optimizer"], job.optimizer()
        assert {name: set(entry) for name, entry in optimizer["state"].items()} == {
            name: {*MOMENTS, "step"} for name in expected
        }
        wrong = [
            (name, key)
            for name, entry in expected.items()
            for key, value in entry.items()
            if not equal(optimizer["state"][name][key], value)
        ]
        assert wrong == []
        assert [group["params"] for group in optimizer["param_groups"]] == job.groups


def test_everything_else_is_beside(tmp_path):
    """The 16-bit weights are at `module`, the scheduler at `scheduler`, and others at their own keys, as plain data."""
    with statedict.open(Job(2).save(tmp_path)) as checkpoint:
        tree = checkpoint.object
        assert {"model", "optimizer", "module", "scheduler", "epoch", "global_steps"} < set(tree)
        assert tree["scheduler"] == {"last_epoch": 3, "_last_lr": [1e-3]}
        assert (tree["epoch"], tree["zero_stage"], tree["loss_scaler"]) == (7, 2, {"cur_scale": 1.0, "dynamic": False})
        assert checkpoint.state_dict("module")["embed.weight"].dtype == torch.bfloat16
        assert checkpoint.dangerous == []
        assert checkpoint.verify() == []


def test_values_of_the_user_do_not_replace_roots(tmp_path):
    """A value that the user saved as `model` does not take the place of the weights."""
    step = Job(2).save(tmp_path)
    change(step / "mp_rank_00_model_states.pt", lambda states: states.update(model="gpt"))
    assert "embed.weight" in statedict.open(step).state_dict()


def test_the_folder_of_the_run_opens_the_step_that_latest_names(tmp_path):
    """`latest` beside the folders of steps says which of them is opened."""
    Job(2, seed=1).save(tmp_path)
    (tmp_path / "global_step3").rename(tmp_path / "global_step2")
    Job(2).save(tmp_path)
    (tmp_path / "latest").write_text("global_step2")
    state = statedict.open(tmp_path).state_dict()
    assert equal(state.leaf("embed.weight"), Job(2, seed=1).values["fp32"]["embed.weight"])


def test_a_folder_with_the_weights_in_a_file_too(tmp_path):
    """transformers' Trainer saves 16-bit weights beside DeepSpeed's folder: both are roots, and the optimizer is found."""
    job = Job(2)
    job.save(tmp_path)
    step = (tmp_path / "latest").read_text()
    statedict.save(job.module(), tmp_path / "model.safetensors")
    checkpoint = statedict.open(tmp_path)
    assert equal(checkpoint.state_dict(f"{step}/model").leaf("embed.weight"), job.values["fp32"]["embed.weight"])
    assert checkpoint.state_dict().keys() == job.module().keys()
    assert set(checkpoint.object[step]["optimizer"]["state"]) == set(SHAPES)


def test_shared_parameters_are_tied(tmp_path):
    """A parameter that two modules share is one tensor with two names."""
    for stage in (2, 3):
        state = statedict.open(Job(stage, tied=TIED).save(tmp_path / str(stage))).state_dict()
        assert state.tied == [("embed.weight", "head.weight")]


def test_steps_are_not_shared(tmp_path):
    """Each parameter has a step of its own, so that an optimizer which counts one does not count the others."""
    entries = statedict.open(Job(3).save(tmp_path)).object["optimizer"]["state"].values()
    assert len({entry["step"].storage.key for entry in entries}) == len(SHAPES)


def test_conversion_keeps_every_tensor(tmp_path):
    """A converted checkpoint has the weights of zero_to_fp32.py."""
    job = Job(3, ranks=3, groups=[LARGE, SMALL], tied=TIED)
    statedict.save(statedict.open(job.save(tmp_path)).state_dict(), tmp_path / "model.safetensors")
    saved = statedict.open(tmp_path / "model.safetensors").state_dict()
    assert {name for name, value in job.model().items() if not equal(saved.leaf(name), value)} == set()


def test_an_optimizer_of_torch_is_loaded_by_name(tmp_path):
    """The state goes into an optimizer of the whole model, on one process, whatever its order of parameters is."""
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(11, 6), "norm": torch.nn.LayerNorm(6, bias=False)})
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    job = Job(3, shapes=shapes)
    optimizer = torch.optim.AdamW(list(model.parameters())[::-1])
    statedict.load_state_dict(optimizer, job.save(tmp_path), root="optimizer", model=model)
    for name, parameter in model.named_parameters():
        assert torch.equal(optimizer.state[parameter]["exp_avg"], job.values["exp_avg"][name])


@pytest.mark.only_on("linux", "macos")  # the file is open, and cannot be deleted
def test_a_part_of_a_parameter_reads_the_ranks_that_have_it(tmp_path):
    """A box of a parameter is read without the file of a rank that has none of it."""
    from statedict.state import Box, region

    job = Job(3, shapes={"w": (8, 3)})
    step = job.save(tmp_path)
    leaf = statedict.open(step).state_dict().leaf("w")
    (step / job.optimizer_file(1)).unlink()
    assert equal(region(leaf, Box((1, 0), (2, 3))), job.values["fp32"]["w"][1:3])


@pytest.mark.parametrize(("stage", "key"), [(2, "single_partition_of_fp32_groups"), (3, "fp32_flat_groups")])
def test_the_device_of_a_rank_does_not_matter(stage, key, tmp_path):
    """Vectors that a rank saved from its own GPU are in main memory when they are read."""
    half = pickles.tensor(pickles.storage(numel=2, location="cuda:1"), size=(2,))
    ranks = {
        zero.optimizer_file(rank): zero.optimizer_states(rank, stage, **{key: pickles.list_(half)}) for rank in range(2)
    }
    leaf = statedict.open(write_all(tmp_path, {**zero.files(stage), **ranks})).state_dict().leaf("w")
    assert leaf.storage.location == "cpu"
    assert equal(leaf, torch.tensor([1.0, 2, 3, 4]))


# missing files


@pytest.mark.parametrize("stage", [2, 3])
def test_a_missing_rank_is_named(stage, tmp_path):
    """Parameters of which a rank is missing keep their shape and raise PartError; others load."""
    job = Job(stage, tied=TIED)
    step = job.save(tmp_path)
    (step / job.optimizer_file(1)).unlink()
    checkpoint = statedict.open(step)
    state, missing = checkpoint.state_dict(), job.optimizer_file(1)
    broken = {name for name in state if isinstance(state.leaf(name), Parts)}
    assert "body.0.weight" in broken
    assert state.leaf("body.0.weight").spec.shape == (6, 6)
    for name in broken:
        with pytest.raises(PartError, match=missing):
            read_array(state.leaf(name))
    assert all(equal(state.leaf(name), job.model()[name]) for name in set(state) - broken)
    assert [finding.level for finding in checkpoint.verify()] == ["error", "note"]
    assert missing in checkpoint.verify()[0].text


def test_a_damaged_rank_counts_as_missing(tmp_path):
    """The file of a rank that cannot be opened is named, and what it does not have loads."""
    job = Job(2)
    step = job.save(tmp_path)
    (step / job.optimizer_file(1)).write_bytes(b"PK\3\4 cut off")
    checkpoint = statedict.open(step)
    assert f"{job.optimizer_file(1)} cannot be read" in checkpoint.notes[0]
    assert job.optimizer_file(1) in checkpoint.unopened
    assert equal(checkpoint.state_dict("module").leaf("table"), job.model()["table"])


def test_without_optimizer_files_the_module_is_the_model(tmp_path):
    """If all files of the optimizer are missing, the weights that the model trains with are there, and a note says so."""
    job = Job(2)
    step = job.save(tmp_path)
    for rank in range(2):
        (step / job.optimizer_file(rank)).unlink()
    checkpoint = statedict.open(step)
    assert "optimizer" not in checkpoint.object
    assert checkpoint.state_dict() is checkpoint.roots["module"]
    assert "fp32 weights and the optimizer are missing" in checkpoint.notes[0]


def test_missing_model_states_of_zero_3(tmp_path):
    """With ZeRO 3, model states of a rank are needed for frozen parameters only."""
    job = Job(3, frozen=("odd",))
    step = job.save(tmp_path)
    (step / "zero_pp_rank_1_mp_rank_00_model_states.pt").unlink()
    state = statedict.open(step).state_dict()
    with pytest.raises(PartError, match="odd"):
        read_array(state.leaf("odd"))
    assert equal(state.leaf("embed.weight"), job.values["fp32"]["embed.weight"])


def test_no_model_states(tmp_path):
    """Without any model states, no parameter has a name: the folder is refused."""
    step = Job(2).save(tmp_path)
    (step / "mp_rank_00_model_states.pt").unlink()
    with pytest.raises(FormatError, match="no file of model states"):
        statedict.open(step)


# contradictions


def test_files_of_different_jobs_are_refused(tmp_path):
    """Ranks that say they were saved by different numbers of ranks are refused by name."""
    step, other = Job(2).save(tmp_path / "a"), Job(2, ranks=3).save(tmp_path / "b")
    shutil.copy(other / Job(2).optimizer_file(2), step)
    with pytest.raises(FormatError, match=r"rank_2.*contradicts .*rank_0.*saved by 3 ranks.*there 2 ranks"):
        statedict.open(step)


CONTRADICTIONS = {
    "group 0 has 1 elements here, but|it contradicts": lambda saved, key: saved[key].__setitem__(0, torch.zeros(1)),
    "expected a flat tensor, found a tensor": lambda saved, key: saved[key].__setitem__(0, torch.zeros(2, 2)),
    "expected a flat tensor, found 7": lambda saved, key: saved[key].__setitem__(0, 7),
    "dtypes": lambda saved, key: saved[key].__setitem__(0, saved[key][0].double()),
    "partition_count does not give": lambda saved, key: saved.update(partition_count="two"),
    "keys": lambda saved, key: saved[key.replace(*OF_STATE)]["state"][0].pop("exp_avg"),
    "refer to other groups": lambda saved, key: saved[key.replace(*OF_STATE)]["param_groups"][0].update(params=[5]),
    "no state dict of an optimizer": lambda saved, key: saved.update({key.replace(*OF_STATE): 3}),
    "has no fp32 weights": lambda saved, key: saved.pop(key),
}
OF_STATE = ("single_partition_of_fp32_groups", "base_optimizer_state")
OF_STATE_3 = ("fp32_flat_groups", "optimizer_state_dict")


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("message", CONTRADICTIONS)
def test_a_rank_that_contradicts_the_others(message, stage, tmp_path, monkeypatch):
    """Files of a rank that contradict those of the others are refused by an error that names the file."""
    monkeypatch.setitem(globals(), "OF_STATE", OF_STATE_3 if stage == 3 else OF_STATE)
    job = Job(stage)
    path = job.save(tmp_path) / job.optimizer_file(0)
    key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    change(path, lambda content: CONTRADICTIONS[message](content["optimizer_state_dict"], key))
    with pytest.raises(FormatError, match=message) as caught:
        statedict.open(path.parent)
    assert "optim_states" in str(caught.value)


SHAPE_ERRORS = {
    "(have|has) .* elements": lambda states: states["param_shapes"][0].update({"embed.weight": torch.Size((11, 60))}),
    "is not a shape": lambda states: states["param_shapes"][0].update({"embed.weight": (11, -6)}),
    "two groups have a parameter of this name": lambda states: states["param_shapes"].append({"odd": torch.Size((1,))}),
    "describe 2": lambda states: states["param_shapes"].append({"other": torch.Size((1,))}),
    "param_shapes are 3": lambda states: states.update(param_shapes=3),
    "impossible shape": lambda states: states["param_shapes"][0].update({"scale": torch.Size((0, 1 << 40, 1 << 40))}),
}


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("message", SHAPE_ERRORS)
def test_shapes_that_do_not_fit_the_vectors(message, stage, tmp_path):
    """The shapes must account for all elements of the flat vectors, except for the padding."""
    step = Job(stage).save(tmp_path)
    change(min(step.glob("*model_states.pt")), SHAPE_ERRORS[message])
    with pytest.raises(FormatError, match=message):
        statedict.open(step)


def test_a_frozen_parameter_of_another_shape(tmp_path):
    """A frozen parameter that does not have the shape that the file says is refused."""
    step = Job(2, frozen=("odd",)).save(tmp_path)
    edit = lambda states: states["frozen_param_shapes"].update(odd=torch.Size((3, 5)))  # noqa: E731
    change(step / "mp_rank_00_model_states.pt", edit)
    with pytest.raises(FormatError, match=r"frozen parameter of shape \[3, 5\]"):
        statedict.open(step)


def test_ranks_claimed_by_the_billion_cost_nothing(tmp_path):
    """A file that claims to be one of a billion ranks is read as such: its own part, and one name of what is missing."""
    job = Job(3, ranks=1, shapes={"w": (4,)})
    step = job.save(tmp_path)
    change(
        step / job.optimizer_file(0), lambda content: content["optimizer_state_dict"].update(partition_count=1 << 30)
    )
    with pytest.raises(FormatError, match="elements here"):
        statedict.open(step)
