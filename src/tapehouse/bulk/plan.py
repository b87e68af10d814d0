"""From paths to what each file is taken for: the part of a load that reads only the beginnings of files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tapehouse.bulk.base import Format, LoadOptions, Problem, RecognisedFile, Times, TimeStyle
from tapehouse.bulk.formats.convert import nanoseconds
from tapehouse.bulk.formats.files import compression_of, find, last_bytes, members_of, raw_pieces
from tapehouse.bulk.formats.parquet import check_types, names_of, opened, plain
from tapehouse.bulk.formats.zones import Zone
from tapehouse.bulk.recognise import recognise_columns, recognise_text, recognise_times
from tapehouse.bulk.recognise.dialect import Sample, layout_of
from tapehouse.bulk.recognise.names import match
from tapehouse.bulk.recognise.stamps import Reading, reading_of
from tapehouse.errors import InvalidData, UnreadableFile, UnrecognisedFile
from tapehouse.model import DAY_NS, Instrument, Instruments

SAMPLE_BYTES = (1 << 16, 1 << 20, 1 << 24)
"""How much of a text is looked at: more when less does not tell."""
TAIL_BYTES = 1 << 14
SAMPLE_ROWS = 20_000


def plan(paths: Sequence[str | Path], options: LoadOptions) -> list[RecognisedFile]:
    """What every file is taken for, in the order in which a load reads them; nothing is written.

    A file that cannot be loaded has a `problem`. Raises `NotFound` for a path that is not there, and `InvalidRequest`
    for an option that makes no sense.
    """
    return [file for path in find(paths) for file in _files(path, options)]


def _files(path: Path, options: LoadOptions) -> Iterator[RecognisedFile]:
    file = RecognisedFile(path=str(path), name=path.name, source=_source(path.name, options), size=0)
    try:
        compression = compression_of(path)
        file = msgspec.structs.replace(file, size=path.stat().st_size)
        if compression != "zip":
            yield _recognised(msgspec.structs.replace(file, compression=compression), options)
            return
        members, others = members_of(path)
        if not members:
            raise UnreadableFile(f"{path.name} has no member to load")
    except InvalidData as exc:
        yield msgspec.structs.replace(file, problem=Problem(exc.code, exc.message))
        return
    for number, member in enumerate(members):
        notes = (f"not taken from the zip: {', '.join(others[:10])}",) if others and number == 0 else ()
        name = f"{path.name}/{member.filename}"
        part = msgspec.structs.replace(
            file,
            name=name,
            member=member.filename,
            source=_source(name, options),
            size=member.compress_size,
            compression="zip",
            notes=notes,
        )
        yield _recognised(part, options)


def _source(name: str, options: LoadOptions) -> str:
    return options.source or re.sub(r"[\x00-\x1f\x7f]", "?", f"file:{name}")[:256]


def _recognised(file: RecognisedFile, options: LoadOptions) -> RecognisedFile:
    try:
        if file.compression == "parquet":
            return _parquet(msgspec.structs.replace(file, format=Format.PARQUET, compression=None), options)
        return _text(file, options)
    except InvalidData as exc:
        named = exc.message if exc.message.startswith(file.name) else f"{file.name}: {exc.message}"
        problem = Problem(exc.code, named)
        return msgspec.structs.replace(file, problem=problem)


def _text(file: RecognisedFile, options: LoadOptions) -> RecognisedFile:
    for size in SAMPLE_BYTES:
        sample = _sample(file, size)
        try:
            return recognise_text(file, layout_of(sample, options), options)
        except (UnrecognisedFile, UnreadableFile) as exc:
            if sample.whole or size == SAMPLE_BYTES[-1] or not exc.details.get("more"):
                raise
    raise AssertionError("the last sample returns or raises")


def _sample(file: RecognisedFile, size: int) -> Sample:
    """The beginning of the text, or of what can be read of it."""
    head, whole = b"", True
    pieces = raw_pieces(Path(file.path), file.member, file.compression)
    try:
        for piece, _ in pieces:
            head += piece
            if len(head) > size:
                whole = False
                break
    except UnreadableFile:
        if not head:
            raise
    tail = last_bytes(Path(file.path), TAIL_BYTES) if not whole and file.compression is None else b""
    return Sample(head[:size], tail, whole)


def _parquet(file: RecognisedFile, options: LoadOptions) -> RecognisedFile:
    if file.member is not None:
        raise UnreadableFile(f"{file.name} is Parquet in a zip; unpack it first")
    with opened(Path(file.path)) as source:
        schema, rows = source.schema_arrow, source.metadata.num_rows
        columns = match(schema.names, options.mapping, options.kind)
        file = recognise_columns(msgspec.structs.replace(file, rows=rows), schema.names, columns, options)
        check_types(file, schema)
        if rows == 0:
            raise UnreadableFile(f"{file.name} has no rows")
        return _parquet_times(file, _first_rows(source, file), options)


def _first_rows(source: pq.ParquetFile, file: RecognisedFile) -> pa.Table:
    wanted = [name for field, name in file.columns.items() if field in ("symbol", "timestamp", "date", "time")]
    batches, rows = [], 0
    for batch in source.iter_batches(SAMPLE_ROWS, columns=wanted):
        batches.append(batch)
        rows += batch.num_rows
        if rows >= SAMPLE_ROWS:
            break
    return pa.Table.from_batches(batches).combine_chunks()


def _parquet_times(file: RecognisedFile, table: pa.Table, options: LoadOptions) -> RecognisedFile:
    fields = [field for field in ("timestamp", "date", "time") if field in file.columns]
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
    return recognise_times(file, reading, symbols, options)


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


def describe(file: RecognisedFile, instruments: Sequence[Instrument] | None = None) -> list[str]:
    """What a file is taken for, in lines for people; the first names the file.

    `instruments` are those that it is to be loaded with; None: those of a store that was not asked.
    """
    size = f"{file.size / 1e6:,.1f} MB" if file.size >= 100_000 else f"{file.size:,} bytes"
    lines = [f"{file.name} ({size})"]
    if file.kind is not None:
        interval = f" of {file.interval} ({file.interval_from})" if file.interval else ""
        lines.append(f"  {file.kind}{interval}, source {file.source}")
        taken = ", ".join(field if field == name else f"{field}={name!r}" for field, name in file.columns.items())
        lines.append(f"  columns {taken}{''.join(f', {field}=0' for field in file.zeros)}")
    if file.symbol is not None:
        lines.append(f"  symbol {file.symbol} ({file.symbol_from})")
    if file.times is not None:
        lines.append(f"  times {_times(file.times, _zone_of_dates(file, instruments))}; {file.times.seen}")
    if file.dialect is not None and (text := _dialect(file)):
        lines.append(f"  {text}")
    if file.ignored:
        lines.append(f"  not taken: {', '.join(map(repr, file.ignored))}")
    lines += [f"  {note}" for note in file.notes]
    if file.problem is not None:
        lines.append(f"  cannot be loaded: {file.problem.message}")
    return lines


def _zone_of_dates(file: RecognisedFile, instruments: Sequence[Instrument] | None) -> str:
    if file.times is not None and file.times.zone is not None:
        return file.times.zone
    if instruments is None:
        return "the zone of each instrument, or UTC where none is known"
    if file.symbol is not None:
        return Instruments(instruments).of(file.symbol).timezone
    zones = {known.timezone for known in instruments}
    if all(known.pattern != "*" for known in instruments):
        zones.add("UTC")
    if len(zones) == 1:
        return zones.pop() + ("" if instruments else ", as no instrument is known")
    return f"the zone of each instrument: {', '.join(sorted(zones))}"


def _times(times: Times, zone: str) -> str:
    if times.dates:
        return f"are dates, stamped with midnight in {zone}"
    if times.style is TimeStyle.EPOCH:
        return f"are epochs in {times.unit}"
    return "state their offset" if times.stated else f"state no offset and are taken as {times.zone}"


def _dialect(file: RecognisedFile) -> str:
    if file.dialect is None:
        return ""
    parts = [f"delimiter {file.dialect.delimiter!r}"]
    if file.dialect.decimal != ".":
        parts.append(f"decimal {file.dialect.decimal!r}")
    if file.dialect.encoding != "utf-8":
        parts.append(f"encoding {file.dialect.encoding}")
    if not file.dialect.header:
        parts.append("no header")
    if file.compression:
        parts.append(file.compression)
    return ", ".join(parts)
