"""The past: reads as of a commit, deletes, commits and their times, what is there after opening again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.contract.stores import BACKENDS, T0, Home, M, bar, closes, counts, read, trade, trades, write

from tapehouse.errors import NotFound
from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, Instrument, Interval, Kind, OnConflict
from tapehouse.store.base import Capability, Selection


class TestAsOf:
    def test_every_commit_reads_as_it_was(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        write(store, bar("A", T0, 2), bar("A", T0 + M, 5))
        store.delete(Kind.BARS, ["A"], interval=Interval.M1, end=T0 + 1)
        write(store, bar("A", T0, 3))
        assert [closes(store, as_of=commit) for commit in range(5)] == [
            [],
            [("A", 0, 1)],
            [("A", 0, 2), ("A", 1, 5)],
            [("A", 1, 5)],
            [("A", 0, 3), ("A", 1, 5)],
        ]

    def test_a_row_knows_the_commit_that_brought_it(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("A", T0 + M, 1))
        write(store, bar("A", T0, 2))
        assert read(store, "commit") == [(2,), (1,)]

    @pytest.mark.parametrize("as_of", [-1, 2])
    def test_a_commit_that_is_not_there_is_not_found(self, store: Any, as_of: int) -> None:
        write(store, bar("A", T0, 1))
        with pytest.raises(NotFound):
            closes(store, as_of=as_of)

    def test_with_a_source_it_is_what_the_source_had_said_by_then(self, store: Any) -> None:
        write(store, bar("A", T0, 1), source="x")
        write(store, bar("A", T0, 2), source="y", on_conflict=OnConflict.KEEP)
        write(store, bar("A", T0, 3), source="y", on_conflict=OnConflict.KEEP)
        assert [closes(store, source="y", as_of=commit) for commit in (1, 2, 3)] == [[], [("A", 0, 2)], [("A", 0, 3)]]

    def test_a_source_that_nobody_has_has_no_rows(self, store: Any) -> None:
        write(store, bar("A", T0, 1), source="x")
        assert closes(store, source="nobody") == []

    def test_a_reading_stays_as_of_its_commit(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        reading = store.read(Selection(interval=Interval.M1, columns=("close",)))
        write(store, bar("A", T0, 2))
        assert (reading.commit, reading.table()["close"].to_pylist()) == (1, [1.0])


class TestDelete:
    def test_it_hides_the_span_of_those_symbols_and_counts_the_rows(self, store: Any) -> None:
        write(store, *(bar(symbol, T0 + n * M, n) for symbol in "ABC" for n in range(4)))
        commit = store.delete(Kind.BARS, ["A", "B", "nobody"], interval=Interval.M1, start=T0 + M, end=T0 + 3 * M)
        assert (commit.action, counts(commit), commit.number) == ("delete", {"deleted": 4}, 2)
        assert closes(store, symbols=("A", "B")) == [(s, n, n) for s in "AB" for n in (0, 3)]
        assert [series.rows for series in store.coverage()] == [2, 2, 4]

    def test_to_the_nanosecond(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(*(trade("A", T0 + n, n) for n in (-1, 0, 1, 2))))
        store.delete(Kind.TRADES, ["A"], start=T0, end=T0 + 1)
        assert read(store, "price", kind=Kind.TRADES) == [(-1,), (1,), (2,)]

    def test_of_all_time(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(trade("A", MIN_TIME_NS, 1), trade("A", MAX_TIME_NS - 1, 1)))
        assert counts(store.delete(Kind.TRADES, ["A"])) == {"deleted": 2}
        assert (store.symbols(), store.coverage()) == ([], [])

    def test_of_every_source(self, store: Any) -> None:
        write(store, bar("A", T0, 1), source="x")
        write(store, bar("A", T0, 2), source="y", on_conflict=OnConflict.KEEP)
        store.delete(Kind.BARS, ["A"], interval=Interval.M1)
        assert closes(store, source="x") == closes(store, source="y") == []

    def test_of_nothing_makes_no_commit(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        for options in ({"end": T0}, {"start": T0 + 1}, {"start": T0 + 5, "end": T0 - 5}):
            commit = store.delete(Kind.BARS, ["A"], interval=Interval.M1, **options)
            assert (commit.number, counts(commit)) == (1, {})
        assert store.head() == 1

    def test_of_one_interval_leaves_the_others(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        write(store, bar("A", T0, 2), interval=Interval.H1)
        store.delete(Kind.BARS, ["A"], interval=Interval.M1)
        assert closes(store, interval=Interval.H1) == [("A", 0, 2)]

    @pytest.mark.parametrize("on_conflict", list(OnConflict))
    def test_what_is_written_after_it_is_inserted(self, store: Any, on_conflict: OnConflict) -> None:
        write(store, bar("A", T0, 1), source="x")
        store.delete(Kind.BARS, ["A"], interval=Interval.M1)
        for value, source in ((1, "x"), (7, "y")):
            write_again = bar("A", T0, value)
            assert counts(write(store, write_again, on_conflict=on_conflict, source=source)) == {"inserted": 1}
            store.delete(Kind.BARS, ["A"], interval=Interval.M1)
        assert [closes(store, as_of=commit) for commit in range(3, 7)] == [[("A", 0, 1)], [], [("A", 0, 7)], []]

    def test_what_was_before_it_does_not_come_back(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("A", T0 + M, 2))
        store.delete(Kind.BARS, ["A"], interval=Interval.M1)
        write(store, bar("A", T0, 3))
        assert closes(store) == [("A", 0, 3)]
        assert counts(store.delete(Kind.BARS, ["A"], interval=Interval.M1)) == {"deleted": 1}


class TestCommits:
    def test_they_are_listed_oldest_first_in_pages(self, store: Any) -> None:
        commits = [write(store, bar("A", T0, value)) for value in range(5)]
        assert store.commits() == commits
        assert store.commits(after=1, limit=2) == commits[1:3]
        assert store.commits(after=5) == []

    def test_their_times_go_forward_and_find_them(self, store: Any) -> None:
        before = time.time_ns()
        commits = [write(store, bar("A", T0, value)) for value in range(3)]
        after = time.time_ns()
        recorded = [commit.recorded for commit in commits]
        assert before <= recorded[0] < recorded[1] < recorded[2] <= after + 3
        assert [store.commit_at(moment) for moment in (0, recorded[0] - 1, *recorded, after + 3)] == [0, 0, 1, 2, 3, 3]

    def test_a_delete_is_one_of_them(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        commit = store.delete(Kind.BARS, ["A"], interval=Interval.M1, start=T0, end=T0 + M, batch="undo")
        assert store.commits(after=1) == [commit]
        assert (commit.batch, commit.start, commit.end) == ("undo", T0, T0 + M)


class TestCompaction:
    """A store that compacts answers the same before and after."""

    @pytest.mark.parametrize("everything", [False, True])
    def test_it_changes_no_answer(self, store: Any, everything: bool) -> None:
        if Capability.COMPACTS not in store.capabilities:
            assert not hasattr(store, "compact")
            return
        for value in range(3):
            write(store, *(bar(s, T0 + n * M, value + n) for s in "AB" for n in range(value, value + 3)), source="x")
        write(store, bar("A", T0, 9), source="y", on_conflict=OnConflict.KEEP)
        store.delete(Kind.BARS, ["B"], interval=Interval.M1, start=T0, end=T0 + 2 * M)
        before = [closes(store, as_of=commit) for commit in range(store.head() + 1)], store.coverage()
        store.compact(everything=everything)
        assert ([closes(store, as_of=commit) for commit in range(store.head() + 1)], store.coverage()) == before
        assert closes(store, source="y") == [("A", 0, 9)]
        assert counts(write(store, bar("A", T0, 9), source="y", on_conflict=OnConflict.KEEP)) == {"unchanged": 1}

    def test_a_second_one_finds_nothing_to_do(self, store: Any) -> None:
        if Capability.COMPACTS not in store.capabilities:
            assert not hasattr(store, "compact")
            return
        write(store, *(bar("A", T0 + n * M, n) for n in range(100)))
        store.compact(everything=True)
        assert store.compact(everything=True).files_written == 0


@pytest.mark.parametrize("name", [name for name, backend in BACKENDS.items() if backend.persists])
class TestOpenedAgain:
    def test_everything_is_there(self, name: str, tmp_path: Path) -> None:
        home = Home(BACKENDS[name], tmp_path / "data")
        store = home.store
        write(store, bar("A", T0, 1), source="x", batch="b")
        write(store, bar("A", T0, 2), source="y", on_conflict=OnConflict.KEEP)
        store.write(Kind.TRADES, trades(trade("B", T0, 1, id="7")))
        write(store, bar("C", T0, 1))
        store.delete(Kind.BARS, ["C"], interval=Interval.M1)
        store.put_instruments([Instrument(pattern="A", calendar="XNYS", tick_size=0.01)])
        before = [store.commits(), store.coverage(), store.symbols(), store.instruments()]
        store = home.reopen()
        assert [store.commits(), store.coverage(), store.symbols(), store.instruments()] == before
        assert (closes(store), closes(store, source="y")) == ([("A", 0, 1)], [("A", 0, 2)])
        assert closes(store, as_of=4) == [("A", 0, 1), ("C", 0, 1)]
        assert read(store, "price", "id", kind=Kind.TRADES) == [(1.0, "7")]
        assert write(store, bar("A", T0, 5)).number == 6
        home.close()

    def test_closing_twice_is_closing_once(self, name: str, tmp_path: Path) -> None:
        home = Home(BACKENDS[name], tmp_path / "data")
        home.close()
        home.close()
