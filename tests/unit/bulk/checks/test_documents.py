"""Quality is kept in the store, grows with what is loaded, and can be made anew from what is stored."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tests.unit.bulk.checks.series import ALL_DAY, T0, Columns, bars, joined, kind_of, look, quotes, scale_bars, table

from tapehouse.bulk.checks import assess, base, documents, grade, inspection, kept, record
from tapehouse.bulk.checks.base import COLLECTION, Checks, Grade, Validate, decode
from tapehouse.model import MINUTE_NS, SECOND_NS, Interval, Kind
from tapehouse.store.base import Reading, Selection
from tapehouse.store.memory import MemoryStore

FULL = Checks(validate=Validate.FULL)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def write(store: MemoryStore, rows: Columns, interval: Interval = Interval.M1) -> int:
    kind = kind_of(rows)
    return store.write(kind, table(rows), interval=interval if kind is Kind.BARS else None, source="test").number


def spiked(symbol: str = "A", at: int = 500) -> Columns:
    rows = bars(1_000, symbol=symbol)
    scale_bars(rows, at, 1.3)
    return rows


def test_looks_are_kept_by_series_and_added_up(store: MemoryStore) -> None:
    first = record(store, look(joined(spiked("A"), bars(1_000, symbol="B"))))
    assert [(each.symbol, each.tally.rows, each.tally.warnings) for each in first] == [("A", 1_000, 1), ("B", 1_000, 0)]
    (later,) = record(store, look(bars(1_000, start=T0 + 5_000 * MINUTE_NS)))
    assert (later.tally.rows, later.tally.warnings, later.findings[0].rule) == (2_000, 1, "spike")
    assert set(store.documents(COLLECTION)) == {"A bars 1m", "B bars 1m"}
    assert decode(store.documents(COLLECTION)["A bars 1m"]) == later
    (again,) = record(store, look(bars(1_000, start=T0 + 5_000 * MINUTE_NS)))
    assert again.tally == later.tally


def test_many_series_are_written_in_few_goes(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "DOCUMENTS_AT_ONCE", 3)
    record(store, look(joined(*(bars(10, symbol=f"S{number}") for number in range(8)))))
    assert len(list(kept(store))) == 8


def test_what_is_kept_can_be_asked_for_in_part(store: MemoryStore) -> None:
    record(store, look(joined(bars(10), bars(10, symbol="B"))))
    record(store, look(bars(10, step=5 * MINUTE_NS), Interval.M5))
    assert [(each.symbol, each.interval) for each in kept(store, symbols=["A"])] == [("A", "1m"), ("A", "5m")]
    assert [each.symbol for each in kept(store, kind=Kind.BARS, interval=Interval.M5)] == ["A"]
    assert list(kept(store, kind=Kind.TRADES)) == []


def test_what_is_stored_can_be_looked_at_again(store: MemoryStore) -> None:
    write(store, joined(spiked("A"), bars(1_000, symbol="B")))
    commit = write(store, quotes())
    assessed = list(assess(store, [ALL_DAY], FULL))
    assert [(each.symbol, each.kind, each.grade) for each in assessed] == [
        ("A", "bars", Grade.A),
        ("B", "bars", Grade.A),
        ("A", "quotes", Grade.A),
    ]
    assert [(each.rule, each.count) for each in assessed[0].findings] == [("spike", 1)]
    assert {each.commit for each in assessed} == {commit}
    assert list(kept(store, kind=Kind.BARS)) == assessed[:2]


def test_what_was_mended_has_a_better_grade_and_keeps_what_was_quarantined(store: MemoryStore) -> None:
    broken = spiked()
    scale_bars(broken, slice(600, 620), 3)
    write(store, broken)
    looking = inspection.inspector(FULL, [ALL_DAY])
    assert looking is not None
    looking.inspect(Kind.BARS, Interval.M1, table(broken))
    looking.quarantined(Kind.BARS, Interval.M1, 4, "A")
    (before,) = record(store, looking.finish(batch="one", commit=1))
    assert before.findings
    write(store, bars(1_000))
    (after,) = assess(store, [ALL_DAY], FULL, symbols=["A"])
    assert (after.findings, after.tally.quarantined, after.batch) == ((), 4, "one")


def test_a_look_at_what_is_stored_ends_double_counts(store: MemoryStore) -> None:
    rows = bars(1_000)
    write(store, rows)
    record(store, look({name: values[:600] for name, values in rows.items()}))
    (double,) = record(store, look({name: values[400:] for name, values in rows.items()}))
    assert (double.tally.rows, double.overlapping) == (1_200, True)
    (exact,) = assess(store, [ALL_DAY], FULL)
    assert (exact.tally.rows, exact.overlapping) == (1_000, False)


def test_a_sample_of_what_is_stored_keeps_to_its_rows(store: MemoryStore) -> None:
    write(store, joined(*(bars(20_000, symbol=f"S{number}") for number in range(4))))
    assessed = list(assess(store, [ALL_DAY], Checks(sample_rows=30_000)))
    assert sum(each.tally.rows for each in assessed) == 80_000
    assert 0 < sum(each.tally.inspected for each in assessed) <= 30_000


def test_what_the_sample_has_room_for_is_looked_at_whole(store: MemoryStore) -> None:
    for name in "ABC":
        write(store, bars(symbol=name, count=4_000))
        write(store, bars(symbol=name, count=4_000), Interval.S5)
    found = list(assess(store, [ALL_DAY], Checks(sample_rows=24_000)))
    assert [each.tally.inspected for each in found] == [4_000] * 6


def test_checks_that_are_off_leave_everything_as_it_is(store: MemoryStore) -> None:
    write(store, bars(10))
    assert list(assess(store, [ALL_DAY], Checks(validate=Validate.OFF))) == []
    assert store.documents(COLLECTION) == {}


def fills(at: Columns, side: str) -> Columns:
    """A trade half a second after every quote or bar, at its price; every 100th far away."""
    prices = at[side].copy()
    prices[50::100] *= 1.5
    count = len(prices)
    sizes = np.full(count, 100.0)
    return {"symbol": at["symbol"], "timestamp": at["timestamp"] + SECOND_NS // 2, "price": prices, "size": sizes}


def test_trades_are_held_against_the_quotes_of_their_time(store: MemoryStore) -> None:
    rows = quotes(2_000)
    rows["timestamp"] = T0 + np.arange(2_000) * SECOND_NS
    write(store, rows)
    write(store, fills(rows, "ask"))
    (one,) = assess(store, [ALL_DAY], FULL, kind=Kind.TRADES)
    found = {each.rule: each for each in one.findings}
    assert found["outside-quotes"].count == 20
    assert found["outside-quotes"].examples[0].expected.startswith("near ")
    assert one.tally.warnings >= 20


def test_trades_are_held_against_bars_where_there_are_no_quotes(store: MemoryStore) -> None:
    rows = bars(2_000)
    write(store, rows)
    write(store, fills(rows, "close"))
    (one,) = assess(store, [ALL_DAY], FULL, kind=Kind.TRADES)
    assert {each.rule: each.count for each in one.findings}["outside-bars"] == 20


def test_batches_that_do_not_match_meet_every_trade_once(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(reading: object) -> object:
        for batch in reading:  # type: ignore[attr-defined]
            for first in range(0, batch.num_rows, 37):
                yield [documents._numbers(column) for column in batch.slice(first, 37).columns]

    monkeypatch.setattr(documents, "_batches", small)
    test_trades_are_held_against_the_quotes_of_their_time(store)


def stale(store: MemoryStore) -> dict[str, bool]:
    return {each.symbol: each.stale for each in kept(store, interval=Interval.M1)}


def assessed(store: MemoryStore) -> dict[str, bool]:
    assert list(assess(store, [ALL_DAY], FULL))
    return stale(store)


def test_a_grade_of_rows_that_were_deleted_is_stale_until_they_are_looked_at_again(store: MemoryStore) -> None:
    write(store, bars(1_000))
    assert assessed(store) == {"A": False}
    store.delete(Kind.BARS, ["A"], interval=Interval.M1, end=T0 + 10 * MINUTE_NS)
    assert stale(store) == {"A": True}
    assert assessed(store) == {"A": False}
    store.delete(Kind.BARS, ["A"], interval=Interval.M1, start=T0 + 10 * MINUTE_NS, end=T0 + 11 * MINUTE_NS)
    assert stale(store) == {"A": True}


def test_a_grade_of_rows_that_were_undone_is_stale(store: MemoryStore) -> None:
    write(store, bars(1_000))
    store.write(Kind.BARS, table(spiked()), interval=Interval.M1, source="test", batch="wrong")
    assert assessed(store) == {"A": False}
    store.undo("wrong")
    assert stale(store) == {"A": True}


def test_a_grade_of_rows_that_were_replaced_is_stale_unless_a_load_inspected_those_that_came(
    store: MemoryStore,
) -> None:
    write(store, bars(1_000))
    assert assessed(store) == {"A": False}
    write(store, bars(10, start=T0 + 5_000 * MINUTE_NS))
    assert stale(store) == {"A": False}, "rows that were added take none away"
    write(store, spiked())
    assert stale(store) == {"A": True}

    assert assessed(store) == {"A": False}
    commit = store.write(Kind.BARS, table(bars(500)), interval=Interval.M1, source="test", batch="load").number
    looking = inspection.inspector(FULL, [ALL_DAY])
    assert looking is not None
    looking.inspect(Kind.BARS, Interval.M1, table(bars(500)))
    (known,) = record(store, looking.finish(batch="load", commit=commit))
    assert known.overlapping
    assert stale(store) == {"A": False}
    store.write(Kind.BARS, table(spiked()), interval=Interval.M1, source="test", batch="load")
    assert stale(store) == {"A": True}, "the same load went on without an inspection"


def test_what_happens_to_other_data_and_times_makes_nothing_stale(store: MemoryStore) -> None:
    write(store, bars(1_000))
    write(store, bars(1_000, step=5 * MINUTE_NS), Interval.M5)
    write(store, bars(10, symbol="LATER", start=T0 + 5_000 * MINUTE_NS))
    assert assessed(store) == {"A": False, "LATER": False}
    store.delete(Kind.BARS, ["A"], interval=Interval.M5)
    store.delete(Kind.BARS, ["LATER"], interval=Interval.M1, start=T0 + 5_000 * MINUTE_NS, end=T0 + 6_000 * MINUTE_NS)
    assert stale(store) == {"A": False, "LATER": True}


def test_a_commit_far_back_is_found_among_many(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "COMMITS_AT_ONCE", 2)
    write(store, bars(1_000))
    assert assessed(store) == {"A": False}
    store.delete(Kind.BARS, ["A"], interval=Interval.M1, end=T0 + MINUTE_NS)
    for number in range(5):
        write(store, bars(1, symbol=f"B{number}", start=T0 + 9_000 * MINUTE_NS))
    assert stale(store) == {"A": True}


def test_looks_that_became_one_are_as_old_as_the_oldest(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grade, "MAX_LOOKS", 1)
    write(store, joined(bars(1_000), bars(10, start=T0 + 5_000 * MINUTE_NS)))
    record(store, look(bars(1_000)))
    store.delete(Kind.BARS, ["A"], interval=Interval.M1, end=T0 + MINUTE_NS)
    looking = inspection.inspector(FULL, [ALL_DAY])
    assert looking is not None
    looking.inspect(Kind.BARS, Interval.M1, table(bars(10, start=T0 + 5_000 * MINUTE_NS)))
    (known,) = record(store, looking.finish(batch="later", commit=store.head()))
    assert len(known.looks) == 1
    assert stale(store) == {"A": True}


def test_of_a_series_without_rows_only_what_went_to_quarantine_is_left(store: MemoryStore) -> None:
    write(store, joined(bars(100), bars(100, symbol="B")))
    looking = inspection.inspector(FULL, [ALL_DAY])
    assert looking is not None
    looking.inspect(Kind.BARS, Interval.M1, table(joined(bars(100), bars(100, symbol="B"))))
    looking.quarantined(Kind.BARS, Interval.M1, 4, "B")
    record(store, looking.finish(batch="one", commit=1))
    store.delete(Kind.BARS, ["A", "B"], interval=Interval.M1)
    assert stale(store) == {"A": True, "B": True}
    assert list(assess(store, [ALL_DAY], FULL, symbols=["B"])) == []
    assert stale(store) == {"A": True, "B": False}, "nobody asked for A"
    assert list(assess(store, [ALL_DAY], FULL)) == []
    (left,) = kept(store)
    assert (left.symbol, left.grade, left.tally.rows, left.tally.quarantined) == ("B", None, 0, 4)


def test_an_assessment_that_is_stopped_keeps_whole_series_alone(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "SERIES_AT_ONCE", 1)
    write(store, joined(*(spiked(f"S{number}") for number in range(3))))
    stop = threading.Event()
    made = assess(store, [ALL_DAY], FULL, stop=stop)
    first = next(made)
    stop.set()
    assert list(made) == []
    assert list(kept(store)) == [first]


def test_an_assessment_that_is_stopped_amid_a_series_changes_nothing(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, spiked())
    before = list(assess(store, [ALL_DAY], FULL))
    write(store, bars(1_000))
    stop = threading.Event()
    read = store.read

    def stopping(selection: Selection) -> Reading:
        stop.set()
        return read(selection)

    monkeypatch.setattr(store, "read", stopping)
    assert list(assess(store, [ALL_DAY], FULL, stop=stop)) == []
    assert [decode(each) for each in store.documents(COLLECTION).values()] == before
