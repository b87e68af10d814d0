"""What is held of a series, and what its calendar expects that is not there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from tapehouse.calendars import Timeline, timeline
from tapehouse.model import Instrument, Interval
from tapehouse.query.base import Coverage, Missing
from tapehouse.store.base import Reading, Selection, Series

Read = Callable[[Selection], Reading]


def coverage_of(read: Read, series: Series, instrument: Instrument, commit: int | None, spans: int) -> Coverage:
    """The coverage of one series; holds one batch of its timestamps and the newest `spans` gaps at a time."""
    line = timeline(instrument)
    selection = Selection(
        kind=series.kind,
        interval=series.interval,
        symbols=(series.symbol,),
        start=series.first,
        end=series.last + 1,
        columns=("timestamp",),
        as_of=commit,
    )
    if series.interval is None:
        expected, gaps = _sessions_without_rows(read, selection, line)
    else:
        expected, gaps = _bars_missing(read, selection, series, line, series.interval)
    newest: deque[Missing] = deque(maxlen=max(spans, 0))
    count = bars = 0
    for gap in gaps:
        newest.append(gap)
        count, bars = count + 1, bars + gap.bars
    return Coverage(
        symbol=series.symbol,
        kind=series.kind,
        interval=series.interval,
        first=series.first,
        last=series.last,
        rows=series.rows,
        calendar=instrument.calendar,
        expected=expected,
        missing_bars=bars,
        missing_spans=count,
        missing=list(reversed(newest)),
    )


def _bars_missing(
    read: Read, selection: Selection, series: Series, line: Timeline, interval: Interval
) -> tuple[int, Iterator[Missing]]:
    """How many bars are expected from the first to the last, and the spans between them that lack some, in order."""
    ends = line.label(interval, np.array([series.first, series.last]))
    expected = line.expected(interval, int(ends[0]), int(ends[1]) + 1)

    def gaps() -> Iterator[Missing]:
        before = ends[:1]
        for times in _times(read, selection):
            slots = np.concatenate([before, line.label(interval, times)])
            before = slots[-1:]
            # The stamps after one row's and before the next one's are numbers `first` to `last - 1`.
            first, last = expected.count_before(slots[:-1] + 1), expected.count_before(slots[1:])
            holes = np.flatnonzero(last > first)
            starts, stops = expected.at(first[holes]), expected.at(last[holes] - 1)
            for start, stop, bars in zip(starts.tolist(), stops.tolist(), (last - first)[holes].tolist(), strict=True):
                yield Missing(start=start, end=line.next_stamp(interval, stop), bars=bars)

    return len(expected), gaps()


def _times(read: Read, selection: Selection) -> Iterator[np.ndarray]:
    with read(selection) as reading:
        for batch in reading:
            if batch.num_rows:
                yield batch["timestamp"].cast(pa.int64()).to_numpy()


def _sessions_without_rows(read: Read, selection: Selection, line: Timeline) -> tuple[int, Iterator[Missing]]:
    """How many sessions there are from the first row to the last, and the runs of them that have no row, in order.

    Looks for the first row at or after each session, and so never reads the rows of a session but one.
    """
    days = line.days_between(selection.start, selection.end - 1)
    assert days.days is not None
    sessions = np.flatnonzero(np.isin(days.days[:-1], line.sessions(int(days.days[0]), int(days.days[-1])).days))

    def gaps() -> Iterator[Missing]:
        at = 0
        while at < len(sessions):
            opens = int(days.edges[sessions[at]])
            found = _first(read, selection, opens)
            # Sessions whose day ends at or before the row that was found have none.
            next_at = int(np.searchsorted(days.edges[sessions + 1], found, side="right"))
            if next_at > at:
                yield Missing(start=opens, end=int(days.edges[sessions[next_at - 1] + 1]), bars=next_at - at)
            at = next_at + (next_at < len(sessions) and int(days.edges[sessions[next_at]]) <= found)

    return len(sessions), gaps()


def _first(read: Read, selection: Selection, start: int) -> int:
    """The time of the first row at or after `start`; the end of the selection when there is none."""
    for times in _times(read, replace(selection, start=max(start, selection.start), limit=1)):
        return int(times[0])
    return selection.end
