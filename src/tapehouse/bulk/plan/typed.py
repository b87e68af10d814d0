"""What a file whose columns have types is taken for, from its schema and its first rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.bulk.base import Format, LoadOptions, RecognisedFile, Times, TimeStyle
from tapehouse.bulk.formats.columnar import Source, opened
from tapehouse.bulk.formats.convert import nanoseconds
from tapehouse.bulk.formats.tables import duckdb_names, duckdb_tables, sqlite_names, sqlite_tables
from tapehouse.bulk.formats.typed import check_types, names_of, plain
from tapehouse.bulk.formats.zones import Zone
from tapehouse.bulk.recognise import recognise_columns, recognise_times
from tapehouse.bulk.recognise.known import Known, known_of
from tapehouse.bulk.recognise.names import match
from tapehouse.bulk.recognise.stamps import Reading, reading_of
from tapehouse.errors import UnreadableFile, UnrecognisedFile
from tapehouse.model import DAY_NS

SAMPLE_ROWS = 20_000
_TIMES = ("timestamp", "date", "time")


def table_names(path: Path, format_: Format) -> list[str]:
    """The tables of a database; `UnreadableFile` when it cannot be read or has none."""
    if format_ is Format.SQLITE:
        with sqlite_tables(path, sqlite_names) as names:
            tables = names
    else:
        with duckdb_tables(path, duckdb_names) as names:
            tables = names
    if not tables:
        raise UnreadableFile(f"{path.name} has no table")
    return tables


def recognise_typed(file: RecognisedFile, options: LoadOptions) -> RecognisedFile:
    """The file with everything that its schema and first rows tell; `UnrecognisedFile` says what they do not."""
    with opened(file) as source:
        names = source.schema.names
        known = known_of(names, True, [], file, options)
        if known is not None:
            options = known.options(options, names, [])
        columns = match(names, options.mapping, options.kind)
        file = msgspec.structs.replace(file, rows=source.rows)
        file = recognise_columns(file, names, columns, known, options)
        check_types(file, source.schema)
        return _times(file, _first_rows(source, file), known, options)


def _first_rows(source: Source, file: RecognisedFile) -> pa.Table:
    wanted = [file.columns[field] for field in ("symbol", *_TIMES) if field in file.columns]
    batches, rows = [], 0
    for batch in source.batches(list(dict.fromkeys(wanted)), SAMPLE_ROWS):
        batches.append(batch)
        rows += batch.num_rows
        if rows >= SAMPLE_ROWS:
            break
    if rows == 0:
        raise UnreadableFile(f"{file.name} has no rows")
    return pa.Table.from_batches(batches[:1]).combine_chunks() if len(batches) == 1 else _concat(batches)


def _concat(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """Batches as one table; the values of SQLite may have other types further on, and then the first batch counts."""
    same = [batch for batch in batches if batch.schema.equals(batches[0].schema)]
    return pa.Table.from_batches(same).unify_dictionaries().combine_chunks()


def _times(file: RecognisedFile, table: pa.Table, known: Known | None, options: LoadOptions) -> RecognisedFile:
    fields = [field for field in _TIMES if field in file.columns]
    columns = {field: plain(_chunk(table, file.columns[field])) for field in fields}
    first = columns[fields[0]]
    valid = first.is_valid().to_numpy(zero_copy_only=False)
    if not valid.any():
        raise UnrecognisedFile(f"column {file.columns[fields[0]]!r}, the time, has no values at the beginning")
    if len(fields) == 1 and (pa.types.is_timestamp(first.type) or pa.types.is_date(first.type)):
        reading = _native(first)
    else:
        texts = [_as_texts(columns[field].filter(pa.array(valid))) for field in fields]
        reading = reading_of(texts[0], texts[1] if len(texts) == 2 else None, options.time_format)
    symbols = None
    if "symbol" in file.columns:
        names = names_of(_chunk(table, file.columns["symbol"])).cast(pa.string()).filter(pa.array(valid)).to_pylist()
        symbols = [names[row] for row in reading.good]
    return recognise_times(file, reading, symbols, known, options)


def _as_texts(column: pa.Array) -> list[str]:
    """The values as a text file would have them."""
    if pa.types.is_floating(column.type):
        return [f"{value:.6f}".rstrip("0").rstrip(".") for value in column.to_pylist()]
    return ["" if text is None else text for text in column.cast(pa.string()).to_pylist()]


def _chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _native(column: pa.Array) -> Reading:
    """Times that are times already: with a zone they are instants, without one they are local."""
    stated = pa.types.is_timestamp(column.type) and column.type.tz is not None
    times = Times(style=TimeStyle.NATIVE, stated=stated, dates=pa.types.is_date(column.type))
    values, none = nanoseconds([column.drop_null()], times)
    values = values[~none]
    written = values
    if stated:
        written = Zone(column.type.tz).to_local(values)
    return Reading(
        times, values, np.flatnonzero(~none), f"column of {column.type}", bool((written % DAY_NS == 0).all())
    )
