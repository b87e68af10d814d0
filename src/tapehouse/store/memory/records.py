"""The versions of a series, which of them a read sees, and what a write makes of each row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, Interval, Kind, OnConflict
from tapehouse.store.met import in_store, in_write
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


class Taken(NamedTuple):
    """What that commit, an undo, took back in a series lies in `[start, end)`."""

    commit: int
    start: int
    end: int


class Undos:
    """Which commits do not count: those that an undo, which counts itself, has taken back."""

    def __init__(self) -> None:
        self.made: dict[int, frozenset[int]] = {}
        self._hidden: dict[int, frozenset[int]] = {}

    def hidden(self, as_of: int) -> frozenset[int]:
        """The commits that do not count as of a commit that there is."""
        if as_of not in self._hidden:
            self._hidden[as_of] = frozenset().union(*(self.made[undo] for undo in self.counting(as_of)))
        return self._hidden[as_of]

    def counting(self, as_of: int) -> list[int]:
        """The undos that count, newest first."""
        found: list[int] = []
        for undo in sorted(self.made, reverse=True):
            if undo <= as_of and not any(undo in self.made[later] for later in found):
                found.append(undo)
        return found


class Written(NamedTuple):
    """An incoming row, what becomes of it (inserted, replaced, unchanged or rejected), and what it met: `store.met`."""

    place: int
    row: Row
    verdict: str
    met: int = 0


class Records:
    """Every version, delete and undo of one series; knows which version a read sees."""

    def __init__(self, undos: Undos) -> None:
        self.versions: dict[Identity, list[Version]] = {}
        self.deletes: list[Delete] = []
        self.undone: list[Taken] = []
        self._undos = undos

    def visible(self, identity: Identity, as_of: int) -> list[Version]:
        """The versions that a read as of that commit may choose from, oldest first."""
        undone = self._undos.hidden(as_of)
        deletes = [d.commit for d in self.deletes if d.commit <= as_of and d.start <= identity[0] < d.end]
        hidden = max((commit for commit in deletes if commit not in undone), default=0)
        versions = self.versions.get(identity, ())
        return [v for v in versions if hidden < v.commit <= as_of and v.commit not in undone]

    def touched(self, commits: Collection[int]) -> tuple[int, int] | None:
        """The times `[start, end)` in which those commits did anything to the series."""
        spans = [
            (identity[0], identity[0] + 1)
            for identity, versions in self.versions.items()
            if any(version.commit in commits for version in versions)
        ]
        entries: list[Delete | Taken] = [*self.deletes, *self.undone]
        spans += [(entry.start, entry.end) for entry in entries if entry.commit in commits]
        return (min(start for start, _ in spans), max(end for _, end in spans)) if spans else None

    def changes(self, identity: Identity, undone: Collection[int]) -> list[int]:
        """The commits that changed the current row, if those `undone` had never been."""
        events = [(version.commit, True) for version in self.versions[identity] if not version.lost]
        events += [(delete.commit, False) for delete in self.deletes if delete.start <= identity[0] < delete.end]
        found, there = [], False
        for commit, written in sorted(event for event in events if event[0] not in undone):
            if written or there:
                found.append(commit)
            there = written
        return found

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
        twin = next((earlier for earlier in judged if _same(candidate.row, earlier.row)), None)
        if twin is not None:
            verdict, met = "unchanged", in_write(twin.place)
        elif not judged and current is None:
            verdict, met = "inserted", 0
        elif not judged and current is not None and _same(candidate.row, current.row):
            verdict, met = "unchanged", _in_store(candidate.row, current)
        elif not judged and current is not None and _wins(candidate.row, current.row, on_conflict, prefer):
            verdict, met = "replaced", _in_store(candidate.row, current)
        elif on_conflict is not OnConflict.ERROR and _said_before(records, identity, candidate, candidates, head):
            newest = records.newest_of(candidate.row["source"], identity, head)
            verdict, met = "unchanged", in_store(newest.commit if newest else 0, alike=True, own=True)
        elif judged or current is None:
            verdict, met = "rejected", in_write(judged[0].place)
        else:
            verdict, met = "rejected", _in_store(candidate.row, current)
        judged.append(candidate._replace(verdict=verdict, met=met))
    return judged


def _in_store(row: Row, stored: Version) -> int:
    """It met that stored row."""
    alike, own = _same(row, stored.row | {"source": row["source"]}), row["source"] == stored.row["source"]
    return in_store(stored.commit, alike=alike, own=own)


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
    if on_conflict is OnConflict.OWN:
        return bool(row["source"] == current["source"])
    return on_conflict is not OnConflict.KEEP


def _rank(row: Row, prefer: Sequence[str]) -> int:
    """The place of the row's source in the order of preference; sources that are not in it share the last."""
    return prefer.index(row["source"]) if row["source"] in prefer else len(prefer)
