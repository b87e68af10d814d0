"""However rows come, they are looked at once: in any order, cut anywhere, many symbols, all or a sample of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.bulk.checks.series import (
    ALL_DAY,
    T0,
    Columns,
    bars,
    freeze,
    joined,
    look,
    quotes,
    scale_bars,
    table,
    trades,
    without,
)

from tapehouse.bulk.checks import inspection
from tapehouse.bulk.checks.base import Checks, Finding, Look, Validate
from tapehouse.bulk.checks.inspection import inspector, span_nanos
from tapehouse.errors import InvalidRequest
from tapehouse.model import DAY_NS, MINUTE_NS, Interval, Kind


def broken(symbol: str = "A", seed: int = 1) -> Columns:
    """Bars with a bit of everything."""
    rows = bars(3_000, seed=seed, symbol=symbol)
    scale_bars(rows, 700, 1.3)
    scale_bars(rows, slice(2_000, None), 0.5)
    freeze(rows, 1_200, 1_300)
    rows["volume"][400] *= 100_000
    return without(rows, slice(1_500, 1_560))


def counts(one: Look) -> dict[str, tuple[int, int]]:
    return {each.rule: (each.count, each.rows) for each in one.findings}


EXPECTED = {"spike": (1, 1), "split-like": (1, 1), "stuck": (1, 99), "volume-spike": (1, 1), "gap": (1, 60)}


def test_everything_is_found() -> None:
    (one,) = look(broken())
    assert counts(one) == EXPECTED
    assert (one.tally.rows, one.tally.inspected, one.tally.warnings, one.tally.infos) == (2_940, 2_940, 101, 1)
    assert (one.first, one.last) == (T0, T0 + 2_999 * MINUTE_NS)


@pytest.mark.parametrize("pieces", [2, 3, 10])
def test_where_pieces_are_cut_changes_nothing(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "PIECE_ROWS", 1)
    (one,) = look(broken(), pieces=pieces)
    assert counts(one) == EXPECTED


@given(cuts=st.lists(st.integers(690, 710), min_size=1, max_size=6))
def test_a_spike_is_one_spike_wherever_pieces_are_cut(cuts: list[int]) -> None:
    rows = bars(1_400)
    scale_bars(rows, slice(699, 701), 1.3)
    looking = inspector(Checks(validate=Validate.FULL), [ALL_DAY])
    assert looking is not None
    whole = table(rows)
    edges = [0, *sorted(set(cuts)), whole.num_rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "PIECE_ROWS", 1)
        for first, last in pairwise(edges):
            looking.inspect(Kind.BARS, Interval.M1, whole.slice(first, last - first))
    (one,) = looking.finish()
    assert counts(one) == {"spike": (1, 2)}


@pytest.mark.parametrize("pieces", [1, 3])
def test_symbols_that_come_in_turns_are_told_apart(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "PIECE_ROWS", 4_000)
    both = joined(broken("A"), bars(3_000, seed=2, symbol="B"), broken("C", seed=3))
    by_time = np.argsort(both["timestamp"], kind="stable")
    a, b, c = look({name: values[by_time] for name, values in both.items()}, pieces=pieces)
    assert (a.symbol, b.symbol, c.symbol) == ("A", "B", "C")
    assert counts(a) == counts(c) == EXPECTED
    assert counts(b) == {}


def test_a_file_from_new_to_old_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "PIECE_ROWS", 1)
    rows = {name: values[::-1] for name, values in broken().items()}
    (one,) = look(rows, pieces=4)
    assert counts(one) == EXPECTED


def test_a_few_rows_out_of_order_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "PIECE_ROWS", 1)
    rows = bars(2_000)
    late = {name: values[[100, 101]] for name, values in rows.items()}
    (one,) = look(joined(without(rows, slice(100, 102)), late, bars(1_000, start=T0 + 2_000 * MINUTE_NS)), pieces=3)
    assert counts(one)["out-of-order"] == (2, 2)


def test_bars_that_are_there_twice_count_once() -> None:
    rows = bars(2_000)
    again = {name: values[50:60].copy() for name, values in rows.items()}
    other = {name: values[70:73].copy() for name, values in rows.items()}
    other["volume"] += 1
    (one,) = look(joined(rows, again, other))
    assert counts(one) == {"repeated-row": (10, 10), "conflicting-rows": (3, 3)}


numbers = st.one_of(st.floats(1, 200), st.floats(allow_nan=False, allow_infinity=False), st.just(0.0))


@given(
    rows=st.lists(st.tuples(st.sampled_from("AB"), st.integers(-5, 200), numbers, numbers.map(abs)), max_size=60),
    cut=st.integers(0, 60),
    interval=st.sampled_from([Interval.M1, Interval.D1, Interval.MO1]),
    mode=st.sampled_from([Validate.FULL, Validate.SAMPLE]),
)
def test_any_rows_are_counted_and_none_is_too_odd(
    rows: list[tuple[str, int, float, float]], cut: int, interval: Interval, mode: Validate
) -> None:
    prices = np.array([row[2] for row in rows], float)
    columns: Columns = {
        "symbol": np.array([row[0] for row in rows], str),
        "timestamp": np.array([T0 + row[1] * interval.nanos for row in rows], np.int64),
        **{name: prices.copy() for name in ("open", "high", "low", "close")},
        "volume": np.array([row[3] for row in rows], float),
    }
    looking = inspector(Checks(validate=mode, sample_rows=20))
    assert looking is not None
    whole = table(columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "PIECE_ROWS", 10)
        for part in (whole.slice(0, cut), whole.slice(cut)):
            looking.inspect(Kind.BARS, interval, part)
    looks = looking.finish()
    assert sum(one.tally.rows for one in looks) == len(rows)
    for one in looks:
        assert one.tally.inspected <= one.tally.rows
        assert mode is Validate.SAMPLE or one.tally.inspected == one.tally.rows
        assert all(isinstance(each, Finding) and each.count > 0 for each in one.findings)


@pytest.mark.parametrize("make", [trades, quotes])
def test_ticks_of_one_time_are_no_repeats(make: object) -> None:
    rows = make(2_000)  # type: ignore[operator]
    rows["timestamp"] = np.sort(rows["timestamp"] // DAY_NS * DAY_NS)
    assert [each.findings for each in look(rows)] == [()]


def test_bad_rows_without_a_symbol_are_shared_out() -> None:
    looking = inspector(Checks(validate=Validate.FULL), [ALL_DAY])
    assert looking is not None
    looking.inspect(Kind.BARS, Interval.M1, table(joined(bars(300), bars(100, symbol="B"))))
    looking.quarantined(Kind.BARS, Interval.M1, 8)
    looking.quarantined(Kind.BARS, Interval.M1, 5, "B")
    looking.quarantined(Kind.BARS, Interval.M1, 7, "C")
    looks = {one.symbol: one for one in looking.finish()}
    assert {symbol: one.tally.quarantined for symbol, one in looks.items()} == {"A": 6, "B": 7, "C": 7}
    assert (looks["C"].tally.rows, looks["C"].first) == (0, 0)


def test_nothing_is_inspected_when_checks_are_off() -> None:
    assert inspector(Checks(validate=Validate.OFF)) is None


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at least one row, not 0"):
        Checks(sample_rows=0)


def sampled(symbols: int, count: int, budget: int, expected: int | None = None) -> list[Look]:
    looking = inspector(Checks(sample_rows=budget), [ALL_DAY], expected)
    assert looking is not None
    for number in range(symbols):
        looking.inspect(Kind.BARS, Interval.M1, table(bars(count, symbol=f"S{number:03}")))
    return looking.finish()


@pytest.mark.parametrize("expected", [None, 400_000])
def test_a_sample_keeps_to_its_budget_and_to_whole_weeks(expected: int | None) -> None:
    looks = sampled(10, 40_000, 100_000, expected)
    inspected = [one.tally.inspected for one in looks]
    assert 30_000 < sum(inspected) <= 100_000
    assert sum(one.tally.rows for one in looks) == 400_000
    assert all(one.findings == () for one in looks)
    assert [one.tally.inspected for one in sampled(10, 40_000, 100_000, expected)] == inspected


def test_a_sample_that_holds_everything_is_everything() -> None:
    assert [one.tally.inspected for one in sampled(3, 2_000, 1_000_000, 6_000)] == [2_000] * 3


def test_weeks_that_were_not_looked_at_are_not_missing() -> None:
    for one in sampled(5, 60_000, 60_000, 300_000):
        assert one.tally.missing == one.tally.holes == 0


def test_days_and_longer_are_sampled_by_the_symbol() -> None:
    assert span_nanos(Interval.D1) is None
    looking = inspector(Checks(sample_rows=10_000), [ALL_DAY], 100_000)
    assert looking is not None
    for number in range(100):
        rows = bars(1_000, symbol=f"S{number}", step=DAY_NS, start=T0 // DAY_NS * DAY_NS)
        looking.inspect(Kind.BARS, Interval.D1, table(rows))
    inspected = {one.tally.inspected for one in looking.finish()}
    assert inspected == {0, 1_000}
