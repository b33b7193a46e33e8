"""Which maps fit two states: the right one, in the right direction, and none if equal names fit as well."""

import pytest
from tests.maps.models import table

from statedict import maps

LEFT = {
    "llama-hf": "meta-llama",
    "qwen-hf": "qwen",
    "vit-timm-hf": "timm-vit",
    "resnet-timm-hf": "torchvision-resnet-basic",
    "clip-hf": "open-clip",
    "whisper-hf": "openai-whisper",
    "sd-unet-diffusers": "ldm-unet",
    "sd-vae-diffusers": "ldm-vae",
    "sdxl-unet-diffusers": "sdxl-unet",
    "peft-base": "peft-bert",
}


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.filterwarnings("ignore:.* leaves out")
def test_the_map_that_fits_is_the_first(name):
    """Given the names of both sides, the first map found is the right one; it places all of the target's names."""
    left = dict.fromkeys(table(LEFT[name]), 0)
    one = maps.load(name, **dict.fromkeys(maps.read(name).parameters, 2))
    right = maps._fitting.produced(one, [n for n in left if n not in one.ignored(left)])
    found = maps.fitting(left, right)
    assert (found[0].name, found[0].inverse, found[0].placed, found[0].total) == (name, False, len(right), len(right))
    assert found[0].unknown == ()
    if one.invertible:
        back = maps.fitting(right, left)[0]
        assert (back.name, back.inverse) == (name, True)
        assert f"--map {name} --inverse" in str(back)


def test_equal_names_need_no_map():
    """Maps that place no more tensors than equal names do are not offered."""
    names = list(table("timm-vit"))
    assert maps.fitting(names, names) == []
    assert maps.fitting([], []) == []
    assert maps.fitting(["a", "b"], ["c", "d"]) == []


def test_unknown_names_are_counted():
    """A map without rules for some names of the source says how many."""
    (fit,) = maps.fitting(["norm.weight", "odd"], ["model.norm.weight"])
    assert fit.unknown == ("odd",)
    assert str(fit) == "--map llama-hf --param head_dim=N: 1 of 1 model tensors, 1 checkpoint tensors without a rule"
