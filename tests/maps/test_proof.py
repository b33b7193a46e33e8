"""Every map of the package, proven on the names and shapes of both implementations, and by the outputs of both."""

import importlib.util
import json
import warnings

import numpy as np
import pytest
from tests.maps import models

import statedict
from statedict import maps
from statedict.errors import MapError

torch = pytest.importorskip("torch")
# Importing and running a framework warns of many things.
pytestmark = pytest.mark.filterwarnings("ignore")


def bert_with_gamma():
    """The names of BERT in files of its first port, which transformers still loads (see test_transformers_agrees)."""
    return {old_bert(name): value.shape for name, value in models.saved(models.hf_bert()).items()}


def old_bert(name):
    head, _, last = name.rpartition(".")
    return f"{head}.{({'weight': 'gamma', 'bias': 'beta'})[last]}" if head.endswith("LayerNorm") else name


def in_sdxl(number, shapes):
    """The names of a text encoder in a file of Stable Diffusion XL."""
    return {f"conditioner.embedders.{number}.{('transformer', 'model')[number]}.{n}": s for n, s in shapes.items()}


def text_of_sdxl():
    """The names of the first text encoder in its own file; those of CLIPTextModel in transformers 5 have no prefix."""
    return {f"text_model.{name}": tuple(value.shape) for name, value in models.saved(models.sdxl_text(0)).items()}


def text_of_open_clip():
    return {name: shape for name, shape in models.table("open-clip").items() if not name.startswith("visual.")}


def shapes_of(state):
    return {name: tuple(value.shape) for name, value in state.items()}


# Map, its parameters, the names and shapes on its left, and those on its right.
PAIRS = {
    "llama-hf": ({"head_dim": 8}, lambda: models.table("meta-llama"), lambda: models.saved(models.hf_llama())),
    "qwen-hf": ({}, lambda: models.table("qwen"), lambda: models.saved(models.hf_qwen2())),
    "gpt2-nanogpt": ({}, lambda: models.hf_gpt2().state_dict(), lambda: models.table("nanogpt")),
    "bert-hf": ({}, bert_with_gamma, lambda: models.saved(models.hf_bert())),
    "vit-timm-hf": ({}, lambda: models.table("timm-vit"), lambda: models.saved(models.hf_vit())),
    "resnet-timm-hf": (
        {},
        lambda: models.table("torchvision-resnet-basic"),
        lambda: models.saved(models.hf_resnet("basic")),
    ),
    "resnet-timm-hf/bottleneck": (
        {},
        lambda: models.table("torchvision-resnet-bottleneck"),
        lambda: models.saved(models.hf_resnet("bottleneck")),
    ),
    "clip-hf": ({}, lambda: models.table("open-clip"), lambda: models.saved(models.hf_clip())),
    "whisper-hf": ({}, lambda: models.table("openai-whisper"), lambda: models.saved(models.hf_whisper())),
    "sd-unet-diffusers": ({}, lambda: models.table("ldm-unet"), lambda: models.diffusers_unet().state_dict()),
    "sd-vae-diffusers": ({}, lambda: models.table("ldm-vae"), lambda: models.diffusers_vae().state_dict()),
    "sdxl-unet-diffusers": ({}, lambda: models.table("sdxl-unet"), lambda: models.sdxl_unet().state_dict()),
    "sdxl-text-diffusers": ({}, lambda: in_sdxl(0, text_of_sdxl()), text_of_sdxl),
    "sdxl-text-2-diffusers": (
        {},
        lambda: in_sdxl(1, text_of_open_clip()),
        lambda: models.saved(models.sdxl_text(1)),
    ),
    "peft-adapter": (
        {},
        lambda: models.table("peft-adapter"),
        lambda: {
            name: shape
            for name, shape in models.table("peft-bert").items()
            if "lora_" in name or "modules_to_save" in name
        },
    ),
    "peft-base": ({}, lambda: models.table("peft-bert"), lambda: models.table("peft-bert-base")),
}


def numbered(shapes):
    """Tensors of these shapes, in which no two elements are equal."""
    state, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        state[name] = np.arange(start, start + size, dtype="f8").reshape(shape)
        start += size
    return state


def sides(key):
    parameters, left, right = PAIRS[key]
    given = left(), right()
    shapes = [side if not any(hasattr(v, "shape") for v in side.values()) else shapes_of(side) for side in given]
    return maps.load(key.partition("/")[0], **parameters), *shapes


def test_every_map_is_proven():
    """Every map of the package is among the pairs, and names the versions that it was tested with."""
    assert {key.partition("/")[0] for key in PAIRS} == set(maps.names())
    for name in maps.names():
        file = maps.read(name)
        assert all((file.description, file.left, file.right, file.complete, file.proven)), name
        assert file.source.startswith("https://github.com/")


@pytest.mark.parametrize("key", PAIRS)
def test_it_is_bijective_and_gives_the_right_specs(key):
    """A map makes exactly the other implementation's names and shapes, from all names but those that it ignores."""
    one, left, right = sides(key)
    state = numbered(left)
    ignored = one.ignored(left)
    assert one.unknown(left) == []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made = one.rename(state)
    assert {name: made.spec(name).shape for name in made} == right
    assert [str(warning.message) for warning in told] == [] or ignored
    kept = np.concatenate([state[name].ravel() for name in left if name not in ignored])
    assert np.array_equal(np.sort(np.concatenate([v.ravel() for v in made.numpy().values()])), np.sort(kept))


@pytest.mark.parametrize("key", [key for key in PAIRS if maps.read(key.partition("/")[0]).obstacle is None])
def test_round_trips_are_exact(key):
    """There and back, and back and there, every name and every bit is the same."""
    one, left, right = sides(key)
    for there, shapes in ((one, left), (one.inverse, right)):
        ignored = there.ignored(shapes)
        state = {name: value for name, value in numbered(shapes).items() if name not in ignored}
        back = there.inverse.rename(there.rename(state))
        assert set(back) == set(state)
        assert all(np.array_equal(value, state[name]) for name, value in back.numpy().items())
        assert there.inverse.strays(there.unknown(shapes)) == []


def test_the_map_of_bases_has_no_inverse():
    """A map that cannot be undone says why."""
    with pytest.raises(MapError, match="one direction only: the names of a base model do not say"):
        _ = maps.load("peft-base").inverse


@pytest.mark.parametrize("name", models.MODELS)
def test_tables_are_those_of_the_implementation(name):
    """The table of names and shapes in the repository is what the installed implementation has."""
    package = {"open-clip": "open_clip", "openai-whisper": "whisper"}.get(name, name.partition("-")[0])
    need(package)
    assert shapes_of(models.MODELS[name]().state_dict()) == models.table(name)


def need(package):
    """Skip the test if a package is not installed, or if it was built for another PyTorch."""
    pytest.importorskip(package, exc_type=(ImportError, RuntimeError))


def close(a, b):
    assert a.abs().max() > 1e-3
    assert len(a.flatten().unique()) > 2
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def across(name, source, target, **parameters):
    """A copy of the transformers model `target`, from a file that was converted from `source`'s state."""
    return models.from_file(target, maps.load(name, **parameters).rename(source.state_dict()))


def test_outputs_of_vit():
    """timm's and transformers' Vision Transformer compute the same."""
    need("timm")
    theirs = models.timm_vit()
    ours = across("vit-timm-hf", theirs, models.hf_vit())
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        close(theirs(image), ours(image).logits)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_outputs_of_resnet(package, kind):
    """torchvision's, timm's and transformers' ResNet compute the same."""
    need(package)
    theirs = getattr(models, f"{package}_resnet")(kind)
    ours = across("resnet-timm-hf", theirs, models.hf_resnet(kind))
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        close(theirs(image), ours(image).logits)


def test_outputs_of_clip():
    """open_clip's and transformers' CLIP compute the same."""
    need("open_clip")
    theirs = models.open_clip()
    ours = across("clip-hf", theirs, models.hf_clip())
    image, text = torch.rand(2, 3, 32, 32), torch.randint(1, 48, (2, 16))
    text[:, -1] = 49
    with torch.no_grad():
        close(theirs.encode_image(image), ours.get_image_features(image).pooler_output)
        close(theirs.encode_text(text), ours.get_text_features(text).pooler_output)


def test_outputs_of_whisper():
    """OpenAI's and transformers' Whisper compute the same."""
    need("whisper")
    theirs = models.openai_whisper()
    ours = across("whisper-hf", theirs, models.hf_whisper())
    sound, text = torch.rand(2, 8, 40), torch.randint(0, 60, (2, 7))
    with torch.no_grad():
        close(theirs(sound, text), ours(input_features=sound, decoder_input_ids=text).logits)


def test_outputs_of_bert():
    """transformers itself loads the old names, to the same tensors as the map gives."""
    model = models.hf_bert()
    new = models.saved(model)
    old = {old_bert(name): value for name, value in new.items()}
    assert old.keys() != new.keys()
    made = maps.load("bert-hf").rename(old)
    assert {name: value.tolist() for name, value in made.numpy().items()} == {n: v.tolist() for n, v in new.items()}
    theirs, ours = models.from_file(model, old), models.from_file(model, made)
    text = torch.randint(0, 50, (2, 7))
    with torch.no_grad():
        close(theirs(text).prediction_logits, ours(text).prediction_logits)


def test_outputs_of_gpt2():
    """A converted weight computes with a Linear layer what it computes with Conv1D."""
    model = models.hf_gpt2()
    made = maps.load("gpt2-nanogpt").rename(model.state_dict()).torch()
    x = torch.rand(3, 32)
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc"):
        prefix = f"transformer.h.1.{name}"
        theirs = torch.nn.functional.linear(x, made[f"{prefix}.weight"], made[f"{prefix}.bias"])
        close(model.get_submodule(prefix)(x), theirs)


def test_rotations_of_llama():
    """Queries and keys, rotated as complex numbers before and by halves after the conversion, give the same scores."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    model = models.hf_llama()
    shapes = models.table("meta-llama")
    theirs = {name: torch.rand(shape) for name, shape in shapes.items() if name != "rope.freqs"}
    ours = maps.load("llama-hf", head_dim=8).rename(theirs).torch()
    x, places = torch.rand(1, 6, 32), torch.arange(6)[None]

    def heads(weight):
        return (x @ weight.T).view(1, 6, -1, 8).transpose(1, 2)

    q, k = (heads(ours[f"model.layers.0.self_attn.{n}_proj.weight"]) for n in "qk")
    q, k = apply_rotary_pos_emb(q, k, *LlamaRotaryEmbedding(model.config)(x, places))
    angles = torch.outer(torch.arange(6.0), 10000.0 ** (-torch.arange(0, 8, 2) / 8))
    turn = torch.polar(torch.ones_like(angles), angles)
    pairs = [heads(theirs[f"layers.0.attention.{n}.weight"]).reshape(1, -1, 6, 4, 2).contiguous() for n in ("wq", "wk")]
    a, b = (torch.view_as_real(torch.view_as_complex(pair) * turn).flatten(3) for pair in pairs)
    close(a[:, ::2] @ b.mT, q[:, ::2] @ k.mT)


@pytest.mark.parametrize("name", ["sd-unet-diffusers", "sd-vae-diffusers", "sdxl-unet-diffusers"])
def test_diffusers_agrees(name):
    """diffusers' own conversion of a file of a pipeline gives the same tensors as the map."""
    from diffusers.loaders import single_file_utils

    kind, part, _ = name.split("-")
    model = models.sdxl_unet() if kind == "sdxl" else getattr(models, f"diffusers_{part}")()
    table = "sdxl-unet" if kind == "sdxl" else f"ldm-{part}"
    state = {name: torch.rand(shape) for name, shape in models.table(table).items()}
    convert = getattr(single_file_utils, f"convert_ldm_{part}_checkpoint")
    agree(maps.load(name).rename(state), convert(dict(state), dict(model.config)))
    assert statedict.load_state_dict(model, state, rename=maps.load(name)).ok


def test_diffusers_agrees_on_the_text_encoders():
    """diffusers' own conversion of both text encoders of Stable Diffusion XL gives the same tensors as the maps."""
    from diffusers.loaders import single_file_utils

    first = {name: torch.rand(shape) for name, shape in in_sdxl(0, text_of_sdxl()).items()}
    theirs = single_file_utils.convert_ldm_clip_checkpoint(first, "conditioner.embedders.0.transformer.")
    made = maps.load("sdxl-text-diffusers").rename(first)
    agree(made, theirs)
    loaded = models.from_file(models.sdxl_text(0), made)
    assert torch.equal(
        loaded.embeddings.token_embedding.weight, made.torch()["text_model.embeddings.token_embedding.weight"]
    )
    second = {name: torch.rand(shape) for name, shape in in_sdxl(1, text_of_open_clip()).items()}
    # Its conversion splits query, key and value by the first dimension of this tensor, which is square in the real model.
    name = "conditioner.embedders.1.model.text_projection"
    projection = second.pop(name)
    convert = single_file_utils.convert_open_clip_checkpoint
    theirs = convert(models.sdxl_text(1), second, "conditioner.embedders.1.model.")
    theirs["text_projection.weight"] = projection.T
    agree(maps.load("sdxl-text-2-diffusers").rename({**second, name: projection}), theirs)


def agree(made, theirs):
    assert made.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in made.torch().items())


def test_peft_agrees():
    """PEFT writes an adapter's file with the names that the map gives, and reads what the inverse gives."""
    need("peft")
    import peft

    model = models.peft_bert()
    file = models.saved(model)
    adapter = {n: v for n, v in model.state_dict().items() if "lora_" in n or "modules_to_save" in n}
    made = maps.load("peft-adapter").inverse.rename(adapter)
    agree(made, file)
    found = peft.set_peft_model_state_dict(models.peft_bert(), made.torch())
    assert not found.unexpected_keys
    with pytest.warns(UserWarning, match="leaves out"):
        base = maps.load("peft-base").rename(model.state_dict())
    assert base.torch().keys() == model.unload().state_dict().keys()


def test_versions_in_the_maps_are_those_of_the_tables():
    """A table says which implementation made it, in the version that the map names."""
    for path in models.TABLES.glob("*.json"):
        package, version = json.loads(path.read_text())["made_by"].partition(",")[0].rsplit(" ", 1)
        assert any(maps.read(name).proven.get(package) == version for name in maps.names()), path.name


def test_the_installed_versions_are_noted():
    """The maps name the versions of transformers and diffusers that these tests run with."""
    from importlib.metadata import version

    for name in maps.names():
        for package, proven in maps.read(name).proven.items():
            if package in ("transformers", "diffusers") and importlib.util.find_spec(package):
                assert proven == version(package), name
