"""Every scenario of tests/threads.py holds in one round."""

import pytest
from tests.threads import SCENARIOS, many_switches


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name, tmp_path):
    """Threads that use the library at once do not disturb each other."""
    with many_switches():
        SCENARIOS[name](tmp_path)
