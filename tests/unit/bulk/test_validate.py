"""The invariants are a table: an error rejects a row with the first reason, a warning counts those that are taken."""

from __future__ import annotations

import numpy as np

from tapehouse.bulk.checks.base import Severity
from tapehouse.bulk.validate import INVARIANTS, Verdict


def test_the_first_invariant_that_a_row_breaks_is_its_reason() -> None:
    verdict = Verdict(4)
    verdict.breaks(np.array([False, True, False, False]), "negative", "volume")
    verdict.breaks(np.array([False, True, True, False]), "high", "open")
    assert verdict.bad.tolist() == [1, 2]
    assert verdict.reasons_of_bad() == ["volume is negative", "high is below open"]
    assert verdict.remarks == {}


def test_a_warning_counts_rows_that_are_taken() -> None:
    verdict = Verdict(4)
    verdict.breaks(np.array([True, False, False, False]), "negative", "volume")
    verdict.breaks(np.array([True, True, False, True]), "price")
    assert verdict.bad.tolist() == [0]
    assert verdict.remarks == {INVARIANTS["price"].says: 2}


def test_every_invariant_says_what_it_wants_and_how_sure_it_is() -> None:
    assert {each.severity for each in INVARIANTS.values()} == {Severity.ERROR, Severity.WARNING}
    assert len({each.says for each in INVARIANTS.values()}) == len(INVARIANTS)
