"""Faults of a host break the laws on them, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from tests.nn.test_host import TestNnHost as NnSuite
from tests.testing.test_suites import laws_broken

from statedict import nn

NnHost = type(nn.HOST)


def writes_early(self, slots, rules):
    """Write what fits before the engine says so."""
    found = NnHost.fit(self, slots, rules)
    if rules.sound:
        found.act()
    return found


def ignores_misfits(self, slots, rules):
    """Leave out values that do not fit, without an error."""
    found = NnHost.fit(self, slots, rules)
    found.errors.clear()
    return found


def reports_no_casts(self, slots, rules):
    found = NnHost.fit(self, slots, rules)
    found.casts.clear()
    return found


FAULTS = {
    "gives copies": (
        {"detach": lambda self, value: np.array(nn.HOST.detach(value))},
        {"test_a_state_shares_the_memory_of_its_module"},
    ),
    "keeps nothing": (
        {"keep": lambda self, arrays: lambda: None},
        {"test_a_backup_restores_every_bit", "test_what_foreign_code_changed_is_undone"},
    ),
    "trusts hooks": ({"reach": lambda self, code: "nothing"}, {"test_what_foreign_code_changed_is_undone"}),
    "runs no loaders": (
        {"adds_nothing": lambda self, *arguments: True},
        {
            "test_loaders_get_their_metadata",
            "test_extra_state_goes_both_ways",
            "test_what_foreign_code_changed_is_undone",
        },
    ),
    "writes early": (
        {"fit": writes_early},
        {
            "test_missing_and_unexpected_names_are_refused",
            "test_one_misfit_leaves_everything",
            "test_values_of_ties_must_agree",
            "test_lossy_casts_are_refused",
            "test_a_judge_may_refuse_everything",
            "test_values_may_lie_in_the_module",  # they are exchanged twice
        },
    ),
    "ignores misfits": (
        {"fit": ignores_misfits},
        {
            "test_one_misfit_leaves_everything",
            "test_values_of_ties_must_agree",
            "test_lossy_casts_are_refused",
            "test_extra_state_is_restored",
        },
    ),
    "reports no casts": ({"fit": reports_no_casts}, {"test_lossy_casts_are_refused"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_breaks_the_laws_on_it(fault):
    """A fault of a host is found by the laws on it, and by no others."""
    methods, laws = FAULTS[fault]
    suite = NnSuite()
    suite.host = type("FaultyHost", (NnHost,), methods)()
    assert laws_broken(suite) == laws
