"""The examples of the documentation are tests: every code block of README.md and docs/, every doctest of src/.

A Markdown file is one session, block after block, in an empty directory of its own; ```python blocks run, and blocks
with a prompt (`>>>`) must also print what they show. A page that needs a package which is not there is skipped.
"""

import os
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def empty_directory(tmp_path_factory):
    """The working directory while a document's examples run."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("document"))
    yield
    os.chdir(before)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `-n`: the examples of one document go to one worker, since each goes on from the one before; tests to any.

    xdist's own `--dist loadgroup` would do, but does not group with pytest 9, and `loadfile` leaves a worker alone with the
    longest file.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByDocument(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return file if file.endswith(".md") or file.startswith("src/") else nodeid

    return ByDocument(config, log)


pages = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    path=str(HERE),
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    excludes=["docs/architecture.md"],  # its code blocks are signatures
    fixtures=["empty_directory"],
)
docstrings = Sybil(
    parsers=[DocTestParser()],
    path=str(HERE / "src"),
    patterns=["*.py", "**/*.py"],
    document_types={".py": PythonDocStringDocument},
    fixtures=["empty_directory"],
)
pytest_collect_file = (pages + docstrings).pytest()
