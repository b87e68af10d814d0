"""Many tables written as one commit: what it stores is what one table would, and each table knows what became of it."""

from __future__ import annotations

import contextlib
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.stores import T0, M, bar, bars, closes, counts, read, trade, trades, write

from tapehouse.errors import Conflict, InvalidRequest, InvalidSymbol, InvalidTable
from tapehouse.model import SCHEMAS, Interval, Kind, OnConflict
from tapehouse.store.base import Met, Outcome
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore


def together(store: Any, *tables: pa.Table, **options: Any) -> Any:
    return store.write_together(Kind.BARS, tables, **{"interval": Interval.M1, **options})


def test_each_table_knows_what_became_of_its_rows(store: Any) -> None:
    write(store, bar("A", T0, 1), bar("B", T0, 1), source="x")
    commit, outcomes = together(
        store,
        bars(bar("A", T0, 1), bar("A", T0 + M, 2)),
        bars(),
        bars(bar("B", T0, 9)),
        bars(bar("B", T0 + M, 3), bar("C", T0, 1)),
        source="x",
        batch="b",
    )
    assert outcomes == [
        Outcome(unchanged=1, inserted=1, met=Met(own={1: (1, 0)})),
        Outcome(),
        Outcome(replaced=1, met=Met(own={1: (0, 1)})),
        Outcome(inserted=2),
    ]
    assert (commit.number, commit.batch) == (2, "b")
    assert counts(commit) == {"inserted": 3, "replaced": 1, "unchanged": 1}
    assert closes(store) == [("A", 0, 1), ("A", 1, 2), ("B", 0, 9), ("B", 1, 3), ("C", 0, 1)]


def test_when_all_is_new_every_table_says_so(store: Any) -> None:
    commit, outcomes = together(store, bars(bar("A", T0, 1)), bars(), bars(bar("B", T0, 1), bar("C", T0, 1)))
    assert (counts(commit), outcomes) == ({"inserted": 3}, [Outcome(inserted=1), Outcome(), Outcome(inserted=2)])


def test_of_one_key_in_two_tables_the_later_wins(store: Any) -> None:
    _, outcomes = together(store, bars(bar("A", T0, 1)), bars(bar("A", T0, 2)), bars(bar("A", T0, 2)))
    assert outcomes == [
        Outcome(rejected=1),
        Outcome(unchanged=1),
        Outcome(inserted=1, met=Met(duplicates_between=1, conflicts_between=1)),
    ]
    assert closes(store) == [("A", 0, 2)]


def test_nothing_new_makes_no_commit(store: Any) -> None:
    write(store, bar("A", T0, 1))
    commit, outcomes = together(store, bars(bar("A", T0, 1)), bars())
    assert (commit.number, outcomes) == (1, [Outcome(unchanged=1, met=Met(own={1: (1, 0)})), Outcome()])
    assert store.head() == 1


def test_no_table_at_all(store: Any) -> None:
    commit, outcomes = together(store)
    assert (commit.number, counts(commit), outcomes) == (0, {}, [])


def test_columns_and_types_may_differ(store: Any) -> None:
    first = bars(bar("A", T0, 1, vwap=1.5))
    second = bars(bar("B", T0, 2, source="y"))
    place = second.column_names.index("timestamp")
    coarse = second.set_column(place, "timestamp", second["timestamp"].cast(pa.timestamp("ms", "UTC")))
    for table in (second, coarse):
        _, outcomes = together(store, first, table, source="x")
    assert outcomes == [Outcome(unchanged=1, met=Met(own={1: (1, 0)}))] * 2
    assert read(store, "symbol", "vwap", "source") == [("A", 1.5, "x"), ("B", None, "y")]


def test_ordinals_count_on_from_table_to_table(store: Any) -> None:
    parts = [trades(trade("A", T0, 1), trade("A", T0, 1)), trades(trade("A", T0, 1, side="buy"))]
    for side in ("string", "null"):
        _, outcomes = store.write_together(Kind.TRADES, parts, source="x")
        parts[1] = parts[1].set_column(
            parts[1].column_names.index("symbol"), "symbol", parts[1]["symbol"].cast(pa.large_string())
        )
        assert read(store, "ordinal", kind=Kind.TRADES) == [(0,), (1,), (2,)], side
    assert outcomes == [Outcome(unchanged=n, met=Met(own={1: (n, 0)})) for n in (2, 1)]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (bars(bar("A", T0, 1), bar("A", T0 + M, float("nan"))), InvalidTable),
        (bars(bar("A", T0, 1), bar("A B", T0 + M, 1)), InvalidSymbol),
        (bars(bar("A", T0, 1)).append_column("bid", pa.array([1.0])), InvalidTable),
        (bars(bar("A", T0, 1)).drop_columns("close"), InvalidTable),
    ],
)
def test_an_error_names_the_table_and_nothing_is_written(store: Any, wrong: pa.Table, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^table 1: ") as caught:
        together(store, bars(bar("C", T0, 1)), wrong)
    assert caught.value.details["table"] == 1  # type: ignore[attr-defined]
    assert store.head() == 0


def test_a_conflict_with_what_is_stored_or_between_tables_writes_nothing(store: Any) -> None:
    write(store, bar("A", T0, 1))
    for tables in ([bars(bar("A", T0, 2))], [bars(bar("B", T0, 1)), bars(bar("B", T0, 2))]):
        with pytest.raises(Conflict):
            together(store, bars(bar("C", T0, 1)), *tables, on_conflict=OnConflict.ERROR)
    assert store.head() == 1


def test_bars_need_an_interval(store: Any) -> None:
    with pytest.raises(InvalidRequest):
        store.write_together(Kind.BARS, [bars(bar("A", T0, 1))])


VERDICTS = ("inserted", "replaced", "unchanged", "rejected")
ROWS = st.lists(st.builds(bar, st.sampled_from("AB"), st.sampled_from([T0, T0 + M]), st.sampled_from([1, 2])))


@given(
    before=ROWS, tables=st.lists(ROWS, max_size=4), on_conflict=st.sampled_from([OnConflict.REPLACE, OnConflict.KEEP])
)
def test_it_is_as_one_table_would_be(
    before: list[dict[str, Any]], tables: list[list[dict[str, Any]]], on_conflict: OnConflict
) -> None:
    one, many = MemoryStore(clock=lambda: 0), MemoryStore(clock=lambda: 0)
    for store in (one, many):
        write(store, *before)
    commit = write(one, *(row for rows in tables for row in rows), on_conflict=on_conflict)
    found, outcomes = together(many, *(bars(*rows) for rows in tables), on_conflict=on_conflict)
    assert found == commit
    assert [sum(getattr(o, name) for o in outcomes) for name in VERDICTS] == [
        getattr(commit, name) for name in VERDICTS
    ]
    assert [sum(getattr(o, name) for name in VERDICTS) for o in outcomes] == list(map(len, tables))
    assert read(many, *SCHEMAS[Kind.BARS].names, "commit") == read(one, *SCHEMAS[Kind.BARS].names, "commit")


SOURCED = st.lists(
    st.builds(
        bar,
        st.just("A"),
        st.sampled_from([T0, T0 + M]),
        st.sampled_from([1, 2]),
        source=st.sampled_from("xy"),
    ),
    max_size=4,
)


@given(
    before=st.lists(SOURCED, max_size=2),
    tables=st.lists(SOURCED, min_size=1, max_size=3),
    on_conflict=st.sampled_from([OnConflict.REPLACE, OnConflict.KEEP, OnConflict.PREFER]),
)
@settings(max_examples=60)
def test_every_row_that_is_not_inserted_met_another(
    before: list[Any], tables: list[Any], on_conflict: OnConflict, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of the embedded store as of the one in memory."""
    embedded, model = DuckDBStore(tmp_path_factory.mktemp("met")), MemoryStore()
    prefer = ("x", "y") if on_conflict is OnConflict.PREFER else ()
    with contextlib.closing(embedded):
        for rows in before:
            for store in (embedded, model):
                together(store, bars(*rows))
        found, expected = (
            together(store, *(bars(*rows) for rows in tables), on_conflict=on_conflict, prefer=prefer)[1]
            for store in (embedded, model)
        )
    assert found == expected
    met = [outcome.met for outcome in found]
    stored = sum(sum(counts) for one in met for each in (one.own, one.others) for counts in each.values())
    within = ("duplicates_in_table", "duplicates_between", "conflicts_in_table", "conflicts_between")
    counted = stored + sum(getattr(one, name) for one in met for name in within)
    assert counted == sum(outcome.unchanged + outcome.replaced + outcome.rejected for outcome in found)
