"""How fast a load is and how long it will take, from what it did in the last seconds. No clock of its own."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

WINDOW_S = 10.0


class _Mark(NamedTuple):
    time_s: float
    bytes_done: int
    rows: int


class Pace:
    """Rows/s and the time left by the last ten seconds, so that a pause or a change of files shows soon."""

    def __init__(self, time_s: float, bytes_total: int) -> None:
        self._total = bytes_total
        self._marks = deque([_Mark(time_s, 0, 0)])

    def mark(self, time_s: float, bytes_done: int, rows: int) -> None:
        """So far this much was done; times do not run backwards."""
        self._marks.append(_Mark(time_s, bytes_done, rows))
        while len(self._marks) > 2 and self._marks[1].time_s <= time_s - WINDOW_S:
            self._marks.popleft()

    @property
    def rows_per_s(self) -> float:
        seconds = self._marks[-1].time_s - self._marks[0].time_s
        return (self._marks[-1].rows - self._marks[0].rows) / seconds if seconds > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds left at this pace; None while nothing is done."""
        seconds = self._marks[-1].time_s - self._marks[0].time_s
        done = self._marks[-1].bytes_done - self._marks[0].bytes_done
        if done <= 0 or seconds <= 0:
            return None
        return max(0, self._total - self._marks[-1].bytes_done) * seconds / done
