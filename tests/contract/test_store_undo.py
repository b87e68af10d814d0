"""Taking back what a batch did: what comes back, what stays, what is counted, and how it is listed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.stores import T0, Home, M, bar, bars, closes, counts, quote, read, table, trade, trades, write

from tapehouse.errors import Conflict, NotFound
from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, Change, Interval, Kind, OnConflict
from tapehouse.store.base import Batch, Selection, Undone


def delete(store: Any, *symbols: str, **options: Any) -> Any:
    return store.delete(Kind.BARS, symbols, **{"interval": Interval.M1, **options})


def figures(undone: Undone) -> tuple[int, int, int]:
    return undone.removed, undone.restored, undone.left


class TestUndo:
    def test_what_it_inserted_goes(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        write(store, bar("A", T0 + M, 2), bar("B", T0, 3), batch="b")
        undone = store.undo("b")
        assert (undone.batch, figures(undone), undone.examples) == ("b", (2, 0, 0), [])
        assert closes(store) == [("A", 0, 1)]
        assert [(s.symbol, s.rows, s.last) for s in store.coverage()] == [("A", 1, T0)]
        assert store.symbols() == ["A"]

    def test_what_it_replaced_comes_back(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("A", T0 + M, 1), source="x")
        write(store, bar("A", T0, 2), bar("A", T0 + 2 * M, 2), source="y", batch="b")
        assert figures(store.undo("b")) == (1, 1, 0)
        assert read(store, "close", "source", "commit") == [(1, "x", 1), (1, "x", 1)]

    def test_what_it_deleted_comes_back(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("A", T0 + M, 2), bar("B", T0, 3))
        delete(store, "A", "B", batch="b")
        assert store.coverage() == []
        assert figures(store.undo("b")) == (0, 3, 0)
        assert closes(store) == [("A", 0, 1), ("A", 1, 2), ("B", 0, 3)]
        assert [(s.symbol, s.rows, s.first, s.last) for s in store.coverage()] == [
            ("A", 2, T0, T0 + M),
            ("B", 1, T0, T0),
        ]
        assert counts(write(store, bar("A", T0, 1))) == {"unchanged": 1}

    def test_what_others_wrote_or_deleted_since_stays_and_is_listed(self, store: Any) -> None:
        write(store, *(bar("A", T0 + n * M, 0) for n in range(4)))
        write(store, *(bar("A", T0 + n * M, 1) for n in range(5)), batch="b")
        write(store, bar("A", T0 + M, 2))
        delete(store, "A", start=T0 + 2 * M, end=T0 + 3 * M)
        undone = store.undo("b")
        assert figures(undone) == (1, 2, 2)
        assert undone.examples == [
            (Kind.BARS, Interval.M1, "A", T0 + M, 3),
            (Kind.BARS, Interval.M1, "A", T0 + 2 * M, 4),
        ]
        assert closes(store) == [("A", 0, 0), ("A", 1, 2), ("A", 3, 0)]

    def test_what_was_deleted_and_written_again_since_is_left(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("A", T0 + M, 1))
        delete(store, "A", batch="b")
        write(store, bar("A", T0, 5))
        undone = store.undo("b")
        assert (figures(undone), undone.examples) == ((0, 1, 1), [(Kind.BARS, Interval.M1, "A", T0, 3)])
        assert closes(store) == [("A", 0, 5), ("A", 1, 1)]

    def test_examples_are_few(self, store: Any) -> None:
        write(store, *(bar(s, T0 + n * M, 1) for s in "AB" for n in range(30)), batch="b")
        write(store, *(bar(s, T0 + n * M, 2) for s in "AB" for n in range(30)))
        undone = store.undo("b")
        assert figures(undone) == (0, 0, 60)
        assert undone.examples == [(Kind.BARS, Interval.M1, "A", T0 + n * M, 2) for n in range(10)]

    def test_of_what_it_wrote_and_deleted_itself_nothing_is_left(self, store: Any) -> None:
        write(store, bar("A", T0, 1), batch="b")
        delete(store, "A", batch="b")
        assert figures(store.undo("b")) == (0, 0, 0)
        assert closes(store) == []
        assert [closes(store, as_of=commit) for commit in range(4)] == [[], [("A", 0, 1)], [], []]

    def test_rows_that_lost_are_hidden_too(self, store: Any) -> None:
        write(store, bar("A", T0, 1), source="x")
        write(store, bar("A", T0, 2), source="y", on_conflict=OnConflict.KEEP, batch="b")
        assert figures(store.undo("b")) == (0, 0, 0)
        assert (closes(store, source="y"), closes(store, source="y", as_of=2)) == ([], [("A", 0, 2)])
        again = write(store, bar("A", T0, 2), source="y", on_conflict=OnConflict.KEEP)
        assert counts(again) == {"rejected": 1}

    def test_as_of_before_it_nothing_changed(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        write(store, bar("A", T0, 2), batch="b")
        store.undo("b")
        store.undo("undo-b")
        expected = [[], [("A", 0, 1)], [("A", 0, 2)], [("A", 0, 1)], [("A", 0, 2)]]
        assert [closes(store, as_of=commit) for commit in range(5)] == expected

    def test_what_is_written_after_it_meets_what_is_there_then(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        write(store, bar("A", T0, 2), bar("A", T0 + M, 2), batch="b")
        store.undo("b")
        for on_conflict in OnConflict:
            assert counts(write(store, bar("A", T0, 1), on_conflict=on_conflict)) == {"unchanged": 1}
        assert counts(write(store, bar("A", T0, 2), bar("A", T0 + M, 2))) == {"inserted": 1, "replaced": 1}

    def test_trades_and_quotes_by_their_keys(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(trade("A", T0, 1, id="1"), trade("A", T0, 1)), source="x")
        store.write(
            Kind.TRADES, trades(trade("A", T0, 2, id="1"), trade("A", T0, 1, side="buy")), source="x", batch="b"
        )
        store.write(Kind.QUOTES, table(Kind.QUOTES, [quote("A", T0, 1, 2)]), batch="b")
        undone = store.undo("b")
        assert [(c.kind, c.interval) for c in undone.commits] == [(Kind.TRADES, None), (Kind.QUOTES, None)]
        assert [counts(c) for c in undone.commits] == [{"replaced": 2}, {"deleted": 1}]
        assert read(store, "price", "side", "id", kind=Kind.TRADES) == [(1, None, "1"), (1, None, None)]
        assert read(store, "bid", kind=Kind.QUOTES) == []

    def test_commits_of_others_in_between_stay(self, store: Any) -> None:
        for value in range(6):
            write(store, bar("A", T0 + value * M, value), bar("B", T0, value), batch="b" if value % 2 else "other")
        assert figures(store.undo("b")) == (3, 1, 0)
        assert closes(store) == [("A", 0, 0), ("A", 2, 2), ("A", 4, 4), ("B", 0, 4)]
        assert figures(store.undo("other")) == (4, 0, 0)
        assert closes(store) == []

    def test_what_others_deleted_beside_other_rows_stays_deleted(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("B", T0, 1), bar("C", T0 + M, 1))
        delete(store, "A", batch="b")
        assert counts(delete(store, "A", "B", "C", "nobody", end=T0 + M)) == {"deleted": 1}
        assert figures(store.undo("b")) == (0, 0, 0)
        assert closes(store) == [("C", 1, 1)]

    def test_a_name_that_is_not_there(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        with pytest.raises(NotFound, match="'nobody'"):
            store.undo("nobody")
        assert store.head() == 1

    def test_twice_is_a_conflict_that_says_by_what(self, store: Any) -> None:
        write(store, bar("A", T0, 1), batch="b")
        store.undo("b")
        with pytest.raises(Conflict, match="undone already, by 'undo-b'"):
            store.undo("b")
        assert store.head() == 2

    def test_what_a_batch_of_the_same_name_did_since_can_be_undone(self, store: Any) -> None:
        write(store, bar("A", T0, 1), batch="b")
        store.undo("b")
        write(store, bar("A", T0, 2), bar("B", T0, 2), batch="b")
        assert figures(store.undo("b")) == (2, 0, 0)
        assert [batch.name for batch in store.batches()] == ["undo-b-2", "b", "undo-b"]
        assert figures(store.undo("undo-b")) == (0, 1, 0)
        assert closes(store) == [("A", 0, 1)]

    def test_readings_under_way_do_not_see_it(self, store: Any) -> None:
        write(store, bar("A", T0, 1), batch="b")
        reading = store.read(Selection(interval=Interval.M1, columns=("close",)))
        store.undo("b")
        assert reading.table()["close"].to_pylist() == [1]
        assert store.written("b", Kind.BARS, Interval.M1).table()["close"].to_pylist() == [1]

    def test_it_is_announced(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("B", T0 + M, 1), batch="b")
        write(store, bar("C", T0, 1), interval=Interval.H1, batch="b")
        delete(store, "A", batch="b")
        heard: list[Change] = []
        store.subscribe(heard.append)
        store.undo("b")
        spans = [(c.commit, c.interval, c.symbols, c.start, c.end) for c in heard]
        assert spans == [
            (4, Interval.M1, ("A", "B"), MIN_TIME_NS, MAX_TIME_NS),
            (5, Interval.H1, ("C",), T0, T0 + 1),
        ]


class TestUndoOfAnUndo:
    def test_it_brings_back_what_the_first_took(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("A", T0 + M, 1))
        write(store, bar("A", T0, 2), bar("B", T0, 2), batch="b")
        delete(store, "A", start=T0 + M, batch="b")
        before = closes(store), store.coverage()
        assert figures(store.undo("b")) == (1, 2, 0)
        assert figures(store.undo("undo-b")) == (1, 2, 0)
        assert (closes(store), store.coverage()) == before
        assert [c.action for c in store.commits()] == ["write", "write", "delete", "undo", "undo"]

    def test_and_so_on(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        write(store, bar("A", T0, 2), batch="b")
        name = "b"
        for value in (1, 2, 1, 2):
            store.undo(name)
            assert closes(store) == [("A", 0, value)]
            name = f"undo-{name}"

    def test_what_changed_since_the_first_stays(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("A", T0 + M, 1), bar("A", T0 + 2 * M, 1), batch="b")
        store.undo("b")
        write(store, bar("A", T0, 5))
        delete(store, "A", start=T0, end=T0 + M)
        write(store, bar("A", T0 + M, 6))
        undone = store.undo("undo-b")
        assert (figures(undone), [example[3:] for example in undone.examples]) == ((0, 1, 2), [(T0, 4), (T0 + M, 5)])
        assert closes(store) == [("A", 1, 6), ("A", 2, 1)]

    def test_then_the_batch_can_be_undone_again(self, store: Any) -> None:
        write(store, bar("A", T0, 1), batch="b")
        store.undo("b")
        store.undo("undo-b")
        assert store.undo("b").commits[0].batch == "undo-b-2"
        assert closes(store) == []
        store.undo("undo-undo-b")  # what brought it back goes, but it is still undone
        assert closes(store) == []


class TestBatches:
    def test_all_commits_of_a_name_are_one(self, store: Any) -> None:
        first = write(store, bar("A", T0, 1), batch="b")
        write(store, bar("A", T0, 1), bar("Z", T0, 1))
        store.write(Kind.TRADES, trades(trade("A", T0, 1)), batch="b")
        write(store, bar("A", T0, 2), bar("A", T0, 3), bar("B", T0, 3), batch="b")
        last = delete(store, "A", batch="b")
        assert store.batches() == [
            Batch(
                name="b",
                first_commit=1,
                last_commit=5,
                started=first.recorded,
                ended=last.recorded,
                commits=4,
                series=((Kind.BARS, Interval.M1), (Kind.TRADES, None)),
                inserted=3,
                replaced=1,
                rejected=1,
                deleted=1,
            )
        ]

    def test_newest_first_in_pages_or_by_name(self, store: Any) -> None:
        for value, name in enumerate("abcad"):
            write(store, bar("A", T0, value), batch=name)
        assert [b.name for b in store.batches()] == ["d", "a", "c", "b"]
        assert [b.name for b in store.batches(limit=2)] == ["d", "a"]
        assert [b.name for b in store.batches(before=4, limit=2)] == ["c", "b"]
        assert [b.name for b in store.batches(["b", "nobody", "a"])] == ["a", "b"]
        assert store.batches([]) == []

    def test_commits_without_a_name_are_no_batch(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        assert store.batches() == []

    def test_who_undoes_whom_also_when_opened_again(self, home: Home) -> None:
        store = home.store
        write(store, bar("A", T0, 1), batch="b")
        store.undo("b")
        expected = {"b": ("undo-b", None), "undo-b": (None, "b")}
        for undo in (None, "undo-b"):
            if undo is not None:
                store.undo(undo)
                expected = {
                    "b": (None, None),
                    "undo-b": ("undo-undo-b", "b"),
                    "undo-undo-b": (None, "undo-b"),
                }
            for _ in range(2):
                assert {b.name: (b.undone_by, b.undoes) for b in store.batches()} == expected
                store = home.reopen() if home.backend.persists else store
        assert closes(store) == [("A", 0, 1)]


class TestBesideCompactions:
    """An undo reads the same whatever was archived before, between and after."""

    @pytest.mark.parametrize("when", range(16))
    def test_it_changes_no_answer(self, home: Home, when: int) -> None:
        store = home.store
        if not home.backend.persists or home.backend.archived:
            assert home.backend.archived or not hasattr(store, "compact")
            return

        def pause(step: int) -> None:
            if when >> step & 1:
                store.compact(everything=True)

        write(store, *(bar(s, T0 + n * M, 1) for s in "AB" for n in range(5)), source="x")
        pause(0)
        write(store, *(bar("A", T0 + n * M, 2) for n in range(2, 8)), source="y", batch="b")
        delete(store, "B", start=T0, end=T0 + 2 * M, batch="b")
        pause(1)
        store.undo("b")
        undone = [("A", n, 1) for n in range(5)] + [("B", n, 1) for n in range(5)]
        assert closes(store) == undone
        assert closes(store, symbols=("A",), start=T0 + 2 * M, limit=1) == [("A", 2, 1)]
        pause(2)
        assert (closes(store), closes(store, source="y")) == (undone, [])
        store.undo("undo-b")
        pause(3)
        for _ in range(2):
            assert closes(store) == [
                *(("A", n, 1 if n < 2 else 2) for n in range(8)),
                *(("B", n, 1) for n in range(2, 5)),
            ]
            assert closes(store, as_of=4) == undone
            assert [(s.symbol, s.rows, s.first, s.last) for s in store.coverage()] == [
                ("A", 8, T0, T0 + 7 * M),
                ("B", 3, T0 + 2 * M, T0 + 4 * M),
            ]
            store = home.reopen()

    def test_a_symbol_whose_rows_are_all_in_the_history_comes_back(self, home: Home) -> None:
        write(home.store, bar("A", T0, 1), bar("B", T0, 1))
        delete(home.store, "A", batch="b")
        if home.backend.persists:
            home.store.compact(everything=True)
        home.store.undo("b")
        store = home.reopen() if home.backend.persists else home.store
        assert (closes(store), store.symbols()) == ([("A", 0, 1), ("B", 0, 1)], ["A", "B"])


def test_together_with_tables_of_one_batch(store: Any) -> None:
    write(store, bar("A", T0, 1))
    tables = [bars(bar("A", T0, 2)), bars(bar("B", T0, 2)), bars(bar("C", T0, 2))]
    store.write_together(Kind.BARS, tables, interval=Interval.M1, batch="b")
    assert figures(store.undo("b")) == (2, 1, 0)
    assert closes(store) == [("A", 0, 1)]
