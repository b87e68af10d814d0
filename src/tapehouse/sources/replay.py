"""Stored records once more, at the pace at which they came or any other.

`Merged` merges streams that are ordered by time, holding a piece or two of each; `ReplayFeed` gives out what is due. A
store's reading is ordered by symbol first, so that it is a stream when it is of one symbol. No I/O of their own, no
clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tapehouse.errors import InvalidData, InvalidRequest
from tapehouse.model import MAX_TIME_NS, SECOND_NS, TIMESTAMP, Interval, Kind
from tapehouse.sources.base import Batch

MAX_ROWS = 65_536
"""About how many records are given at once."""


class Stream(NamedTuple):
    """Records of one kind (and interval), ordered by time, in pieces that are taken when they are needed."""

    kind: Kind
    interval: Interval | None
    pieces: Iterable[pa.Table | pa.RecordBatch]

    @property
    def delay_ns(self) -> int:
        """How long after its stamp a record is known: a bar when it ends (days and longer count nominally)."""
        return 0 if self.interval is None else self.interval.nanos


class _Held:
    """What is held of a stream: rows, and when each is due."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._pieces: Iterator[pa.Table | pa.RecordBatch] = iter(stream.pieces)
        self.rows: pa.RecordBatch | None = None
        self.due = np.empty(0, np.int64)
        self.live = True

    def refill(self) -> None:
        """Take the next piece that has rows, after those that are held; without one the stream is `live` no more."""
        for piece in self._pieces:
            if piece.num_rows:
                self._append(_batch(piece))
                return
        self.live = False

    def _append(self, piece: pa.RecordBatch) -> None:
        due = piece.column("timestamp").cast(pa.int64()).to_numpy() + self.stream.delay_ns
        if (np.diff(due) < 0).any() or (len(self.due) and due[0] < self.due[-1]):
            raise InvalidData(f"a stream of {self.stream.kind} to replay is not ordered by time")
        self.rows = piece if self.rows is None else _joined([self.rows, piece])
        self.due = np.concatenate([self.due, due])

    def until(self, limit: int) -> int:
        """How many rows are due by then."""
        return int(np.searchsorted(self.due, limit, side="right"))

    def take(self, count: int) -> tuple[pa.RecordBatch, np.ndarray]:
        """The next rows and when they are due."""
        assert self.rows is not None
        taken = self.rows.slice(0, count), self.due[:count]
        self.due = self.due[count:]
        self.rows = self.rows.slice(count) if len(self.due) else None
        return taken


class Merged:
    """Streams in one order: by when records are due, then by the place of their stream, then as they come in it.

    Columns of streams of one kind and interval must be the same. Raises `InvalidData` for a stream that goes back.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._held = [_Held(stream) for stream in streams]
        # Each stream that holds rows is in `firsts` by its first, each that may bring more in `lasts` by its last.
        self._firsts: list[tuple[int, int]] = []
        self._lasts: list[tuple[int, int]] = []
        self._span = SECOND_NS  # so much of the records' time makes about enough rows
        for number in range(len(streams)):
            self._refill(number)

    def first_ns(self) -> int | None:
        """When the next record is due, in the time of the records; None: there is none."""
        return self._firsts[0][0] if self._firsts else None

    def take(self, limit: int, max_rows: int) -> list[Batch]:
        """Of the records due by then the next ones, one batch for each kind and interval; there may be more.

        They are `max_rows` at most, unless there are more of one time: none of these are left behind.
        """
        self._bring(limit, max_rows)
        if not self._firsts or self._firsts[0][0] > limit:
            return []
        first = self._firsts[0][0]
        reach = min(limit, first + 2 * self._span)
        # The next piece of a stream may begin with a record of the last one's time.
        end = min(reach, self._lasts[0][0] - 1) if self._lasts else reach
        touched = self._touch(end)
        while end > first and sum(self._held[number].until(end) for number in touched) > max_rows:
            reach = end = first + (end - first) // 2
            self._span = 0
        self._span = max(1, self._span, reach - first)
        parts: dict[tuple[Kind, Interval | None], list[tuple[pa.RecordBatch, np.ndarray]]] = {}
        for number in touched:
            held = self._held[number]
            if count := held.until(end):
                parts.setdefault((held.stream.kind, held.stream.interval), []).append(held.take(count))
            self._enter(number)
        return [Batch(kind, interval, _merge(found)) for (kind, interval), found in parts.items()]

    def _bring(self, limit: int, max_rows: int) -> None:
        """Refill streams of which the next record may not be held, and about `max_rows` that are soon to be given."""
        brought = 0
        while self._lasts and self._firsts and (last := self._lasts[0][0]) <= limit:
            first = self._firsts[0][0]
            if last > first and (brought >= max_rows or last > first + 2 * self._span):
                return
            brought += self._refill(heapq.heappop(self._lasts)[1])

    def _touch(self, limit: int) -> list[int]:
        """The numbers of the streams with rows until then, which leave `firsts`."""
        touched = []
        while self._firsts and self._firsts[0][0] <= limit:
            touched.append(heapq.heappop(self._firsts)[1])
        return sorted(touched)

    def _refill(self, number: int) -> int:
        """How many rows came."""
        held = self._held[number]
        before = len(held.due)
        held.refill()
        if held.live:
            heapq.heappush(self._lasts, (int(held.due[-1]), number))
        if not before:
            self._enter(number)
        return len(held.due) - before

    def _enter(self, number: int) -> None:
        if len(due := self._held[number].due):
            heapq.heappush(self._firsts, (int(due[0]), number))


class ReplayFeed:
    """The records of some streams, given out from `start_ns` on as their times pass.

    `speed` is in seconds of the records a second; None gives all as fast as they are asked for. With `shift`, records
    bear the times at which they are given; bars, whose times must stay whole, all move by one whole multiple of the
    longest interval among them, at speed 1 only. Raises `InvalidRequest` for a shift that cannot be.
    """

    heartbeat_s = None

    def __init__(
        self,
        streams: Sequence[Stream],
        *,
        start_ns: int,
        speed: float | None = 1.0,
        shift: bool = False,
        name: str = "replay",
        max_rows: int = MAX_ROWS,
    ) -> None:
        if speed is not None and not 0 < speed < float("inf"):
            raise InvalidRequest(f"speed is more than 0, or None for as fast as possible, not {speed}")
        intervals = [stream.interval for stream in streams if stream.interval is not None]
        _check_shift(shift, speed, intervals)
        self.name = name
        self._speed = None if speed is None else Fraction(str(speed))
        self._shift, self._start, self._max_rows = shift, start_ns, max_rows
        self._merged = Merged(streams)
        self._origin = self._merged.first_ns()
        self._whole = max((interval.nanos for interval in intervals), default=0)

    def next(self, now_ns: int) -> list[Batch]:
        """See `Feed.next`."""
        if (due := self.next_due_ns()) is None or due > now_ns:
            return []
        batches: list[Batch] = []
        rows, limit = 0, self._passed(now_ns)
        while rows < self._max_rows and (first := self._merged.first_ns()) is not None and first <= limit:
            batches += (taken := self._merged.take(limit, self._max_rows))
            rows += sum(batch.rows.num_rows for batch in taken)
        return [batch._replace(rows=self._shifted(batch)) for batch in batches] if self._shift else batches

    def next_due_ns(self) -> int | None:
        """See `Feed.next_due_ns`."""
        first = self._merged.first_ns()
        if first is None or self._speed is None or self._origin is None:
            return None if first is None else self._start
        return self._start + -(-(first - self._origin) * self._speed.denominator // self._speed.numerator)

    def _passed(self, now_ns: int) -> int:
        """The time of the records that it is by then."""
        if self._speed is None or self._origin is None:
            return MAX_TIME_NS
        return min(MAX_TIME_NS, self._origin + (now_ns - self._start) * self._speed // 1)

    def _shifted(self, batch: Batch) -> pa.RecordBatch:
        assert self._speed is not None
        assert self._origin is not None
        times = batch.rows.column("timestamp").cast(pa.int64()).to_numpy()
        if self._whole:
            times = times + (self._start - self._origin) // self._whole * self._whole
        else:
            times = self._start + _divided(times - self._origin, self._speed)
        place = batch.rows.schema.get_field_index("timestamp")
        return batch.rows.set_column(place, batch.rows.schema.field(place), pa.array(times).view(TIMESTAMP))


def _divided(times: np.ndarray, speed: Fraction) -> np.ndarray:
    """Nanoseconds divided by a speed and rounded up, exactly where the product fits int64 and as floats beyond."""
    if speed == 1:
        return times
    most = int(times.max(initial=0))
    if most * speed.denominator + speed.numerator <= MAX_TIME_NS:
        exact: np.ndarray = -(-times * speed.denominator // speed.numerator)
        return exact
    return np.ceil(times / float(speed)).astype(np.int64)


def _check_shift(shift: bool, speed: float | None, intervals: Sequence[Interval]) -> None:
    if not shift:
        return
    if speed is None:
        raise InvalidRequest("records cannot be shifted to when they are given without a speed")
    if intervals and speed != 1:
        raise InvalidRequest(f"bars can be shifted at speed 1 only, not {speed}: their times would not be whole")
    if any(interval.by_calendar for interval in intervals):
        raise InvalidRequest("bars of days and longer cannot be shifted: their times are midnights of a calendar")


def _merge(parts: Sequence[tuple[pa.RecordBatch, np.ndarray]]) -> pa.RecordBatch:
    rows = _joined([rows for rows, _ in parts])
    if len(parts) == 1:
        return rows
    return rows.take(pa.array(np.argsort(np.concatenate([due for _, due in parts]), kind="stable")))


def _joined(parts: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return parts[0] if len(parts) == 1 else _batch(pa.Table.from_batches(parts))


def _batch(piece: pa.Table | pa.RecordBatch) -> pa.RecordBatch:
    if isinstance(piece, pa.RecordBatch):
        return piece
    return piece.combine_chunks().to_batches()[0]
