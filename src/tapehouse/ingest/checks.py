"""Good records from bad ones: by the rules of the store, row by row, so that a bad one never stops the others. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.errors import InvalidSymbol, InvalidTable
from tapehouse.ingest.base import Reason, Rejected
from tapehouse.model import SECOND_NS, Interval, Kind

Conform = Callable[[Kind, pa.Table, Interval | None, str | None], pa.Table]
"""`store.tables.conform`: the rules that stored rows keep."""

_BAD = (InvalidTable, InvalidSymbol)


class Window(NamedTuple):
    """Which times are taken, in seconds around now: no later than so much after it, no earlier than so much before."""

    future_s: float = 5.0
    late_s: float = 7 * 86_400.0
    grace_s: float = 10.0
    """Older ones than that are counted as late."""


class Split(NamedTuple):
    """The good rows as the store would have them, where they stood, how many of them are late; and the bad ones."""

    good: pa.Table
    rows: np.ndarray
    late: int
    bad: list[Rejected]


def split(
    kind: Kind, table: pa.Table, interval: Interval | None, source: str, now: int, window: Window, conform: Conform
) -> Split:
    """The records of a table, told apart.

    Raises `InvalidTable` when its columns cannot be records of that kind, whatever their values.
    """
    conform(kind, table.slice(0, 0), interval, source)
    rows = np.arange(table.num_rows)
    try:
        good, bad = conform(kind, table, interval, source), []
    except _BAD:
        messages = dict(_bad_rows(kind, table, interval, source, conform))
        bad = [_rejected(table, row, Reason.INVALID, message) for row, message in sorted(messages.items())]
        rows = np.setdiff1d(rows, list(messages))
        good = conform(kind, table.take(pa.array(rows)), interval, source)
    return _timely(table, good, rows, bad, now, window)


def _timely(table: pa.Table, good: pa.Table, rows: np.ndarray, bad: list[Rejected], now: int, window: Window) -> Split:
    times = good["timestamp"].to_numpy().view(np.int64)
    future = times > now + int(window.future_s * SECOND_NS)
    old = times < now - int(window.late_s * SECOND_NS)
    late = int(np.count_nonzero(times < now - int(window.grace_s * SECOND_NS)))
    if not (future.any() or old.any()):
        return Split(good, rows, late, bad)
    ahead = f"more than {window.future_s:g} s after this server's clock"
    behind = f"more than {window.late_s:g} s before this server's clock: load it as history"
    bad = [
        *bad,
        *(_rejected(table, int(row), Reason.FUTURE, ahead) for row in rows[future]),
        *(_rejected(table, int(row), Reason.TOO_LATE, behind) for row in rows[old]),
    ]
    kept = ~(future | old)
    return Split(good.filter(pa.array(kept)), rows[kept], late - int(old.sum()), sorted(bad, key=lambda one: one.row))


def _rejected(table: pa.Table, row: int, reason: Reason, message: str) -> Rejected:
    return Rejected(row=row, reason=reason, message=message, record=_shown(table, row))


def _shown(table: pa.Table, row: int) -> dict[str, Any]:
    """A row as JSON can hold it; times as texts, since Python's have no nanoseconds."""
    values = {}
    for name in table.column_names:
        scalar = table[name][row]
        plain = str(scalar) if pa.types.is_temporal(scalar.type) and scalar.is_valid else scalar.as_py()
        finite = not isinstance(plain, float) or np.isfinite(plain)
        values[name] = plain if finite else str(plain)
    return values


def _bad_rows(
    kind: Kind, table: pa.Table, interval: Interval | None, source: str, conform: Conform
) -> Iterator[tuple[int, str]]:
    """The bad rows and what is wrong with each: halves are looked at again until each bad row is alone."""
    rows = np.arange(table.num_rows)
    suspects = _suspects(table)
    parts = [rows[~suspects], *rows[suspects][:, None]]
    while parts:
        part = parts.pop()
        if not len(part):
            continue
        try:
            conform(kind, table.take(pa.array(part)), interval, source)
        except _BAD as exc:
            if len(part) == 1:
                yield int(part[0]), _about_row(exc.message)
            else:
                parts += np.array_split(part, 2)


def _suspects(table: pa.Table) -> np.ndarray:
    """Rows that are probably bad, found at once: with a value that is missing or no finite number."""
    found = np.zeros(table.num_rows, bool)
    for column in table.columns:
        if pa.types.is_floating(column.type):
            values = column.to_numpy()
            found |= ~np.isfinite(values) | (values < 0)
        elif column.null_count and column.null_count < len(column):
            found |= pc.is_null(column).to_numpy()
    return found


def _about_row(message: str) -> str:
    """What is wrong, without the number that the row had while it was looked at alone."""
    return message.removeprefix("row 0, ").removesuffix(" (rows are numbered from 0)")
