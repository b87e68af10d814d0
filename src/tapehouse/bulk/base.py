"""The contract of the bulk loader: what may be asked of it, what it recognised, and what it reports.

All of these are values that msgspec turns into JSON, so that `tapehouse load --json` and a server show the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec
import pyarrow as pa
from msgspec.structs import force_setattr

from tapehouse.errors import InvalidRequest
from tapehouse.model import Commit, Interval, Kind, OnConflict


class Writer(Protocol):
    """What a load writes to: a store, or a client of one."""

    def write(
        self,
        kind: Kind,
        table: pa.Table,
        *,
        interval: Interval | None = None,
        on_conflict: OnConflict = OnConflict.REPLACE,
        prefer: Sequence[str] = (),
        source: str | None = None,
        batch: str | None = None,
    ) -> Commit:
        """All rows or none, durable when it returns (see `store.base.Store.write`)."""


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user says of the files; whatever is not said is recognised.

    `mapping` gives for a field of the model (or `date` and `time`) the column of the file, by its name or, as for
    files without a header, by its number from 1; `0` says of a number that the file has none and all are 0.
    `symbol_from` is `name`, `folder`, or a regular expression whose first group, searched in the path, is the symbol.
    `time_format` is a strftime format, or `s`, `ms`, `us`, `ns` for epochs. `timezone` is a name (`America/New_York`)
    or an offset (`+05:30`). A file is given up when more than `max_bad_share` of its rows, and at least
    `max_bad_rows`, are bad.
    """

    mapping: Mapping[str, str] = {}
    kind: Kind | None = None
    symbol: str | None = None
    symbol_from: str | None = None
    interval: Interval | None = None
    timezone: str | None = None
    time_format: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    source: str | None = None
    on_conflict: OnConflict = OnConflict.REPLACE
    prefer: tuple[str, ...] = ()
    batch: str | None = None
    max_bad_share: float = 0.5
    max_bad_rows: int = 1_000
    threads: int | None = None
    block_bytes: int = 4 << 20
    batch_rows: int = 983_040

    def __post_init__(self) -> None:
        """Names are taken as what they name; raises `UnknownInterval` or `InvalidRequest`."""
        if self.interval is not None:
            force_setattr(self, "interval", Interval.parse(self.interval))
        try:
            force_setattr(self, "kind", None if self.kind is None else Kind(self.kind))
            force_setattr(self, "on_conflict", OnConflict(self.on_conflict))
        except ValueError as exc:
            raise InvalidRequest(f"{exc}; expected one of {' '.join(Kind)} and of {' '.join(OnConflict)}") from exc
        if not 0 <= self.max_bad_share <= 1:
            raise InvalidRequest(f"max_bad_share is between 0 and 1, not {self.max_bad_share}")
        if self.delimiter in ("\\t", "tab"):
            force_setattr(self, "delimiter", "\t")
        for option in ("delimiter", "decimal"):
            if (sign := getattr(self, option)) is not None and len(sign.encode()) != 1:
                raise InvalidRequest(f"{option} is one ASCII character, not {sign!r}")


class Format(StrEnum):
    """How the rows are written."""

    CSV = "csv"
    PARQUET = "parquet"


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How a text file is laid out.

    `width` is its number of columns, `skip` the lines before the first row; with `returns`, lines end with CR alone.
    """

    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    header: bool = True
    width: int
    skip: int = 0
    returns: bool = False


class TimeStyle(StrEnum):
    """How times are written."""

    ISO = "iso"
    EPOCH = "epoch"
    FORMAT = "format"
    NATIVE = "native"


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """How the times of a file are read.

    `stated`: they have an offset from UTC. `zone` is that of times without one, and the one whose days daily bars
    are; None: the zone of each instrument. `dates`: only the date counts, and rows are stamped with its local
    midnight. `unit` is that of epochs; `fractional` ones are decimals. `format` is strftime's, as Polars takes it.
    `seen` says what they were recognised by.
    """

    style: TimeStyle
    zone: str | None = None
    stated: bool = False
    dates: bool = False
    unit: str | None = None
    fractional: bool = False
    format: str | None = None
    seen: str = ""

    @property
    def are_instants(self) -> bool:
        """Whether each is a moment without anybody's zone."""
        return not self.dates and (self.stated or self.style is TimeStyle.EPOCH)


class Problem(msgspec.Struct, frozen=True):
    """An error as a value: its code in `errors.py`, and the sentence."""

    code: str
    message: str


class RecognisedFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is taken for. With a `problem` it cannot be loaded, and the rest is what was found until then.

    `columns` gives the file's column for each field of the model (`date` and `time` when the timestamp is in two);
    `places` their positions from 0. `ignored` columns are not taken. `rows` is known for Parquet only.
    """

    path: str
    name: str
    source: str
    size: int
    member: str | None = None
    format: Format = Format.CSV
    compression: str | None = None
    kind: Kind | None = None
    interval: Interval | None = None
    interval_from: str | None = None
    columns: dict[str, str] = {}
    places: dict[str, int] = {}
    zeros: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    dialect: Dialect | None = None
    times: Times | None = None
    symbol: str | None = None
    symbol_from: str | None = None
    rows: int | None = None
    notes: tuple[str, ...] = ()
    problem: Problem | None = None


class BadRow(msgspec.Struct, frozen=True):
    """A row in quarantine: its line (in Parquet: row) from 1, and its text."""

    line: int
    row: str


class Rejection(msgspec.Struct, kw_only=True):
    """How many rows of a file went to quarantine for one reason, and the first of them."""

    reason: str
    rows: int = 0
    examples: list[BadRow] = []


class Counts(msgspec.Struct, kw_only=True):
    """What became of rows: `read` = `quarantined` + `inserted` + `replaced` + `unchanged` + `rejected` + `unwritten`.

    `rejected` ones lost to stored rows under `keep` or `prefer` (see `model.Commit`); `unwritten` ones are good but
    were not written, since the load stopped before.
    """

    read: int = 0
    quarantined: int = 0
    inserted: int = 0
    replaced: int = 0
    unchanged: int = 0
    rejected: int = 0
    unwritten: int = 0
    commits: int = 0


class FileReport(msgspec.Struct, kw_only=True):
    """What became of one file. A `problem` says why it was not loaded, or not to its end."""

    file: RecognisedFile
    counts: Counts
    rejections: list[Rejection] = []
    notes: list[str] = []
    quarantine: str | None = None
    problem: Problem | None = None
    seconds: float = 0.0


class LoadReport(msgspec.Struct, kw_only=True):
    """What became of a load. `head` is the number of its newest commit, 0 when it made none."""

    batch: str
    files: list[FileReport]
    totals: Counts
    head: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    quarantine: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every file was read to its end; rows in quarantine do not count against it."""
        return not self.interrupted and all(file.problem is None for file in self.files)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a load is. Bytes are those of the files as they are on disk; `eta_s` is None while nothing is known."""

    file: str
    file_number: int
    files: int
    bytes_done: int
    bytes_total: int
    rows: int
    quarantined: int
    rows_per_s: float
    eta_s: float | None


OnProgress = Callable[[Progress], None]
