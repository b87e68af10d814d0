"""The inspector: rows in any order and of any symbols become sorted pieces, which the checks look at.

    tables ──► the sample ──► a buffer ──► pieces, sorted by series and time ──► checks ──► looks

Memory is bounded by the buffer (`PIECE_ROWS`), plus a few rows and a few numbers for each series. No I/O.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tapehouse.bulk.checks import grade
from tapehouse.bulk.checks.base import Checks, Example, Finding, Inspector, Look, Tally, Validate
from tapehouse.bulk.checks.piece import LOOK_AHEAD, Ledger, Memory, Piece
from tapehouse.bulk.checks.prices import check_prices
from tapehouse.bulk.checks.quotes import check_quotes
from tapehouse.bulk.checks.rules import RULES
from tapehouse.bulk.checks.runs import check_spacing, check_stuck, check_volume, check_zero_volume, no_volume
from tapehouse.bulk.checks.sessions import ROUND_THE_CLOCK, Calendars, Check, session_check
from tapehouse.model import DAY_NS, HOUR_NS, MAX_TIME_NS, MIN_TIME_NS, MINUTE_NS, Instrument, Interval, Kind

PIECE_ROWS = 524_288
COLUMNS = {
    Kind.BARS: ("open", "high", "low", "close", "volume"),
    Kind.TRADES: ("price", "size"),
    Kind.QUOTES: ("bid", "bid_size", "ask", "ask_size"),
}
CHECKS: dict[Kind, tuple[Check, ...]] = {
    Kind.BARS: (check_prices, check_spacing, check_stuck, check_zero_volume, check_volume),
    Kind.TRADES: (check_prices, check_stuck, check_volume),
    Kind.QUOTES: (check_prices, check_stuck, check_quotes),
}

Stretch = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]
"""Series numbers, times and columns of rows, each of shape (n,)."""


def inspector(
    checks: Checks, instruments: Sequence[Instrument] = (), expected_rows: int | None = None
) -> Inspector | None:
    """What looks at rows as `checks` say; None when they say off.

    `expected_rows` is about how many will come, so that a sample is spread over all of them.
    """
    if checks.validate is Validate.OFF:
        return None
    sample = None if checks.validate is Validate.FULL else Sample(checks.sample_rows, expected_rows)
    return _Inspector(Calendars(instruments), sample)


def shares(total: int, rows: np.ndarray) -> np.ndarray:
    """A number of rows shared out by those that each series has, whole ones (the largest remainders get one more)."""
    weights = rows.astype(np.float64) + 1e-9
    exact = total * weights / weights.sum()
    whole: np.ndarray = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: total - int(whole.sum())]] += 1
    return whole


def span_nanos(interval: Interval | None) -> int | None:
    """The time that is inspected as a whole or not at all: hours of ticks, days of seconds, weeks of minutes; None: all
    rows of a symbol together."""
    if interval is None:
        return HOUR_NS
    if interval.by_calendar:
        return None
    return DAY_NS if interval.nanos < MINUTE_NS else 7 * DAY_NS if interval.nanos < 5 * MINUTE_NS else 56 * DAY_NS


class Sample:
    """Chooses spans of series by a hash of their names and times, so that neighbours stay together.

    The first span of each series is chosen while no more than half of the budget is used; of the others the share
    that three quarters of the budget allow. After that (when nobody knew how many rows come: after a half) the share
    is halved each time that half of what is left of the budget is used, so that the end is looked at too.
    """

    def __init__(self, rows: int, expected_rows: int | None) -> None:
        self._rows = rows
        all_fit = expected_rows is not None and expected_rows <= 0.75 * rows
        self._share = 1.0 if all_fit or not expected_rows else 0.75 * rows / expected_rows
        self._limit = 0.75 * rows if expected_rows else 0.5 * rows
        self._chosen = 0
        self.partial = self._share < 1

    def choose(self, seeds: np.ndarray, spans: np.ndarray, first: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Which runs of rows are inspected: by the seeds of their series, their spans, whether their span is the first
        of the series, and how many rows they have. All of shape (runs,)."""
        chosen = _uniform(seeds, spans) < self._share
        homes = np.cumsum(np.where(first & ~chosen, rows, 0)) + self._chosen <= self._rows / 2
        chosen |= first & homes
        chosen &= np.cumsum(np.where(chosen, rows, 0)) + self._chosen <= self._rows
        self._chosen += int(rows[chosen].sum())
        self.partial |= not chosen.all()
        while self._chosen > self._limit and self._limit < self._rows:
            self._share /= 2
            self._limit += max(1.0, (self._rows - self._limit) / 2)
            self.partial = True
        return np.asarray(chosen)


def _uniform(seeds: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) that look random (the finaliser of MurmurHash3)."""
    mixed = seeds.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ spans.astype(np.uint64)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(factor)
    return np.asarray((mixed >> np.uint64(11)) / 2.0**53)


class _Inspector:
    """One inspection of any number of series."""

    def __init__(self, calendars: Calendars, sample: Sample | None) -> None:
        self._calendars, self._sample = calendars, sample
        self._streams: dict[tuple[Kind, Interval | None], _Stream] = {}

    def inspect(self, kind: Kind, interval: Interval | None, table: pa.Table) -> None:
        """See `base.Inspector`."""
        if table.num_rows:
            self._stream(kind, interval).add(table)
        while sum(stream.waiting for stream in self._streams.values()) >= PIECE_ROWS:
            max(self._streams.values(), key=lambda stream: stream.waiting).flush()

    def quarantined(self, kind: Kind, interval: Interval | None, rows: int, symbol: str | None = None) -> None:
        """See `base.Inspector`."""
        self._stream(kind, interval).quarantined(rows, symbol)

    def finish(self, *, batch: str | None = None, commit: int = 0) -> list[Look]:
        """See `base.Inspector`."""
        looks = [look for stream in self._streams.values() for look in stream.finish(batch, commit)]
        return sorted(looks, key=lambda look: (look.symbol, look.kind, look.interval or ""))

    def _stream(self, kind: Kind, interval: Interval | None) -> _Stream:
        if (kind, interval) not in self._streams:
            self._streams[kind, interval] = _Stream(kind, interval, self._calendars, self._sample)
        return self._streams[kind, interval]


class _Stream:
    """All series of one kind and interval."""

    def __init__(self, kind: Kind, interval: Interval | None, calendars: Calendars, sample: Sample | None) -> None:
        self._kind, self._interval, self._calendars, self._sample = kind, interval, calendars, sample
        self._span = span_nanos(interval)
        self._numbers: dict[str, int] = {}
        self._seeds: list[int] = []
        self._names: list[str] = []
        self._memory, self._ledger = Memory(), Ledger()
        self._checks = (*CHECKS[kind], session_check(calendars))
        self._buffer: list[Stretch] = []
        self._kept: Stretch = _nothing(COLUMNS[kind])
        self._unplaced = 0
        self.waiting = 0

    def add(self, table: pa.Table) -> None:
        """Take in rows: count them, and keep those of the sample until there are enough for a piece."""
        series = self._series(table)
        times = table.column("timestamp").cast(pa.int64()).to_numpy()
        names = [name for name in (*COLUMNS[self._kind], "adj_close") if name in table.column_names]
        edges = np.flatnonzero(np.diff(series)) + 1
        starts = np.concatenate([[0], edges])
        seen = series[starts]
        np.add.at(self._memory.counts("rows"), seen, np.diff(np.append(starts, len(series))))
        np.minimum.at(self._memory.of("first", MAX_TIME_NS, np.int64), seen, np.minimum.reduceat(times, starts))
        np.maximum.at(self._memory.of("last", MIN_TIME_NS, np.int64), seen, np.maximum.reduceat(times, starts))
        columns = {name: table.column(name).to_numpy() for name in names}
        if self._sample is not None and (chosen := self._chosen(self._sample, series, times)) is not None:
            series, times = series[chosen], times[chosen]
            columns = {name: values[chosen] for name, values in columns.items()}
        if len(series):
            self._buffer.append((series, times, columns))
            self.waiting += len(series)

    def _series(self, table: pa.Table) -> np.ndarray:
        """The number of each row's series."""
        column = table.column("symbol")
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        chunk = column.unify_dictionaries().combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        chunk = chunk.chunk(0) if isinstance(chunk, pa.ChunkedArray) else chunk
        places = np.array([self._number(name) for name in chunk.dictionary.to_pylist()], np.int64)
        return np.asarray(places[chunk.indices.to_numpy()])

    def _number(self, symbol: str) -> int:
        number = self._numbers.get(symbol)
        if number is None:
            number = self._numbers[symbol] = len(self._names)
            self._names.append(symbol)
            self._seeds.append(zlib.crc32(f"{symbol} {self._kind} {self._interval}".encode()))
            self._memory.grow(number + 1)
            known = self._calendars.known(symbol)
            self._memory.counts("calendar")[number] = self._calendars.number(known or ROUND_THE_CLOCK)
            self._memory.of("known", 0, np.bool_)[number] = known is not None
        return number

    def _chosen(self, sample: Sample, series: np.ndarray, times: np.ndarray) -> np.ndarray | None:
        """A mask of the rows that are inspected; None for all."""
        spans = np.zeros(len(times), np.int64) if self._span is None else times // self._span
        starts = np.flatnonzero(np.concatenate([[True], (np.diff(series) != 0) | (np.diff(spans) != 0)]))
        lengths = np.diff(np.append(starts, len(series)))
        homes = self._memory.of("home", MIN_TIME_NS, np.int64)
        unseen, at = np.unique(series[starts], return_index=True)
        new = homes[unseen] == MIN_TIME_NS
        homes[unseen[new]] = spans[starts[at[new]]]
        first = homes[series[starts]] == spans[starts]
        seeds = np.array(self._seeds, np.uint64)[series[starts]]
        chosen = sample.choose(seeds, spans[starts], first, lengths)
        return None if chosen.all() else np.repeat(chosen, lengths)

    def quarantined(self, rows: int, symbol: str | None) -> None:
        if symbol is None:
            self._unplaced += rows
        else:
            number = self._number(symbol)
            self._memory.counts("quarantined")[number] += rows

    def flush(self) -> None:
        """Judge what waits, but for the last rows of each series, which may turn out different with what follows."""
        if not self.waiting:
            return
        new, self._buffer, self.waiting = self._buffer, [], 0
        here = np.zeros(self._memory.size, bool)
        for series, _, _ in new:
            starts = _starts(series)
            here[series[starts]] = True
            np.add.at(self._memory.counts("inspected"), series[starts], _lengths(starts, series))
        kept, self._kept = _split(self._kept, here[self._kept[0]])
        if any(self._late(part).any() for part in new):
            one, kept = self._in_order(_joined(new), kept)
            new = [one]
        stretch = _ordered(_joined([kept, *new]))
        if len(stretch[0]) > len(kept[0]):
            self._judge(stretch, final=False)
        elif len(kept[0]):
            self._kept = _ordered(_joined([self._kept, kept]))

    def _late(self, rows: Stretch) -> np.ndarray:
        """Which rows are earlier than what was judged of their series."""
        judged = self._memory.of("judged", MIN_TIME_NS, np.int64)[rows[0]]
        return np.asarray(rows[1] <= judged if self._kind is Kind.BARS else rows[1] < judged)

    def _in_order(self, new: Stretch, kept: Stretch) -> tuple[Stretch, Stretch]:
        """New rows that come after what was judged, and the rows that they follow.

        Where most of the new rows of a series are earlier (a file from new to old), they begin a stretch of their own;
        where a few are, these are counted and left.
        """
        late, size = self._late(new), self._memory.size
        mostly = 2 * np.bincount(new[0][late], minlength=size) > np.bincount(new[0], minlength=size)
        ended, kept = _split(kept, mostly[kept[0]])
        if len(ended[0]):
            self._judge(ended, final=True)
        self._memory.of("judged", MIN_TIME_NS, np.int64)[mostly] = MIN_TIME_NS
        few = late & ~mostly[new[0]]
        if few.any():
            stray, new = _split(new, few)
            stray = _ordered(stray)
            piece = self._whole(stray)
            self._ledger.add("out-of-order", piece, np.arange(len(piece)), lambda i: ("a row of this time", "earlier"))
        return new, kept

    def _judge(self, stretch: Stretch, *, final: bool) -> None:
        stretch = self._without_repeats(stretch)
        series, times, _ = stretch
        judged = self._memory.of("judged", MIN_TIME_NS, np.int64)
        starts = _starts(series)
        context = judged[series[starts]] == times[starts]
        piece = _piece(self._kind, self._interval, stretch, context, final)
        if self._sample is not None and self._sample.partial and self._span is not None:
            piece.linked[1:] &= np.abs(np.diff(times // self._span)) <= 1
        if piece.fresh.any():
            for check in self._checks:
                check(piece, self._memory, self._ledger)
        last = piece.last_fresh
        some = piece.fresh[last]
        judged[series[last[some]]] = times[last[some]]
        if not final:
            counts = starts + _lengths(starts, series) - last
            ahead = np.arange(counts.sum()) + np.repeat(last - np.cumsum(counts) + counts, counts)
            self._kept = _ordered(_joined([self._kept, _take(stretch, ahead)]))

    def _without_repeats(self, stretch: Stretch) -> Stretch:
        """Bars of one time once, as the last of them says; trades and quotes of one time are legitimate."""
        series, times, columns = stretch
        same = (series[1:] == series[:-1]) & (times[1:] == times[:-1])
        if not same.any():
            return stretch
        if self._kind is not Kind.BARS:
            return stretch
        equal = same.copy()
        for name in COLUMNS[self._kind]:
            equal &= columns[name][1:] == columns[name][:-1]
        piece = self._whole(stretch)
        one, other = np.flatnonzero(equal) + 1, np.flatnonzero(same & ~equal) + 1
        self._ledger.add("repeated-row", piece, one, lambda i: ("the same bar again", "one"))

        def differs(i: int) -> tuple[str, str]:
            return f"close {piece.price[other[i]]:.10g}", f"{piece.price[other[i] - 1]:.10g}, as the bar before it says"

        self._ledger.add("conflicting-rows", piece, other, differs)
        return _split(stretch, ~np.concatenate([same, [False]]))[0]

    def _whole(self, stretch: Stretch) -> Piece:
        """A piece by itself."""
        return _piece(self._kind, self._interval, stretch, np.zeros(len(_starts(stretch[0])), bool), True)

    def finish(self, batch: str | None, commit: int) -> list[Look]:
        """Judge the rest, and say what was seen of each series."""
        self.flush()
        if len(self._kept[0]):
            rest, self._kept = self._kept, _nothing(COLUMNS[self._kind])
            self._judge(rest, final=True)
        self._share_out_unplaced()
        rows = self._memory.counts("rows") + self._memory.counts("quarantined")
        return [self._look(number, batch, commit) for number in range(len(self._names)) if rows[number]]

    def _share_out_unplaced(self) -> None:
        """Bad rows of which nobody knows whose they are, by the rows of each series (largest remainders first)."""
        if not self._unplaced or not self._names:
            return
        self._memory.counts("quarantined")[:] += shares(self._unplaced, self._memory.counts("rows"))

    def _look(self, number: int, batch: str | None, commit: int) -> Look:
        symbol, counts = self._names[number], self._memory.counts
        found = self._findings(number)
        known = bool(self._memory.of("known", 0, np.bool_)[number] or self._memory.of("weekend", 0, np.bool_)[number])
        tally = Tally(
            rows=int(counts("rows")[number]),
            inspected=int(counts("inspected")[number]),
            quarantined=int(counts("quarantined")[number]),
            expected=int(counts("expected")[number]) if known else 0,
            missing=int(counts("missing")[number]) if known else 0,
            holes=sum(finding.rows for finding in found if RULES[finding.rule].hole),
            **grade.severities(found),
        )
        return Look(
            symbol=symbol,
            kind=self._kind,
            interval=self._interval,
            first=int(self._memory.of("first", MAX_TIME_NS, np.int64)[number]) if tally.rows else 0,
            last=int(self._memory.of("last", MIN_TIME_NS, np.int64)[number]) if tally.rows else 0,
            tally=tally,
            findings=found,
            batch=batch,
            commit=commit,
        )

    def _findings(self, number: int) -> tuple[Finding, ...]:
        found = [self._finding(number, *each) for each in self._ledger.found(number)]
        if self._memory.counts("inspected")[number]:
            if self._kind is Kind.BARS and no_volume(self._memory, number):
                found.append(self._finding(number, "no-volume", 1, int(self._memory.counts("inspected")[number]), []))
            if not self._memory.of("known", 0, np.bool_)[number]:
                found.append(self._finding(number, "no-calendar", 1, 0, []))
        return grade.add_findings(found)

    def _finding(self, number: int, rule: str, count: int, rows: int, examples: list[Example]) -> Finding:
        return Finding(
            rule=rule,
            severity=RULES[rule].severity,
            symbol=self._names[number],
            kind=self._kind,
            interval=self._interval,
            count=count,
            rows=rows,
            examples=tuple(examples),
        )


def _nothing(names: Sequence[str]) -> Stretch:
    return np.empty(0, np.int64), np.empty(0, np.int64), {name: np.empty(0) for name in names}


def _joined(parts: Sequence[Stretch]) -> Stretch:
    """One after the other; a column that only some have is NaN in the others."""
    names = dict.fromkeys(name for _, _, columns in parts for name in columns)
    columns = {
        name: np.concatenate([part[2].get(name, np.full(len(part[0]), np.nan)) for part in parts]) for name in names
    }
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), columns


def _take(stretch: Stretch, where: np.ndarray) -> Stretch:
    return stretch[0][where], stretch[1][where], {name: values[where] for name, values in stretch[2].items()}


def _split(stretch: Stretch, mask: np.ndarray) -> tuple[Stretch, Stretch]:
    """The rows where the mask is true, and the others."""
    return _take(stretch, mask), _take(stretch, ~mask)


def _ordered(stretch: Stretch) -> Stretch:
    """By series and time; equal ones stay in their order."""
    if _sorted(stretch[0], stretch[1]):
        return stretch
    return _take(stretch, np.lexsort((stretch[1], stretch[0])))


def _sorted(series: np.ndarray, times: np.ndarray) -> bool:
    rises = (series[1:] > series[:-1]) | ((series[1:] == series[:-1]) & (times[1:] >= times[:-1]))
    return bool(rises.all())


def _starts(series: np.ndarray) -> np.ndarray:
    """Where each run of one series starts."""
    return np.flatnonzero(np.concatenate([[True], series[1:] != series[:-1]]))


def _lengths(starts: np.ndarray, series: np.ndarray) -> np.ndarray:
    return np.diff(np.append(starts, len(series)))


def _piece(kind: Kind, interval: Interval | None, stretch: Stretch, context: np.ndarray, final: bool) -> Piece:
    """`context`, a value a series: whether its first row was judged before."""
    series, times, columns = stretch
    starts = _starts(series)
    lengths = _lengths(starts, series)
    linked, fresh = np.ones(len(series), bool), np.ones(len(series), bool)
    linked[starts] = False
    fresh[starts[context]] = False
    if not final:
        for back in range(1, LOOK_AHEAD + 1):
            fresh[starts + np.maximum(lengths - back, 0)] = False
    return Piece(kind, interval, series, times, columns, linked, fresh, final)
