"""Batches of the store in memory: what they are, and what an undo of one changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from tapehouse.model import Commit, Interval, Kind
from tapehouse.store.base import Batch
from tapehouse.store.memory.records import Identity, Records, SeriesKey, Undos

_COUNTS = ("inserted", "replaced", "unchanged", "rejected", "deleted")
_INTERVALS = [None, *Interval]


class Effect(NamedTuple):
    """What an undo does to the rows of some series: counts as of a commit, and what others have changed since."""

    counts: Counter[str]
    left: list[tuple[str, int, int]]
    """Symbol, timestamp, and the commit that changed it."""


def effect(series: Mapping[SeriesKey, Records], undos: Undos, undo: int) -> Effect:
    """What that commit, of which `undos` know, changes in those series."""
    before, after = undos.hidden(undo - 1), undos.hidden(undo)
    views = ((after - before, before), (before - after, after))
    found = Effect(Counter(), [])
    for key, records in series.items():
        for identity in records.versions:
            was, now = records.current(identity, undo - 1), records.current(identity, undo)
            if was is not now:
                found.counts["deleted" if now is None else "inserted" if was is None else "replaced"] += 1
            elif by := next(_superseded(records, identity, views), None):
                found.counts["unchanged"] += 1
                found.left.append((key.symbol, identity[0], by))
    return found


def _superseded(
    records: Records, identity: Identity, views: Sequence[tuple[Collection[int], Collection[int]]]
) -> Iterator[int]:
    """The commit that changed the row last, where one of ours had changed it before. A view is which commits are ours,
    and which do not count: undone ones count before an undo, those that it brings back count after it."""
    for ours, hidden in views:
        changes = records.changes(identity, hidden)
        if any(commit in ours for commit in changes) and changes[-1] not in ours:
            yield changes[-1]


def dataset_order(commit: Commit) -> tuple[int, int]:
    """By kind, then by interval."""
    return list(Kind).index(commit.kind), _INTERVALS.index(commit.interval)


def summarised(commits: Sequence[Commit], undos: Undos) -> list[Batch]:
    """The batches of all commits there are, by their last commit, newest first."""
    batches: dict[str, list[Commit]] = {}
    for commit in commits:
        if commit.batch is not None:
            batches.setdefault(commit.batch, []).append(commit)
    found = [_summary(name, members, commits, undos) for name, members in batches.items()]
    return sorted(found, key=lambda batch: -batch.last_commit)


def _summary(name: str, members: Sequence[Commit], commits: Sequence[Commit], undos: Undos) -> Batch:
    numbers = {commit.number for commit in members}
    by = next((undo for undo in undos.counting(len(commits)) if undos.made[undo] & numbers), None)
    undone = by is not None and numbers <= undos.hidden(len(commits))
    of = next((min(undos.made[number]) for number in sorted(numbers) if number in undos.made), None)
    return Batch(
        name=name,
        first_commit=members[0].number,
        last_commit=members[-1].number,
        started=members[0].recorded,
        ended=members[-1].recorded,
        commits=len(members),
        series=tuple(dict.fromkeys((one.kind, one.interval) for one in sorted(members, key=dataset_order))),
        **{count: sum(getattr(commit, count) for commit in members) for count in _COUNTS},
        undone_by=commits[by - 1].batch if by is not None and undone else None,
        undoes=None if of is None else commits[of - 1].batch,
    )
