"""What is known of each series, kept in the store: looks are added, and what is stored can be looked at again."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from tapehouse.bulk.checks import grade
from tapehouse.bulk.checks.base import (
    COLLECTION,
    Checks,
    Example,
    Finding,
    Look,
    Quality,
    Tally,
    Validate,
    decode,
    encode,
    key,
    mark_stale,
)
from tapehouse.bulk.checks.inspection import COLUMNS, inspector
from tapehouse.bulk.checks.piece import MAX_EXAMPLES
from tapehouse.bulk.checks.quotes import outside_bars, outside_quotes
from tapehouse.bulk.checks.rules import RULES
from tapehouse.model import Instrument, Interval, Kind
from tapehouse.store.base import KeepsDocuments, Reading, Selection, Series, Versions

T = TypeVar("T")

DOCUMENTS_AT_ONCE = 1_000
SERIES_AT_ONCE = 100
"""Series that one inspection of what is stored has in hand; their documents are written together."""


class Keeps(KeepsDocuments, Protocol):
    """A store, of which this needs no more than to read."""

    def read(self, selection: Selection) -> Reading:
        """See `store.base.Store`."""

    def coverage(self, kind: Kind | None = None, symbols: Sequence[str] | None = None) -> list[Series]:
        """See `store.base.Store`."""


def record(store: KeepsDocuments, looks: Iterable[Look]) -> list[Quality]:
    """Add looks to what is kept of their series, durable when it returns; what is known of each of them now."""
    made: list[Quality] = []
    by_series = groupby(sorted(looks, key=_key), key=_key)
    for group in _batched(((name, list(each)) for name, each in by_series), DOCUMENTS_AT_ONCE):
        kept = store.documents(COLLECTION, [name for name, _ in group])
        new = {name: _with(kept.get(name), each) for name, each in group}
        store.put_documents(COLLECTION, {name: encode(quality) for name, quality in new.items()})
        made += new.values()
    return made


def _batched(items: Iterable[T], count: int) -> Iterator[list[T]]:
    remaining = iter(items)
    while some := list(islice(remaining, count)):
        yield some


def _key(look: Look) -> str:
    return key(look.symbol, look.kind, look.interval)


def _with(document: bytes | None, looks: list[Look]) -> Quality:
    return grade.quality([*(decode(document).looks if document else ()), *looks])


class KeepsVersions(KeepsDocuments, Versions, Protocol):
    """A store that keeps documents, and tells what became of rows since."""


def kept(
    store: KeepsVersions,
    *,
    kind: Kind | None = None,
    symbols: Sequence[str] | None = None,
    interval: Interval | None = None,
) -> Iterator[Quality]:
    """What is kept of the series, by symbol, kind and interval, and whether it is stale."""
    yield from mark_stale(_documented(store, kind, symbols, interval), store)


def _documented(
    store: KeepsDocuments, kind: Kind | None, symbols: Sequence[str] | None, interval: Interval | None
) -> Iterator[Quality]:
    wanted = None if symbols is None else set(symbols)
    for document in store.documents(COLLECTION).values():
        quality = decode(document)
        if _matches(quality, kind, interval) and (wanted is None or quality.symbol in wanted):
            yield quality


def _matches(series: Quality | Series, kind: Kind | None, interval: Interval | None) -> bool:
    return kind in (None, series.kind) and interval in (None, series.interval)


def assess(
    store: Keeps,
    instruments: Sequence[Instrument] = (),
    checks: Checks | None = None,
    *,
    kind: Kind | None = None,
    symbols: Sequence[str] | None = None,
    interval: Interval | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Quality]:
    """Look at what is stored, as far as `checks` say, and keep what is found instead of what was known before.

    Trades are also held against the quotes and bars of their time. Rows that went to quarantine are in no store, so
    their count stays; of a series that has no rows any more nothing else does. Reads in bounded pieces, each as of one
    commit; nothing when the checks say off. Once `stop` is set it ends: what is known of the series that it is at stays
    as it was.
    """
    checks, stop = checks or Checks(), stop or threading.Event()
    if checks.validate is Validate.OFF:
        return
    known = {_series_of(each): each for each in _documented(store, kind, symbols, interval)}
    series = [each for each in store.coverage(kind, symbols) if _matches(each, kind, interval)]
    series.sort(key=lambda each: (each.kind, each.interval or "", each.symbol))
    _forget(store, [known[gone] for gone in known.keys() - {_series_of(each) for each in series}])
    share = checks.sample_rows / max(1, sum(each.rows for each in series))
    if share >= 1:
        checks = replace(checks, validate=Validate.FULL)
    for (one_kind, one_interval), group in groupby(series, key=lambda each: (each.kind, each.interval)):
        for some in _batched(group, SERIES_AT_ONCE):
            rows = max(1, int(min(1.0, share) * sum(each.rows for each in some)))
            looks = _look(store, one_kind, one_interval, some, instruments, replace(checks, sample_rows=rows), stop)
            if looks is None:
                return
            yield from _keep(store, looks)


def _series_of(series: Quality | Series) -> tuple[str, Kind, Interval | None]:
    return series.symbol, series.kind, series.interval


def _forget(store: KeepsDocuments, gone: Sequence[Quality]) -> None:
    """Of series without a row keep how many went to quarantine."""
    new: dict[str, bytes | None] = {}
    for known in gone:
        name, quarantined = key(known.symbol, known.kind, known.interval), known.tally.quarantined
        look = Look(
            symbol=known.symbol,
            kind=known.kind,
            interval=known.interval,
            first=known.first,
            last=known.last,
            tally=Tally(quarantined=quarantined),
            batch=known.batch,
            commit=known.commit,
        )
        new[name] = encode(grade.quality([look])) if quarantined else None
    if new:
        store.put_documents(COLLECTION, new)


def _look(
    store: Keeps,
    kind: Kind,
    interval: Interval | None,
    series: Sequence[Series],
    instruments: Sequence[Instrument],
    checks: Checks,
    stop: threading.Event,
) -> list[Look] | None:
    """What is seen of these series as of one commit; None when it was stopped."""
    looking = inspector(checks, instruments, sum(each.rows for each in series))
    assert looking is not None
    names = ("symbol", "timestamp", *COLUMNS[kind], *(("adj_close",) if kind is Kind.BARS else ()))
    symbols = tuple(each.symbol for each in series)
    with store.read(Selection(kind=kind, interval=interval, symbols=symbols, columns=names)) as reading:
        for batch in reading:
            if stop.is_set():
                return None
            looking.inspect(kind, interval, pa.Table.from_batches([batch]))
    looks = looking.finish(commit=reading.commit)
    if kind is Kind.TRADES:
        looks = [_held_against_others(store, look, reading.commit) for look in looks if not stop.is_set()]
    return None if stop.is_set() else looks


def _keep(store: KeepsDocuments, looks: Sequence[Look]) -> list[Quality]:
    before = store.documents(COLLECTION, [_key(look) for look in looks])
    new = {_key(look): _instead(before.get(_key(look)), look) for look in looks}
    store.put_documents(COLLECTION, {name: encode(quality) for name, quality in new.items()})
    return list(new.values())


def _instead(document: bytes | None, look: Look) -> Quality:
    if document is None:
        return grade.quality([look])
    known = decode(document)
    tally = replace(look.tally, quarantined=known.tally.quarantined)
    return grade.quality([replace(look, tally=tally, batch=known.batch)])


def _held_against_others(store: Keeps, look: Look, commit: int) -> Look:
    """The look with the trades that are far from the quotes, or else from the finest bars, of the same time."""
    others = [each for each in store.coverage(symbols=[look.symbol]) if each.kind is not Kind.TRADES]
    quotes = [each for each in others if each.kind is Kind.QUOTES]
    bars = sorted((each for each in others if each.interval and not each.interval.by_calendar), key=_nanos)
    if not quotes and not bars:
        return look
    finding = _outside(store, look, (quotes or bars)[0], commit)
    if finding is None:
        return look
    findings = grade.add_findings((*look.findings, finding))
    return replace(look, findings=findings, tally=replace(look.tally, **grade.severities(findings)))


def _nanos(series: Series) -> int:
    return series.interval.nanos if series.interval else 0


def _outside(store: Keeps, look: Look, other: Series, commit: int) -> Finding | None:
    rule = RULES["outside-quotes" if other.kind is Kind.QUOTES else "outside-bars"]
    span = {"symbols": (look.symbol,), "start": look.first, "end": look.last + 1}
    early = max(0, _nanos(other))
    sides = ("bid", "ask") if other.kind is Kind.QUOTES else ("low", "high")
    trades = Selection(kind=Kind.TRADES, columns=("timestamp", "price"), as_of=commit, **span)  # type: ignore[arg-type]
    against = Selection(
        kind=other.kind,
        interval=other.interval,
        symbols=(look.symbol,),
        start=look.first - early if early else other.first,
        end=look.last + 1,
        columns=("timestamp", *sides),
        as_of=commit,
    )
    rows = 0
    examples: list[Example] = []
    for times, prices, stamps, low, high in _together(store, trades, against):
        if other.interval is None:
            at = np.flatnonzero(outside_quotes(times, prices, stamps, low, high))
        else:
            at = np.flatnonzero(outside_bars(times, prices, stamps, low, high, _nanos(other)))
        rows += len(at)
        for i in at[: MAX_EXAMPLES - len(examples)].tolist():
            beside = int(np.searchsorted(stamps, times[i], side="right")) - 1
            expected = f"near {low[beside]:.10g} to {high[beside]:.10g}, the {other.kind} of its time"
            examples.append(Example(int(times[i]), f"{prices[i]:.10g}", expected))
    if not rows:
        return None
    return Finding(
        rule=rule.code,
        severity=rule.severity,
        symbol=look.symbol,
        kind=look.kind,
        interval=None,
        count=rows,
        rows=rows,
        examples=tuple(examples),
    )


def _together(store: Keeps, trades: Selection, against: Selection) -> Iterator[tuple[np.ndarray, ...]]:
    """Trades with the other rows up to them and the one before: both are read once, a batch of each at a time."""
    with store.read(trades) as first, store.read(against) as second:
        left, right = _batches(first), _batches(second)
        mine, other = next(left, None), next(right, None)
        while mine is not None and other is not None:
            following = next(right, None) if other[0][-1] <= mine[0][-1] else None
            until = int(other[0][-1]) if following is not None else int(mine[0][-1])
            cut = int(np.searchsorted(mine[0], until, side="left" if following is not None else "right"))
            if cut:
                yield (*(column[:cut] for column in mine), *other)
            mine = [column[cut:] for column in mine] if cut < len(mine[0]) else next(left, None)
            if following is not None:
                other = [np.concatenate([a[-1:], b]) for a, b in zip(other, following, strict=True)]


def _batches(reading: Reading) -> Iterator[list[np.ndarray]]:
    for batch in reading:
        if batch.num_rows:
            yield [_numbers(column) for column in batch.columns]


def _numbers(column: pa.Array) -> np.ndarray:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return np.asarray(column.to_numpy(zero_copy_only=False))
