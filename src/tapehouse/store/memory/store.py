"""`memory://`: the store that lives as long as its process."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, count, islice
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import structs

from tapehouse.errors import Conflict, NotFound
from tapehouse.model import (
    MAX_TIME_NS,
    MIN_TIME_NS,
    PROVENANCE,
    SCHEMAS,
    Change,
    Commit,
    Instrument,
    Interval,
    Kind,
    OnConflict,
    check_order,
    read_schema,
)
from tapehouse.store.aggregate import aggregate_by_reading
from tapehouse.store.base import (
    Aggregation,
    Batch,
    Capability,
    Edges,
    LoggedWrite,
    Outcome,
    Reading,
    Recorded,
    Selection,
    Series,
    Undone,
)
from tapehouse.store.memory.records import (
    Delete,
    Identity,
    Records,
    Row,
    SeriesKey,
    Taken,
    Undos,
    Version,
    Written,
    identity_of,
    judge_key,
    to_rows,
)
from tapehouse.store.memory.undoing import dataset_order, effect, summarised
from tapehouse.store.met import met_of
from tapehouse.store.tables import (
    POSITIONS,
    check_interval,
    check_opening,
    check_positions,
    check_selection,
    check_zones,
    conform,
    conform_together,
)

Judged = dict[SeriesKey, dict[Identity, list[Written]]]
"""What becomes of each written row, by series and key."""

EXAMPLES = 10
"""Rows that an undo left, by name."""
_BATCH_ROWS = 65_536
_log = logging.getLogger(__name__)


class MemoryStore:
    """A store that lives as long as its process."""

    capabilities = frozenset(Capability) - {Capability.COMPACTS}

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._undos = Undos()
        self._series: dict[SeriesKey, Records] = {}
        self._commits: list[Commit] = []
        self._instruments: dict[str, Instrument] = {}
        self._documents: dict[str, dict[str, bytes]] = {}
        self._listeners: list[Callable[[Change], None]] = []
        # One writer at a time, its announcements included; `_lock` only guards the few lines that touch the rows, so
        # that a listener may wait for somebody who reads.
        self._writing = threading.RLock()
        self._lock = threading.RLock()

    def write(
        self,
        kind: Kind,
        table: pa.Table,
        *,
        interval: Interval | None = None,
        on_conflict: OnConflict = OnConflict.REPLACE,
        prefer: Sequence[str] = (),
        source: str | None = None,
        batch: str | None = None,
    ) -> Commit:
        """See `Store.write`."""
        conforming = conform(kind, table, interval, source)
        return self._write(kind, conforming, interval, on_conflict, prefer, batch)[0]

    def write_together(
        self,
        kind: Kind,
        tables: Sequence[pa.Table],
        *,
        interval: Interval | None = None,
        on_conflict: OnConflict = OnConflict.REPLACE,
        prefer: Sequence[str] = (),
        source: str | None = None,
        batch: str | None = None,
    ) -> tuple[Commit, list[Outcome]]:
        """See `WritesTogether.write_together`."""
        joined = conform_together(kind, tables, interval, source)
        commit, judged = self._write(kind, joined, interval, on_conflict, prefer, batch)
        starts = [0, *accumulate(table.num_rows for table in tables)]
        counts, codes = [Counter[str]() for _ in tables], np.zeros(starts[-1], np.int64)
        for keys in judged.values():
            for written in (one for found in keys.values() for one in found):
                counts[bisect_right(starts, written.place) - 1][written.verdict] += 1
                codes[written.place] = written.met
        met = met_of(kind, joined, [table.num_rows for table in tables], codes)
        return commit, [Outcome(**count, met=what) for count, what in zip(counts, met, strict=True)]

    def _write(
        self,
        kind: Kind,
        table: pa.Table,
        interval: Interval | None,
        on_conflict: OnConflict,
        prefer: Sequence[str],
        batch: str | None,
    ) -> tuple[Commit, Judged]:
        check_order(on_conflict, prefer)
        rows = to_rows(table)
        with self._writing:
            check_opening(table, interval, self._instruments.values())
            with self._lock:
                judged = self._judge(kind, interval, rows, on_conflict, prefer)
                commit, change = self._store(kind, interval, judged, batch)
            self._announce(change)
        return commit, judged

    def write_logged(
        self, writes: Sequence[LoggedWrite], before: Mapping[str, bytes | None], after: Mapping[str, bytes]
    ) -> list[Commit]:
        """See `KeepsUp.write_logged`."""
        conforming = [(each, conform(each.kind, each.table, each.interval)) for each in writes]
        with self._writing:
            check_positions(self.documents(POSITIONS), before)
            for each, table in conforming:
                check_opening(table, each.interval, self._instruments.values())
            with self._lock:
                made = [self._write_one(each, table) for each, table in conforming]
                self.put_documents(POSITIONS, after)
            for _, change in made:
                self._announce(change)
        return [commit for commit, _ in made]

    def _write_one(self, each: LoggedWrite, table: pa.Table) -> tuple[Commit, Change | None]:
        rows = to_rows(table)
        for row in rows:
            if row.get("ordinal") is not None:
                row["ordinal"] += self._next_ordinal(each, row)
        judged = self._judge(each.kind, each.interval, rows, each.on_conflict, ())
        return self._store(each.kind, each.interval, judged, None)

    def _next_ordinal(self, each: LoggedWrite, row: Row) -> int:
        """How many stored records equal this one, which has no id."""
        records = self._series.get(SeriesKey(each.kind, each.interval, row["symbol"]))
        if records is None:
            return 0
        equal = (identity_of(each.kind, {**row, "ordinal": number}) for number in count())
        return next(number for number, identity in enumerate(equal) if identity not in records.versions)

    def recorded(self) -> Recorded:
        """See `KeepsUp.recorded`."""
        with self._writing, self._lock:
            return Recorded(self.head(), self.documents(POSITIONS))

    def read(self, selection: Selection) -> Reading:
        """See `Store.read`."""
        with self._lock:
            as_of = check_selection(selection, self.head())
            rows = list(islice(self._select(selection, as_of), selection.limit))
        schema = read_schema(selection.kind, selection.columns)
        return Reading(schema, as_of, _batches(rows, schema))

    def latest(
        self,
        kind: Kind,
        symbols: Sequence[str] | None = None,
        *,
        interval: Interval | None = None,
        columns: tuple[str, ...] | None = None,
    ) -> pa.Table:
        """See `Store.latest`."""
        schema = read_schema(kind, columns)
        check_interval(kind, interval)
        with self._lock:
            names = self._symbols_of(kind, interval, symbols)
            selections = [Selection(kind=kind, interval=interval, symbols=(name,), newest_first=True) for name in names]
            rows = [row for one in selections for row in islice(self._select(one, self.head()), 1)]
        return pa.Table.from_batches(list(_batches(rows, schema)), schema=schema)

    def aggregate(self, selection: Selection, edges: Edges, aggregation: Aggregation) -> pa.Table:
        """See `Store.aggregate`."""
        return aggregate_by_reading(self.read, selection, edges, aggregation)

    def symbols(self) -> list[str]:
        """See `Store.symbols`."""
        return sorted({series.symbol for series in self.coverage()})

    def coverage(self, kind: Kind | None = None, symbols: Sequence[str] | None = None) -> list[Series]:
        """See `Store.coverage`."""
        covered = []
        with self._lock:
            for key, records in self._series.items():
                wanted = kind in (None, key.kind) and (symbols is None or key.symbol in symbols)
                if wanted and (found := records.read(self.head())):
                    first, last = found[0].row["timestamp"], found[-1].row["timestamp"]
                    covered.append(Series(**key._asdict(), first=first, last=last, rows=len(found)))
        kinds, intervals = list(Kind), [None, *Interval]
        return sorted(covered, key=lambda s: (s.symbol, kinds.index(s.kind), intervals.index(s.interval)))

    def delete(
        self,
        kind: Kind,
        symbols: Sequence[str],
        *,
        interval: Interval | None = None,
        start: int = MIN_TIME_NS,
        end: int = MAX_TIME_NS,
        batch: str | None = None,
    ) -> Commit:
        """See `Store.delete`."""
        check_interval(kind, interval)
        with self._writing:
            with self._lock:
                hidden = {
                    name: len(self._series[SeriesKey(kind, interval, name)].read(self.head(), start=start, end=end))
                    for name in self._symbols_of(kind, interval, symbols)
                }
                proposed = Commit(
                    number=self.head(),
                    recorded=self._recorded(),
                    kind=kind,
                    interval=interval,
                    batch=batch,
                    action="delete",
                    deleted=sum(hidden.values()),
                )
                commit, change = self._commit(proposed, {name for name, rows in hidden.items() if rows}, start, end)
                if change is not None:
                    self._hide(kind, interval, hidden, Delete(commit.number, start, end))
            self._announce(change)
        return commit

    def _hide(self, kind: Kind, interval: Interval | None, names: Iterable[str], delete: Delete) -> None:
        """Also where it hid nothing for now: an undo may bring back what is older, and that stays deleted."""
        for name in names:
            records = self._series[SeriesKey(kind, interval, name)]
            if any(delete.start <= identity[0] < delete.end for identity in records.versions):
                records.deletes.append(delete)

    def stats(self) -> dict[str, Any]:
        """See `Store.stats`."""
        with self._lock:
            versions = sum(len(found) for records in self._series.values() for found in records.versions.values())
        held = self.coverage()
        rows: Counter[tuple[Kind, Interval | None]] = Counter()
        for series in held:
            rows[series.kind, series.interval] += series.rows
        return {
            "store": "memory",
            "commit": self.head(),
            "symbols": len({series.symbol for series in held}),
            "rows": rows.total(),
            "versions": versions,
            "series": [{"kind": kind, "interval": interval, "rows": count} for (kind, interval), count in rows.items()],
        }

    def head(self) -> int:
        """See `Versions.head`."""
        return len(self._commits)

    def commit_at(self, time: int) -> int:
        """See `Versions.commit_at`."""
        with self._lock:
            return sum(commit.recorded <= time for commit in self._commits)

    def commits(self, *, after: int = 0, limit: int = 100) -> list[Commit]:
        """See `Versions.commits`."""
        with self._lock:
            return self._commits[max(after, 0) :][:limit]

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """See `Announces.subscribe`; the writer's thread calls the listener, whose errors are logged."""
        with self._lock:
            self._listeners = [*self._listeners, listener]
        return lambda: self._unsubscribe(listener)

    def instruments(self) -> list[Instrument]:
        """See `KeepsInstruments.instruments`."""
        with self._lock:
            return sorted(self._instruments.values(), key=lambda instrument: instrument.pattern)

    def put_instruments(self, instruments: Sequence[Instrument]) -> None:
        """See `KeepsInstruments.put_instruments`."""
        with self._writing, self._lock:
            after = self._instruments | {instrument.pattern: instrument for instrument in instruments}
            check_zones(self._instruments.values(), after.values(), self.coverage(Kind.BARS))
            self._instruments = after

    def documents(self, collection: str, keys: Sequence[str] | None = None) -> dict[str, bytes]:
        """See `KeepsDocuments.documents`."""
        with self._lock:
            held = self._documents.get(collection, {})
            return {key: held[key] for key in sorted(held if keys is None else held.keys() & set(keys))}

    def put_documents(self, collection: str, documents: Mapping[str, bytes | None]) -> None:
        """See `KeepsDocuments.put_documents`."""
        with self._lock:
            held = {**self._documents.get(collection, {}), **documents}
            self._documents[collection] = {key: content for key, content in held.items() if content is not None}

    def written(self, batch: str, kind: Kind, interval: Interval | None = None) -> Reading:
        """See `Audits.written`."""
        check_interval(kind, interval)
        schema = read_schema(kind, (*SCHEMAS[kind].names, *PROVENANCE))
        with self._lock:
            commits = {commit.number for commit in self._commits if commit.batch == batch}
            rows = [
                {"symbol": symbol, "commit": version.commit, **version.row}
                for symbol in self._symbols_of(kind, interval, None)
                for versions in self._series[SeriesKey(kind, interval, symbol)].versions.values()
                for version in versions
                if version.commit in commits
            ]
            return Reading(schema, self.head(), _batches(rows, schema))

    def batches(
        self, names: Sequence[str] | None = None, *, before: int | None = None, limit: int = 100
    ) -> list[Batch]:
        """See `Undoes.batches`."""
        with self._lock:
            found = summarised(self._commits, self._undos)
        wanted = [batch for batch in found if names is None or batch.name in names]
        return [batch for batch in wanted if before is None or batch.last_commit < before][:limit]

    def undo(self, batch: str) -> Undone:
        """See `Undoes.undo`."""
        with self._writing:
            with self._lock:
                parts = self._to_undo(batch)
                taken = {commit.batch for commit in self._commits}
                names = chain([f"undo-{batch}"], (f"undo-{batch}-{number}" for number in count(2)))
                name = next(name for name in names if name not in taken)
                made = [self._undo(dataset, commits, name) for dataset, commits in parts.items()]
            for _, change, _ in made:
                self._announce(change)
        commits = [commit for commit, _, _ in made]
        return Undone(
            batch=batch,
            commits=commits,
            removed=sum(commit.deleted for commit in commits),
            restored=sum(commit.inserted + commit.replaced for commit in commits),
            left=sum(commit.unchanged for commit in commits),
            examples=[(c.kind, c.interval, *row) for c, _, left in made for row in sorted(left)][:EXAMPLES],
        )

    def _to_undo(self, batch: str) -> dict[tuple[Kind, Interval | None], frozenset[int]]:
        """The commits of the batch that count, by data set."""
        members = sorted((commit for commit in self._commits if commit.batch == batch), key=dataset_order)
        if not members:
            raise NotFound(f"there is no batch {batch!r}", batch=batch)
        hidden = self._undos.hidden(self.head())
        counting: dict[tuple[Kind, Interval | None], frozenset[int]] = {}
        for commit in (commit for commit in members if commit.number not in hidden):
            dataset = commit.kind, commit.interval
            counting[dataset] = counting.get(dataset, frozenset()) | {commit.number}
        if not counting:
            (known,) = self.batches([batch])
            raise Conflict(
                f"batch {batch!r} is undone already, by {known.undone_by!r}; undo that to have it back",
                batch=batch,
                undone_by=known.undone_by,
            )
        return counting

    def _undo(
        self, dataset: tuple[Kind, Interval | None], commits: frozenset[int], name: str
    ) -> tuple[Commit, Change | None, list[tuple[str, int, int]]]:
        """Take back those commits to one data set, as the next commit."""
        own = {key: records for key, records in self._series.items() if (key.kind, key.interval) == dataset}
        touched = {key: times for key, records in own.items() if (times := records.touched(commits)) is not None}
        number = self.head() + 1
        self._undos.made[number] = commits
        for key, times in touched.items():
            own[key].undone.append(Taken(number, *times))
        found = effect({key: own[key] for key in touched}, self._undos, number)
        proposed = Commit(
            number=number, recorded=self._recorded(), kind=dataset[0], interval=dataset[1], batch=name, action="undo",
            **found.counts,
        )  # fmt: skip
        start, end = min(start for start, _ in touched.values()), max(end for _, end in touched.values())
        return *self._commit(proposed, {key.symbol for key in touched}, start, end), found.left

    def close(self) -> None:
        """See `Closes.close`; nothing is held."""

    def _symbols_of(self, kind: Kind, interval: Interval | None, symbols: Sequence[str] | None) -> list[str]:
        """The symbols asked for (None: all) that have such a series, sorted."""
        known = {key.symbol for key in self._series if (key.kind, key.interval) == (kind, interval)}
        return sorted(known if symbols is None else known & set(symbols))

    def _select(self, selection: Selection, as_of: int) -> Iterator[Row]:
        """The rows asked for, in order, without the limit."""
        for symbol in self._symbols_of(selection.kind, selection.interval, selection.symbols):
            if selection.after is not None and symbol < selection.after.symbol:
                continue
            records = self._series[SeriesKey(selection.kind, selection.interval, symbol)]
            found = records.read(as_of, selection.source, selection.start, selection.end)
            rows = [{"symbol": symbol, "commit": version.commit, **version.row} for version in found]
            yield from _after(selection, symbol, rows[::-1] if selection.newest_first else rows)

    def _judge(
        self, kind: Kind, interval: Interval | None, rows: list[Row], on_conflict: OnConflict, prefer: Sequence[str]
    ) -> Judged:
        """What becomes of each row."""
        incoming: Judged = {}
        for place, row in enumerate(rows):
            keys = incoming.setdefault(SeriesKey(kind, interval, row.pop("symbol")), {})
            keys.setdefault(identity_of(kind, row), []).append(Written(place, row, "rejected"))
        for series, keys in incoming.items():
            records = self._series.get(series) or Records(self._undos)
            for identity, candidates in keys.items():
                keys[identity] = judge_key(records, identity, candidates, on_conflict, prefer, self.head())
                differing = [each.place for each in keys[identity] if each.verdict in ("replaced", "rejected")]
                if on_conflict is OnConflict.ERROR and differing:
                    example = {"row": differing[0], "symbol": series.symbol, "timestamp": identity[0]}
                    raise Conflict(
                        f"{kind} of {series.symbol} at {identity[0]} ns differ from what is stored or from one another",
                        examples=[example],
                    )
        return incoming

    def _store(
        self,
        kind: Kind,
        interval: Interval | None,
        incoming: Judged,
        batch: str | None,
    ) -> tuple[Commit, Change | None]:
        """Add what is new as versions of the next commit."""
        judged = [(s, i, written) for s, keys in incoming.items() for i, found in keys.items() for written in found]
        new = [(s, i, written) for s, i, written in judged if written.verdict != "unchanged"]
        times = [identity[0] for _, identity, _ in new] or [0]
        counts = Counter(written.verdict for _, _, written in judged)
        proposed = Commit(
            number=self.head(),
            recorded=self._recorded(),
            kind=kind,
            interval=interval,
            batch=batch,
            inserted=counts["inserted"],
            replaced=counts["replaced"],
            unchanged=counts["unchanged"],
            rejected=counts["rejected"],
        )
        commit, change = self._commit(proposed, {s.symbol for s, _, _ in new}, min(times), max(times) + 1)
        for series, identity, written in new:
            versions = self._series.setdefault(series, Records(self._undos)).versions.setdefault(identity, [])
            versions.append(Version(commit.number, written.place, written.verdict == "rejected", written.row))
        return commit, change

    def _recorded(self) -> int:
        return self._commits[-1].recorded if self._commits else 0

    def _commit(self, proposed: Commit, symbols: set[str], start: int, end: int) -> tuple[Commit, Change | None]:
        """The next commit and what to announce; without symbols nothing changed, and the head stays."""
        if not symbols:
            return structs.replace(proposed, batch=None), None
        recorded = max(self._clock(), self._recorded() + 1)
        commit = structs.replace(proposed, number=self.head() + 1, recorded=recorded, start=start, end=end)
        self._commits.append(commit)
        return commit, Change(
            commit=commit.number,
            kind=commit.kind,
            interval=commit.interval,
            symbols=tuple(sorted(symbols)),
            start=start,
            end=end,
        )

    def _announce(self, change: Change | None) -> None:
        if change is None:
            return
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:  # noqa: BLE001 the write stands, and the next listener has a right to hear of it
                _log.exception("a listener failed on %s", change)

    def _unsubscribe(self, listener: Callable[[Change], None]) -> None:
        with self._lock:
            self._listeners = [known for known in self._listeners if known is not listener]


def _after(selection: Selection, symbol: str, rows: list[Row]) -> Iterator[Row]:
    """The rows of one symbol that come after the place where the page before ended."""
    after = selection.after
    if after is None or symbol != after.symbol:
        yield from rows
        return
    nth, before = -1, None
    for row in rows:
        nth, before = (nth + 1 if row["timestamp"] == before else 0), row["timestamp"]
        further = row["timestamp"] < after.timestamp if selection.newest_first else row["timestamp"] > after.timestamp
        if further or (row["timestamp"] == after.timestamp and nth > after.nth):
            yield row


def _batches(rows: list[Row], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), _BATCH_ROWS):
        part = rows[start : start + _BATCH_ROWS]
        arrays = [pa.array([row.get(field.name) for row in part], field.type) for field in schema]
        yield pa.record_batch(arrays, schema=schema)
