"""Tables that cannot be taken change nothing; and what a store says of itself is true."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from tests.contract.stores import T0, D, M, bar, bars, closes, counts, trade, trades, write

from tapehouse.errors import Conflict, InvalidRequest, InvalidSymbol, InvalidTable, TapehouseError
from tapehouse.model import TIMESTAMP, Instrument, Interval, Kind, OnConflict
from tapehouse.store.base import (
    Announces,
    Audits,
    Capability,
    Compacts,
    KeepsDocuments,
    KeepsInstruments,
    KeepsUp,
    Undoes,
    Versions,
    WritesTogether,
)

NAIVE = pa.array([T0], pa.timestamp("ns"))
BAD_BARS: dict[str, tuple[type[TapehouseError], pa.Table]] = {
    "a column is missing": (InvalidTable, bars(bar("A", T0, 1)).drop_columns(["low"])),
    "a column is unknown": (InvalidTable, bars(bar("A", T0, 1)).append_column("bid", pa.array([1.0]))),
    "the store's own column": (InvalidTable, bars(bar("A", T0, 1)).append_column("commit", pa.array([1]))),
    "a column twice": (InvalidTable, bars(bar("A", T0, 1)).append_column("low", pa.array([1.0]))),
    "no number": (InvalidTable, bars(bar("A", T0, 1)).set_column(2, "open", pa.array(["1"]))),
    "a naive time": (
        InvalidTable,
        bars(bar("A", T0, 1)).set_column(1, "timestamp", NAIVE),
    ),
    "a time that is no time": (InvalidTable, bars(bar("A", T0, 1)).set_column(1, "timestamp", pa.array([T0]))),
    "a time out of range": (
        InvalidTable,
        bars(bar("A", T0, 1)).set_column(1, "timestamp", pa.array([10**12], pa.timestamp("s", "UTC"))),
    ),
    "a time is null": (InvalidTable, bars(bar("A", T0, 1)).set_column(1, "timestamp", pa.array([None], TIMESTAMP))),
    "NaN": (InvalidTable, bars(bar("A", T0, 1) | {"close": float("nan")})),
    "infinity": (InvalidTable, bars(bar("A", T0, 1) | {"volume": float("inf")})),
    "null": (InvalidTable, bars(bar("A", T0, 1) | {"open": None})),
    "high below open": (InvalidTable, bars(bar("A", T0, 1) | {"open": 2.0})),
    "low above close": (InvalidTable, bars(bar("A", T0, 1) | {"low": 2.0, "open": 2.0, "high": 2.0})),
    "a negative volume": (InvalidTable, bars(bar("A", T0, 1) | {"volume": -1.0})),
    "a minute that opens within one": (InvalidTable, bars(bar("A", T0 + 30 * 10**9, 1))),
    "a nanosecond late": (InvalidTable, bars(bar("A", T0 + 1, 1))),
    "a path as symbol": (InvalidSymbol, bars(bar("../../etc", T0, 1))),
    "no symbol": (InvalidSymbol, bars(bar("", T0, 1))),
    "a long symbol": (InvalidSymbol, bars(bar("A" * 300, T0, 1))),
    "an empty source": (InvalidTable, bars(bar("A", T0, 1, source=""))),
}


@pytest.mark.parametrize("name", BAD_BARS)
def test_a_bad_row_among_good_ones_changes_nothing(store: Any, name: str) -> None:
    error, bad = BAD_BARS[name]
    write(store, bar("A", T0, 7))
    good = [bars(bar("A", T0 + n * M, n)) for n in (1, 2)]
    tables = [bad] if len(set(bad.column_names)) < len(bad.column_names) else [bad, _around(good, bad)]
    for table in tables:
        with pytest.raises(error):
            store.write(Kind.BARS, table, interval=Interval.M1)
    assert (closes(store), store.head(), store.symbols()) == ([("A", 0, 7)], 1, ["A"])
    assert counts(write(store, bar("A", T0, 7))) == {"unchanged": 1}


def _around(good: list[pa.Table], bad: pa.Table) -> pa.Table:
    """The bad row between good ones, as far as one table can hold them."""
    if bad.schema != good[0].schema:
        return bad
    return pa.concat_tables([good[0], bad, good[1]])


QUARTER = 15 * M
MIDNIGHT = T0 // D * D
NEW_YORK = Instrument(pattern="NYC", timezone="America/New_York")
NEW_YORKS_MIDNIGHT = MIDNIGHT + 5 * 60 * M


@pytest.mark.parametrize(
    ("interval", "symbol", "opens", "wrong", "expected"),
    [
        (Interval.S5, "A", T0 + M // 12, T0 + M // 60, "a time a multiple of 5s"),
        (Interval.M30, "A", T0, T0 + QUARTER, "a time a multiple of 30m"),
        (Interval.H1, "A", T0, T0 + QUARTER // 3, "a time on a quarter of an hour"),
        (Interval.H4, "A", T0 + QUARTER, T0 + M, "a time on a quarter of an hour"),
        (Interval.D1, "A", MIDNIGHT, T0, "midnight in UTC"),
        (Interval.D1, "A", MIDNIGHT, MIDNIGHT - 1, "midnight in UTC"),
        (Interval.W1, "A", MIDNIGHT, NEW_YORKS_MIDNIGHT, "midnight in UTC"),
        (Interval.D1, "NYC", NEW_YORKS_MIDNIGHT, MIDNIGHT, "midnight in America/New_York"),
        (Interval.MO1, "NYC", NEW_YORKS_MIDNIGHT, NEW_YORKS_MIDNIGHT + 1, "midnight in America/New_York"),
    ],
)
def test_a_bar_opens_where_bars_of_its_interval_do(
    store: Any, interval: Interval, symbol: str, opens: int, wrong: int, expected: str
) -> None:
    store.put_instruments([NEW_YORK])
    rows = [bar("B", opens if symbol == "A" else MIDNIGHT, 1), bar(symbol, wrong, 2), bar(symbol, wrong + D, 3)]
    for on_conflict in (OnConflict.KEEP, OnConflict.REPLACE):
        with pytest.raises(
            InvalidTable, match=rf"^row 1, column timestamp: '20.*; expected {expected}.* open"
        ) as caught:
            store.write(Kind.BARS, bars(*rows), interval=interval, on_conflict=on_conflict)
        with pytest.raises(InvalidTable, match=expected):
            store.write_together(Kind.BARS, [bars(row) for row in rows], interval=interval, on_conflict=on_conflict)
    assert (caught.value.details["row"], caught.value.details["column"], store.head()) == (1, "timestamp", 0)
    assert store.write(Kind.BARS, bars(bar(symbol, opens, 2)), interval=interval).inserted == 1


def test_a_zone_stays_while_there_are_bars_whose_dates_it_would_change(store: Any) -> None:
    store.put_instruments([NEW_YORK, Instrument(pattern="T*", timezone="Asia/Tokyo")])
    store.write(Kind.BARS, bars(bar("A", MIDNIGHT, 1), bar("NYC", NEW_YORKS_MIDNIGHT, 1)), interval=Interval.D1)
    store.write(Kind.BARS, bars(bar("MIN", T0, 1)), interval=Interval.M1)
    known = store.instruments()
    for moved in ("A", "*"):
        with pytest.raises(Conflict, match=r"A has bars of 1d, stamped with midnight in UTC, which .* Asia/Tokyo"):
            store.put_instruments([NEW_YORK, Instrument(pattern=moved, timezone="Asia/Tokyo")])
    with pytest.raises(Conflict, match="NYC has bars of 1d, stamped with midnight in America/New_York"):
        store.put_instruments([Instrument(pattern="NYC", currency="USD")])
    assert store.instruments() == known
    others = [Instrument(pattern="MIN", timezone="Asia/Tokyo"), Instrument(pattern="A", calendar="24/5")]
    store.put_instruments([*others, Instrument(pattern="NYC", timezone="America/New_York", currency="USD")])
    store.delete(Kind.BARS, ["A"], interval=Interval.D1)
    store.put_instruments([Instrument(pattern="A", timezone="Asia/Tokyo")])
    assert store.write(Kind.BARS, bars(bar("A", MIDNIGHT + 15 * 60 * M, 1)), interval=Interval.D1).inserted == 1


@pytest.mark.parametrize(
    ("kind", "interval", "table"),
    [(Kind.BARS, None, bars(bar("A", T0, 1))), (Kind.TRADES, Interval.M1, trades(trade("A", T0, 1)))],
)
def test_an_interval_belongs_to_bars(store: Any, kind: Kind, interval: Any, table: pa.Table) -> None:
    with pytest.raises(InvalidRequest):
        store.write(kind, table, interval=interval)
    assert store.head() == 0


def test_a_bad_source_for_the_whole_table(store: Any) -> None:
    with pytest.raises(InvalidTable):
        write(store, bar("A", T0, 1), source="a\x00b")
    assert store.head() == 0


def test_prefer_needs_an_order_and_changes_nothing_without(store: Any) -> None:
    store.write(Kind.BARS, bars(bar("A", T0, 1)), interval=Interval.M1, source="vendor")
    with pytest.raises(InvalidRequest, match="needs the order of the sources"):
        store.write(
            Kind.BARS, bars(bar("A", T0, 2)), interval=Interval.M1, source="other", on_conflict=OnConflict.PREFER
        )
    assert [close for _, _, close in closes(store)] == [1.0]


@pytest.mark.parametrize("on_conflict", [OnConflict.REPLACE, OnConflict.KEEP, OnConflict.ERROR])
def test_an_order_without_prefer_is_refused(store: Any, on_conflict: OnConflict) -> None:
    with pytest.raises(InvalidRequest, match="prefer is for on_conflict=prefer"):
        store.write(Kind.BARS, bars(bar("A", T0, 2)), interval=Interval.M1, on_conflict=on_conflict, prefer=("vendor",))
    assert store.head() == 0


def test_deleting_nothing_is_a_delete_that_makes_no_commit(store: Any) -> None:
    store.write(Kind.BARS, bars(bar("A", T0, 1)), interval=Interval.M1)
    commit = store.delete(Kind.BARS, ["NOPE"], interval=Interval.M1)
    assert (commit.action, commit.number, commit.deleted) == ("delete", 1, 0)


def test_bars_are_no_trades(store: Any) -> None:
    with pytest.raises(InvalidTable):
        store.write(Kind.TRADES, bars(bar("A", T0, 1)))
    assert store.head() == 0


@pytest.mark.parametrize(
    "symbol",
    [
        "BTC/USD",
        "^GSPC",
        "ES=F",
        "BRK.B",
        "BTC-USDT",
        "ünï",
        "€",
        "a" * 128,
        "con",
        "NULL",
        "%27",
        "$1",
        "_",
        "@x#1~!&()",
    ],
)
def test_symbols_are_spelled_as_their_source_spells_them(store: Any, symbol: str) -> None:
    for on_conflict in (OnConflict.ERROR, OnConflict.REPLACE):
        write(store, bar(symbol, T0, 1), on_conflict=on_conflict, source=f"file:{symbol}.csv")
    assert store.symbols() == [symbol]
    assert closes(store, symbols=(symbol,), source=f"file:{symbol}.csv") == [(symbol, 0, 1)]
    assert counts(store.delete(Kind.BARS, [symbol], interval=Interval.M1)) == {"deleted": 1}


PROTOCOLS = {
    Capability.VERSIONS: Versions,
    Capability.COMPACTS: Compacts,
    Capability.ANNOUNCES: Announces,
    Capability.INSTRUMENTS: KeepsInstruments,
    Capability.TOGETHER: WritesTogether,
    Capability.DOCUMENTS: KeepsDocuments,
    Capability.AUDITS: Audits,
    Capability.UNDOES: Undoes,
    Capability.KEEPS_UP: KeepsUp,
}


@pytest.mark.parametrize("capability", Capability)
def test_a_capability_is_declared_exactly_when_it_is_there(store: Any, capability: Capability) -> None:
    methods = [name for name in vars(PROTOCOLS[capability]) if not name.startswith("_")]
    assert methods
    there = [callable(getattr(store, name, None)) for name in methods]
    assert all(there) if capability in store.capabilities else not any(there)


class TestInstruments:
    def test_they_are_kept_by_pattern(self, store: Any) -> None:
        spx = Instrument(pattern="^GSPC", calendar="XNYS", timezone="America/New_York", currency="USD")
        everything = Instrument(pattern="*", tick_size=0.01, asset_class='stock\'s "class"')
        store.put_instruments([spx, everything])
        assert store.instruments() == [everything, spx]
        store.put_instruments([Instrument(pattern="^GSPC", calendar="24/5")])
        assert store.instruments() == [everything, Instrument(pattern="^GSPC", calendar="24/5")]

    def test_of_one_pattern_twice_the_later_stays(self, store: Any) -> None:
        store.put_instruments([Instrument(pattern="A", currency="USD"), Instrument(pattern="A", currency="EUR")])
        assert store.instruments() == [Instrument(pattern="A", currency="EUR")]
        store.put_instruments([])
        assert len(store.instruments()) == 1
