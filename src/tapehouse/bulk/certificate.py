"""Whether the store has what the files have: docs/design/loads.md says what exactly is certified.

The rows of a load are hashed while they are parsed, summed by kind, interval and symbol (`codec.content`), and again as
the store gives them back. What the store had already ("unchanged") is read back by key as soon as it says so, since no
commit tells later which rows these were.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.bulk.base import BATCHES_FOUND, CERTIFICATES, Certificate, Counts, SeriesCertificate
from tapehouse.bulk.journal import Tally, Unchanged
from tapehouse.bulk.run.batches import with_source
from tapehouse.bulk.run.standing import Holders, Span, standing
from tapehouse.codec.content import FORMULA, Sum, Sums, add_to, by_symbol, hashes_of, keys_of, sums_of
from tapehouse.errors import NotFound, NotSupported, StoreDamaged
from tapehouse.model import SCHEMAS, Interval, Kind
from tapehouse.store.base import Capability, Reading, Selection

NAMED = 10

Series = tuple[Kind, Interval | None]


def can_certify(store: Any) -> bool:
    """Whether the store can show what a batch brought, and when."""
    return {Capability.AUDITS, Capability.VERSIONS} <= set(getattr(store, "capabilities", ()))


class Auditor:
    """Reads back what a load wrote as its commits, which come after commit `first`; what it finds goes to `tally`."""

    def __init__(self, store: Any, batch: str, first: int, tally: Tally) -> None:
        self._store, self._batch, self._first, self._tally = store, batch, first, tally
        self._listed, self._commits = first, list[int]()
        self._holders = Holders(store, BATCHES_FOUND)

    def unchanged(self, series: Series, rows: Sequence[tuple[str, pa.Table]], count: int) -> None:
        """`count` of these rows (by source), as they were just written, were in the store already: find them there."""
        tables = [with_source(table, source) for source, table in rows]
        table = pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()
        mine = self._mine()
        new = sorted(set(mine) - set(self._tally.commits))
        found = _Search(series[0], table.to_batches()[0], mine, new)
        found.look(self._read(series, table, None))
        for source in found.sources_missing():
            found.look(self._read(series, table, source), only_missing=True)
        lost = found.not_accounted(count)
        if lost and (lost < found.missing or len(new) > 1):
            found.look(self._store.written(self._batch, *series), only_missing=True)
        self._holders.add(found.others, self._tally.found)
        kept = self._of(series)
        add_to(kept.sums, found.unchanged())
        kept.repeated += found.repeated()
        if found.not_accounted(count):
            add_to(kept.superseded, found.superseded())

    def _mine(self) -> list[int]:
        """The commits of this load; also those of a run that died before it could account for them."""
        while commits := self._store.commits(after=self._listed, limit=1_000):
            self._commits += [commit.number for commit in commits if commit.batch == self._batch]
            self._listed = commits[-1].number
        return self._commits

    def _read(self, series: Series, table: pa.Table, source: str | None) -> Reading:
        kind, interval = series
        times = table["timestamp"].to_numpy().view(np.int64)
        columns = [field.name for field in SCHEMAS[kind] if field.name != "ordinal"]
        selection = Selection(
            kind=kind,
            interval=interval,
            symbols=tuple(table["symbol"].chunk(0).dictionary.to_pylist()),
            start=int(times.min()),
            end=int(times.max()) + 1,
            columns=(*columns, "commit"),
            source=source,
        )
        reading: Reading = self._store.read(selection)
        return reading

    def _of(self, series: Series) -> Unchanged:
        for each in self._tally.unchanged:
            if (each.kind, each.interval) == series:
                return each
        self._tally.unchanged.append(Unchanged(kind=series[0], interval=series[1]))
        return self._tally.unchanged[-1]

    def certificate(self, source: Mapping[Series, Sums], counts: Counts, head: int) -> Certificate:
        """What was read against what is there; kept when the store keeps documents."""
        found = [self._certified(series, sums, head) for series, sums in source.items()]
        certificate = Certificate(
            batch=self._batch,
            formula=FORMULA,
            checked=time.time_ns(),
            after=self._first,
            head=head,
            counts=counts,
            series=[each for part in found for each in part],
            found=self._tally.found,
        )
        if Capability.DOCUMENTS in self._store.capabilities:
            self._store.put_documents(CERTIFICATES, {self._batch: msgspec.json.encode(certificate)})
        return certificate

    def _certified(self, series: Series, source: Sums, head: int) -> Iterable[SeriesCertificate]:
        written, before = written_sums(self._store, self._batch, series, self._first, head), self._of(series)
        for symbol in sorted({*source, *written}):
            lost = before.superseded.get(symbol, Sum())
            held = before.sums.get(symbol, Sum())
            mine = written.get(symbol, Sum())
            read = source.get(symbol, Sum())
            yield SeriesCertificate(
                kind=series[0],
                interval=series[1],
                symbol=symbol,
                rows=read.rows,
                source=hexadecimal(read.hash - lost.hash),
                stored_rows=mine.rows + held.rows,
                stored=hexadecimal(mine.hash + held.hash),
                written=mine.rows,
                written_hash=hexadecimal(mine.hash),
                unchanged=held.rows,
                superseded=lost.rows,
            )


class _Search:
    """Rows of one table, looked for in the store. A key is a row's hash and symbol; rows may share one."""

    def __init__(self, kind: Kind, rows: pa.RecordBatch, mine: Sequence[int], new: Sequence[int]) -> None:
        """`mine` are the load's commits, `new` those that are not accounted for yet: the one that wrote the rows."""
        self._kind, self._rows, self._mine_, self._new_ = kind, rows, list(mine), list(new)
        self._hashes = hashes_of(kind, rows)
        keys = keys_of(self._hashes, rows.column("symbol"))
        self._keys, self._first, self._counts = np.unique(keys, return_index=True, return_counts=True)
        self._new, self._old, self._own = np.zeros((3, len(self._keys)), np.int64)
        self.others = set[int]()
        """The commits of other batches that have some of the rows."""

    def look(self, reading: Reading, *, only_missing: bool = False) -> None:
        """Count the rows of a reading that are among ours: of new commits, of older ones, of any of the load."""
        wanted = self._missing() if only_missing else np.ones(len(self._keys), bool)
        for batch in reading:
            if batch.num_rows == 0:
                continue
            keys = keys_of(hashes_of(self._kind, batch), batch.column("symbol"))
            places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            known = (self._keys[places] == keys) & wanted[places]
            commits = batch.column("commit").to_numpy()
            new = np.isin(commits, self._new_)
            np.add.at(self._new, places[known & new], 1)
            np.add.at(self._old, places[known & ~new], 1)
            own = np.isin(commits, self._mine_)
            np.add.at(self._own, places[known & own], 1)
            self.others.update(np.unique(commits[known & ~own]).tolist())

    def _missing(self) -> np.ndarray:
        return np.asarray((self._new + self._old) == 0)

    @property
    def missing(self) -> int:
        """Rows that were not found."""
        return int(self._counts[self._missing()].sum())

    def sources_missing(self) -> list[str]:
        """The sources of rows that were not found: other sources' rows are current there."""
        rows = self._rows.column("source").take(pa.array(self._first[self._missing()]))
        return sorted(set(rows.to_pylist()))

    def _repeats(self) -> np.ndarray:
        """Of each key, the rows that the store had before, or that an equal one of the same commit stands for."""
        return np.where(self._missing(), 0, np.maximum(self._counts - self._new, 0))

    def repeated(self) -> int:
        """How many unchanged rows the load itself had brought."""
        return int(self._repeats()[self._own > 0].sum())

    def not_accounted(self, count: int) -> int:
        """How many of `count` unchanged rows are not accounted for."""
        return max(0, count - int(self._repeats().sum()))

    def unchanged(self) -> Sums:
        return self._sums(self._repeats())

    def superseded(self) -> Sums:
        """Rows that were in the store, but not as the newest of their source and key."""
        return self._sums(np.where(self._missing(), self._counts, 0))

    def _sums(self, counts: np.ndarray) -> Sums:
        some = np.flatnonzero(counts)
        if len(some) == 0:
            return {}
        first, times = self._first[some], counts[some]
        symbols = self._rows.column("symbol").take(pa.array(first))
        return by_symbol(symbols, self._hashes[first] * times.astype(np.uint64), times)


def written_sums(
    store: Any, batch: str, series: Series, first: int, last: int, see: Callable[[pa.RecordBatch], None] | None = None
) -> Sums:
    """The sums of what commits of the batch, after `first` and up to `last`, stored: read back from the store.

    `see` is shown these rows, in another thread.
    """

    def summed(part: pa.RecordBatch) -> Sums:
        commits = part.column("commit").to_numpy()
        inside = (commits > first) & (commits <= last)
        part = part if inside.all() else part.filter(pa.array(inside))
        if see is not None:
            see(part)
        return sums_of(series[0], part)

    sums: Sums = {}
    with store.written(batch, *series) as parts, ThreadPoolExecutor(1, "tapehouse-hash") as pool:
        hashed: deque[Future[Sums]] = deque()
        for part in parts:  # one is hashed while the next is read
            hashed.append(pool.submit(summed, part))
            if len(hashed) > 1:
                add_to(sums, hashed.popleft().result())
        for each in hashed:
            add_to(sums, each.result())
    return sums


def hexadecimal(value: int) -> str:
    """A sum as it is kept."""
    return f"{value % 2**64:016x}"


def check(certificate: Certificate) -> Certificate:
    """The certificate itself; `StoreDamaged` when a series disagrees."""
    wrong = certificate.disagreeing
    if wrong:
        names = ", ".join(_said(each) for each in wrong[:NAMED]) + (" ..." if len(wrong) > NAMED else "")
        raise StoreDamaged(
            f"the store does not have what load {certificate.batch} read: {len(wrong)} of {len(certificate.series)} "
            f"series differ: {names}",
            batch=certificate.batch,
            symbols=[each.symbol for each in wrong],
        )
    return certificate


def _said(each: SeriesCertificate) -> str:
    return f"{each.symbol} ({each.rows:,} rows of {each.interval or each.kind} read, {each.stored_rows:,} found)"


def certificate_of(store: Any, batch: str) -> Certificate:
    """The certificate that the load of that batch made; `NotFound` when there is none."""
    if Capability.DOCUMENTS not in getattr(store, "capabilities", ()):
        raise NotSupported("this store keeps no certificates")
    kept = store.documents(CERTIFICATES, [batch])
    if not kept:
        raise NotFound(f"load {batch} has no certificate", batch=batch)
    return msgspec.json.decode(kept[batch], type=Certificate)


def certify(store: Any, batch: str) -> Certificate:
    """Read back again what the batch stored, and compare it with the certificate that its load made.

    Rows that the load found unchanged are another batch's, and were certified then. Its `standing` says how much of it
    all is current. Raises `StoreDamaged` naming the
    symbols that differ, `NotFound` without a certificate, and `NotSupported` for a store without audits.
    """
    kept = certificate_of(store, batch)
    if not can_certify(store):
        raise NotSupported("this store cannot show what a batch brought")
    found: dict[Series, Sums] = {}
    spans: dict[Series, Span] = {}
    checked = []
    for each in kept.series:
        series = (each.kind, each.interval)
        if series not in found:
            spans[series] = Span()
            found[series] = written_sums(store, batch, series, kept.after, kept.head, spans[series].add)
        now = found[series].get(each.symbol, Sum())
        stored = int(each.stored, 16) - int(each.written_hash, 16) + now.hash
        checked.append(
            msgspec.structs.replace(
                each,
                written=now.rows,
                written_hash=hexadecimal(now.hash),
                stored_rows=now.rows + each.unchanged,
                stored=hexadecimal(stored),
            )
        )
    checked_now = check(msgspec.structs.replace(kept, checked=time.time_ns(), series=checked))
    return msgspec.structs.replace(checked_now, standing=standing(store, checked_now, spans))
