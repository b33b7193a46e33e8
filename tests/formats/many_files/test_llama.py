"""The files of a Llama divided for tensor parallelism are one state; transformers' model is the oracle.

The files are made by the inverse of transformers' `convert_llama_weights_to_hf.py`.
"""

import json
import shutil

import pytest
import torch
from tests.maps.models import from_file, hf_llama, saved

import statedict
from statedict import formats
from statedict.cli import main
from statedict.errors import ChecksumError, FormatError

pytest.importorskip("transformers")

RANKS = 2
COLUMNS = ("wq", "wk", "wv", "w1", "w3", "output")
ROWS = ("wo", "w2")


def meta(state, frequencies="rope.freqs"):
    """The whole state under Meta's names."""
    whole = statedict.maps.load("llama-hf", head_dim=8).inverse.rename(state).torch()
    return {name: tensor.clone() for name, tensor in whole.items()} | {frequencies: torch.ones(4)}


def divided(whole, embedding=1):
    """The states of the ranks, as the modules of fairscale divide them."""

    def part(name, tensor, rank):
        words = name.split(".")
        axis = embedding if name == "tok_embeddings.weight" else 1 if {*words} & {*ROWS} else 0
        cut = axis == 0 and not {*words} & {*COLUMNS, "tok_embeddings"}
        return tensor if cut else tensor.chunk(RANKS, axis)[rank].contiguous()

    return [{name: part(name, tensor, rank) for name, tensor in whole.items()} for rank in range(RANKS)]


def write(folder, states):
    folder.mkdir(exist_ok=True)
    for rank, state in enumerate(states):
        torch.save(state, folder / f"consolidated.{rank:02}.pth")
    return folder


@pytest.fixture(scope="module")
def model():
    return hf_llama()


@pytest.fixture(scope="module")
def whole(model):
    return meta(saved(model))


@pytest.fixture
def folder(tmp_path, whole):
    return write(tmp_path / "llama", divided(whole))


@pytest.mark.parametrize("embedding", [0, 1], ids=["Llama 3", "Llama 1 and 2"])
@pytest.mark.parametrize("frequencies", ["rope.freqs", "layers.0.attention.inner_attention.rope.freqs"])
def test_the_files_are_one_state(tmp_path, model, embedding, frequencies):
    """Names, order and values are those of the model that was divided, however its vocabulary is divided."""
    whole = meta(saved(model), frequencies)
    found = statedict.load(write(tmp_path / "llama", divided(whole, embedding)))
    assert list(found) == list(whole)
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_the_converted_model_computes_the_same(folder, tmp_path, model):
    """`convert --map llama-hf` takes the size of a head from `params.json`, and transformers computes the same outputs."""
    (folder / "params.json").write_text(json.dumps({"dim": 32, "n_heads": 4, "n_layers": 2}))
    out = tmp_path / "out.safetensors"
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(folder), str(out), "--map", "llama-hf"])
    assert not ended.value.code
    tokens = torch.arange(8)[None]
    assert torch.equal(from_file(model, statedict.load(out))(tokens).logits, model(tokens).logits)


def test_a_tensor_is_read_from_its_parts_only(folder, whole):
    """Damage in one part of one tensor is an error of this tensor, which names the file; the others can be read."""
    damaged, path = "layers.0.feed_forward.w2.weight", folder / "consolidated.01.pth"
    wanted, content = divided(whole)[1][damaged].numpy().tobytes(), path.read_bytes()
    assert content.count(wanted) == 1
    path.write_bytes(content.replace(wanted, wanted[:-1] + b"!"))
    with statedict.open(folder) as checkpoint:
        state = checkpoint.state_dict().torch()
        assert all(torch.equal(state[name], whole[name]) for name in whole if name != damaged)
        with pytest.raises(ChecksumError, match=rf"consolidated\.01\.pth.*'{damaged}' have changed"):
            state[damaged]


@pytest.mark.parametrize("missing", range(RANKS))
def test_a_missing_file_is_named(folder, missing):
    """Each file shows how many there are, so the last one is missed too, and the first."""
    (folder / f"consolidated.{missing:02}.pth").unlink()
    with pytest.raises(FormatError, match=rf"divided among 2 files, but consolidated\.0{missing}\.pth is missing"):
        formats.open(folder)


def test_a_file_too_many_is_named(folder):
    """A file of another model among them is an error."""
    shutil.copy(folder / "consolidated.00.pth", folder / "consolidated.02.pth")
    with pytest.raises(FormatError, match=r"among 2 files, but there is also consolidated\.02\.pth"):
        formats.open(folder)


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_damaged_file_is_named(folder, rank):
    """A file that cannot be opened is an error, because hardly a tensor can be read without it."""
    path = folder / f"consolidated.{rank:02}.pth"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FormatError, match=rf"consolidated\.0{rank}\.pth"):
        formats.open(folder)


CHANGES = {
    r"output\.weight: its parts differ: float32 \[25, 32\] in consolidated\.00\.pth, float32 \[24, 32\] in consolid": (
        lambda state: state.update({"output.weight": state["output.weight"][:24]})
    ),
    r"norm\.weight: its parts differ: float32 \[32\] in consolidated\.00\.pth, float16 \[32\] in consolid": (
        lambda state: state.update({"norm.weight": state["norm.weight"].half()})
    ),
    r"output\.weight: it is in consolidated\.00\.pth, but not in consolidated\.01\.pth": (
        lambda state: state.pop("output.weight")
    ),
    r"more: it is in consolidated\.01\.pth, but not in consolidated\.00\.pth": (
        lambda state: state.update(more=torch.ones(2))
    ),
    r"consolidated\.01\.pth: step: expected a tensor, found int": lambda state: state.update(step=3),
}


@pytest.mark.parametrize("text", CHANGES)
def test_parts_that_do_not_fit_are_an_error(folder, whole, text):
    """The error names the tensor, and what the files have of it."""
    states = divided(whole)
    CHANGES[text](states[1])
    write(folder, states)
    with pytest.raises(FormatError, match=text):
        formats.open(folder)


@pytest.mark.parametrize("name", ["adapter.weight", "layers.0.attention.wq.bias"])
def test_an_unknown_tensor_is_an_error(folder, whole, name):
    """Nothing is guessed about tensors that a Llama does not have."""
    write(folder, [state | {name: torch.ones(2)} for state in divided(whole)])
    with pytest.raises(FormatError, match=rf"{name}: it is not known how .* \(open one of the files\)"):
        formats.open(folder)


def test_one_whole_file_is_read_as_it_is(tmp_path, whole):
    """A model that is not divided opens as its file."""
    with formats.open(write(tmp_path / "llama", [whole])) as checkpoint:
        assert (checkpoint.format, list(checkpoint.object)) == ("torch", list(whole))


def test_other_models_with_such_names_are_not_joined(tmp_path):
    """Files without the tensors of a Llama are several checkpoints, as before."""
    write(tmp_path, [{"w": torch.ones(2)}, {"w": torch.ones(2)}])
    with pytest.raises(
        FormatError, match=r"contains several checkpoints: consolidated\.00\.pth, consolidated\.01\.pth"
    ):
        formats.open(tmp_path)
