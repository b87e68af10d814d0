"""What a load would do, from samples of its files: rows, symbols, span, problems, time and disk. Nothing is written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tapehouse.bulk.base import LoadOptions, Problem, RecognisedFile, Rejection
from tapehouse.bulk.formats.blocks import blocks_of
from tapehouse.bulk.formats.files import look_at
from tapehouse.bulk.formats.split import Block
from tapehouse.bulk.formats.text import Parsed
from tapehouse.bulk.validate import Judge
from tapehouse.errors import InvalidData
from tapehouse.model import Instrument
from tapehouse.times import format_time

SAMPLED_FILES = 64
"""Of more files, so many are read at the beginning, evenly spread; the others are taken for like them."""
SAMPLE_BYTES = 1 << 20
SMALL_FILES = 1_000
"""Up to so many are all read, when they have no more bytes together than a sample may have."""
WRITTEN_ROWS_PER_S = 2_000_000.0
"""About what a store takes from one writer (docs/benchmarks.md); the reading is measured."""
_EXAMPLES = 3
_SYMBOLS_NAMED = 5
_MAX_DECIMALS = 8

Key = tuple[object, ...]


class FileSurvey(msgspec.Struct, kw_only=True):
    """What is expected of one file.

    `rows` are `exact` or estimated from a sample of `sampled_rows`, and None where nothing tells. `symbols` are those
    of the sample, and `complete` says whether that was the whole file. `start` and `end` are UTC nanoseconds of the
    first and last row that were seen, `end` inclusive; None when none was.
    """

    file: RecognisedFile
    rows: int | None = None
    exact: bool = False
    sampled_rows: int = 0
    complete: bool = False
    symbols: list[str] = []
    start: int | None = None
    end: int | None = None
    rejections: list[Rejection] = []
    problem: Problem | None = None


class Survey(msgspec.Struct, kw_only=True):
    """What is expected of a load.

    `rows` are exact when all files' are; `symbols` counts those that were seen; `seconds` and `disk_bytes` are
    estimates, None without rows to estimate from: reading at the `rows_per_s` that one thread was measured at on the
    sample, and writing at what a store takes; and the sample's rows as compressed as in the archive.
    """

    files: list[FileSurvey]
    rows: int
    exact: bool
    symbols: int
    start: int | None
    end: int | None
    rows_per_s: float | None
    seconds: float | None
    disk_bytes: int | None


def survey(files: Sequence[RecognisedFile], options: LoadOptions, instruments: Sequence[Instrument] = ()) -> Survey:
    """What a load of these files (of `plan`) would do."""
    found = [FileSurvey(file=file, problem=file.problem) for file in files]
    able = [each for each in found if each.problem is None]
    effort = _Effort()
    for each in able[:: _step(able)]:
        effort.sample(each, options, instruments)
    able = [each for each in able if each.problem is None]
    for each in able:
        effort.estimate(each)
    rows = sum(each.rows or 0 for each in able)
    starts = [each.start for each in able if each.start is not None]
    ends = [each.end for each in able if each.end is not None]
    threads = options.threads or os.cpu_count() or 1
    rate = effort.rows / effort.seconds if effort.rows and effort.seconds else None
    return Survey(
        files=found,
        rows=rows,
        exact=all(each.exact for each in able),
        symbols=len({symbol for each in able for symbol in each.symbols}),
        start=min(starts, default=None),
        end=max(ends, default=None),
        rows_per_s=rate,
        seconds=None if rate is None else rows / rate / threads + rows / WRITTEN_ROWS_PER_S,
        disk_bytes=None if not effort.rows else int(rows * effort.disk_bytes / effort.rows),
    )


def _step(able: Sequence[FileSurvey]) -> int:
    """Every how many files one is read."""
    if len(able) <= SMALL_FILES and sum(each.file.size for each in able) <= SAMPLED_FILES * SAMPLE_BYTES:
        return 1
    return max(1, -(-len(able) // SAMPLED_FILES))


def describe_survey(found: Survey) -> list[str]:
    """What is expected of a load, in lines for people: what the samples of files showed, and all in all."""
    lines = [line for each in found.files if (line := _line(each))]
    for each in found.files:
        lines += _bad(each)
        if each.problem is not None and each.file.problem is None:
            lines.append(f"{each.file.name}: would not be loaded: {each.problem.message}")
    able = sum(each.problem is None for each in found.files)
    of = f"{_count(found.rows, 'row')} of {_count(found.symbols, 'symbol')}"
    rows = f"{'' if found.exact else 'about '}{of}{_span(found)}"
    lines.append(f"{_count(able, 'file')} to load, {len(found.files) - able:,} that cannot be; {rows}")
    if found.seconds is not None and found.disk_bytes is not None and found.rows_per_s is not None:
        disk = f"{found.disk_bytes / 1e6:,.1f} MB on disk once compacted"
        lines.append(f"about {found.seconds:,.1f} s ({found.rows_per_s:,.0f} rows/s read by one thread), about {disk}")
    return lines


def _bad(each: FileSurvey) -> Iterator[str]:
    where = "" if each.complete else " of the sample"
    for rejection in each.rejections:
        first = f" (line {rejection.examples[0].line:,})" if rejection.examples else ""
        lot = f"{_count(rejection.rows, 'row')}{where} {'is' if rejection.rows == 1 else 'are'} bad"
        yield f"{each.file.name}: {lot}: {rejection.reason}{first}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _line(each: FileSurvey) -> str:
    if each.rows is None:
        return ""
    symbols = f"{', '.join(each.symbols[:_SYMBOLS_NAMED])}{', ...' if len(each.symbols) > _SYMBOLS_NAMED else ''}"
    how = "" if each.exact else f" (estimated from {each.sampled_rows:,})" if each.sampled_rows else " (estimated)"
    seen = "" if each.complete or not each.sampled_rows else " seen so far"
    return f"{each.file.name}: {_count(each.rows, 'row')}{how}, {symbols}{_span(each)}{seen}"


def _span(found: FileSurvey | Survey) -> str:
    if found.start is None or found.end is None:
        return ""
    return f", {format_time(found.start)} to {format_time(found.end)}"


class _Effort:
    """What the samples took, and how many bytes of a file a row has."""

    def __init__(self) -> None:
        self.rows, self.seconds, self.disk_bytes = 0, 0.0, 0
        self._bytes: dict[Key, list[int]] = {}

    def sample(self, each: FileSurvey, options: LoadOptions, instruments: Sequence[Instrument]) -> None:
        """Read the beginning of a file, and of a plain text also its end."""
        file, started = each.file, time.perf_counter()
        tables: list[pa.Table] = []
        done = 0
        each.complete = True
        try:
            for parsed in _parsed(file, msgspec.structs.replace(options, block_bytes=SAMPLE_BYTES), instruments):
                if done >= SAMPLE_BYTES or len(tables) > 1:
                    each.complete = False
                    break
                _take(each, parsed)
                tables.append(parsed.table)
                done = max(done, parsed.source_bytes)
        except InvalidData as exc:
            each.problem = Problem(exc.code, exc.message)
        each.problem = each.problem or _too_many_bad(each, options)
        self.seconds += time.perf_counter() - started
        tables = [table for table in tables if table.num_rows]
        self.rows += sum(table.num_rows for table in tables)
        self.disk_bytes += sum(map(_packed_bytes, tables))
        if not each.complete:
            _look_at_end(each, instruments)
            done = done or int(sum(table.nbytes for table in tables))
        if each.sampled_rows and not file.rows:
            total = self._bytes.setdefault(_key(file), [0, 0])
            total[0] += done if not each.complete else file.size
            total[1] += each.sampled_rows

    def estimate(self, each: FileSurvey) -> None:
        """The rows of a file: what it says, what was read of it, or by its bytes and those of files like it."""
        file = each.file
        if file.symbol is not None:
            each.symbols = [file.symbol]
        if file.rows is not None or each.complete:
            each.rows, each.exact = file.rows if file.rows is not None else each.sampled_rows, True
        elif like := self._bytes.get(_key(file)):
            each.rows = round(file.size / max(like[0], 1) * like[1])


def _too_many_bad(each: FileSurvey, options: LoadOptions) -> Problem | None:
    """Why a load would give the file up, when it would, as far as the sample shows."""
    bad = sum(rejection.rows for rejection in each.rejections)
    least = 1 if each.complete else options.max_bad_rows
    if bad < least or bad <= each.sampled_rows * options.max_bad_share:
        return None
    share = f"more than a share of {options.max_bad_share:g} (max_bad_share)"
    rows = "its" if each.complete else "the sample's"
    return Problem(InvalidData.code, f"{bad:,} of {rows} {each.sampled_rows:,} rows are bad, {share}")


def _key(file: RecognisedFile) -> Key:
    return (file.format, file.compression, file.kind, file.interval, tuple(file.columns))


def _parsed(file: RecognisedFile, options: LoadOptions, instruments: Sequence[Instrument]) -> Iterator[Parsed]:
    for parse, block in blocks_of(file, Judge(file, instruments), options):
        yield parse(block)


def _take(each: FileSurvey, parsed: Parsed) -> None:
    each.sampled_rows += parsed.rows
    reasons = {rejection.reason: rejection for rejection in each.rejections}
    for reason, row in parsed.bad():
        rejection = reasons.setdefault(reason, Rejection(reason=reason))
        rejection.rows += 1
        if len(rejection.examples) < _EXAMPLES:
            rejection.examples.append(row)
    each.rejections = sorted(reasons.values(), key=lambda rejection: -rejection.rows)
    _extend(each, parsed.table)


def _extend(each: FileSurvey, table: pa.Table) -> None:
    """The symbols and the span with those of more rows."""
    if table.num_rows == 0:
        return
    ends = pc.min_max(table.column("timestamp").cast(pa.int64())).as_py()
    each.start = min(ends["min"], each.start if each.start is not None else ends["min"])
    each.end = max(ends["max"], each.end if each.end is not None else ends["max"])
    seen = dict.fromkeys([*each.symbols, *pc.unique(table.column("symbol").cast(pa.string())).to_pylist()])
    each.symbols = list(seen)


def _look_at_end(each: FileSurvey, instruments: Sequence[Instrument]) -> None:
    """The last rows of a plain text for the span; whether they are good is not asked here."""
    file = each.file
    if not file.format.is_text or file.compression is not None or file.dialect is None:
        return
    if file.dialect.encoding != "utf-8" or file.dialect.returns:
        return
    tail = look_at(Path(file.path)).tail.partition(b"\n")[2]
    if not tail:
        return
    for parse, _ in blocks_of(file, Judge(file, instruments), LoadOptions(block_bytes=1)):
        _extend(each, parse(Block(tail, 1)).table)
        return


def _packed_bytes(table: pa.Table) -> int:
    """How large rows become when they are packed as the archive does it: prices as whole numbers, in deltas, zstd."""
    columns = {name: _whole(table.column(name)) for name in table.column_names if name not in ("symbol", "source")}
    sink = pa.BufferOutputStream()
    packed = {name: "DELTA_BINARY_PACKED" for name, values in columns.items() if pa.types.is_integer(values.type)}
    pq.write_table(
        pa.table(columns),
        sink,
        compression="zstd",
        use_dictionary=False,
        column_encoding=packed,
        write_statistics=False,
    )
    return int(sink.tell())


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times, and floats with few decimals, as whole numbers."""
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64())
    if not pa.types.is_float64(column.type):
        return column
    values = column.to_numpy()
    for decimals in range(_MAX_DECIMALS + 1):
        scaled = np.rint(values * 10**decimals)
        if np.array_equal(scaled / 10**decimals, values) and np.abs(scaled).max(initial=0) < 2**53:
            return pa.chunked_array([pa.array(scaled.astype(np.int64))])
    return column
