"""The fixture of the tests of the public functions."""

import pytest


@pytest.fixture
def api():
    """A model with everything in it, and states compared bit by bit (`nets.py`)."""
    pytest.importorskip("torch")
    from tests.api.nets import Api

    return Api
