"""statedict doctor: versions and settings for a bug report."""

import json
from importlib.metadata import version

import statedict
from statedict.files import CHECKSUMS


def test_versions_are_those_installed(call):
    """Every package has its installed version, or is said not to be installed."""
    facts = json.loads(call("doctor", "--json").out)
    assert facts["environment"]["statedict"] == statedict.__version__
    assert facts["environment"]["checksums"] == CHECKSUMS
    assert facts["packages"]["numpy"] == version("numpy")
    assert facts["limits"]["depth"] == statedict.Limits().depth


def test_a_person_reads_a_line_for_each(call, monkeypatch):
    """One line for each fact; a missing package is shown as such."""
    monkeypatch.setattr("statedict.cli._doctor.PACKAGES", ("numpy", "no-such-package"))
    lines = dict(line.split("  ", 1) for line in call("doctor").out.splitlines())
    assert lines["numpy"].strip() == version("numpy")
    assert lines["no-such-package"].strip() == "not installed"
