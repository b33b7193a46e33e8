"""Files in which torchao has taken quantised tensors apart, as its `flatten_tensor_state_dict` writes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
import torch

import statedict
from statedict.cli import main
from statedict.errors import FormatError, LoadError
from statedict.formats import with_torchao_tensors
from statedict.formats.safetensors import _torchao

BF16 = {"_type": "torch.dtype", "_data": "bfloat16"}
KWARGS = {"_type": "QuantizeTensorToInt8Kwargs", "_data": {"granularity": {"_type": "PerRow", "_data": {"dim": -1}}}}
INT8 = {
    "_type": "Int8Tensor",
    "_data": {"act_quant_kwargs": KWARGS, "block_size": [1, 3], "dtype": BF16},
    "_tensor_data_names": ["qdata", "scale"],
}


def written(path, entry=INT8, names=("0.weight", "0.bias"), **others):
    """A file with a quantised weight and a plain bias."""
    tensors = {"0._weight_qdata": np.ones((2, 3), "i1"), "0._weight_scale": np.ones((2, 1), "f4")}
    metadata = {"0.weight": json.dumps(entry), "0.bias": '{"_type": "Tensor"}', "tensor_names": json.dumps(names)}
    safetensors.numpy.save_file({**tensors, "0.bias": np.zeros(2, "f4")}, path, {**metadata, **others})
    return path


def test_inspect_says_what_the_parts_are(tmp_path, capsys, monkeypatch):
    """One line names the tensor, its class and its parts; the entries of single tensors are not printed."""
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest's workers have it
    with pytest.raises(SystemExit):
        main(["inspect", str(written(tmp_path / "a.safetensors", format="pt"))])
    shown = capsys.readouterr().out
    assert "1 Int8Tensor in parts (0.weight is 0._weight_qdata, 0._weight_scale)" in shown
    assert "PerRow" not in shown


def test_parts_are_with_torchao_tensors_for_a_load(tmp_path):
    """A load sees one tensor with the shape and dtype outside; a saved copy has the same parts and metadata as before."""
    with statedict.open(written(tmp_path / "a.safetensors")) as checkpoint:
        state = checkpoint.state_dict()
        joined = with_torchao_tensors(state)
        tensor = joined.leaf("0.weight")
        assert set(joined) == {"0.bias", "0.weight"}
        assert (str(tensor.dtype), tensor.shape, list(tensor.parts)) == ("bfloat16", (2, 3), ["qdata", "scale"])
        statedict.save(state, tmp_path / "b.safetensors")
    with statedict.open(tmp_path / "b.safetensors") as again:
        assert again.texts == state.texts
        assert set(with_torchao_tensors(again.state_dict())) == {"0.bias", "0.weight"}


@pytest.mark.parametrize(
    ("kind", "attributes", "shape"),
    [
        ("Int4Tensor", {"shape": [2, 6]}, (2, 6)),
        ("Int4Tensor", {"shape": ["a"]}, (2, 3)),
        ("Int4Tensor", {"shape": [1 << 62] * 3000}, (2, 3)),
        ("NVFP4Tensor", {"orig_dtype": BF16}, (2, 6)),
        ("MXTensor", {"elem_dtype": {"_type": "torch.dtype", "_data": "float4_e2m1fn_x2"}}, (2, 6)),
    ],
)
def test_shapes(kind, attributes, shape, tmp_path):
    """The shape outside is an attribute, or that of the data, of which a byte may hold two elements."""
    path = written(tmp_path / "a.safetensors", {**INT8, "_type": kind, "_data": attributes})
    with statedict.open(path) as checkpoint:
        assert with_torchao_tensors(checkpoint.state_dict()).leaf("0.weight").shape == shape


@pytest.mark.parametrize(
    "entry",
    [
        [], {"_type": "Tensor"}, {**INT8, "_type": "os:system"}, {**INT8, "_data": []}, {**INT8, "_tensor_data_names": []},
        {**INT8, "_tensor_data_names": ["qdata", "lost"]}, {**INT8, "_data": {"__class__": 1}},
        {**INT8, "_data": {"a": {"$name": "os"}}},
    ],
)  # fmt: skip
def test_other_metadata_is_only_text(entry, tmp_path):
    """What torchao would not have written is not interpreted."""
    with statedict.open(written(tmp_path / "a.safetensors", entry)) as checkpoint:
        assert with_torchao_tensors(checkpoint.state_dict()) is checkpoint.state_dict()


@pytest.mark.parametrize("names", [5, True, 1.5, None, "0.weight", {"0.weight": 1}, [[1], None]])
def test_a_list_of_names_that_is_not_one(names, tmp_path):
    """A file of other software, which has other metadata under the same key, opens."""
    with statedict.open(written(tmp_path / "a.safetensors", names=names)) as checkpoint:
        assert with_torchao_tensors(checkpoint.state_dict()) is checkpoint.state_dict()


def test_a_part_of_two_tensors_is_refused(tmp_path):
    """`0.w` with the part `x_q` and `0.w_x` with the part `q` would be one tensor of the file: the error has both names."""
    entries = {"0.w": ["x_q"], "0.w_x": ["q"]}
    texts = {name: json.dumps({**INT8, "_tensor_data_names": roles}) for name, roles in entries.items()}
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(
        {"0._w_x_q": np.ones((2, 3), "i1")}, path, {**texts, "tensor_names": json.dumps([*entries])}
    )
    with pytest.raises(FormatError, match=r"gives '0\._w_x_q' to two tensors, '0\.w' and '0\.w_x'"):
        statedict.load_state_dict(torch.nn.Sequential(torch.nn.Linear(3, 2)), path)
    assert list(statedict.load(path)) == ["0._w_x_q"]


def test_each_entry_is_parsed_once(monkeypatch):
    """A name that is listed again costs nothing."""
    texts = {"tensor_names": json.dumps(["0.weight"] * 1000), "0.weight": json.dumps(INT8)}
    parsed = []
    monkeypatch.setattr(_torchao, "_json", lambda text: parsed.append(text) or json.loads(text))
    assert list(_torchao.flattened(texts)) == ["0.weight"]
    assert len(parsed) == 2


def test_a_plain_model_refuses_them(tmp_path):
    """The error names the class and says what to do."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    for assign in (False, True):
        with pytest.raises(
            LoadError, match=r"torchao.Int8Tensor, made of the parts qdata, scale: convert the model first"
        ):
            statedict.load_state_dict(model, written(tmp_path / "a.safetensors"), assign=assign)
