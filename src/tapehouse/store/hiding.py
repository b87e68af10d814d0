"""What hides versions from reads: deletes, and undos of commits. See docs/design/versions.md.

An entry is made once and never changed. A delete hides what its span held before it; an undo hides all that some
commits did: the versions that they wrote, their deletes and their undos. So an undo of an undo brings back what the
first had hidden, and the past is told by the entries that were there then.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Commit numbers as runs without a gap: `since[i]` to `until[i]`, both of them in it, ascending."""

    since: np.ndarray
    until: np.ndarray

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Runs:
        """Those numbers, which ascend."""
        held = np.fromiter(numbers, "i8")
        breaks = np.flatnonzero(np.diff(held) != 1)
        return cls(held[np.concatenate([[0], breaks + 1])], held[np.concatenate([breaks, [len(held) - 1]])])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self.since.tolist(), self.until.tolist(), strict=True))

    def __contains__(self, commit: int) -> bool:
        place = bisect_right(self.since, commit) - 1
        return place >= 0 and bool(commit <= self.until[place])

    def hold(self, commits: np.ndarray) -> np.ndarray:
        """Which of those commits are in it."""
        place = np.searchsorted(self.since, commits, "right") - 1
        return np.asarray((place >= 0) & (commits <= self.until[place]))

    def meet(self, first: int, last: int) -> bool:
        """Whether any number from `first` to `last` is in it."""
        return bool(np.any((self.since <= last) & (self.until >= first)))


class Delete(NamedTuple):
    """A span `[start, end)` of one symbol, hidden for reads as of `version` and later."""

    version: int
    start: int
    end: int


class Undo(NamedTuple):
    """What those commits did to one symbol, all of it in `[start, end)`, hidden for reads as of `version` and later."""

    version: int
    start: int
    end: int
    commits: Runs


Entry = Delete | Undo


def active(entries: Sequence[Entry], as_of: int) -> list[Entry]:
    """The entries, newest first, that count for a read as of that commit: no later undo that counts hides them.

    `entries` are those of one symbol, oldest first.
    """
    found: list[Entry] = []
    for entry in reversed(entries):
        if entry.version <= as_of and not undone(found, entry.version):
            found.append(entry)
    return found


def undone(entries: Iterable[Entry], commit: int) -> bool:
    """Whether one of the entries, which count, is an undo of that commit."""
    return any(isinstance(entry, Undo) and commit in entry.commits for entry in entries)


def not_hidden(times: np.ndarray, commits: np.ndarray, entries: Sequence[Entry], as_of: int) -> np.ndarray:
    """Which versions of one symbol no entry hides from a read as of that commit."""
    kept = np.ones(len(times), bool)
    for entry in active(entries, as_of):
        if isinstance(entry, Undo):
            kept &= ~entry.commits.hold(commits)
        else:
            kept &= ~((commits < entry.version) & (times >= entry.start) & (times < entry.end))
    return kept


def latest_undos(undos: Mapping[int, Runs]) -> dict[int, Runs]:
    """Of all undos by version, those that count now, newest first."""
    found: dict[int, Runs] = {}
    for version in sorted(undos, reverse=True):
        if not any(version in runs for runs in found.values()):
            found[version] = undos[version]
    return found
