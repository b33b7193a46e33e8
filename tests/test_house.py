"""Rules of the house that no type checker or linter holds: what importing costs, and how rooms are entered."""

import ast
import builtins
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import statedict

SOURCE = Path(statedict.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
parsed = cache(lambda file: ast.parse(file.read_text()))
# Rooms inside a room, which its other files enter file by file.
INNER = {
    f"statedict.{place.parent.relative_to(SOURCE).as_posix().replace('/', '.')}"
    for room in ("formats", "nn", "plan", "state", "testing", "torch", "training")
    for place in (SOURCE / room).rglob("__init__.py")
    if not any(isinstance(node, (ast.ImportFrom, ast.Import)) for node in ast.parse(place.read_text()).body)
}


def run(code, *options, **environment):
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def packages():
    below = pkgutil.walk_packages(statedict.__path__, "statedict.")
    return [
        "statedict",
        *(m.name for m in below if m.ispkg and not m.name.startswith("statedict._") and m.name not in INNER),
    ]


def offered(module):
    """The names that a room's `__init__` takes from its files, or makes itself."""
    for node in ast.parse(Path(module.__file__).read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name


@pytest.mark.parametrize("name", packages())
def test_all_is_what_can_be_imported(name):
    """A room's `__all__` is what can be imported from it, each name once."""
    if name in ("statedict", "statedict.torch"):
        pytest.importorskip("torch")
    module = importlib.import_module(name)
    assert len(module.__all__) == len(set(module.__all__))
    public = set(dir(module) if name == "statedict" else module.__all__)
    assert all(hasattr(module, name) for name in {*public, *module.__all__})
    assert {name for name in offered(module) if not name.startswith("_")} <= public


def test_importing_imports_nothing_heavy():
    """`import statedict` brings in neither torch nor numpy, nor anything for the terminal, the network or the tests."""
    heavy = run("import sys, statedict; print(*{m.partition('.')[0] for m in sys.modules})")
    assert not {"torch", "numpy", "ml_dtypes", "rich", "click", "fsspec", "asyncio", "hypothesis", "pytest"} & set(
        heavy
    )
    assert not {
        "argparse",
        "hashlib",
        "json",
        "pathlib",
        "pickle",
        "secrets",
        "socket",
        "subprocess",
        "tempfile",
        "zipfile",
    } & set(heavy)


def test_importing_imports_one_room():
    """`import statedict` brings in the values and the verbs; every other room is imported by who enters it."""
    loaded = run("import sys, statedict; print(*sys.modules)")
    rooms = {name.split(".")[1] for name in loaded if name.startswith("statedict.")}
    top = {"_api", "_arrays", "_compare", "_loading", "_request", "_saving", "_sources", "_stateful"}
    assert rooms == {*top, "errors", "state"}


def test_importing_is_quick(tmp_path):
    """`import statedict` after `import numpy` takes at most two fifths of what that takes, once there is byte code: in one
    of seven processes."""
    code = """
import time
times = [time.process_time()]
import numpy
times.append(time.process_time())
import statedict
times.append(time.process_time())
print((times[2] - times[1]) / (times[1] - times[0]))
"""
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    assert any(float(run(code, **kept)[0]) < 0.4 for _ in range(7))


def test_every_name_is_there_without_torch():
    """Every public name but the torch room can be had on a machine without torch; that one says which package to install."""
    code = """
import sys
sys.modules["torch"] = None
import statedict
for name in set(dir(statedict)) - {"torch"}:
    getattr(statedict, name)
from statedict import *
print("torch" in sys.modules and sys.modules["torch"] is not None)
try:
    statedict.torch
except statedict.MissingDependencyError as error:
    print(error.extra)
"""
    assert run(code) == ["False", "torch"]


def test_a_star_import_hides_no_usual_name():
    """`from statedict import *` does not bind the name of a builtin, or one that programs use for PyTorch."""
    assert set(dir(statedict)) - set(statedict.__all__) == {"maps", "nn", "open", "torch"}
    assert not {*dir(builtins), "torch", "nn", "F", "np"} & set(statedict.__all__)


def test_unknown_names_are_seen_by_type_checkers():
    """A module's `__getattr__`, by which names are imported late, is hidden from type checkers: it would take any name."""
    for file in FILES:
        for node in parsed(file).body:
            named = [node.name] if isinstance(node, ast.FunctionDef) else []
            if isinstance(node, ast.Assign):
                named = [part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)]
            assert "__getattr__" not in named, file


def room_of(module):
    """`state` for `statedict.state.tensors._leaf`; the public surface itself is the room ``."""
    return module.split(".")[1] if "." in module else ""


def crossings(file):
    """Each import of this library in a file: (line, the module named, how many dots before it)."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.ImportFrom) and node.level:
            here = ["statedict", *file.relative_to(SOURCE).with_suffix("").parts]
            above = here[: len(here) - node.level]
            yield node.lineno, ".".join([*above, *([node.module] if node.module else [])]), node.level
        elif isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "statedict":
            yield node.lineno, node.module, 0
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, a.name, 0) for a in node.names if a.name.partition(".")[0] == "statedict")


def test_rooms_are_entered_by_the_door():
    """Inside a room imports are relative; across rooms they are absolute and name a door, not a private file."""
    for file in FILES:
        room = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        for line, module, dots in crossings(file):
            there = room_of(module)
            if there in ("", "errors", "_api") or (room in ("__init__", "__main__") and dots):
                continue
            assert (dots > 0) == (there == room), (
                f"{file}:{line}: {module} is in {'this' if there == room else 'another'} room"
            )
            assert dots or "._" not in module, f"{file}:{line}: {module} is behind the doors of statedict.{there}"


def test_files_open_with_their_purpose():
    """A file opens with a docstring; no function's body is longer than fifty lines."""
    for file in FILES:
        assert not parsed(file).body or ast.get_docstring(parsed(file)), file
        for node in ast.walk(parsed(file)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = node.end_lineno - body[0].lineno + 1 if body else 0
                assert lines <= 50, f"{file}:{node.lineno}: {node.name} has {lines} lines"


def test_class_names_are_unique():
    """Outside `nn`, whose names are PyTorch's, a class name is used once in the package."""
    files = [file for file in FILES if "nn" not in file.relative_to(SOURCE).parts]
    nodes = (node for file in files for node in ast.walk(parsed(file)))
    names = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


# What differs between systems: modules; functions and flags of `os`; and C libraries.
SYSTEM_MODULES = {"fcntl", "msvcrt", "resource", "signal", "_winapi", "pwd", "grp", "termios"}
SYSTEM_CALLS = re.compile(
    r"os\.(O_\w+|p?(read|write)v|pread|pwrite|posix_\w+|link|symlink|fsync|fdatasync|sched_\w+|(process_)?cpu_count|uname"
    r"|statvfs|sysconf\w*|f?ch(mod|own)|kill\w*|fork\w*|register_at_fork|get\w*id|umask|mkfifo)(?<!os\.getpid)"
    r"|ctypes\.(CDLL|WinDLL)|CDLL"
)


def system_calls(tree):
    """The lines that import such a module, or name such a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name in SYSTEM_MODULES]
        elif isinstance(node, ast.ImportFrom):
            taken = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name for name in taken if node.module in SYSTEM_MODULES or SYSTEM_CALLS.fullmatch(name)]
        else:
            names = [ast.unparse(node)] if isinstance(node, ast.Attribute) else []
            names = [name for name in names if SYSTEM_CALLS.fullmatch(name)]
        yield from (f"line {node.lineno}: {name}" for name in names)


def test_one_package_knows_the_system():
    """Only `files/system` uses what not every operating system has, or has differently."""
    # Looking at every node takes a while, and most files name nothing like it.
    named = re.compile(rf"\b({'|'.join(SYSTEM_MODULES)}|os|ctypes|CDLL)\b")
    found = {file: list(system_calls(parsed(file))) for file in FILES if named.search(file.read_text())}
    assert sum(len(calls) for file, calls in found.items() if file.parent == SOURCE / "files/system") > 10
    assert {file: calls for file, calls in found.items() if calls and file.parent != SOURCE / "files/system"} == {}


def default_encodings(tree):
    """The lines that open a text file without an encoding."""
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    named |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    named |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(option.arg == "encoding" for option in node.keywords):
            continue
        function, arguments = ast.unparse(node.func), list(map(ast.unparse, node.args))
        opened = function in {"open", "io.open", "os.fdopen"} - named and not any(
            "b" in mode for mode in arguments[1:2]
        )
        if opened or (function.endswith(".read_text") and not arguments) or function.endswith(".write_text"):
            yield node.lineno


def test_texts_have_an_encoding():
    """Text is read and written as UTF-8, or as bytes: the default encoding of Windows lacks most characters."""
    named = re.compile(r"open\(|_text\(")
    found = {file: list(default_encodings(parsed(file))) for file in FILES if named.search(file.read_text())}
    assert {file: lines for file, lines in found.items() if lines} == {}
    bad = ["open('a')", "open('a', 'w')", "path.read_text()", "path.write_text('a')"]
    good = ["open('a', 'rb')", "open('a', encoding='utf-8')", "path.read_text('utf-8')", "other.open('a')"]
    assert [text for text in [*bad, *good] if [*default_encodings(ast.parse(text))]] == bad
