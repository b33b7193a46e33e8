"""What people get wrong is answered in one sentence that says what was meant and what to do."""

import os

import pytest
import torch

import statedict
from statedict.errors import (
    FormatError,
    LoadError,
    NotAStateError,
    RootError,
    TruncatedError,
    UnknownFormatError,
    UnknownNameError,
    UnsafeFileError,
)


@pytest.fixture
def model():
    return torch.nn.Linear(3, 2)


@pytest.fixture
def file(tmp_path, model):
    path = tmp_path / "model.pt"
    torch.save(model.state_dict(), path)
    return path


class RunsCode:
    def __reduce__(self):
        return os.system, ("echo run",)


CONTENTS = {
    "html": (b"<!DOCTYPE html><html>404</html>", UnknownFormatError, "this is an HTML page"),
    "empty": (b"", TruncatedError, "the file is empty"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n",
        UnknownFormatError,
        "Git LFS pointer",
    ),
    "noise": (bytes(range(1, 200)), FormatError, ""),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_that_is_something_else_is_called_what_it_is(tmp_path, model, kind):
    """HTML pages, pointers, empty files: named as such, with the file's path."""
    content, error, text = CONTENTS[kind]
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(error, match=rf"weights\.pt.*{text}"):
        statedict.load_state_dict(model, path)


def test_a_file_that_runs_code_is_refused_and_can_be_looked_at(tmp_path, model):
    """Loading raises and runs nothing; opening shows what it holds and what it would have run."""
    path = tmp_path / "evil.pt"
    torch.save({"model": model.state_dict(), "x": RunsCode()}, path)
    for act in (lambda: statedict.load(path), lambda: statedict.load_state_dict(model, path)):
        with pytest.raises(UnsafeFileError, match=r"would run code: it imports posix\.system") as caught:
            act()
        assert caught.value.imports == ("posix.system",)
    with statedict.open(path) as checkpoint:
        assert checkpoint.dangerous == ["posix.system"]
        assert checkpoint.verify()[0].level == "error"
        assert list(checkpoint.roots["model"]) == ["weight", "bias"]


@pytest.mark.parametrize(
    ("target", "source", "text"),
    [
        (torch.nn.Linear, {}, r"Linear is a class: pass an instance, Linear\(…\)"),
        ("model.pt", torch.nn.Linear(1, 1), "cannot load a state into a str: pass the model first, then the source"),
        (5, {}, "cannot load a state into an int: it is not a module"),
        (torch.nn.Linear(1, 1), 5, r"Expected state_dict to be dict-like, got <class 'int'>\. A source is a path"),
        (torch.nn.Linear(1, 1), {"weight": torch.ones(1, 1), 3: torch.ones(1)}, r"must be strings.* 3 \(int\)"),
    ],
)
def test_arguments_of_another_kind(target, source, text):
    """The error for a class, swapped arguments, a number, or a key that is not a string says which it is."""
    with pytest.raises(NotAStateError, match=text):
        statedict.load_state_dict(target, source)


def test_roots_that_are_not_there_or_not_clear(tmp_path, model):
    """The error for a missing or ambiguous root lists the choices."""
    states = {"generator": model.state_dict(), "discriminator": model.state_dict()}
    with pytest.raises(
        RootError, match=r"several state dicts.* Available: 'generator', 'discriminator'; choose one with root=$"
    ):
        statedict.load_state_dict(model, states)
    with pytest.raises(RootError, match="no state dict at 'gen'"):
        statedict.load_state_dict(model, states, root="gen")
    assert statedict.load_state_dict(model, states, root="generator").ok


def test_a_sub_module_that_is_not_there(model, file):
    """`into` names the nearest module."""
    with pytest.raises(UnknownNameError, match="'encodr' is not in the model's modules; did you mean 'encoder'"):
        statedict.load_state_dict(torch.nn.ModuleDict({"encoder": model}), file, into="encodr")


def test_a_mapping_without_tensors(model):
    """The error about a mapping speaks of a source, not of a file."""
    with pytest.raises(RootError, match="the mapping given: the source contains no state dict"):
        statedict.load_state_dict(model, {"epoch": 1})


def test_an_optimizer_from_a_models_file(model, file):
    """A file without such a state says so, and nothing changes."""
    with pytest.raises(RootError, match="the source contains no state of this kind of object"):
        statedict.load_state_dict(torch.optim.SGD(model.parameters(), 0.1), file)


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "npz"])
def test_a_directory_that_is_not_there(tmp_path, model, suffix):
    """Saving where there is no directory names the directory, not a temporary file."""
    with pytest.raises(FileNotFoundError, match=r"No such file or directory to save in: '.*/nowhere'"):
        statedict.save(model, tmp_path / "nowhere" / f"model.{suffix}")


def test_a_misfit_tells_pytorchs_text_first_and_then_what_would_help(model):
    """The error begins as PyTorch's, so that code which matches on it works; the report rides along."""
    with pytest.raises(LoadError) as caught:
        statedict.load_state_dict(model, {f"net.{name}": value for name, value in model.state_dict().items()})
    text = str(caught.value)
    assert text.startswith(
        'Error(s) in loading state_dict for Linear:\n\tMissing key(s) in state_dict: "weight", "bias". '
    )
    assert 'rename="net.{*p} -> {*p}"' in text
    assert caught.value.report.missing_keys == ["weight", "bias"]


def test_a_pattern_that_matches_nothing_is_a_warning_with_the_nearest_name(model, file):
    """An idle pattern does not pass unnoticed."""
    report = statedict.load_state_dict(model, file, exclude="biass")
    assert report.notes == ["the pattern 'biass' does not match any name; the nearest is 'bias'"]


OPTIONS = [
    {"include": "a"},
    {"rename": "a -> b"},
    {"into": "a"},
    {"assign": True},
    {"mismatched": "skip"},
    {"device": "cpu"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_mean_nothing_are_refused(model, options):
    """What is about modules cannot be given for an optimizer, nor the other way: nothing is silently ignored."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(TypeError, match=rf"{next(iter(options))}= cannot be used with an SGD"):
        statedict.load_state_dict(optimizer, optimizer.state_dict(), **options)
    with pytest.raises(TypeError, match="model= cannot be used with a Linear"):
        statedict.load_state_dict(model, model.state_dict(), model=model)
    with pytest.raises(TypeError, match="prefix= cannot be used with an SGD"):
        statedict.state_dict(optimizer, prefix="a.")


def test_a_module_has_one_root(model):
    """A root that a module does not have is an error, as for a file."""
    with pytest.raises(RootError, match=r"the module given: .*no state dict at 'ema'"):
        statedict.load_state_dict(model, torch.nn.Linear(3, 2), root="ema")
