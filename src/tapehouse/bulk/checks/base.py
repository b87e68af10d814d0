"""The contract of the checks: what they find, how a series is graded, and who may be asked. No I/O.

A *look* is what one inspection of a span of one series (symbol, kind, interval) saw. `Quality` is what is kept of a
series: the looks at disjoint spans, and their sum. `docs/design/quality.md` has the formulas.

`bulk.checks` gives what there is of it:

    inspector(checks, instruments, expected_rows=None) -> Inspector | None      # None: checks say off
    record(store, looks) -> list[Quality]                  # adds looks to the documents of a store
    kept(store, kind=, symbols=, interval=) -> Iterator[Quality]                         # what the documents say
    assess(store, instruments, checks, kind=, symbols=, interval=) -> Iterator[Quality]  # looks at what is stored

A grade is *stale* when rows that it may have been made of are gone: `mark_stale`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec
import pyarrow as pa

from tapehouse.errors import InvalidRequest
from tapehouse.model import Commit, Interval, Kind
from tapehouse.store.base import Versions

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


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """Which stored series to look at anew (None: all), and how closely; `InvalidRequest` for not at all."""

    symbols: tuple[str, ...] | None = None
    kind: Kind | None = None
    interval: Interval | None = None
    validate: Validate = Validate.SAMPLE

    def __post_init__(self) -> None:
        if self.validate is Validate.OFF:
            raise InvalidRequest("validate is full or sample: off would look at nothing", parameter="validate")


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
    those of the newest look. `overlapping`: spans were looked at twice, so that counts may hold a row twice. `stale`:
    rows that were looked at may be gone since; it is told when a grade is read, and never kept. To `assess` what is
    stored puts both right.
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
    stale: bool = False
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


COMMITS_AT_ONCE = 1_000


def mark_stale(found: Iterable[Quality], store: Versions) -> Iterator[Quality]:
    """The same, each with whether it is stale.

    A look is when a newer commit to its kind and interval, in its span, deleted or undid rows, or replaced some without
    an inspection. Commits do not name their symbols, so rows of another one may be meant.
    """
    found = list(found)
    looks = [look for quality in found for look in quality.looks]
    inspected: dict[str | None, int] = {}
    for look in looks:
        inspected[look.batch] = max(inspected.get(look.batch, 0), look.commit)
    taken: dict[tuple[Kind, Interval | None], list[Commit]] = {}
    for commit in _withdrawals(store, min((look.commit for look in looks), default=None)):
        if commit.action != "write" or commit.batch is None or commit.number > inspected.get(commit.batch, 0):
            taken.setdefault((commit.kind, commit.interval), []).append(commit)
    for quality in found:
        newer = taken.get((quality.kind, quality.interval), [])
        yield msgspec.structs.replace(quality, stale=any(_is_stale(look, newer) for look in quality.looks))


def _is_stale(look: Look, taken: Sequence[Commit]) -> bool:
    return look.tally.rows > 0 and any(
        commit.number > look.commit
        and (commit.start is None or commit.start <= look.last)
        and (commit.end is None or commit.end > look.first)
        for commit in taken
    )


def _withdrawals(store: Versions, after: int | None) -> Iterator[Commit]:
    """The commits after that one which took rows away."""
    while after is not None:
        commits = store.commits(after=after, limit=COMMITS_AT_ONCE)
        yield from (each for each in commits if each.action != "write" or each.replaced)
        after = commits[-1].number if len(commits) == COMMITS_AT_ONCE else None
