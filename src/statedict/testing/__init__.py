"""Test suites for those who add a format or a module system: subclass a suite in a test file, and pytest runs its laws.

    from statedict.testing import FormatSuite

    class TestMine(FormatSuite):
        format = "mine"

        def write(self, state, metadata):
            return my_writer(state, metadata)

Each test is a *law*: a generator of the cases that break the rule in the first sentence of its docstring (`_law.py`). A
failure shows the rule and the first cases. Files are kept in memory (`format_laws/_recording_file.py`): so what is read can
be counted, and thousands of damaged copies are cheap. The package needs pytest (extra `testing`); `import statedict` does
not import it.
"""

from ._law import law
from .format_laws._folder_suite import FolderSuite
from .format_laws._format_suite import FormatSuite
from .format_laws._format_under_test import FormatUnderTest
from .host_laws._host_suite import HostSuite
from .host_laws._host_under_test import HostUnderTest

__all__ = ["FolderSuite", "FormatSuite", "FormatUnderTest", "HostSuite", "HostUnderTest", "law"]
