"""A frame, as somebody has it, as the table that a store takes.

Only names and time zones are settled here, since only the sender knows them; the store checks types and values.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.errors import InvalidTable
from tapehouse.model import SCHEMAS, Instrument, Instruments, Kind

_ALSO = {
    "time": "timestamp",
    "date": "timestamp",
    "datetime": "timestamp",
    "ticker": "symbol",
    "adj": "adj_close",
    "adjusted_close": "adj_close",
}
"""Other names that columns go by, once in lower case and with `_` for spaces."""


def to_table(frame: Any, *, kind: Kind = Kind.BARS, symbol: str | None = None, tz: str | None = None) -> pa.Table:
    """The frame's rows in the model's column names, times with a zone.

    `frame` is a Polars or pandas frame, an Arrow table, batch or reader, or anything else that offers an Arrow stream.
    A pandas index is taken as columns. `symbol` names the one symbol of a frame without that column; `tz` is the zone
    of times that name none. Dates stay dates, until `with_midnights`. Raises `InvalidTable`.
    """
    table = _renamed(_arrow(frame), kind)
    table = _with_symbol(table, symbol)
    if "timestamp" not in table.column_names:
        raise InvalidTable(f"no column says when: name it timestamp, time or date; there are {_names(table)}")
    place = table.column_names.index("timestamp")
    times = _zoned(table.column(place), tz)
    return table.set_column(place, "timestamp", times).replace_schema_metadata(None).unify_dictionaries()


def has_dates(table: pa.Table) -> bool:
    """Whether its timestamps are dates, which are an instant only in a zone."""
    return bool(pa.types.is_date(table["timestamp"].type))


def with_midnights(table: pa.Table, instruments: Sequence[Instrument]) -> pa.Table:
    """The same with each date as midnight in the zone of the symbol's instrument, by default UTC."""
    symbols = table["symbol"].cast(pa.string())
    known = Instruments(instruments)
    zone_of = {symbol: known.of(symbol or "").timezone for symbol in symbols.unique().to_pylist()}
    zones = sorted(set(zone_of.values())) or ["UTC"]
    times = _midnights(table["timestamp"], zones[0])
    for zone in zones[1:]:
        there = pa.array([symbol for symbol, its in zone_of.items() if its == zone], pa.string())
        times = pc.if_else(pc.is_in(symbols, there), _midnights(table["timestamp"], zone), times)
    return table.set_column(table.column_names.index("timestamp"), "timestamp", times)


def _midnights(dates: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    # The first instant of the date, also where clocks skip midnight or pass it twice.
    local = pc.assume_timezone(dates.cast(pa.timestamp("s")), zone, ambiguous="earliest", nonexistent="latest")
    return local.cast(pa.timestamp("s", "UTC"))


def encode(table: pa.Table) -> bytes:
    """The table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _arrow(frame: Any) -> pa.Table:
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        return _from_pandas(frame, pandas)
    if hasattr(frame, "__arrow_c_stream__"):
        return pa.table(frame)
    lazy = "; collect() it first" if hasattr(frame, "collect") else ""
    raise InvalidTable(f"a frame of Polars, pandas or Arrow is needed, not {type(frame).__name__}{lazy}")


def _from_pandas(frame: Any, pandas: Any) -> pa.Table:
    if isinstance(frame.columns, pandas.MultiIndex):
        raise InvalidTable(
            "the frame's columns have several levels; make the symbols rows first: frame.stack(level=1).reset_index()"
        )
    index = frame.index
    if not (isinstance(index, pandas.RangeIndex) and index.name is None):
        levels = [index.get_level_values(level) for level in range(index.nlevels)]
        names = [_index_name(level, pandas) for level in levels]
        if twice := set(names) & set(frame.columns):
            raise InvalidTable(f"{sorted(twice)[0]!r} is a column and in the index too; drop one of them")
        frame = frame.set_axis(pandas.MultiIndex.from_arrays(levels, names=names)).reset_index()
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except pa.ArrowException as exc:
        raise InvalidTable(f"a column holds values of different types: {exc}") from exc


def _index_name(level: Any, pandas: Any) -> str:
    if level.name is not None:
        return str(level.name)
    return "timestamp" if isinstance(level, pandas.DatetimeIndex) else "symbol"


def _renamed(table: pa.Table, kind: Kind) -> pa.Table:
    given = table.column_names
    names = [_standard(name) for name in given]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InvalidTable(f"columns {given[names.index(name)]!r} and {given[place]!r} both mean {name}")
    known = SCHEMAS[kind].names
    if unknown := [given[place] for place, name in enumerate(names) if name not in known]:
        raise InvalidTable(
            f"{kind} have no column {', '.join(map(repr, unknown[:10]))}; drop what is not one of {', '.join(known)}",
            columns=unknown[:10],
        )
    return table.rename_columns(names)


def _standard(name: str) -> str:
    lower = str(name).strip().lower().replace(" ", "_").replace("-", "_")
    return _ALSO.get(lower, lower)


def _with_symbol(table: pa.Table, symbol: str | None) -> pa.Table:
    has = "symbol" in table.column_names
    if has and symbol is not None:
        raise InvalidTable(f"the frame has a column of symbols, so symbol={symbol!r} is one word too many")
    if not has and symbol is None:
        raise InvalidTable(f"no column says which symbol; pass symbol='AAPL', or add one to {_names(table)}")
    if has:
        return table
    indices = pa.repeat(pa.scalar(0, pa.int32()), table.num_rows)
    return table.add_column(0, "symbol", pa.DictionaryArray.from_arrays(indices, pa.array([symbol], pa.string())))


def _zoned(times: pa.ChunkedArray, tz: str | None) -> pa.ChunkedArray:
    if pa.types.is_date(times.type):
        return times
    if not pa.types.is_timestamp(times.type):
        raise InvalidTable(
            f"the column of times is {times.type}; expected dates or timestamps (Polars: str.to_datetime, pandas: "
            "pd.to_datetime)"
        )
    if times.type.tz is not None:
        return times
    if tz is None:
        raise InvalidTable(
            "the times have no zone, and are ambiguous without; pass tz='UTC' or the zone that they are in "
            "(tz='America/New_York'), or say it in the frame: pandas frame.tz_localize(...), Polars "
            "dt.replace_time_zone(...)"
        )
    try:
        return pc.assume_timezone(times, tz)
    except pa.ArrowInvalid as exc:
        raise InvalidTable(f"the times cannot be read in the zone {tz!r}: {exc}", tz=tz) from exc


def _names(table: pa.Table) -> str:
    return ", ".join(table.column_names[:20]) or "no columns"
