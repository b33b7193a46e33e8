"""The reference names everything that is public, and everything public says what it is, with an example that is run."""

import importlib
import inspect
import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
NN = ("statedict.nn", "statedict.nn.functional", "statedict.nn.init", "statedict.nn.optim", "statedict.nn.utils.rnn")


def referred(page):
    """The names that a page of the reference shows, as `room.name`."""
    return re.findall(r"^::: (\S+\.\w+)$", (DOCS / "reference" / page).read_text(), re.MULTILINE)


def own(room):
    """The classes and functions that a room offers."""
    module = importlib.import_module(room)
    everything = [name for name in vars(module) if not name.startswith("_")]
    names = dir(module) if room == "statedict" else getattr(module, "__all__", everything)
    values = {f"{room}.{name}": getattr(module, name) for name in names}
    inside = {n: v for n, v in values.items() if (inspect.isclass(v) or inspect.isfunction(v))}
    return {n: v for n, v in inside.items() if hasattr(module, "__all__") or v.__module__ == room}


def public():
    """Everything public: `statedict`'s own names, `statedict.training`'s, `statedict.nn`'s, and PyTorch's signatures."""
    found = own("statedict") | own("statedict.training")
    for room in NN:
        found |= own(room)
    for name in referred("torch.md"):
        room, _, last = name.rpartition(".")
        found[name] = getattr(importlib.import_module(room), last)
    return found


PUBLIC = public()


def test_every_public_name_is_in_the_reference():
    """The reference has every public name; errors, `init` and `optim` are shown as rooms, whole."""
    told = {name.rpartition(".")[2] for page in ("python.md", "nn.md", "torch.md") for name in referred(page)}
    whole = ("statedict.nn.init.", "statedict.nn.optim.", "statedict.nn.utils.rnn.")
    wanted = {name.rpartition(".")[2] for name in PUBLIC if not name.startswith(whole) and not name.endswith("Error")}
    assert wanted - told == set()
    assert set(referred("nn.md")) - set(PUBLIC) <= {room[:-1] for room in whole} | {"statedict.nn"}


def test_every_public_name_is_told_with_an_example():
    """A docstring says what a name is and, unless it is an error, shows it in an example, which is run."""
    texts = {name: inspect.getdoc(value) or "" for name, value in PUBLIC.items()}
    assert [name for name, text in texts.items() if not text] == []
    assert [name for name, text in texts.items() if ">>> " not in text and not name.endswith("Error")] == []


def test_every_public_method_is_told():
    """A public method that a class of ours defines has a docstring, unless it is what Python or PyTorch says it is."""
    methods = [
        (kind, method)
        for kind in PUBLIC.values()
        if inspect.isclass(kind)
        for method, value in vars(kind).items()
        if inspect.isfunction(value) and not method.startswith("_") and method not in GIVEN
    ]
    assert len(methods) > 50
    assert [each for each in methods if not inspect.getdoc(getattr(*each))] == []


GIVEN = ("forward", "extra_repr", "get", "update", "copy", "pop", "keys", "values", "items")


def test_every_page_is_in_the_navigation():
    """No page is forgotten by mkdocs.yml."""
    listed = set(re.findall(r"(\S+\.md)", (DOCS.parent / "mkdocs.yml").read_text()))
    assert {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} == listed


def test_every_error_is_in_the_catalogue():
    """The page of errors has a heading for each class, with the built-in class that it derives from in brackets."""
    text = (DOCS / "errors.md").read_text()
    found = dict(re.findall(r"^### (\w+)\n\n(?:\((\w+)\))?", text, re.MULTILINE))
    classes = {name: value for name, value in own("statedict.errors").items() if inspect.isclass(value)}
    assert set(found) == {name.rpartition(".")[2] for name in classes}
    for name, value in classes.items():
        (builtin,) = [base.__name__ for base in value.__bases__ if base.__module__ == "builtins"] or [""]
        assert found[name.rpartition(".")[2]] == builtin, name
