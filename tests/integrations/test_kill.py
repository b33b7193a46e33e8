"""Each integration, killed in the middle of saves and resumed, ends like an uninterrupted training."""

import pytest
from tests import forked
from tests.integrations.trainings import TRAININGS


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_killed_and_resumed(name):
    """A training that SIGKILL ends in the middle of saves, and that is started again, ends with the same bits."""
    done = forked.run("tests.integrations.kill", name, "--times", 2, action="ignore")
    assert done.returncode == 0, done.stdout + done.stderr
