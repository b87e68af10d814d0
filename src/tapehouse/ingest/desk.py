"""Where live records come in: each arrival is checked, its repeats dropped, and the rest appended to the log.

Arrivals of one source are taken one after the other, those of different sources beside each other. Which numbers each
source had reached is read back from the log at the start, so that it cannot disagree with what is there.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.bus.base import Bus, partition_of
from tapehouse.codec.live.channels import REJECTED, bars
from tapehouse.codec.live.entries import Entry, make_entry
from tapehouse.errors import InvalidRequest
from tapehouse.ingest.base import Arrival, Receipt, Rejected, SourceState
from tapehouse.ingest.checks import Conform, Split, Window, split
from tapehouse.ingest.sequences import Checked, Sequence
from tapehouse.ingest.sources import Source, Sources
from tapehouse.model import Position

GROUP = "ingest"
EXAMPLES = 10
KEPT_REJECTED = 1_000
CHECKPOINT_ENTRIES = 20_000
"""Entries between two notes of the sequence numbers: so many are read back at the start, at most."""


class Desk:
    """See `Ingest`. `conform` holds records to the store's rules; `clock` gives UTC nanoseconds."""

    def __init__(
        self, bus: Bus, conform: Conform, *, window: Window | None = None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._bus, self._conform, self._window, self._clock = bus, conform, window or Window(), clock
        self._sources = Sources()
        self._rejected: deque[Rejected] = deque(maxlen=KEPT_REJECTED)
        self._partitions: dict[str, int] = {}
        self._since_checkpoint = 0
        self._lock = threading.Lock()
        self._remember()

    def _remember(self) -> None:
        """Learn from the log which numbers each source had reached."""
        committed = self._bus.committed(GROUP)
        if committed.state is not None:
            self._sources.decode(committed.state)
        for partition in range(self._bus.partitions):
            after = committed.positions.get(partition)
            while entries := self._bus.read(partition, after).entries:
                for logged in entries:
                    self._recall(partition, logged.entry)
                after = entries[-1].position

    def _recall(self, partition: int, entry: Entry) -> None:
        source = self._sources[entry.source]
        if entry.channel == REJECTED:
            self._rejected.extend(msgspec.json.decode(entry.body, type=list[Rejected]))
        if entry.last is None or (entry.session != source.numbers.session and entry.ingested < source.numbers.seen):
            return
        numbers = source.session(entry.session, entry.ingested)
        if entry.channel == REJECTED:
            numbers.reach(entry.last)
        else:
            numbers.note(partition, entry.last)

    def take(self, arrival: Arrival) -> Receipt:
        """See `Ingest.take`."""
        now = self._clock()
        found = split(arrival.kind, arrival.table, arrival.interval, arrival.source, now, self._window, self._conform)
        source = self._sources[arrival.source]
        with source.taking:
            source.heard = now
            partitions = self._partitions_of(found.good)
            numbers, checked = self._check(arrival, found, partitions, source, now)
            bad = self._set_aside(arrival, found.bad, numbers, now)
            positions = self._append(arrival, found.good, partitions, checked.new, numbers, now)
            if numbers is not None and arrival.table.num_rows:
                numbers.reach(_last(arrival))
            receipt = Receipt(
                accepted=int(np.count_nonzero(checked.new)),
                repeated=int(np.count_nonzero(~checked.new)),
                rejected=len(bad),
                late=found.late if checked.new.any() else 0,
                gap=checked.gap,
                next=None if numbers is None or numbers.last is None else numbers.last + 1,
                examples=bad[:EXAMPLES],
                positions=positions,
            )
            source.count(receipt)
        return receipt

    @staticmethod
    def _check(
        arrival: Arrival, found: Split, partitions: np.ndarray, source: Source, now: int
    ) -> tuple[Sequence | None, Checked]:
        """The numbers of the session, and which of the good rows are new."""
        if arrival.sequence is None:
            return None, Checked(np.ones(len(found.rows), bool), None)
        numbers = source.session(arrival.session, now)
        everywhere = np.zeros(arrival.table.num_rows, np.int64)
        everywhere[found.rows] = partitions
        checked = numbers.check(arrival.sequence, everywhere)
        return numbers, checked._replace(new=checked.new[found.rows])

    def _append(
        self,
        arrival: Arrival,
        good: pa.Table,
        partitions: np.ndarray,
        new: np.ndarray,
        numbers: Sequence | None,
        now: int,
    ) -> dict[int, Position]:
        """Append the new rows, partition by partition, each of which is noted as soon as the log has it."""
        positions = {}
        batch = _batch(good)
        for partition in np.unique(partitions[new]).tolist():
            rows = new & (partitions == partition)
            part = batch if rows.all() else batch.filter(pa.array(rows))
            entry = make_entry(
                _channel(arrival),
                part,
                arrival.source,
                now,
                first=arrival.sequence,
                last=None if arrival.sequence is None else _last(arrival),
                session=arrival.session,
            )
            (positions[partition],) = self._bus.append(partition, [entry])
            if numbers is not None:
                numbers.note(partition, _last(arrival))
        self._count_entries(len(positions))
        return positions

    def _partitions_of(self, table: pa.Table) -> np.ndarray:
        """The partition of each row; shape (rows,)."""
        if self._bus.partitions == 1 or not table.num_rows:
            return np.zeros(table.num_rows, np.int64)
        column = _batch(table).column("symbol")
        of_symbols = np.array([self._partition_of(symbol) for symbol in column.dictionary.to_pylist()])
        partitions: np.ndarray = of_symbols[column.indices.to_numpy()]
        return partitions

    def _partition_of(self, symbol: str) -> int:
        partition = self._partitions.get(symbol)
        if partition is None:
            partition = self._partitions[symbol] = partition_of(symbol, self._bus.partitions)
        return partition

    def _set_aside(self, arrival: Arrival, bad: list[Rejected], numbers: Sequence | None, now: int) -> list[Rejected]:
        """Keep bad records in the log, so that they are still there after a restart; before the good ones, since a
        source that is cut off in between sends all of them again. Those that were set aside before are not."""
        channel = _channel(arrival)
        new = [
            msgspec.structs.replace(one, source=arrival.source, channel=channel, at=now)
            for one in bad
            if numbers is None or not numbers.known((arrival.sequence or 0) + one.row)
        ]
        if new:
            entry = Entry(
                channel=REJECTED,
                source=arrival.source,
                ingested=now,
                rows=len(new),
                symbols=[],
                body=msgspec.json.encode(new),
                last=None if arrival.sequence is None else arrival.sequence + new[-1].row,
                session=arrival.session,
            )
            self._bus.append(0, [entry])
            self._rejected.extend(new)
        return new

    def _count_entries(self, entries: int) -> None:
        with self._lock:
            self._since_checkpoint += entries
            due = self._since_checkpoint >= CHECKPOINT_ENTRIES
            self._since_checkpoint *= not due
        if due:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Note the numbers of the sources beside the log, so that the next start reads less of it."""
        # What is appended between the two is read again at the next start, and says nothing new.
        ends = {partition: self._bus.ends(partition).last for partition in range(self._bus.partitions)}
        self._bus.commit(GROUP, ends, self._sources.encode())

    def beat(self, source: str, heartbeat_s: float | None = None) -> None:
        """See `Ingest.beat`."""
        if heartbeat_s is not None and not heartbeat_s > 0:
            raise InvalidRequest(
                f"heartbeat_s is a number of seconds above 0, not {heartbeat_s}", parameter="heartbeat_s"
            )
        found = self._sources[source]
        found.heard = self._clock()
        found.heartbeat_s = heartbeat_s or found.heartbeat_s

    def sources(self) -> list[SourceState]:
        """See `Ingest.sources`."""
        now = self._clock()
        return [source.state(now) for source in self._sources]

    def rejected(self, limit: int = 100) -> list[Rejected]:
        """See `Ingest.rejected`."""
        return list(self._rejected)[::-1][:limit]

    def counts(self) -> Mapping[str, int]:
        """See `Ingest.counts`."""
        total: Counter[str] = Counter()
        for source in self._sources:
            total.update(source.counts)
        return total


def _channel(arrival: Arrival) -> str:
    return str(arrival.kind) if arrival.interval is None else bars(arrival.interval)


def _last(arrival: Arrival) -> int:
    rows: int = arrival.table.num_rows
    return (arrival.sequence or 0) + rows - 1


def _batch(table: pa.Table) -> pa.RecordBatch:
    """The rows as one batch, names with one dictionary."""
    batches = table.unify_dictionaries().combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
