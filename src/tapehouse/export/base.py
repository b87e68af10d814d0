"""The contract of an export: what may be asked of it, what it reads from, and the manifest that says what it wrote.

All of these are values that msgspec turns into JSON. Times in them are RFC 3339, UTC, to the nanosecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from tapehouse.errors import InvalidRequest
from tapehouse.model import SCHEMAS, Commit, Instrument, Interval, Kind, check_symbol, read_schema
from tapehouse.query.base import Bound, Request
from tapehouse.store.base import Series

MANIFEST = "manifest.json"
"""The file that says that an export is whole, and of what; it is written last."""
UNFINISHED = "UNFINISHED"
"""The file that says that an export is not whole, and how far it is."""
MANIFEST_VERSION = 1

_COMPRESSIONS = ("", ".gz", ".zst", ".xz", ".zip")
FORMATS = (
    "parquet",
    "arrow",
    "feather",
    *(f"{text}{compression}" for text in ("csv", "tsv", "jsonl") for compression in _COMPRESSIONS),
    "sqlite",
    "duckdb",
)
"""What files can be; the name of a format is how its files' names end."""


class Partition(StrEnum):
    """What rows are put into files by."""

    SYMBOL = "symbol"
    YEAR = "year"
    MONTH = "month"
    DAY = "day"


class Existing(StrEnum):
    """What is done with an export that is in the folder already."""

    REFUSE = "refuse"
    RESUME = "resume"
    OVERWRITE = "overwrite"


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to export, and as what.

    Without `kinds` and `intervals` it is everything that is stored; with `intervals` alone it is bars. `symbols` names
    symbols, `match` patterns with `*` and `?`; both together mean all that either means. `start` is inclusive, `end`
    exclusive; `as_of` is a commit number or a time. `columns` (None: all of the kind) go into the files beside symbol
    and timestamp. `resample` makes the bars of an interval where they are not stored, as a read does. `partition` is
    empty (a file for all), or has `symbol`, or one of `year` `month` `day`, or both; dates are those of the
    instrument's zone.
    """

    format: str = "parquet"
    partition: tuple[Partition, ...] = (Partition.SYMBOL,)
    kinds: tuple[Kind, ...] = ()
    intervals: tuple[Interval, ...] = ()
    symbols: tuple[str, ...] | None = None
    match: tuple[str, ...] = ()
    start: Bound | None = None
    end: Bound | None = None
    columns: tuple[str, ...] | None = None
    as_of: int | None = None
    source: str | None = None
    resample: bool = False

    def __post_init__(self) -> None:
        """Raises `InvalidRequest`, `InvalidSymbol` or `UnknownColumn` for what makes no sense."""
        if self.format not in FORMATS:
            raise InvalidRequest(f"format is one of {' '.join(FORMATS)}, not {self.format[:40]!r}", parameter="format")
        if len(set(self.partition)) < len(self.partition) or len(set(self.partition) - {Partition.SYMBOL}) > 1:
            raise InvalidRequest(
                f"partition is symbol, or one of year, month and day, or both, not {','.join(self.partition)}",
                parameter="partition",
            )
        if self.symbols == () or (self.resample and not self.intervals):
            raise InvalidRequest("the list of symbols is empty" if self.symbols == () else "resample needs an interval")
        for symbol in self.symbols or ():
            check_symbol(symbol)
        for kind in self.kinds if self.columns is not None else ():
            read_schema(kind, self.columns)

    @property
    def period(self) -> Partition | None:
        """The span of time of a file, if it has one."""
        return next((each for each in self.partition if each is not Partition.SYMBOL), None)

    @property
    def by_symbol(self) -> bool:
        """Whether each file has one symbol."""
        return Partition.SYMBOL in self.partition

    def columns_of(self, kind: Kind) -> tuple[str, ...]:
        """The columns of the files of a kind, in order; raises `UnknownColumn`."""
        if self.columns is None:
            return tuple(SCHEMAS[kind].names)
        keys = ("symbol", "timestamp")
        names = (*keys, *(name for name in self.columns if name not in keys))
        read_schema(kind, names)
        return names


class Rows(Protocol):
    """The answer to a question for rows, still to be read."""

    @property
    def schema(self) -> pa.Schema: ...
    @property
    def commit(self) -> int:
        """The commit that they are as of."""

    @property
    def batches(self) -> Iterator[pa.RecordBatch]: ...


class Source(Protocol):
    """What an export reads from: a store in this process, or a server. Any thread may call it."""

    def rows(self, request: Request) -> AbstractContextManager[Rows]:
        """The rows asked for, ordered by symbol, then time, read as they are taken."""

    def series(self) -> list[Series]:
        """What is held now, by symbol."""

    def commits(self, *, after: int, limit: int) -> list[Commit]:
        """Commits with a greater number, oldest first."""

    def instruments(self) -> list[Instrument]:
        """What is known of instruments."""


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an export. `path` is relative to the folder, with `/`; `first` and `last` are times of rows."""

    path: str
    kind: Kind
    interval: Interval | None = None
    rows: int
    bytes: int
    sha256: str
    symbols: tuple[str, ...]
    first: str
    last: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an export wrote, as of which commit; `instruments` are what `tapehouse load --instruments` takes.

    `content` has, for each series (`bars 1m`, `trades`), a hash of the rows of each symbol, computed as `formula`
    says; it is there when all columns of stored rows were exported. `recorded` is when the commit was.
    """

    version: int = MANIFEST_VERSION
    id: str
    tapehouse: str
    created: str
    commit: int
    recorded: str | None
    format: str
    options: ExportOptions
    rows: int
    bytes: int
    files: tuple[FileEntry, ...]
    formula: str | None = None
    content: dict[str, dict[str, str]] = {}
    instruments: tuple[Instrument, ...] = ()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an export is. `rows_total` counts what is held of the series, or None where a part of it is asked for."""

    file: str
    files: int
    rows: int
    rows_total: int | None
    bytes: int
    seconds: float


OnProgress = Callable[[Progress], None]


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with a file of an export."""

    path: str
    problem: str


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the files of a manifest. `unknown` are files beside them that it does not name."""

    files: int
    bytes: int
    faults: tuple[Fault, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all files are as they were written; unknown ones do not count against it."""
        return not self.faults


def series_name(kind: Kind, interval: Interval | None) -> str:
    """A series as a manifest names it: `bars 1m`, `trades`."""
    return str(kind) if interval is None else f"{kind} {interval}"


def plain(value: Any) -> Any:
    """A value of this contract in JSON's own types."""
    return msgspec.to_builtins(value)


def partition_of(words: str | Sequence[str]) -> tuple[Partition, ...]:
    """`symbol,month` or a list of such words; `none` or nothing is one file for all. Raises `InvalidRequest`."""
    parts = words.split(",") if isinstance(words, str) else list(words)
    parts = [part.strip() for part in parts if part.strip()]
    if parts == ["none"]:
        return ()
    try:
        return tuple(Partition(part) for part in parts)
    except ValueError as exc:
        known = ", ".join(Partition)
        raise InvalidRequest(f"{exc}; partition is none or of {known}", parameter="partition") from exc


Names = Mapping[str, str]
"""Symbol -> what it is called in the names of files."""
