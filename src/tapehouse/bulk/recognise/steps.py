"""The interval of bars, from the steps between their times or from a file's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tapehouse.errors import UnrecognisedFile
from tapehouse.model import DAY_NS, Interval

_WORDS = {
    Interval.S1: ("1s", "1sec", "second"),
    Interval.S5: ("5s", "5sec"),
    Interval.S15: ("15s", "15sec"),
    Interval.S30: ("30s", "30sec"),
    Interval.M1: ("1m", "1min", "m1", "minute", "1minute", "minutes"),
    Interval.M5: ("5m", "5min", "m5", "5minute"),
    Interval.M15: ("15m", "15min", "m15", "15minute"),
    Interval.M30: ("30m", "30min", "m30", "30minute"),
    Interval.H1: ("1h", "1hour", "h1", "60m", "60min", "hour", "hourly"),
    Interval.H4: ("4h", "4hour", "h4", "240m", "240min"),
    Interval.D1: ("1d", "1day", "d1", "d", "day", "daily", "eod"),
    Interval.W1: ("1w", "1wk", "1week", "w1", "w", "week", "weekly"),
    Interval.MO1: ("1mo", "1month", "mn1", "mn", "month", "monthly"),
}
BY_WORD = {word: interval for interval, words in _WORDS.items() for word in words}
_MONTH_DAYS = (28, 31)
_ENOUGH = 0.5  # this share of the steps makes the most common one the interval
_TWICE = 1.5  # and it has to occur more than once


class Step(NamedTuple):
    """An interval, and what it was recognised by."""

    interval: Interval
    why: str


def interval_of(symbols: Sequence[str] | None, times: np.ndarray, named: Interval | None) -> Step:
    """The most common step between the times (nanoseconds) of one symbol; `UnrecognisedFile` when that is not clear.

    A file's name (`named`) decides when the steps do not; when they contradict it, that is refused too.
    """
    steps = _steps(symbols, times)
    if not len(steps):
        return _by_name(named, "one row of a symbol has no step to the next")
    common, share = _most_common(steps)
    interval = _of_step(common)
    sure = share * len(steps) >= _TWICE or named is interval
    clear = interval is not None and sure and (share >= _ENOUGH or _fits(steps, interval))
    if clear and interval is not None and named not in (None, interval):
        raise UnrecognisedFile(
            f"the name says {named}, but {share:.0%} of the steps between rows are {interval}: say --interval"
        )
    if clear and interval is not None:
        return Step(interval, f"the most common step, {share:.0%} of {len(steps):,}")
    return _by_name(named, f"the most common step between rows is {_spelled(common)}, {share:.0%} of {len(steps):,}")


def newest_first(symbols: Sequence[str] | None, times: np.ndarray) -> bool:
    """Whether most rows of a symbol come before older ones."""
    return bool(np.sign(_differences(symbols, times)).sum() < 0)


def named_interval(stem: str) -> Interval | None:
    """The interval that a file's name ends with or holds as a part: `AAPL_1m`, `BTCUSDT-1m-2024-01`."""
    found = {BY_WORD[part.lower()] for part in re.split(r"[-_. ]", stem)[1:] if part.lower() in BY_WORD}
    return found.pop() if len(found) == 1 else None


def _by_name(named: Interval | None, problem: str) -> Step:
    if named is None:
        raise UnrecognisedFile(f"the interval of the bars is not clear: {problem}. Say it with --interval", more=True)
    return Step(named, "the file's name")


def _steps(symbols: Sequence[str] | None, times: np.ndarray) -> np.ndarray:
    steps: np.ndarray = np.abs(_differences(symbols, times))
    return steps[steps > 0]


def _differences(symbols: Sequence[str] | None, times: np.ndarray) -> np.ndarray:
    """From each row to the next one of its symbol."""
    if symbols is None:
        return np.asarray(np.diff(times))
    codes = np.unique(np.asarray(symbols), return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    return np.asarray(np.diff(times[order])[np.diff(codes[order]) == 0])


def _most_common(steps: np.ndarray) -> tuple[int, float]:
    days = steps // DAY_NS
    if np.mean((days >= _MONTH_DAYS[0]) & (days <= _MONTH_DAYS[1])) >= _ENOUGH:
        steps = np.where((days >= _MONTH_DAYS[0]) & (days <= _MONTH_DAYS[1]), Interval.MO1.nanos, steps)
    values, counts = np.unique(_without_shifts(steps), return_counts=True)
    return int(values[counts.argmax()]), float(counts.max() / counts.sum())


def _without_shifts(steps: np.ndarray) -> np.ndarray:
    """Days and weeks between local midnights are an hour shorter or longer where the clocks change."""
    days = np.rint(steps / DAY_NS).astype(np.int64) * DAY_NS
    return np.where((days >= DAY_NS) & (np.abs(steps - days) <= DAY_NS // 24), days, steps)


def _of_step(step: int) -> Interval | None:
    return next((interval for interval in Interval if interval.nanos == step), None)


def _fits(steps: np.ndarray, interval: Interval) -> bool:
    """Whether the steps could all be between bars of that interval, some of which are missing."""
    if interval is Interval.MO1:
        return bool((steps >= 28 * DAY_NS).all())
    return bool((_without_shifts(steps) % interval.nanos == 0).all())


def _spelled(step: int) -> str:
    seconds = step / 1e9
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
