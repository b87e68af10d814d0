"""The contract of the checks: what they find, how a series is graded, and who may be asked. No I/O.

A *look* is what one inspection of a span of one series (symbol, kind, interval) saw. `Quality` is what is kept of a
series: the looks at disjoint spans, and their sum. `docs/design/quality.md` has the formulas.

`bulk.checks` gives what there is of it:

    inspector(checks, instruments, expected_rows=None) -> Inspector | None      # None: checks say off
    record(store, looks) -> list[Quality]                  # adds looks to the documents of a store
    kept(store, kind=, symbols=, interval=) -> Iterator[Quality]                         # what the documents say
    assess(store, instruments, checks, kind=, symbols=, interval=) -> Iterator[Quality]  # looks at what is stored
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec
import pyarrow as pa

from tapehouse.errors import InvalidRequest
from tapehouse.model import Interval, Kind

COLLECTION = "quality"
"""The collection of documents (`store.base.KeepsDocuments`) that holds a `Quality` for each series."""


class Validate(StrEnum):
    """How much of a load is inspected beyond the invariants, which every row has to meet in any case."""

    FULL = "full"
    SAMPLE = "sample"
    OFF = "off"


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """What to inspect. `sample_rows` is the most that a sample holds over all series, in rows."""

    validate: Validate = Validate.SAMPLE
    sample_rows: int = 5_000_000

    def __post_init__(self) -> None:
        if self.sample_rows < 1:
            raise InvalidRequest(f"a sample has at least one row, not {self.sample_rows}")


class Severity(StrEnum):
    """How sure it is that something is wrong: worth knowing, worth a look, wrong."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Example(msgspec.Struct, frozen=True):
    """One place: when (UTC nanoseconds), what is there, and what was expected instead."""

    time: int
    value: str
    expected: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """All places of one series at which a rule found something.

    `rule` is a code of `bulk.checks.rules.RULES`. `count` places concern `rows` rows (of a hole: the bars that are
    missing); `examples` are the first of them by time.
    """

    rule: str
    severity: Severity
    symbol: str
    kind: Kind
    interval: Interval | None = None
    count: int
    rows: int
    examples: tuple[Example, ...] = ()


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """The counts that make a grade.

    Of `rows` good rows `inspected` were looked at; `quarantined` ones are not among them. Where rows were inspected,
    the calendar expects `expected` bars (0: nobody said which calendar) of which `missing` are not there, `holes` of
    them in holes that are longer than the series' own activity explains. `errors`, `warnings` and `infos` are the rows
    of findings of each severity; those of holes count as `holes` alone.
    """

    rows: int = 0
    inspected: int = 0
    quarantined: int = 0
    expected: int = 0
    missing: int = 0
    holes: int = 0
    errors: int = 0
    warnings: int = 0
    infos: int = 0


class Grade(StrEnum):
    """From A, nothing to worry about, to F, not to be used. `bulk.checks.grade` has the thresholds."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"
    F = "F"


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What one inspection saw of one series between its rows `first` and `last`, and what brought them."""

    symbol: str
    kind: Kind
    interval: Interval | None
    first: int
    last: int
    tally: Tally
    findings: tuple[Finding, ...] = ()
    batch: str | None = None
    commit: int = 0


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a series: the sum of its looks.

    `grade` is None when no row was inspected, and `decided_by` says which share decided it. `batch` and `commit` are
    those of the newest look. `overlapping`: spans were looked at twice, so that counts may hold a row twice; to
    `assess` what is stored puts that right.
    """

    symbol: str
    kind: Kind
    interval: Interval | None
    grade: Grade | None
    decided_by: str
    first: int
    last: int
    tally: Tally
    findings: tuple[Finding, ...] = ()
    batch: str | None = None
    commit: int = 0
    overlapping: bool = False
    looks: tuple[Look, ...] = ()


class Inspector(Protocol):
    """Looks at rows as they come, in bounded memory; one thread at a time."""

    def inspect(self, kind: Kind, interval: Interval | None, table: pa.Table) -> None:
        """Take in good rows (columns of the model), of any symbols, in any order; those of one file as it has them."""

    def quarantined(self, kind: Kind, interval: Interval | None, rows: int, symbol: str | None = None) -> None:
        """Count rows that are not good; without a symbol, shared out among the series of that kind by their rows."""

    def finish(self, *, batch: str | None = None, commit: int = 0) -> list[Look]:
        """What was seen of each series, ordered by symbol, kind and interval; the inspector is spent."""


def key(symbol: str, kind: Kind, interval: Interval | None) -> str:
    """The key of a series' document: `AAPL bars 1d`, `AAPL trades`."""
    return f"{symbol} {kind} {interval}" if interval else f"{symbol} {kind}"


def encode(quality: Quality) -> bytes:
    """As a document."""
    return msgspec.json.encode(quality)


def decode(document: bytes) -> Quality:
    """What `encode` made."""
    return msgspec.json.decode(document, type=Quality)
