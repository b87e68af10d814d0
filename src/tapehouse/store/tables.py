"""What every store does to an incoming table before it writes: all of it fits the model, or none is taken.

Rows are numbered from 0 in messages and in `details`. Beyond the schema, the rules are:

- required numbers are there and finite; an optional number that is NaN, as frames spell a missing one, becomes null;
- `high` is at least `open` and `close`, `low` at most these; sizes, volumes and counts are not negative (prices may);
- -0.0 becomes 0.0, since the two are equal and a decimal column of the archive has only one of them;
- a time is after 1677-09-21 and before 2262-04-11, so that a span `[start, end)` of int64 nanoseconds can hold it;
- a bar opens where bars of its interval do (`Interval.alignment`), one of days and longer at midnight in the zone of
  its instrument: else there could be two of one minute or day, and what is made of them would count both;
- an optional column without a value is left out; `source` is always there, and so is `ordinal` of trades and quotes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.calendars import at_midnight
from tapehouse.errors import Conflict, InvalidRequest, InvalidSymbol, InvalidTable, NotFound
from tapehouse.model import MIN_TIME_NS, SCHEMAS, Instrument, Instruments, Interval, Kind, read_schema
from tapehouse.store.archive.columns import one_chunk
from tapehouse.store.base import Selection, Series
from tapehouse.store.casts import cast, check_source, refuse, refuse_first

UNKNOWN_SOURCE = "unknown"
VALUES = {Kind.TRADES: ("price", "size"), Kind.QUOTES: ("bid", "bid_size", "ask", "ask_size")}
"""What tells two records of one symbol, time and source apart when they have no id."""

POSITIONS = "log"
"""The collection of documents that holds the positions of the log."""

_BLOCK_ROWS = 65_536  # a block's columns stay in the processor's cache while they are compared with one another
_NEGATIVE_ZERO = np.int64(MIN_TIME_NS - 1)  # -0.0's bits, read as an integer
_AT_LEAST = {Kind.BARS: (("high", "open"), ("high", "close"), ("open", "low"), ("close", "low"))}
_NOT_NEGATIVE = {"volume", "trades", "size", "bid_size", "ask_size", "ordinal"}


def conform(kind: Kind, table: pa.Table, interval: Interval | None = None, source: str | None = None) -> pa.Table:
    """The table in the model's columns, order and types, names dictionary-encoded; the same again changes nothing.

    `source` (else "unknown") fills the rows that name none. Raises `InvalidTable` with the row, the column, the value
    and what was expected, `InvalidSymbol`, and `InvalidRequest` for bars without an interval or others with one.
    """
    check_interval(kind, interval)
    _check_columns(kind, table)
    columns = {
        field.name: cast(field, table.column(field.name))
        for field in SCHEMAS[kind]
        if field.name in table.column_names and (not field.nullable or _has_values(table.column(field.name)))
    }
    columns["source"] = _sources(columns.get("source"), table.num_rows, source)
    _check_rows(kind, columns)
    if kind is not Kind.BARS:
        columns["ordinal"] = _ordinals(kind, columns)
    schema = pa.schema([field for field in SCHEMAS[kind] if field.name in columns])
    return pa.table([columns[name] for name in schema.names], schema=schema)


def conform_together(
    kind: Kind, tables: Sequence[pa.Table], interval: Interval | None = None, source: str | None = None
) -> pa.Table:
    """`conform` of the tables one after the other in one; an error that one of them has alone says which it is."""
    try:
        joined = pa.concat_tables(tables or [SCHEMAS[kind].empty_table()], promote_options="default")
        return conform(kind, joined, interval, source)
    except (InvalidTable, InvalidSymbol, pa.ArrowException):
        # One has an error, or their types differ.
        parts = [_conform_part(kind, table, interval, source, number) for number, table in enumerate(tables)]
        return conform(kind, pa.concat_tables(parts, promote_options="default"), interval, source)


def _conform_part(kind: Kind, table: pa.Table, interval: Interval | None, source: str | None, number: int) -> pa.Table:
    try:
        part = conform(kind, table, interval, source)
    except (InvalidTable, InvalidSymbol) as exc:
        raise type(exc)(f"table {number}: {exc.message}", **{**exc.details, "table": number}) from exc
    # Ordinals count on from table to table: those that were only counted within one are not taken.
    counted = "ordinal" in part.column_names and "ordinal" not in table.column_names
    return part.drop_columns("ordinal") if counted else part


def check_interval(kind: Kind, interval: Interval | None) -> None:
    """Raise `InvalidRequest` unless bars come with an interval and other records without."""
    if kind is Kind.BARS and interval is None:
        raise InvalidRequest(f"bars need an interval, one of {' '.join(Interval)}")
    if kind is not Kind.BARS and interval is not None:
        raise InvalidRequest(f"{kind} have no interval, but {interval} was given", interval=interval)


def check_selection(selection: Selection, head: int) -> int:
    """The commit that it is read as of, given the newest; raises `InvalidRequest`, `UnknownColumn` or `NotFound`."""
    check_interval(selection.kind, selection.interval)
    read_schema(selection.kind, selection.columns)
    if selection.limit is not None and selection.limit < 0:
        raise InvalidRequest(f"a limit is 0 or more, not {selection.limit}", limit=selection.limit)
    as_of = head if selection.as_of is None else selection.as_of
    if not 0 <= as_of <= head:
        raise NotFound(f"there is no commit {as_of}; the newest is {head}", commit=as_of)
    return as_of


def check_opening(table: pa.Table, interval: Interval | None, instruments: Iterable[Instrument]) -> None:
    """`InvalidTable` for the first row of a table that conforms with a time at which no bar of that interval opens."""
    if interval is None or not table.num_rows:
        return
    times = table["timestamp"].to_numpy().view(np.int64)
    if not interval.by_calendar:
        step, words = interval.alignment
        if (off := times % step != 0).any():
            _refuse_opening(table, off, f"a time {words}, where bars of {interval} open")
        return
    column = one_chunk(table["symbol"].unify_dictionaries())
    known = Instruments(instruments)
    zones = [known.of(symbol).timezone for symbol in column.dictionary.to_pylist()]
    distinct = sorted(set(zones))
    codes = np.array([distinct.index(zone) for zone in zones])[column.indices.to_numpy()] if distinct[1:] else None
    for code, zone in enumerate(distinct):
        off = ~at_midnight(times, zone)
        if codes is not None:
            off &= codes == code
        if off.any():
            _refuse_opening(
                table, off, f"midnight in {zone}, the time zone of the instrument, where bars of {interval} open"
            )


def _refuse_opening(table: pa.Table, off: np.ndarray, expected: str) -> None:
    row = int(np.argmax(off))
    refuse("timestamp", row, str(table["timestamp"][row]), expected)


def check_positions(held: Mapping[str, bytes], expected: Mapping[str, bytes | None]) -> None:
    """`Conflict` unless the positions of the log that the store has are the expected ones (None: none)."""
    for key, position in expected.items():
        if held.get(key) != position:
            raise Conflict(f"somebody else records partition {key} of the log", partition=key)


def check_zones(before: Iterable[Instrument], after: Iterable[Instrument], stored: Iterable[Series]) -> None:
    """`Conflict` when stored bars of days and longer would have another zone, where their midnights are none."""
    old, new = Instruments(before), Instruments(after)
    moved = {
        series.symbol: (series.interval, old.of(series.symbol).timezone, new.of(series.symbol).timezone)
        for series in stored
        if series.interval is not None
        and series.interval.by_calendar
        and old.of(series.symbol).timezone != new.of(series.symbol).timezone
    }
    for symbol, (interval, was, becomes) in moved.items():
        others = f" (and {len(moved) - 1:,} more)" if len(moved) > 1 else ""
        raise Conflict(
            f"{symbol}{others} has bars of {interval}, stamped with midnight in {was}, which the time zone {becomes} "
            "would put on other dates: undo or delete them, and load them again when the instrument is known",
            symbols=sorted(moved)[:10],
            timezone=becomes,
        )


def _check_columns(kind: Kind, table: pa.Table) -> None:
    names = table.column_names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidTable(f"column {twice[0][:40]!r} is there more than once", columns=twice[:10])
    known = SCHEMAS[kind]
    if missing := [field.name for field in known if not field.nullable and field.name not in names]:
        raise InvalidTable(f"{kind} need the columns {', '.join(missing)}, which are missing", columns=missing)
    if unknown := [name for name in names if name not in known.names]:
        shown = ", ".join(repr(name[:40]) for name in unknown[:10])
        raise InvalidTable(f"{kind} have no columns {shown}; there are {', '.join(known.names)}", columns=unknown[:10])


def _has_values(column: pa.ChunkedArray) -> bool:
    return bool(column.null_count < len(column))


def _sources(column: pa.ChunkedArray | None, rows: int, source: str | None) -> pa.ChunkedArray:
    filler = check_source(UNKNOWN_SOURCE if source is None else source)
    if column is None:
        indices = pa.array(np.zeros(rows, np.int32))
        return pa.chunked_array([pa.DictionaryArray.from_arrays(indices, pa.array([filler]))])
    if column.null_count == 0:
        return column
    return column.cast(pa.string()).fill_null(filler).dictionary_encode().unify_dictionaries()


def _check_rows(kind: Kind, columns: dict[str, pa.ChunkedArray]) -> None:
    """Refuse the first row that breaks a rule, and turn -0.0 into 0.0 where it occurs."""
    numbers = {name: column for name, column in columns.items() if not pa.types.is_dictionary(column.type)}
    numbers = {name: column for name, column in numbers.items() if not pa.types.is_string(column.type)}
    with_nulls = {name for name, column in numbers.items() if column.null_count}
    signed_zeros: set[str] = set()
    first = 0
    for batch in pa.table(numbers).to_batches(max_chunksize=_BLOCK_ROWS):
        if batch.num_rows:
            block = {name: batch.column(name).to_numpy() for name in numbers if name not in with_nulls}
            signed_zeros.update(_check_block(kind, block, first))
            first += batch.num_rows
    for name in with_nulls:
        if name in _NOT_NEGATIVE:
            refuse_first(pc.less(numbers[name], 0), numbers[name], name, "at least 0")
        if pa.types.is_floating(numbers[name].type):
            signed_zeros.add(name)
    for name in signed_zeros:
        columns[name] = pc.add(columns[name], 0.0)


def _check_block(kind: Kind, block: dict[str, np.ndarray], first: int) -> Iterator[str]:
    """Raise for the first bad row of a column; the names of the columns that hold a -0.0."""
    for name, values in block.items():
        if values.dtype.kind == "M":
            continue
        low, high = values.min(), values.max()  # NaN, if there is one
        if values.dtype == np.float64:
            if not (np.isfinite(low) and np.isfinite(high)):
                row = int(np.argmin(np.isfinite(values)))
                refuse(name, first + row, float(values[row]), "a finite number")
            if low <= 0 <= high and (values.view(np.int64) == _NEGATIVE_ZERO).any():
                yield name
        if name in _NOT_NEGATIVE and low < 0:
            row = int(np.argmax(values < 0))
            refuse(name, first + row, values[row].item(), "at least 0")
    for greater, less in _AT_LEAST.get(kind, ()):
        _check_order(block, greater, less, first)


def _check_order(block: dict[str, np.ndarray], greater: str, less: str, first: int) -> None:
    holds = block[greater] >= block[less]
    if not holds.all():
        row = int(np.argmin(holds))
        name, other, word = (greater, less, "at least") if greater == "high" else (less, greater, "at most")
        refuse(name, first + row, float(block[name][row]), f"{word} {other}, which is {float(block[other][row])!r}")


def _ordinals(kind: Kind, columns: dict[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    """The ordinal of every row without an id, as given or as counted; null for those with one."""
    rows = len(columns["timestamp"])
    anonymous = np.ones(rows, bool)
    if "id" in columns:
        anonymous = pc.is_null(columns["id"]).to_numpy()
    if "ordinal" in columns:
        given = columns["ordinal"]
        refuse_first(
            pa.chunked_array([pa.array(pc.is_null(given).to_numpy() & anonymous)]),
            given,
            "ordinal",
            "a count from 0 for every row without an id, or no ordinal at all",
        )
        return pc.if_else(pa.array(anonymous), given, pa.scalar(None, pa.int32()))
    names = [_words(columns[name]) for name in ("symbol", "timestamp", "source", *VALUES[kind])]
    where = np.flatnonzero(anonymous)
    counted = np.zeros(rows, np.int32)
    counted[where] = _count_equal([column[where] for column in names] if len(where) < rows else names)
    return pa.chunked_array([pa.array(counted, mask=~anonymous)])


def _words(column: pa.ChunkedArray) -> np.ndarray:
    """Integers that are equal exactly when the values are."""
    if pa.types.is_dictionary(column.type):
        return np.concatenate([np.empty(0, np.int32), *(chunk.indices.to_numpy() for chunk in column.chunks)])
    words: np.ndarray = column.to_numpy().view(np.int64)
    return words


def _count_equal(names: list[np.ndarray]) -> np.ndarray:
    """How many earlier rows are equal to each row; `names` are the columns symbol, timestamp, source and the values."""
    counts = np.zeros(len(names[0]), np.int32)
    rows = _sharing(names[0], names[1])
    if len(rows) == 0:
        return counts
    columns = [column[rows] for column in names]
    order = np.lexsort(columns)
    new = np.ones(len(rows), bool)
    new[1:] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
    places = np.arange(len(rows))
    counts[rows[order]] = places - np.maximum.accumulate(np.where(new, places, 0))
    return counts


def _sharing(symbol: np.ndarray, timestamp: np.ndarray) -> np.ndarray:
    """The rows, ascending, among which are all that share symbol and timestamp with another; quick when sorted."""
    same_symbol = symbol[1:] == symbol[:-1]
    ascending = timestamp[1:] >= timestamp[:-1]
    if ascending.all():
        return _beside(timestamp[1:] == timestamp[:-1])
    blocks = len(same_symbol) - np.count_nonzero(same_symbol) + 1
    if (ascending | ~same_symbol).all() and blocks == len(np.unique(symbol)):
        return _beside((timestamp[1:] == timestamp[:-1]) & same_symbol)
    order = np.lexsort((timestamp, symbol))
    symbol, timestamp = symbol[order], timestamp[order]
    return np.sort(order[_beside((timestamp[1:] == timestamp[:-1]) & (symbol[1:] == symbol[:-1]))])


def _beside(same: np.ndarray) -> np.ndarray:
    """The rows that are the same as the row before or after; `same[i]` compares row i + 1 with row i."""
    return np.flatnonzero(np.append(same, False) | np.insert(same, 0, False)) if same.any() else np.empty(0, np.int64)
