"""Rows in order as they are taken: from one read of the store or many, resampled or not, cut to a page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.errors import TapehouseError
from tapehouse.query.plan import Plan
from tapehouse.query.resampled import Resampling, with_stored
from tapehouse.store.base import Key, Reading, Selection

Read = Callable[[Selection], Reading]


@dataclass(frozen=True, slots=True)
class Segment:
    """Adjacent symbols of an answer that one read gives, or one symbol that is resampled (then `plan` is set)."""

    selection: Selection
    plan: Plan | None = None


def segments_of(selection: Selection, plans: Sequence[Plan], *, every: bool) -> list[Segment]:
    """What to read for an answer, ordered by symbol; `every` symbol of the store may be asked for."""
    plans = [found for found in plans if found.stored or found.used]
    segments = []
    for key, group in groupby(plans, key=lambda found: (found.symbol if found.used else None, found.start, found.end)):
        members = list(group)
        symbols = tuple(found.symbol for found in members)
        span = msgspec.structs.replace(selection, symbols=symbols, start=key[1], end=key[2])
        segments.append(Segment(span, members[0] if members[0].used else None))
    if every and len(segments) == 1 and segments[0].plan is None:
        segments = [Segment(msgspec.structs.replace(segments[0].selection, symbols=None))]
    return segments


class Rows:
    """The rows of the segments, one after the other, from after a key on; at most `wanted` of them are taken."""

    def __init__(
        self, read: Read, segments: Sequence[Segment], *, after: Key | None, wanted: int | None, extras: bool
    ) -> None:
        self._read = read
        self._segments = segments
        self._after = after
        self._wanted = wanted
        self._extras = extras
        self._reading: Reading | None = None

    def open_newest(self) -> int | None:
        """Read a single plain segment as of now: its commit, or None when there is more to read than that."""
        if len(self._segments) != 1 or self._segments[0].plan is not None:
            return None
        self._reading = self._open(self._segments[0].selection, as_of=None)
        return self._reading.commit

    def batches(self) -> Generator[pa.RecordBatch, None, None]:
        """The rows, read as they are taken."""
        for segment in self._segments:
            for batch in self._resampled(segment) if segment.plan else self._stored(segment):
                yield batch
                if self._wanted is not None:
                    self._wanted -= batch.num_rows
            if self._wanted is not None and self._wanted <= 0:
                return

    def close(self) -> None:
        """Let go of the reading that is open."""
        if self._reading is not None:
            self._reading.close()

    def _stored(self, segment: Segment) -> Iterator[pa.RecordBatch]:
        if self._reading is None:
            self._reading = self._open(segment.selection, as_of=segment.selection.as_of)
        reading, self._reading = self._reading, None
        with reading:
            for batch in reading:
                yield with_stored(batch) if self._extras else batch

    def _open(self, selection: Selection, *, as_of: int | None) -> Reading:
        return self._read(msgspec.structs.replace(selection, as_of=as_of, limit=self._wanted, after=self._after))

    def _resampled(self, segment: Segment) -> Iterator[pa.RecordBatch]:
        assert segment.plan is not None
        selection, after = segment.selection, self._after
        if after is not None and segment.plan.symbol < after.symbol:
            return iter(())
        plan = segment.plan
        if after is not None and plan.symbol == after.symbol:
            plan = plan.before(after.timestamp) if selection.newest_first else plan.since(after.timestamp + 1)
        return Resampling(self._read, selection, plan).batches(newest_first=selection.newest_first, limit=self._wanted)


class StoredAnswer:
    """The `Answer` to a request: batches that are read as they are taken, cut to a page.

    It can be iterated once. Closed while it is, by any thread, it waits for the batch that is being read, lets go of
    the store, and whoever goes on iterating gets a `TapehouseError`: rows that end early are not taken for all.
    """

    def __init__(
        self,
        schema: pa.Schema,
        commit: int,
        rows: Rows,
        *,
        made_from: Mapping[str, tuple[str, ...]],
        page: Pager | None = None,
    ) -> None:
        self.schema = schema
        self.commit = commit
        self.made_from = made_from
        self.next_page: str | None = None
        self._rows = rows
        self._page = page
        self._batches = rows.batches()
        self._closed = False
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        with closing(self):
            batches = self._taken()
            for batch in batches if self._page is None else self._page.cut(batches):
                if batch.num_rows:
                    columns = [batch[name] for name in self.schema.names]
                    yield pa.RecordBatch.from_arrays(columns, schema=self.schema)
            if self._page is not None:
                self.next_page = self._page.token

    def _taken(self) -> Iterator[pa.RecordBatch]:
        while (batch := self._next()) is not None:
            yield batch

    def _next(self) -> pa.RecordBatch | None:
        with self._lock:
            if self._closed:
                raise TapehouseError("this answer is closed")
            return next(self._batches, None)

    def table(self) -> pa.Table:
        """All rows at once."""
        return pa.Table.from_batches(list(self), schema=self.schema)

    def close(self) -> None:
        """Let go of what the answer pins; idempotent."""
        with self._lock:
            self._closed = True
            # Closing a generator that was not begun runs none of it, so what was opened for it is closed here.
            self._batches.close()
            self._rows.close()


class Pager:
    """Cuts rows (which come with their symbol and timestamp) to a page, and knows where it ended."""

    def __init__(self, limit: int, after: Key | None, encode: Callable[[Key], str]) -> None:
        self._left = limit
        self._last = after
        self._encode = encode
        self.token: str | None = None

    def cut(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows of the page; when there is one more, `token` is that of the next page."""
        for batch in batches:
            page = batch.slice(0, self._left)
            if page.num_rows:
                self._last = advance(self._last, page)
                self._left -= page.num_rows
            if page.num_rows < batch.num_rows and self._last is not None:
                self.token = self._encode(self._last)
                yield page
                return
            yield page


def advance(last: Key | None, batch: pa.RecordBatch) -> Key:
    """The key of the last row of a batch that comes after `last`."""
    symbols, times = batch["symbol"], batch["timestamp"].cast(pa.int64()).to_numpy()
    symbol, time = symbols[-1].as_py(), int(times[-1])
    same = (times == time) & (symbols.indices.to_numpy() == symbols.indices[-1].as_py())
    run = len(same) if same.all() else int(np.argmin(same[::-1]))
    goes_on = run == len(same) and last is not None and (last.symbol, last.timestamp) == (symbol, time)
    return Key(symbol, time, run + last.nth if goes_on and last is not None else run - 1)
