"""What a write does to each row, what it counts, and what it keeps: the table of docs/design/versions.md."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.stores import T0, M, bar, bars, closes, counts, read, write

from tapehouse.errors import Conflict
from tapehouse.model import Interval, Kind, OnConflict

EVERY = list(OnConflict)


def sources(store: Any, **selection: Any) -> list[tuple[Any, ...]]:
    return read(store, "close", "source", **selection)


@pytest.mark.parametrize("on_conflict", EVERY)
class TestInEveryMode:
    def test_new_rows_are_inserted(self, store: Any, on_conflict: OnConflict) -> None:
        commit = write(store, bar("A", T0, 1), bar("B", T0, 2), on_conflict=on_conflict)
        assert counts(commit) == {"inserted": 2}
        assert closes(store) == [("A", 0, 1), ("B", 0, 2)]

    def test_the_same_rows_again_change_nothing(self, store: Any, on_conflict: OnConflict) -> None:
        rows = [bar("A", T0, 1, vwap=1.5), bar("A", T0 + M, 2, vwap=None)]
        first = write(store, *rows, on_conflict=on_conflict, source="x")
        again = write(store, *rows, on_conflict=on_conflict, source="x")
        assert (again.number, counts(again)) == (first.number, {"unchanged": 2})
        assert store.head() == 1

    def test_an_absent_column_is_a_null_one(self, store: Any, on_conflict: OnConflict) -> None:
        write(store, bar("A", T0, 1), on_conflict=on_conflict)
        again = write(store, bar("A", T0, 1, vwap=None), bar("A", T0 + M, 1, vwap=2.0), on_conflict=on_conflict)
        assert counts(again) == {"unchanged": 1, "inserted": 1}

    def test_equal_rows_within_a_table_count_once(self, store: Any, on_conflict: OnConflict) -> None:
        commit = write(store, *[bar("A", T0, 1)] * 3, on_conflict=on_conflict)
        assert counts(commit) == {"inserted": 1, "unchanged": 2}

    def test_an_empty_table_makes_no_commit(self, store: Any, on_conflict: OnConflict) -> None:
        commit = write(store, on_conflict=on_conflict)
        assert (commit.number, counts(commit), store.head()) == (0, {}, 0)


class TestReplace:
    def test_other_values_replace(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("A", T0 + M, 2))
        assert counts(write(store, bar("A", T0, 1), bar("A", T0 + M, 3))) == {"unchanged": 1, "replaced": 1}
        assert closes(store) == [("A", 0, 1), ("A", 1, 3)]

    def test_another_source_of_the_same_values_is_a_new_version(self, store: Any) -> None:
        write(store, bar("A", T0, 1), source="x")
        assert counts(write(store, bar("A", T0, 1), source="y")) == {"replaced": 1}
        assert sources(store) == [(1, "y")]

    def test_a_value_that_is_gone_is_another_value(self, store: Any) -> None:
        write(store, bar("A", T0, 1, vwap=1.5))
        assert counts(write(store, bar("A", T0, 1))) == {"replaced": 1}
        assert read(store, "vwap") == [(None,)]

    def test_the_last_bit_of_a_float_counts(self, store: Any) -> None:
        write(store, bar("A", T0, 0.1 + 0.2))
        assert counts(write(store, bar("A", T0, 0.3))) == {"replaced": 1}

    def test_of_two_rows_in_a_table_the_later_wins(self, store: Any) -> None:
        commit = write(store, bar("A", T0, 1, source="x"), bar("A", T0, 2, source="y"))
        assert counts(commit) == {"inserted": 1, "rejected": 1}
        assert sources(store) == [(2, "y")]
        assert sources(store, source="x") == [(1, "x")]


class TestKeep:
    def test_what_is_stored_stays_and_the_loser_is_kept(self, store: Any) -> None:
        write(store, bar("A", T0, 1), source="x")
        commit = write(store, bar("A", T0, 2), on_conflict=OnConflict.KEEP, source="y")
        assert (counts(commit), commit.number) == ({"rejected": 1}, 2)
        assert sources(store) == [(1, "x")]
        assert sources(store, source="y") == [(2, "y")]

    def test_a_rejected_row_again_is_unchanged(self, store: Any) -> None:
        write(store, bar("A", T0, 1), source="x")
        for expected in ({"rejected": 1}, {"unchanged": 1}):
            assert counts(write(store, bar("A", T0, 2), on_conflict=OnConflict.KEEP, source="y")) == expected
        assert store.head() == 2

    def test_a_source_that_says_something_new_is_heard(self, store: Any) -> None:
        write(store, bar("A", T0, 1), source="x")
        for value in (2, 3, 2):
            commit = write(store, bar("A", T0, value), on_conflict=OnConflict.KEEP, source="y")
            assert counts(commit) == {"rejected": 1}
            assert sources(store, source="y") == [(value, "y")]

    def test_of_two_rows_in_a_table_the_first_wins(self, store: Any) -> None:
        commit = write(store, bar("A", T0, 1), bar("A", T0, 2), on_conflict=OnConflict.KEEP, source="x")
        assert counts(commit) == {"inserted": 1, "rejected": 1}
        assert sources(store) == sources(store, source="x") == [(1, "x")]

    def test_of_two_rejected_rows_of_a_source_the_later_is_its_newest(self, store: Any) -> None:
        write(store, bar("A", T0, 1), source="x")
        rows = [bar("A", T0, 2), bar("A", T0, 3)]
        assert counts(write(store, *rows, on_conflict=OnConflict.KEEP, source="y")) == {"rejected": 2}
        assert sources(store, source="y") == [(3, "y")]
        assert counts(write(store, rows[1], on_conflict=OnConflict.KEEP, source="y")) == {"unchanged": 1}
        assert counts(write(store, rows[0], on_conflict=OnConflict.KEEP, source="y")) == {"rejected": 1}
        assert sources(store, source="y") == [(2, "y")]


class TestPrefer:
    @pytest.mark.parametrize(
        ("stored", "new", "wins"),
        [
            ("b", "a", True),
            ("a", "b", False),
            ("a", "a", True),
            ("other", "b", True),
            ("b", "other", False),
            ("other", "another", True),
        ],
    )
    def test_the_source_that_ranks_first_wins(self, store: Any, stored: str, new: str, wins: bool) -> None:
        write(store, bar("A", T0, 1), source=stored)
        commit = write(store, bar("A", T0, 2), on_conflict=OnConflict.PREFER, prefer=["a", "b"], source=new)
        assert counts(commit) == ({"replaced": 1} if wins else {"rejected": 1})
        assert sources(store) == ([(2, new)] if wins else [(1, stored)])
        assert sources(store, source=new) == [(2, new)]

    def test_within_a_table_too_and_of_equal_rank_the_later(self, store: Any) -> None:
        rows = [
            bar("A", T0, 1, source="a"),
            bar("A", T0, 2, source="b"),
            bar("A", T0 + M, 3, source="other"),
            bar("A", T0 + M, 4, source="another"),
        ]
        commit = write(store, *rows, on_conflict=OnConflict.PREFER, prefer=["a", "b"])
        assert counts(commit) == {"inserted": 2, "rejected": 2}
        assert sources(store) == [(1, "a"), (4, "another")]


class TestError:
    def test_one_row_that_differs_fails_the_whole_write(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        with pytest.raises(Conflict):
            write(store, bar("A", T0 + M, 5), bar("A", T0, 2), on_conflict=OnConflict.ERROR)
        assert closes(store) == [("A", 0, 1)]
        assert store.head() == 1

    def test_so_do_rows_that_differ_from_one_another(self, store: Any) -> None:
        with pytest.raises(Conflict):
            write(store, bar("A", T0, 1), bar("A", T0, 2), on_conflict=OnConflict.ERROR)
        assert (closes(store), store.head(), store.symbols()) == ([], 0, [])

    def test_another_source_is_a_difference(self, store: Any) -> None:
        write(store, bar("A", T0, 1), source="x")
        with pytest.raises(Conflict):
            write(store, bar("A", T0, 1), on_conflict=OnConflict.ERROR, source="y")


class TestTheCommit:
    def test_it_says_what_was_written(self, store: Any) -> None:
        commit = write(store, bar("A", T0 + M, 1), bar("B", T0, 1), batch="b1")
        assert (commit.kind, commit.interval, commit.action, commit.batch) == (Kind.BARS, Interval.M1, "write", "b1")
        assert (commit.start, commit.end) == (T0, T0 + M + 1)
        assert store.commits() == [commit]

    def test_numbers_follow_one_another(self, store: Any) -> None:
        assert [write(store, bar("A", T0, value)).number for value in (1, 2, 2, 3)] == [1, 2, 2, 3]

    def test_intervals_are_apart(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        assert counts(write(store, bar("A", T0, 2), interval=Interval.M5)) == {"inserted": 1}
        assert closes(store) == [("A", 0, 1)]
        assert closes(store, interval=Interval.M5) == [("A", 0, 2)]

    def test_rows_keep_the_source_that_they_name(self, store: Any) -> None:
        write(store, bar("A", T0, 1, source="x"), bar("B", T0, 1, source=None), source="file:a.csv")
        write(store, bar("C", T0, 1))
        assert sources(store) == [(1, "x"), (1, "file:a.csv"), (1, "unknown")]

    def test_a_large_table_is_written_whole(self, store: Any) -> None:
        rows = bars(*(bar(f"S{n % 7}", T0 + n * M, n % 100) for n in range(10_000)))
        assert counts(store.write(Kind.BARS, rows, interval=Interval.M1)) == {"inserted": 10_000}
        assert counts(store.write(Kind.BARS, rows, interval=Interval.M1)) == {"unchanged": 10_000}
        assert [series.rows for series in store.coverage()] == [1429] * 4 + [1428] * 3


class TestTwice:
    """The same table written again changes nothing, whatever it holds."""

    TABLES = (
        (("x", 1), ("x", 2)),
        (("x", 1), ("x", 2), ("x", 1), ("x", 3)),
        (("x", 1), ("y", 2), ("x", 3), ("y", 1)),
        (("y", 2), ("y", 3)),
    )

    @pytest.mark.parametrize("on_conflict", [OnConflict.REPLACE, OnConflict.KEEP, OnConflict.PREFER])
    @pytest.mark.parametrize("before", [None, ("x", 1), ("x", 2), ("z", 9)])
    @pytest.mark.parametrize("rows", TABLES)
    def test_a_table_written_again_changes_nothing(
        self, store: Any, rows: tuple[tuple[str, int], ...], before: tuple[str, int] | None, on_conflict: OnConflict
    ) -> None:
        if before is not None:
            write(store, bar("A", T0, before[1]), source=before[0])
        table = [bar("A", T0, value, source=source) for source, value in rows]
        options = {"on_conflict": on_conflict, "prefer": ["y"] if on_conflict == "prefer" else []}
        write(store, *table, **options)
        head, said = store.head(), [sources(store, source=source) for source in (None, "x", "y", "z")]
        assert counts(write(store, *table, **options)) == {"unchanged": len(rows)}
        assert store.head() == head
        assert [sources(store, source=source) for source in (None, "x", "y", "z")] == said
