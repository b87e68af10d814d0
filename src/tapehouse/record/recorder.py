"""Writes what the log has to the store, in batches by size and time; rows and position in one transaction.

Killed anywhere, it goes on after the position that the store has. A store that cannot be written to is tried again, for
as long as it takes: the log keeps what is not stored yet.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.bus.base import Bus, Logged, Membership
from tapehouse.codec.live.channels import METRICS, REJECTED, parse_channel
from tapehouse.codec.live.entries import Entry, table_of
from tapehouse.errors import Conflict, InvalidData, InvalidSymbol, TapehouseError
from tapehouse.failpoints import failpoint
from tapehouse.model import Commit, Kind, OnConflict, Position
from tapehouse.record.base import Progress, decode_position, encode_position
from tapehouse.store.base import KeepsUp, LoggedWrite

GROUP = "record"
FLUSH_ROWS = 100_000
FLUSH_S = 0.5
_PAUSE_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""How long it waits after so many failures in a row."""

log = logging.getLogger(__name__)


class Recorder:
    """See `Records`. One thread calls `step`, or `run`."""

    def __init__(self, bus: Bus, store: KeepsUp, *, flush_rows: int = FLUSH_ROWS, flush_s: float = FLUSH_S) -> None:
        self._bus, self._store = bus, store
        self._flush_rows, self._flush_s = flush_rows, flush_s
        self._membership: Membership = bus.join(GROUP)
        self._stored: dict[int, bytes | None] = {}
        self._progress = Progress()
        self._moved = threading.Condition()
        self._load_positions()

    def _load_positions(self) -> None:
        kept = self._store.recorded().positions
        self._stored = {partition: kept.get(str(partition)) for partition in range(self._bus.partitions)}
        self._note()

    def run(self, stop: threading.Event) -> None:
        """Record until told to stop; what fails is logged, and tried again."""
        failures = 0
        while not stop.is_set():
            try:
                self.step()
                failures = 0
            except TapehouseError as exc:
                pause_s = _PAUSE_S[min(failures, len(_PAUSE_S) - 1)]
                failures += 1
                self._fail(exc, pause_s, first=failures == 1)
                stop.wait(pause_s)
        self._membership.leave()

    def _fail(self, exc: TapehouseError, pause_s: float, *, first: bool) -> None:
        if first:
            log.error("cannot record: %s; trying again every so often", exc)
        since = self._progress.since or time.time_ns()
        self._progress = msgspec.structs.replace(self._progress, error=str(exc), since=since)
        if isinstance(exc, Conflict):
            self._load_positions()  # another one recorded this partition meanwhile

    def step(self) -> int:
        """Write one batch, once there is enough of it or it is old enough; how many rows."""
        partitions = sorted(self._membership.partitions())
        taken = self._take(partitions)
        failpoint("record.taken")
        if not taken:
            return 0
        rows = self._write(taken)
        failpoint("record.written")
        return rows

    def _take(self, partitions: list[int]) -> dict[int, list[Logged]]:
        """Entries of each partition after its position, waited for until they are enough."""
        taken: dict[int, list[Logged]] = {}
        rows, due_s = 0, time.monotonic() + self._flush_s
        while rows < self._flush_rows and (left_s := due_s - time.monotonic()) > 0:
            for partition in partitions:
                held = taken.get(partition, [])
                after = held[-1].position if held else self._position(partition)
                piece = self._bus.read(partition, after, wait_s=max(0.0, left_s / len(partitions)))
                if piece.lost is not None:
                    self._lose(partition, after, piece.lost.first)
                if piece.entries:
                    taken[partition] = held + piece.entries
                    rows += sum(logged.entry.rows for logged in piece.entries)
            if not partitions:
                time.sleep(left_s)
        return taken

    def _position(self, partition: int) -> Position | None:
        kept = self._stored[partition]
        return None if kept is None else decode_position(kept)

    def _lose(self, partition: int, after: Position | None, first: Position) -> None:
        log.error(
            "partition %d of the log has lost what came after %s; recording goes on at %s", partition, after, first
        )
        self._progress = msgspec.structs.replace(self._progress, lost=self._progress.lost + 1)

    def _write(self, taken: dict[int, list[Logged]]) -> int:
        try:
            return self._commit(taken)
        except (InvalidData, InvalidSymbol):
            parts = ((partition, logged) for partition, entries in taken.items() for logged in entries)
            return sum(self._write_one(partition, logged) for partition, logged in parts)

    def _write_one(self, partition: int, logged: Logged) -> int:
        """Write one entry, or set it aside when it is by now against the store's rules."""
        try:
            return self._commit({partition: [logged]})
        except (InvalidData, InvalidSymbol) as exc:
            entry = logged.entry
            log.error("the store refuses %d %s of %s: %s", entry.rows, entry.channel, entry.source, exc)
            self._set_aside(entry, str(exc))
            return self._commit({partition: [Logged(logged.position, _nothing(entry))]})

    def _commit(self, taken: dict[int, list[Logged]]) -> int:
        """Rows and positions in one transaction."""
        before = {str(partition): self._stored[partition] for partition in taken}
        after = {str(partition): encode_position(entries[-1].position) for partition, entries in taken.items()}
        given, derived = _writes([logged.entry for entries in taken.values() for logged in entries])
        if {(each.kind, each.interval) for each in given} & {(each.kind, each.interval) for each in derived}:
            # A bar that its source made goes before ours, and so first. Bars can be written twice.
            self._store.write_logged([each for each in given if each.kind is Kind.BARS], before, {})
            given = [each for each in given if each.kind is not Kind.BARS]
        commits = self._store.write_logged([*given, *derived], before, after)
        for partition in taken:
            self._stored[partition] = after[str(partition)]
        self._count(commits)
        return sum(commit.inserted + commit.replaced for commit in commits)

    def _set_aside(self, entry: Entry, message: str) -> None:
        rows = [
            {"row": row, "reason": "invalid", "message": message, "record": record, "source": entry.source,
             "channel": entry.channel, "at": entry.ingested}
            for row, record in enumerate(_plain(table_of(entry)))
        ]  # fmt: skip
        body = msgspec.json.encode(rows)
        aside = msgspec.structs.replace(entry, channel=REJECTED, symbols=[], body=body, first=None, last=None)
        self._bus.append(0, [aside])
        self._progress = msgspec.structs.replace(self._progress, set_aside=self._progress.set_aside + entry.rows)

    def _count(self, commits: Iterable[Commit]) -> None:
        made = list(commits)
        rows = self._progress.rows + sum(commit.inserted + commit.replaced for commit in made)
        number = self._progress.commits + sum(commit.start is not None for commit in made)
        self._progress = msgspec.structs.replace(self._progress, rows=rows, commits=number, error=None, since=None)
        self._note()

    def _note(self) -> None:
        positions = {p: decode_position(kept) for p, kept in self._stored.items() if kept is not None}
        with self._moved:
            self._progress = msgspec.structs.replace(self._progress, positions=positions)
            self._moved.notify_all()

    def progress(self) -> Progress:
        """See `Records.progress`."""
        return self._progress

    def wait(self, partition: int, position: Position, timeout_s: float) -> bool:
        """See `Records.wait`."""
        with self._moved:
            return self._moved.wait_for(lambda: self._reached(partition, position), timeout_s)

    def _reached(self, partition: int, position: Position) -> bool:
        held = self._progress.positions.get(partition)
        return held is not None and held >= position


def _writes(entries: list[Entry]) -> tuple[list[LoggedWrite], list[LoggedWrite]]:
    """A write for each kind and interval, rows in the order of the log: of what came in, and what was made of it."""
    given: dict[str, list[pa.Table]] = {}
    derived: dict[str, list[pa.Table]] = {}
    for entry in entries:
        if (table := _stored(entry)) is not None:
            tables = given if entry.made_from is None else derived
            tables.setdefault(entry.channel, []).append(table)
    own = [_joined(name, tables, OnConflict.OWN) for name, tables in derived.items()]
    return [_joined(name, tables, OnConflict.REPLACE) for name, tables in given.items()], own


def _joined(name: str, tables: list[pa.Table], on_conflict: OnConflict) -> LoggedWrite:
    kind, interval = Kind(name.partition(".")[0]), parse_channel(name).interval
    table = pa.concat_tables(tables, promote_options="default").unify_dictionaries()
    return LoggedWrite(kind=kind, table=table, interval=interval, on_conflict=on_conflict)


def _stored(entry: Entry) -> pa.Table | None:
    """What the store gets of an entry: of bars those whose time is over, of metrics nothing."""
    if entry.channel in (REJECTED, METRICS):
        return None
    table = pa.Table.from_batches([table_of(entry)])
    if "final" in table.column_names:
        table = table.filter(pc.fill_null(table["final"], True))
    table = table.drop_columns([name for name in ("final", "revision") if name in table.column_names])
    return table if table.num_rows else None


def _nothing(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, channel=REJECTED)


def _plain(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    place = rows.schema.get_field_index("timestamp")
    texts = rows.column("timestamp").cast(pa.string())
    plain: list[dict[str, Any]] = rows.set_column(place, "timestamp", texts).to_pylist()
    return plain
