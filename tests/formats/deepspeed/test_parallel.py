"""Tests for DeepSpeed's checkpoints of pipelines, tensor parallelism and mixtures of experts."""

import torch
from tests.formats.deepspeed.test_zero import equal
from tests.formats.deepspeed.zero_job import Job, change

import statedict

STAGES = [{"0.weight": (4, 4), "0.bias": (4,)}, {"2.weight": (4, 4), "10.weight": (3, 5)}]


def pipeline(folder, stages=STAGES, **options):
    """Save a pipeline; return its jobs and the folder of its step."""
    jobs = [
        Job(1, shapes=shapes, mp=mp, mps=len(stages), layers=True, seed=mp, **options)
        for mp, shapes in enumerate(stages)
    ]
    for job in jobs:
        step = job.save(folder)
        change(step / job.model_file(), lambda states: states.update(buffer_names=[]))
        job.save_layers(step)
    return jobs, step


def test_the_stages_of_a_pipeline_are_joined(tmp_path):
    """Stages have different parameters: the model, and the optimizer, is all of them; `module` has those of the layers."""
    jobs, step = pipeline(tmp_path)
    checkpoint = statedict.open(step)
    expected = {name: value for job in jobs for name, value in job.values["fp32"].items()}
    state = checkpoint.state_dict()
    assert list(state) == list(expected)
    assert all(equal(state.leaf(name), value) for name, value in expected.items())
    assert checkpoint.state_dict("module")["10.weight"].dtype == torch.bfloat16
    optimizer = checkpoint.object["optimizer"]
    assert set(optimizer["state"]) == set(expected)
    assert [group["params"] for group in optimizer["param_groups"]] == [list(expected)]
    assert checkpoint.notes == ["joined from 2 stages of a pipeline"]


def test_layers_that_share_parameters(tmp_path):
    """Parameters that two stages share are in both, and once in the model."""
    shared = {"tied_modules.embed.weight": (4, 4)}
    _, step = pipeline(tmp_path, [{**shared, "1.bias": (4,)}, {**shared, "2.bias": (4,)}])
    checkpoint = statedict.open(step)
    assert set(checkpoint.state_dict()) == {*shared, "1.bias", "2.bias"}
    assert checkpoint.object["optimizer"]["param_groups"][0]["params"] == [*shared, "1.bias", "2.bias"]


def test_a_missing_stage_is_named(tmp_path):
    """The parameters of a missing stage are those of the layers, in the dtype that they train with."""
    jobs, step = pipeline(tmp_path)
    for path in step.glob("*mp_rank_01*"):
        path.unlink()
    checkpoint = statedict.open(step)
    assert "there is no file of mp_rank_01" in checkpoint.notes[0]
    assert equal(checkpoint.state_dict("model").leaf("0.bias"), jobs[0].values["fp32"]["0.bias"])


def test_slices_for_tensor_parallelism_are_not_taken_for_a_model(tmp_path):
    """Nothing in the files says how to join slices: each mp_rank is a root of its own, and none is the default."""
    jobs = [Job(2, shapes={"w": (4, 2)}, mp=mp, mps=2, seed=mp) for mp in range(2)]
    for job in jobs:
        step = job.save(tmp_path)
    checkpoint = statedict.open(step)
    assert [root for root in checkpoint.roots if root.endswith("model")] == ["mp_rank_00/model", "mp_rank_01/model"]
    assert equal(checkpoint.state_dict("mp_rank_01/model").leaf("w"), jobs[1].values["fp32"]["w"])
    assert "ds_to_universal" in checkpoint.notes[0]


def test_one_slice_of_several_is_not_taken_for_a_model(tmp_path):
    """The files of a single mp_rank are not taken for a whole model either."""
    checkpoint = statedict.open(Job(2, shapes={"w": (4, 2)}, mps=2).save(tmp_path))
    assert "mp_rank_00/model" in checkpoint.roots
    assert "there is no file of mp_rank_01" in checkpoint.notes[-1]


def test_experts_have_the_weights_of_their_files(tmp_path):
    """The groups of experts belong to fewer ranks, and are left out; their weights are in files of their own."""
    of_rank = "moe.deepspeed_moe.experts.deepspeed_experts.0.weight"
    names = [f"moe.deepspeed_moe.experts.deepspeed_experts.{n}.weight" for n in range(2)]
    job = Job(2, shapes={"a.weight": (4, 3), of_rank: (2, 2)}, groups=[["a.weight"], [of_rank]])
    step = job.save(tmp_path)
    change(step / job.model_file(), lambda states: states["module"].pop(of_rank))
    for rank in range(2):
        edit = lambda content: content["optimizer_state_dict"].update(partition_count=[2, 1])  # noqa: E731
        change(step / job.optimizer_file(rank), edit)
        torch.save(
            {names[rank]: torch.full((2, 2), float(rank))}, step / f"layer_0_expert_{rank}_mp_rank_00_model_states.pt"
        )
    checkpoint = statedict.open(step)
    state = checkpoint.state_dict()
    assert equal(state.leaf("a.weight"), job.values["fp32"]["a.weight"])
    assert all(equal(state.leaf(name), torch.full((2, 2), float(n))) for n, name in enumerate(names))
    assert set(checkpoint.object["optimizer"]["state"]) == {"a.weight"}
    assert "experts" in checkpoint.notes[0]


def test_without_zero_the_files_are_read_as_they_are(tmp_path):
    """Without ZeRO the module and the optimizer are those of PyTorch; experts have optimizers of their own."""
    module, optimizer = (
        {"w": torch.ones(2)},
        {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"params": [0]}]},
    )
    states = {"module": module, "optimizer": optimizer, "param_shapes": None, "lr_scheduler": {"last_epoch": 3}}
    torch.save(states, tmp_path / "mp_rank_00_model_states.pt")
    torch.save({"optimizer": optimizer}, tmp_path / "expp_rank_0_mp_rank_00_optim_states.pt")
    checkpoint = statedict.open(tmp_path)
    assert list(checkpoint.roots) == ["model", "optimizer", "expp_rank_0/optimizer"]
    assert checkpoint.object["scheduler"] == {"last_epoch": 3}


def test_the_optimizer_for_bfloat16_without_zero(tmp_path):
    """The files of this optimizer say how much of each parameter a rank has; the shapes are those of the module."""
    job = Job(1, ranks=3)
    step = job.save(tmp_path)
    change(step / job.model_file(), lambda states: states.update(param_shapes=None, shared_params=None))
    for rank in range(3):
        change(step / job.optimizer_file(rank), lambda content: content["optimizer_state_dict"].pop("zero_stage"))
    state = statedict.open(step).state_dict()
    assert all(equal(state.leaf(name), value) for name, value in job.model().items())
