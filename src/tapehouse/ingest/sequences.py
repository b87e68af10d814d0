"""Which records of a source are repeats, and which are missing, by the numbers that it gives them. Pure.

Numbers are remembered for each partition of the log: when what a source sent reached some partitions and not others,
and it sends all of it again, each partition takes what it lacks.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from tapehouse.ingest.base import Gap


class Checked(NamedTuple):
    """Which rows are new, and the numbers before the first one that never came."""

    new: np.ndarray
    gap: Gap | None


class Sequence(msgspec.Struct):
    """The numbers of one session of a source; `seen` is when the newest came, UTC nanoseconds."""

    session: str = ""
    seen: int = 0
    last: int | None = None
    lasts: dict[int, int] = {}

    def check(self, first: int, partitions: np.ndarray) -> Checked:
        """Look at rows numbered from `first` on, which go to those partitions; shape (rows,)."""
        gap = Gap(self.last + 1, first - 1) if self.last is not None and first > self.last + 1 else None
        lasts = np.full(int(partitions.max(initial=0)) + 1, -1)
        for partition, last in self.lasts.items():
            if partition < len(lasts):
                lasts[partition] = last
        return Checked(np.arange(first, first + len(partitions)) > lasts[partitions], gap)

    def note(self, partition: int, last: int) -> None:
        """The log has the rows of that partition up to that number."""
        self.lasts[partition] = max(last, self.lasts.get(partition, last))
        self.reach(last)

    def reach(self, last: int) -> None:
        """Numbers up to that one have come."""
        self.last = last if self.last is None else max(last, self.last)

    def known(self, number: int) -> bool:
        """Whether a row of that number has come before."""
        return self.last is not None and number <= self.last
