"""The contract of the bulk loader: what may be asked of it, what it recognised, and what it reports.

All of these are values that msgspec turns into JSON, so that `tapehouse load --json` and a server show the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec
import pyarrow as pa
from msgspec.structs import force_setattr

from tapehouse.bulk.checks.base import Finding
from tapehouse.errors import InvalidRequest
from tapehouse.model import Commit, Interval, Kind, OnConflict, check_order


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


PRICES = frozenset(("open", "high", "low", "close", "vwap", "adj_close", "price", "bid", "ask"))
"""The fields that are prices, which some vendors write as whole numbers of a billionth."""


class Cell(StrEnum):
    """What a column without a name looks like."""

    EPOCH = "epoch"
    DATE = "date"
    CLOCK = "clock"
    DATETIME = "datetime"
    NUMBER = "number"
    WHOLE = "whole"
    BOOL = "bool"
    TEXT = "text"
    ANY = "any"


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A layout of files that is known by name: an entry of `[[formats]]`, built in or of `tapehouse.toml`.

    A file has this layout when its header has all names of `header` and beside them only `optional` ones (whatever
    the case, spaces and signs; `others` admits any), or when it has no header and its columns look like `shape`, one
    `Cell` each; and, with `file_required`, when the regular expression `file` is found in its name. Groups of `file`
    named `symbol`, `interval` (a word such as `1m`, `1min`, `d`), `minutes` and `seconds` are that; a `market` goes
    behind the symbol (`AAPL.US`), and `upper` makes both that.

    `columns` gives for a field the column by its name or number from 1, or several: the first that is not 0 or
    empty throughout the sample. Fields that it does not name are found by their spelling. `zeros` are 0 in every
    row. Prices that are written as whole numbers are multiples of 10**-`decimals`. `carried` are fields of numbers
    that a row leaves out when they did not change: the last ones before it in the file count, and a row without any
    of them is bad. `values` gives for a text field what stands for what, whatever the case. `timezone` is that of
    times without an offset; `midnight` the zone whose midnights stand for the dates of daily bars when these are
    written as instants. An `exact` file is an export of ours: the interval is what its name says, times are taken
    as they are, and text in quotes is never a missing value. `note` is said to the user.
    """

    name: str
    kind: Kind
    header: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    others: bool = False
    shape: tuple[Cell, ...] = ()
    file: str | None = None
    file_required: bool = False
    upper: bool = False
    columns: dict[str, str | tuple[str, ...]] = {}
    zeros: tuple[str, ...] = ()
    time_format: str | None = None
    timezone: str | None = None
    midnight: str | None = None
    interval: Interval | None = None
    decimals: int = 0
    carried: tuple[str, ...] = ()
    values: dict[str, dict[str, str]] = {}
    exact: bool = False
    note: str | None = None


class Workers(StrEnum):
    """Who parses: threads of this process, or processes of their own (see docs/design/loads.md)."""

    AUTO = "auto"
    THREADS = "threads"
    PROCESSES = "processes"


NEWEST = "*"
"""`LoadOptions.resume`: the newest load of any of the same files that did not come to its end."""


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user says of the files; whatever is not said is recognised.

    `mapping` gives for a field of the model (or `date` and `time`) the column of the file, by its name or, as for
    files without a header, by its number from 1; `0` says of a number that the file has none and all are 0.
    `symbol_from` is `name`, `folder`, or a regular expression whose first group, searched in the path, is the symbol.
    `time_format` is a strftime format, or `s`, `ms`, `us`, `ns` for epochs. `timezone` is a name (`America/New_York`)
    or an offset (`+05:30`). `formats` are layouts of the user's own, tried before those that are built in. A file is
    given up when more than `max_bad_share` of its rows are bad: at its end, or once `max_bad_rows` are.

    All commits of a load carry the name `batch`; `resume` names the batch of an earlier load that is to go on, or
    `NEWEST`. `threads` of `workers` parse blocks of `block_bytes`; a commit has `batch_rows`, None: as many as are
    written fastest. A write that fails in a way that may pass is tried again `retries` times. With `certificate`, what
    was stored is read back and compared, by a store that keeps audits.
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
    formats: tuple[Description, ...] = ()
    max_bad_share: float = 0.5
    max_bad_rows: int = 1_000
    threads: int | None = None
    workers: Workers = Workers.AUTO
    block_bytes: int = 4 << 20
    batch_rows: int | None = None
    retries: int = 5
    resume: str | None = None
    certificate: bool = True

    def __post_init__(self) -> None:
        """Names are taken as what they name; raises `UnknownInterval` or `InvalidRequest`."""
        if self.interval is not None:
            force_setattr(self, "interval", Interval.parse(self.interval))
        try:
            force_setattr(self, "kind", None if self.kind is None else Kind(self.kind))
            force_setattr(self, "on_conflict", OnConflict(self.on_conflict))
        except ValueError as exc:
            raise InvalidRequest(f"{exc}; expected one of {' '.join(Kind)} and of {' '.join(OnConflict)}") from exc
        self._check_names()
        check_order(self.on_conflict, self.prefer)
        if not 0 <= self.max_bad_share <= 1:
            raise InvalidRequest(f"max_bad_share is between 0 and 1, not {self.max_bad_share}")
        if self.delimiter in ("\\t", "tab"):
            force_setattr(self, "delimiter", "\t")
        for option in ("delimiter", "decimal"):
            if (sign := getattr(self, option)) is not None and len(sign.encode()) != 1:
                raise InvalidRequest(f"{option} is one ASCII character, not {sign!r}")
        if self.decimal not in (None, ".", ","):
            raise InvalidRequest(f"decimal is the mark in numbers, '.' or ',', not {self.decimal!r}")
        if self.threads is not None and self.threads < 1:
            raise InvalidRequest(f"threads are 1 or more, not {self.threads}; without it, one per core")

    def _check_names(self) -> None:
        try:
            force_setattr(self, "workers", Workers(self.workers))
        except ValueError as exc:
            raise InvalidRequest(f"{exc}; expected one of {' '.join(Workers)}") from exc
        for option in ("batch", "resume"):
            name = getattr(self, option)
            if name is not None and not (_BATCH.fullmatch(name) or (option == "resume" and name == NEWEST)):
                raise InvalidRequest(
                    f"{option} is a plain name of 1 to 128 letters, digits and . _ : + = @ -, not starting with a dot, "
                    f"not {name[:200]!r}"
                )


_BATCH = re.compile(r"(?!\.)[A-Za-z0-9._:+=@-]{1,128}", re.ASCII)


class Format(StrEnum):
    """How the rows are written."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"
    ARROW = "arrow"
    ARROW_STREAM = "arrow-stream"
    SQLITE = "sqlite"
    DUCKDB = "duckdb"

    @property
    def is_text(self) -> bool:
        """Whether rows are lines; else columns have types."""
        return self in (Format.CSV, Format.JSON)


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How a text file is laid out.

    `thousands` is what groups of three digits of its numbers are separated by, if they are.
    `width` is its number of columns, to which rows have an empty field more when they are `trailing`: they end with a
    delimiter, and the header does not. `skip` are the lines before the first row; with `returns`, lines end with CR
    alone; with `exact`, text in quotes is never a missing value.
    """

    delimiter: str = ","
    decimal: str = "."
    thousands: str | None = None
    encoding: str = "utf-8"
    header: bool = True
    width: int
    trailing: bool = False
    skip: int = 0
    returns: bool = False
    exact: bool = False

    @property
    def fields(self) -> int:
        """How many fields a row has."""
        return self.width + self.trailing


class TimeStyle(StrEnum):
    """How times are written."""

    ISO = "iso"
    EPOCH = "epoch"
    FORMAT = "format"
    NATIVE = "native"


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """How the times of a file are read.

    `stated`: they have an offset from UTC. `zone` is that of times without one; None: the zone of each instrument.
    `dates`: only the date counts, and rows are stamped with its midnight where their instrument is.
    `midnight` is the zone in which dates that are written as instants are midnights. `unit` is that of epochs, which a
    row of another magnitude may not have when it is `guessed`; `fractional` ones are decimals. `format` is strftime's,
    as Polars takes it; a `guessed` one that has day and month is given up when a row has them the other way round.
    `seen` says what they were recognised by. With `newest_first` most rows of a symbol come before older ones.
    """

    style: TimeStyle
    zone: str | None = None
    stated: bool = False
    dates: bool = False
    midnight: str | None = None
    unit: str | None = None
    guessed: bool = False
    fractional: bool = False
    format: str | None = None
    seen: str = ""
    newest_first: bool = False

    @property
    def are_instants(self) -> bool:
        """Whether each is a moment without anybody's zone."""
        return not self.dates and (self.stated or self.style is TimeStyle.EPOCH)


class Problem(msgspec.Struct, frozen=True):
    """An error as a value: its code in `errors.py`, and the sentence."""

    code: str
    message: str


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """Which content a file had when it was looked at.

    `size` is in bytes, `digest` a hash of its first and last 16 KB, `crc` that of a zip's member.
    """

    size: int
    mtime_ns: int
    digest: str
    crc: int | None = None


class RecognisedFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is taken for. With a `problem` it cannot be loaded, and the rest is what was found until then.

    `member` is that of a zip or the table of a database; `size` is its share of the file's bytes. `recognised` is
    the name of the `Description` that fits; None: it was found by the spelling of columns and the look of rows.
    `columns` gives the file's column for each field of the model (`date` and `time` when the timestamp is in two);
    `places` their positions from 0. `ignored` columns are not taken. `decimals`, `carried`, `values`: see
    `Description`. `rows` is None where only reading tells.
    """

    path: str
    name: str
    source: str
    size: int
    member: str | None = None
    format: Format = Format.CSV
    compression: str | None = None
    fingerprint: Fingerprint | None = None
    recognised: str | None = None
    kind: Kind | None = None
    interval: Interval | None = None
    interval_from: str | None = None
    columns: dict[str, str] = {}
    places: dict[str, int] = {}
    zeros: tuple[str, ...] = ()
    decimals: int = 0
    carried: tuple[str, ...] = ()
    values: dict[str, dict[str, str]] = {}
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
    """What became of rows: `read` = `quarantined` + `inserted` + `replaced` + `unchanged` + `rejected` + `set_aside` +
    `unwritten`.

    `rejected` ones lost to stored rows under `keep` or `prefer` (see `model.Commit`); `set_aside` ones are good, but
    the store would not take them, and are kept in files that can be loaded later; `unwritten` ones are good but were
    not written, since the load stopped before. A commit may hold rows of several files, and counts for each of them.

    Beside that, `duplicates_` have the key and the values of a row before them, `conflicts_` the key and other values:
    of a row of the same file, of another file of the load, or of one that was stored before it. A store that does not
    write tables together does not tell; it has none of these.
    """

    read: int = 0
    quarantined: int = 0
    inserted: int = 0
    replaced: int = 0
    unchanged: int = 0
    rejected: int = 0
    set_aside: int = 0
    unwritten: int = 0
    commits: int = 0
    duplicates_in_file: int = 0
    duplicates_between_files: int = 0
    duplicates_in_store: int = 0
    conflicts_in_file: int = 0
    conflicts_between_files: int = 0
    conflicts_in_store: int = 0


class FileReport(msgspec.Struct, kw_only=True):
    """What became of one file. A `problem` says why it was not loaded, or not to its end.

    `earlier` is part of `counts`: what became of rows before the load was resumed.
    """

    file: RecognisedFile
    counts: Counts
    earlier: Counts | None = None
    rejections: list[Rejection] = []
    notes: list[str] = []
    quarantine: str | None = None
    problem: Problem | None = None
    seconds: float = 0.0


class SetAside(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that the store would not take, in a Parquet file that can be loaded, and why."""

    path: str
    rows: int
    problem: Problem
    sources: tuple[str, ...] = ()


class SeriesCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one kind, interval and symbol: hashes (see `codec.content`) are 16 hexadecimal digits.

    `rows` good ones were read from the files; of these the batch stored `written`, `unchanged` were in the store
    already, and `superseded` were there too, under a later row of the same key, where they cannot be read by key.
    `source` is the hash of the first two as they were read, `stored` as the store gave them back.
    """

    kind: Kind
    interval: Interval | None
    symbol: str
    rows: int
    source: str
    stored_rows: int
    stored: str
    written: int
    written_hash: str
    unchanged: int = 0
    superseded: int = 0

    @property
    def agrees(self) -> bool:
        """Whether the store has what the files have."""
        return self.stored_rows + self.superseded == self.rows and self.stored == self.source


BATCHES_FOUND = 10
"""A certificate names no more batches of those that had brought its rows."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that had brought rows which a load found in the store; `undone_by` names the undo that hides it now."""

    batch: str
    undone_by: str | None = None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of the rows of a certificate's series: of `written` ones, which its batch stored, `current` are
    what reads give now. `unchanged` ones are of the batches in `found`, of which it has the first `BATCHES_FOUND`;
    `undone_by` names the undo that hides the batch itself.
    """

    series: int
    written: int
    current: int
    unchanged: int = 0
    undone_by: str | None = None
    found: list[Held] = []


CERTIFICATES = "certificates"
"""The collection of documents (`store.base.KeepsDocuments`) that holds a `Certificate` for each batch."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """What a load read from its files and what the store gave back; `checked` is when, UTC nanoseconds.

    Its commits are the batch's after commit `after`, up to `head`. The batches in `found` had brought unchanged
    rows. `standing` is there when it was checked again: a certificate proves what is kept, not what is current.
    """

    batch: str
    formula: str
    checked: int
    after: int
    head: int
    counts: Counts
    series: list[SeriesCertificate]
    found: list[str] = []
    standing: Standing | None = None

    @property
    def disagreeing(self) -> list[SeriesCertificate]:
        """The series of which the store has something else than the files."""
        return [each for each in self.series if not each.agrees]


class Certified(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate in short: series and rows whose hashes agree, and the time it took to read them back.

    Of the rows, `unchanged` were in the store, `repeated` of these since the load itself had brought them; beside them
    are `superseded` ones (see `SeriesCertificate`). Of the others, which the load stored, `lost` are not current: other
    rows prevailed, stored ones or those of the load. (With `prefer`, where both had some, these are at least so many.)
    """

    series: int
    rows: int
    unchanged: int
    repeated: int
    superseded: int
    seconds: float
    lost: int = 0


class LoadReport(msgspec.Struct, kw_only=True):
    """What became of a load. `head` is the number of its newest commit, 0 when it made none.

    `resume` names what to resume when it did not come to its end and the store keeps how far it came. `grades` counts
    the series that were inspected by their quality, and `findings` are the worst that the checks found.
    """

    batch: str
    files: list[FileReport]
    totals: Counts
    head: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    quarantine: str | None = None
    set_aside: list[SetAside] = []
    resume: str | None = None
    certificate: Certified | None = None
    grades: dict[str, int] = {}
    findings: list[Finding] = []

    @property
    def complete(self) -> bool:
        """Whether every file was read to its end and nothing set aside; quarantined rows do not count against it."""
        whole = all(file.problem is None for file in self.files)
        return whole and not self.interrupted and not self.set_aside


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a load is. Bytes are those of the files as they are on disk; `eta_s` is None while nothing is known.

    While files are `sending`, which a client tells of its own, bytes are those that went to the server.
    """

    file: str
    file_number: int
    files: int
    bytes_done: int
    bytes_total: int
    rows: int
    quarantined: int
    rows_per_s: float
    eta_s: float | None
    sending: bool = False


OnProgress = Callable[[Progress], None]
