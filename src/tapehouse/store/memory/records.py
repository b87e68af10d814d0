"""The versions of a series, which of them a read sees, and what a write makes of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, Interval, Kind, OnConflict
from tapehouse.store.tables import VALUES

Row = dict[str, Any]
"""A row's columns but its symbol; `timestamp` is int64 nanoseconds, what is absent is null."""

Identity = tuple[Any, ...]
"""What tells rows of a series apart: the timestamp; of trades and quotes also source and id, or values and ordinal."""


class SeriesKey(NamedTuple):
    """The rows of one kind, interval and symbol."""

    kind: Kind
    interval: Interval | None
    symbol: str


class Version(NamedTuple):
    """A row as one commit wrote it, `place` rows into that commit; `lost` if it never was current."""

    commit: int
    place: int
    lost: bool
    row: Row


class Delete(NamedTuple):
    """All versions before that commit, with a timestamp in `[start, end)`, are hidden from it on."""

    commit: int
    start: int
    end: int


class Written(NamedTuple):
    """An incoming row, and what becomes of it: inserted, replaced, unchanged or rejected."""

    place: int
    row: Row
    verdict: str


class Records:
    """Every version and every delete of one series; knows which version a read sees."""

    def __init__(self) -> None:
        self.versions: dict[Identity, list[Version]] = {}
        self.deletes: list[Delete] = []

    def visible(self, identity: Identity, as_of: int) -> list[Version]:
        """The versions that a read as of that commit may choose from, oldest first."""
        hidden = max(
            (d.commit for d in self.deletes if d.commit <= as_of and d.start <= identity[0] < d.end), default=0
        )
        return [version for version in self.versions.get(identity, ()) if hidden < version.commit <= as_of]

    def current(self, identity: Identity, as_of: int) -> Version | None:
        """The newest version that is not lost."""
        return next((version for version in reversed(self.visible(identity, as_of)) if not version.lost), None)

    def newest_of(self, source: str, identity: Identity, as_of: int) -> Version | None:
        """That source's newest version, lost or not; in one commit one that is not lost counts as the newer."""
        own = [version for version in self.visible(identity, as_of) if version.row["source"] == source]
        return max(own, key=lambda version: (version.commit, not version.lost, version.place), default=None)

    def read(
        self, as_of: int, source: str | None = None, start: int = MIN_TIME_NS, end: int = MAX_TIME_NS
    ) -> list[Version]:
        """One version of each key in the span that has one, by time, commit and place in the commit."""
        inside = [identity for identity in self.versions if start <= identity[0] < end]
        if source is None:
            found = [self.current(identity, as_of) for identity in inside]
        else:
            found = [self.newest_of(source, identity, as_of) for identity in inside]
        seen = [version for version in found if version is not None]
        return sorted(seen, key=lambda version: (version.row["timestamp"], version.commit, version.place))


def to_rows(table: pa.Table) -> list[Row]:
    """The table as rows; times as integers, since Python's have no nanoseconds."""
    place = table.column_names.index("timestamp")
    rows: list[Row] = table.set_column(place, "timestamp", table["timestamp"].cast(pa.int64())).to_pylist()
    return rows


def identity_of(kind: Kind, row: Row) -> Identity:
    if kind is Kind.BARS:
        return (row["timestamp"],)
    if row.get("id") is not None:
        return row["timestamp"], row["source"], row["id"]
    return row["timestamp"], row["source"], None, *(row[name] for name in VALUES[kind]), row["ordinal"]


def _same(one: Row, other: Row) -> bool:
    """Whether two rows have the same values and source; an absent column is null."""
    return all(one.get(name) == other.get(name) for name in one.keys() | other.keys())


def judge_key(
    records: Records,
    identity: Identity,
    candidates: list[Written],
    on_conflict: OnConflict,
    prefer: Sequence[str],
    head: int,
) -> list[Written]:
    """What becomes of the rows that a table has for one key."""
    current = records.current(identity, head)
    # The first candidate has the best claim: of equal rank the last that was written, under `keep` the first.
    candidates = candidates if on_conflict is OnConflict.KEEP else candidates[::-1]
    if on_conflict is OnConflict.PREFER:
        candidates = sorted(candidates, key=lambda written: _rank(written.row, prefer))
    judged: list[Written] = []
    for candidate in candidates:
        if any(_same(candidate.row, earlier.row) for earlier in judged):
            verdict = "unchanged"
        elif not judged and current is None:
            verdict = "inserted"
        elif not judged and current is not None and _same(candidate.row, current.row):
            verdict = "unchanged"
        elif not judged and current is not None and _wins(candidate.row, current.row, on_conflict, prefer):
            verdict = "replaced"
        elif on_conflict is not OnConflict.ERROR and _said_before(records, identity, candidate, candidates, head):
            verdict = "unchanged"
        else:
            verdict = "rejected"
        judged.append(candidate._replace(verdict=verdict))
    return judged


def _said_before(
    records: Records, identity: Identity, candidate: Written, candidates: Sequence[Written], head: int
) -> bool:
    """Whether a rejected row is no news: its source's newest version says the same or, if the table has another row of
    that key and source, any of its versions does. The table written again then changes nothing."""
    source = candidate.row["source"]
    rivals = [c for c in candidates if c.row["source"] == source and not _same(c.row, candidate.row)]
    newest = records.newest_of(source, identity, head)
    own = records.visible(identity, head) if rivals else [newest] if newest is not None else []
    return any(_same(candidate.row, version.row) for version in own)


def _wins(row: Row, current: Row, on_conflict: OnConflict, prefer: Sequence[str]) -> bool:
    if on_conflict is OnConflict.PREFER:
        return _rank(row, prefer) <= _rank(current, prefer)
    return on_conflict is not OnConflict.KEEP


def _rank(row: Row, prefer: Sequence[str]) -> int:
    """The place of the row's source in the order of preference; sources that are not in it share the last."""
    return prefer.index(row["source"]) if row["source"] in prefer else len(prefer)
