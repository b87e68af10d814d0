"""Grades follow the table, more of what is bad never makes a grade better, and looks add up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from tapehouse.bulk.checks.base import Example, Finding, Grade, Look, Severity, Tally, decode, encode, key
from tapehouse.bulk.checks.grade import (
    MAX_EXAMPLES,
    MAX_LOOKS,
    THRESHOLDS,
    add_findings,
    grade,
    quality,
    severities,
    shares,
)
from tapehouse.bulk.checks.rules import RULES
from tapehouse.model import Interval, Kind

counts = st.integers(0, 10**9)
BAD = ("quarantined", "errors", "warnings", "holes")


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    rows, expected = draw(st.integers(1, 10**9)), draw(counts)
    bad = {name: draw(st.integers(0, 2 * rows)) for name in ("quarantined", "errors", "warnings", "infos")}
    return Tally(rows=rows, inspected=draw(st.integers(1, rows)), expected=expected, holes=draw(counts), **bad)


def look(first: int = 0, last: int = 10, *findings: Finding, commit: int = 1, **tally: int) -> Look:
    rows = tally.pop("rows", 100)
    counted = Tally(rows=rows, inspected=rows, **severities(findings), **tally)
    return Look(
        symbol="A",
        kind=Kind.BARS,
        interval=Interval.M1,
        first=first,
        last=last,
        tally=counted,
        findings=findings,
        batch=f"b{commit}",
        commit=commit,
    )


def finding(rule: str, rows: int = 1, *times: int) -> Finding:
    return Finding(
        rule=rule,
        severity=RULES[rule].severity,
        symbol="A",
        kind=Kind.BARS,
        interval=Interval.M1,
        count=rows,
        rows=rows,
        examples=tuple(Example(time, "1", "2") for time in times),
    )


@given(tally=tallies(), name=st.sampled_from(BAD), more=counts)
def test_more_of_what_is_bad_is_never_better(tally: Tally, name: str, more: int) -> None:
    worse = replace(tally, **{name: getattr(tally, name) + more})
    assert (grade(worse)[0] or "") >= (grade(tally)[0] or "")


@given(tally=tallies(), infos=counts)
def test_what_is_only_worth_knowing_changes_nothing(tally: Tally, infos: int) -> None:
    assert grade(replace(tally, infos=infos))[0] == grade(tally)[0]


@given(tally=tallies(), more=counts)
def test_more_good_rows_are_never_worse(tally: Tally, more: int) -> None:
    better = replace(
        tally,
        rows=tally.rows + more,
        inspected=tally.inspected + more,
        expected=tally.expected + more if tally.expected else 0,
    )
    assert (grade(better)[0] or "") <= (grade(tally)[0] or "")


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("letter", THRESHOLDS)
def test_each_threshold_is_where_the_table_says(place: int, letter: Grade) -> None:
    whole = 10_000_000
    field = ("errors", "warnings", "holes")[place]
    most = round(THRESHOLDS[letter][place] * whole)
    tally = Tally(rows=whole, inspected=whole, expected=whole)
    assert grade(replace(tally, **{field: most}))[0] is letter
    letters = list(Grade)
    assert grade(replace(tally, **{field: most + 1}))[0] is letters[letters.index(letter) + 1]


def test_the_share_that_decided_is_named() -> None:
    assert grade(Tally(rows=1_000, inspected=1_000)) == (Grade.A, "nothing found")
    assert grade(Tally(rows=1_000, inspected=1_000, warnings=1)) == (Grade.A, "warnings: 0.1000%")
    assert grade(Tally(rows=1_000, inspected=1_000, warnings=1, quarantined=250)) == (Grade.F, "quarantined: 20.0000%")
    assert grade(Tally(rows=100, inspected=50, errors=5)) == (Grade.F, "errors: 10.0000%")
    both = Tally(rows=100, inspected=100, errors=50, quarantined=900)
    assert grade(both) == (Grade.F, "quarantined: 90.0000%, errors: 50.0000%")
    assert grade(Tally(rows=10, inspected=10, warnings=20)) == (Grade.F, "warnings: 2.0 for each row")
    assert grade(Tally(rows=10, inspected=10, expected=20, holes=10)) == (Grade.F, "holes: 50.0000%")
    assert grade(Tally(rows=1_000)) == (None, "no row was inspected")


def test_holes_are_held_against_what_is_expected_or_what_there_is() -> None:
    assert shares(Tally(rows=10, inspected=10, expected=100, holes=5))[2] == 0.05
    assert shares(Tally(rows=15, inspected=15, holes=5))[2] == 0.25


def test_rows_of_holes_count_as_holes_alone() -> None:
    found = [finding("gap", 7), finding("spike", 2), finding("jump", 1), finding("unit-change", 3)]
    assert severities(found) == {"errors": 3, "warnings": 2, "infos": 1}


def test_findings_of_a_rule_become_one_with_the_first_examples() -> None:
    both = add_findings([finding("spike", 4, 7, 8, 9), finding("jump"), finding("spike", 3, 1, 2, 3)])
    assert [each.rule for each in both] == ["spike", "jump"]
    assert (both[0].count, both[0].rows) == (7, 7)
    assert [each.time for each in both[0].examples] == [1, 2, 3, 7, 8]
    assert len(both[0].examples) == MAX_EXAMPLES
    order = [each.severity for each in add_findings(map(finding, RULES))]
    assert order == sorted(order, key=[Severity.ERROR, Severity.WARNING, Severity.INFO].index)


def test_looks_at_other_spans_add_up() -> None:
    both = quality(
        [look(0, 10, finding("spike", 1, 5), quarantined=3), look(20, 30, finding("spike", 2, 25), commit=2)]
    )
    assert (both.first, both.last, both.batch, both.commit, both.overlapping) == (0, 30, "b2", 2, False)
    assert (both.tally.rows, both.tally.quarantined, both.tally.warnings) == (200, 3, 3)
    assert both.findings[0].count == 3


def test_a_file_that_is_loaded_again_is_not_counted_twice() -> None:
    once = quality([look(0, 10, finding("spike", 5, 5))])
    again = quality([*once.looks, look(0, 10, finding("spike", 5, 5), commit=2)])
    assert again.tally == once.tally
    assert again.findings == once.findings
    mended = quality([*once.looks, look(0, 10, commit=2)])
    assert (mended.grade, mended.findings) == (Grade.A, ())


def test_a_few_rows_do_not_replace_what_is_known_of_many() -> None:
    both = quality([look(2, 8, finding("spike"), rows=1_000), look(0, 10, rows=2, commit=2)])
    assert (both.tally.rows, both.overlapping) == (1_002, True)
    assert both.findings[0].rule == "spike"


def test_a_symbol_of_bad_rows_alone_has_no_grade() -> None:
    none = quality([look(0, 0, rows=0, quarantined=5)])
    assert (none.grade, none.tally.quarantined) == (None, 5)
    later = quality([*none.looks, look(50, 60)])
    assert (later.first, later.last, later.tally.quarantined) == (50, 60, 5)


@given(spans=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5)), min_size=1, max_size=3 * MAX_LOOKS))
def test_the_number_of_looks_is_bounded_and_no_row_is_lost(spans: list[tuple[int, int]]) -> None:
    known: Any = None
    for commit, (first, length) in enumerate(spans, 1):
        one = look(10 * commit, 10 * commit + 1 + length, finding("spike", 1, first), commit=commit)
        known = quality([*(known.looks if known else ()), one])
    assert len(known.looks) <= MAX_LOOKS
    assert known.tally.rows == 100 * len(spans)
    assert known.findings[0].count == len(spans)


def test_a_document_holds_everything() -> None:
    one = quality([look(0, 10, finding("spike", 1, 5), quarantined=3)])
    assert decode(encode(one)) == one
    assert asdict(decode(encode(one))) == asdict(one)
    assert key("A", Kind.BARS, Interval.M1) == "A bars 1m"
    assert key("BTC/USD", Kind.TRADES, None) == "BTC/USD trades"
