"""The examples of the documentation are tests: every code block of README.md and docs/, every doctest of src/.

The blocks of a Markdown file run in order, in one session and an empty directory. ```python blocks run; blocks with a prompt
(`>>>`) must also print what they show. A page is skipped if a package that it needs is not installed. The doctests find
NumPy as `np` and `statedict.nn` as `nn`, and the names of their own file.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def empty_directory(tmp_path_factory):
    """Set the working directory while a document's examples run."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("document"))
    yield
    os.chdir(before)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `-n`: run a document's examples in one worker, as they depend on each other, and a file's tests if they share a
    fixture, which each worker would create anew; other tests run in any.

    xdist's own `--dist loadgroup` does not group with pytest 9, and `loadfile` leaves one worker alone with the longest
    file.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByNeed(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return file if _is_one_unit(file) else nodeid

        def mark_test_complete(self, node, item_index, duration=0):
            """Forget a unit that is done: the base class counts through all of them after each test, 10 s of the suite."""
            super().mark_test_complete(node, item_index, duration)
            unit = self._split_scope(self.registered_collections[node][item_index])
            if all(self.assigned_work[node][unit].values()):
                del self.assigned_work[node][unit]

    return ByNeed(config, log)


@cache
def _is_one_unit(file):
    is_document = file.endswith(".md") or file.startswith("src/")
    return is_document or 'scope="module"' in (HERE / file).read_text()


def add_names(namespace):
    """Give the doctests the names that they do not import."""
    from statedict import nn  # not before `--system`

    namespace.update(np=np, nn=nn)


pages = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    path=str(HERE),
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    # The blocks of the one are signatures; those of the other are run as parts of tests/training/bit_exact.
    excludes=["docs/architecture.md", "docs/how-to/bit-for-bit.md"],
    fixtures=["empty_directory"],
)
docstrings = Sybil(
    parsers=[DocTestParser()],
    path=str(HERE / "src"),
    patterns=["*.py", "**/*.py"],
    setup=add_names,
    document_types={".py": PythonDocStringDocument},
    fixtures=["empty_directory"],
)
pytest_collect_file = (pages + docstrings).pytest()
