"""Every row against the rules: the good ones as a table that a store takes, the others with the reason. No I/O.

A price may be zero or negative (oil futures were, in April 2020, and spreads are); such rows are taken and counted.
Bars up to 30 minutes open at a multiple of their interval; of 1 and 4 hours at a quarter of an hour, since sessions
and zones begin at 9:30 and at +05:45; of days and longer at midnight in the zone of their instrument, to which a date
is moved whatever the zone of the file is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from typing import NamedTuple, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.bulk.base import RecognisedFile, TimeStyle
from tapehouse.bulk.checks.base import Severity
from tapehouse.bulk.formats.convert import (
    EXACT_WHOLE,
    NUMBER_TYPES,
    in_other_order,
    joined,
    nanoseconds,
    reject_no_clocks,
    reject_unread,
)
from tapehouse.bulk.formats.zones import FIRST, GUESSED, ONCE, SECOND, UNCLEAR, Zone, told_apart
from tapehouse.calendars import at_midnight
from tapehouse.errors import InvalidData, InvalidSymbol
from tapehouse.model import (
    DAY_NS,
    MAX_TIME_NS,
    MIN_TIME_NS,
    SCHEMAS,
    TIMESTAMP,
    Instrument,
    Instruments,
    Kind,
    check_symbol,
)

TIME_FIELDS = ("timestamp", "date", "time")
NAME_FIELDS = frozenset({"symbol", "source"})
"""Fields of few distinct texts, which come dictionary-encoded."""
_PRICES = {Kind.BARS: ("low",), Kind.TRADES: ("price",), Kind.QUOTES: ("bid", "ask")}
NOT_NEGATIVE = {"volume", "trades", "size", "bid_size", "ask_size", "ordinal"}
_LARGEST_INT32 = float(2**31 - 1)
_LONGEST_SOURCE = 256


class Invariant(msgspec.Struct, frozen=True):
    """What every row has to meet: breaking it sends the row to quarantine (error), or is counted (warning)."""

    severity: Severity
    says: str


_TAKEN, _REFUSED = Severity.WARNING, Severity.ERROR
INVARIANTS = {
    "missing": Invariant(_REFUSED, "{} is missing"),
    "symbol": Invariant(_REFUSED, "symbol is not one that can be"),
    "source": Invariant(_REFUSED, "source is longer than 256 characters or has control characters"),
    "unread": Invariant(_REFUSED, "{} is not a date or time written as {}"),
    "range": Invariant(_REFUSED, "timestamp is not a time that int64 nanoseconds hold"),
    "date": Invariant(_REFUSED, "timestamp has a time of day, and a date was expected"),
    "skipped": Invariant(_REFUSED, "timestamp never was: the clocks of {} skipped it"),
    "repeated": Invariant(_TAKEN, "rows with a time that the clocks showed twice were taken as the first"),
    "told": Invariant(_TAKEN, "rows with a time that the clocks showed twice were told apart by their order"),
    "unclear": Invariant(_REFUSED, "timestamp was shown twice by the clock, and the order does not tell which it is"),
    "finite": Invariant(_REFUSED, "{} is not a finite number"),
    "negative": Invariant(_REFUSED, "{} is negative"),
    "whole": Invariant(_REFUSED, "{} is not a whole number"),
    "high": Invariant(_REFUSED, "high is below {}"),
    "low": Invariant(_REFUSED, "low is above {}"),
    "aligned": Invariant(_REFUSED, "timestamp is not {}, where a bar of {} opens"),
    "completed": Invariant(_TAKEN, "rows with values left out, which did not change, got the last ones"),
    "price": Invariant(_TAKEN, "rows with a zero or negative price were taken"),
}
"""In the order in which a row is held against them; the first that it breaks is its reason."""


class Verdict:
    """Which rows of a block are bad, and why: the first reason that is found counts."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.reasons: list[str] = []
        self.remarks: dict[str, int] = {}
        self.large: set[str] = set()
        """Fields with numbers beyond those of which float64 holds every whole one."""
        self._codes: np.ndarray | None = None

    def breaks(self, bad: np.ndarray, invariant: str, *names: object) -> None:
        """Reject the rows, or count them, where `bad` is true: they break that invariant."""
        broken = INVARIANTS[invariant]
        if broken.severity is Severity.ERROR:
            self.reject(bad, broken.says.format(*names))
        else:
            self.remark(int((bad if self.good is None else bad & self.good).sum()), broken.says)

    def reject(self, bad: np.ndarray, reason: str) -> None:
        """Reject the rows where `bad` is true, of those that were good until now."""
        if not bad.any():
            return
        if self._codes is None:
            self._codes = np.zeros(self.rows, np.int16)
        if reason not in self.reasons:
            self.reasons.append(reason)
        self._codes[bad & (self._codes == 0)] = self.reasons.index(reason) + 1

    def remark(self, count: int, what: str) -> None:
        """Count rows that are taken, but of which the user should know."""
        if count:
            self.remarks[what] = self.remarks.get(what, 0) + count

    @property
    def bad(self) -> np.ndarray:
        """The numbers of the bad rows."""
        return np.empty(0, np.int64) if self._codes is None else np.flatnonzero(self._codes)

    @property
    def good(self) -> np.ndarray | None:
        """A mask of the good rows; None when all are."""
        return None if self._codes is None else self._codes == 0

    @property
    def mask(self) -> np.ndarray:
        """A mask of the good rows."""
        return np.ones(self.rows, bool) if self._codes is None else self._codes == 0

    def reasons_of_bad(self) -> list[str]:
        """The reason of each bad row."""
        return [] if self._codes is None else [self.reasons[code - 1] for code in self._codes[self.bad]]


class Judge:
    """Turns the columns of a file into rows of the model. One for a file; any thread may use it."""

    def __init__(
        self, file: RecognisedFile, instruments: Sequence[Instrument] = (), *, by_instrument: bool = True
    ) -> None:
        """Without `by_instrument`, what depends on the instruments is not asked."""
        if file.kind is None or file.times is None:
            raise ValueError(f"{file.name} was not recognised")
        self._file, self._kind, self._times = file, file.kind, file.times
        self._instruments = Instruments(instruments)
        self._known: Mapping[str, float] = {}
        self._apart: np.ndarray | None = None
        self._by_instrument = by_instrument
        self._zone = None if file.times.zone is None else Zone(file.times.zone)

    def knowing(self, known: Mapping[str, float]) -> Self:
        """The same for a block before which these numbers came, of the fields that rows leave out (`carried`)."""
        other = copy(self)
        other._known = known
        return other

    def telling(self, apart: np.ndarray) -> Self:
        """The same for a block of whose rows it is known which instant each is: see `zones.told_apart`."""
        other = copy(self)
        other._apart = apart
        return other

    def __call__(self, columns: dict[str, pa.Array], verdict: Verdict) -> pa.Table:
        """The good rows of columns that are named as fields; the verdict gets the reasons of the others.

        Columns come as text (names dictionary-encoded), float64, and times as `convert.nanoseconds` takes them.
        """
        completed = self._complete(columns, verdict) if self._file.carried else None
        symbols = self._symbols(columns, verdict)
        times = self._timestamps(columns, symbols, verdict)
        numbers = {field.name: self._number(field, columns, verdict) for field in self._number_fields(columns)}
        if self._kind is Kind.BARS:
            _check_order(numbers, verdict)
            self._check_alignment(times, symbols, verdict)
        self._remark_prices(numbers, verdict)
        taken: dict[str, pa.Array] = {"symbol": symbols, "timestamp": pa.array(times).view(TIMESTAMP)}
        for field in SCHEMAS[self._kind]:
            if field.name in numbers:
                taken[field.name] = _stored(numbers[field.name], field)
            elif field.type == pa.string() and field.name in columns:
                taken[field.name] = columns[field.name]
        if "source" in columns:
            taken["source"] = self._sources(columns["source"], verdict)
        if "ordinal" in columns:
            verdict.breaks(_unnumbered(columns), "missing", "ordinal")
        if completed is not None:
            verdict.breaks(completed, "completed")
        table = pa.table(taken)
        return table if verdict.good is None else table.filter(pa.array(verdict.good))

    def _complete(self, columns: dict[str, pa.Array], verdict: Verdict) -> np.ndarray | None:
        """Give rows what they leave out, in place, and tell which; a row that leaves out everything is bad."""
        fields = self._file.carried
        missing = {field: columns[field].is_null().to_numpy(zero_copy_only=False) for field in fields}
        some: np.ndarray = np.any(list(missing.values()), axis=0)
        if not some.any():
            return None
        verdict.reject(np.all(list(missing.values()), axis=0), f"neither {' nor '.join(fields)} is given")
        for field in fields:
            values = _filled(columns[field], missing[field], self._known.get(field, np.nan))
            verdict.reject(missing[field] & np.isnan(values), f"{field} is missing, and no row before it has one")
            columns[field] = pa.array(values)
        return some

    def _symbols(self, columns: dict[str, pa.Array], verdict: Verdict) -> pa.Array:
        if self._file.symbol is not None:
            codes = pa.array(np.zeros(verdict.rows, np.int32))
            return pa.DictionaryArray.from_arrays(codes, pa.array([self._file.symbol]))
        column = columns["symbol"]
        if column.null_count:
            verdict.breaks(pc.is_null(column).to_numpy(zero_copy_only=False), "missing", "symbol")
        rows = column.indices.fill_null(0).to_numpy()
        names = column.dictionary.to_pylist()
        codes, known = _known_symbols(names)
        if list(known) != names:
            codes = codes if len(codes) else np.zeros(1, np.int32)
            rows = codes[rows]
            verdict.breaks(rows < 0, "symbol")
            rows = np.maximum(rows, 0)
        return pa.DictionaryArray.from_arrays(pa.array(rows), pa.array(known or [""], pa.string()))

    def _sources(self, column: pa.Array, verdict: Verdict) -> pa.Array:
        """The sources of rows, the file's where there is none."""
        names = column.dictionary.to_pylist()
        impossible = [place for place, name in enumerate(names) if not _can_be_source(name)]
        if impossible:
            verdict.breaks(np.isin(column.indices.fill_null(-1).to_numpy(), impossible), "source")
        names = [self._file.source if place in impossible else name for place, name in enumerate(names)]
        indices = column.indices.fill_null(len(names)) if column.null_count else column.indices
        names += [self._file.source] if column.null_count else []
        distinct = list(dict.fromkeys(names))
        codes = np.array([distinct.index(name) for name in names], np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(codes[indices.to_numpy()]), pa.array(distinct, pa.string()))

    def _timestamps(self, columns: dict[str, pa.Array], symbols: pa.Array, verdict: Verdict) -> np.ndarray:
        values = self._written(columns, verdict)
        return values if self._times.are_instants else self._localised(values, symbols, verdict)

    def _written(self, columns: dict[str, pa.Array], verdict: Verdict) -> np.ndarray:
        """The times in nanoseconds: UTC, or what the clocks of their zone showed."""
        parts = [columns[field] for field in TIME_FIELDS if field in columns]
        for part in parts:
            if part.null_count:
                verdict.breaks(pc.is_null(part).to_numpy(zero_copy_only=False), "missing", "timestamp")
        values, none = nanoseconds(parts, self._times)
        if self._times.style is TimeStyle.FORMAT and none.any() and re.search("%[HIMST]", self._times.format or ""):
            reject_no_clocks(parts[-1].cast(pa.string()), none, "timestamp", verdict)
        if none.any() and pa.types.is_string(parts[0].type):
            self._reject_unread(parts, none, verdict)
        _reject_outside(values, none, MIN_TIME_NS, MAX_TIME_NS, verdict)
        if self._times.are_instants:
            return values
        if _reject_outside(values, none, MIN_TIME_NS + DAY_NS, MAX_TIME_NS - DAY_NS, verdict):
            values = np.where(np.abs(values) > MAX_TIME_NS - DAY_NS, 0, values)
        if self._times.dates:
            verdict.breaks(values % DAY_NS != 0, "date")
        return values

    def _reject_unread(self, parts: list[pa.Array], none: np.ndarray, verdict: Verdict) -> None:
        """Reject texts that are no times; `InvalidData` when one shows that day and month may be swapped in all."""
        times = self._times
        if times.guessed and (text := in_other_order(parts, none, times)) is not None:
            raise InvalidData(
                f"day and month are the other way round in {text!r} than in the rows before, read as {times.format}, "
                "so that these may be wrong as well: mend the file (what is loaded of it can be undone), or say "
                f"--time-format {times.format!r} when only rows like this one are wrong, which then go to quarantine"
            )
        texts = joined(parts, times)
        unread = none & texts.is_valid().to_numpy(zero_copy_only=False)
        reject_unread(texts, unread, "timestamp", times, verdict)

    def _localised(self, values: np.ndarray, symbols: pa.Array, verdict: Verdict) -> np.ndarray:
        """Wall-clock times as UTC; a date is the first instant of that day where the instrument is."""
        if self._zone is not None and not self._times.dates:
            return self._in_zone(self._zone, values, symbols, np.ones(verdict.rows, bool), verdict)
        parts = self._zones_of_instruments(symbols)
        if len(parts) == 1:
            return self._in_zone(parts[0][0], values, symbols, np.ones(verdict.rows, bool), verdict)
        utc = values.copy()
        for zone, rows in parts:
            utc[rows] = self._in_zone(zone, values, symbols, rows, verdict)[rows]
        return utc

    def _in_zone(
        self, zone: Zone, values: np.ndarray, symbols: pa.Array, rows: np.ndarray, verdict: Verdict
    ) -> np.ndarray:
        if self._times.dates:
            return zone.starts_of_days(values)
        utc, skipped, repeated = zone.to_utc(values)
        if skipped is not None:
            verdict.breaks(skipped & rows, "skipped", zone.name)
        if repeated is None:
            return utc
        return self._told_apart(zone, values, utc, symbols, verdict)

    def _told_apart(
        self, zone: Zone, values: np.ndarray, utc: np.ndarray, symbols: pa.Array, verdict: Verdict
    ) -> np.ndarray:
        """Of times that the clocks showed twice the instant that the order of the rows tells, else the first."""
        changes, second = zone.twice(values)
        apart = self._apart
        if apart is None:
            apart = self.order_tells(symbols.indices.to_numpy(), values, changes, verdict.mask)
        verdict.breaks(apart == UNCLEAR, "unclear")
        verdict.breaks(apart == GUESSED, "repeated")
        verdict.breaks((apart == FIRST) | (apart == SECOND), "told")
        return np.where(apart == SECOND, second, utc)

    def order_tells(self, symbols: np.ndarray, values: np.ndarray, changes: np.ndarray, good: np.ndarray) -> np.ndarray:
        """`told_apart` for consecutive rows of this file."""
        step = None if self._file.interval is None else self._file.interval.nanos
        return told_apart(symbols, values, changes, good, step=step, newest_first=self._times.newest_first)

    def _zones_of_instruments(self, symbols: pa.Array) -> list[tuple[Zone, np.ndarray]]:
        """The zones there are, and the rows of each; the only one's rows are not looked at."""
        names = [self._instruments.of(symbol).timezone for symbol in symbols.dictionary.to_pylist()]
        distinct = sorted(set(names))
        if len(distinct) == 1:
            return [(Zone(distinct[0]), np.empty(0, bool))]
        codes = np.array([distinct.index(name) for name in names])[symbols.indices.to_numpy()]
        return [(Zone(name), codes == code) for code, name in enumerate(distinct)]

    def _check_alignment(self, times: np.ndarray, symbols: pa.Array, verdict: Verdict) -> None:
        interval = self._file.interval
        if interval is None or self._times.dates:
            return
        if not interval.by_calendar:
            step, words = interval.alignment
            verdict.breaks(times % step != 0, "aligned", words, interval)
            return
        parts = self._zones_of_instruments(symbols) if self._by_instrument else []
        for zone, rows in parts:
            off = ~at_midnight(times, zone.name)
            off = off if len(parts) == 1 else off & rows
            verdict.breaks(off, "aligned", f"midnight in {zone.name}", interval)

    def _number_fields(self, columns: dict[str, pa.Array]) -> list[pa.Field]:
        numeric = [field for field in SCHEMAS[self._kind] if field.type in NUMBER_TYPES]
        return [field for field in numeric if field.name in columns or field.name in self._file.zeros]

    def _number(self, field: pa.Field, columns: dict[str, pa.Array], verdict: Verdict) -> np.ndarray:
        """A number column, with NaN where an optional one has no value."""
        if field.name in self._file.zeros:
            return np.zeros(verdict.rows)
        column = columns[field.name]
        values = np.asarray(column.to_numpy(zero_copy_only=False))
        if verdict.rows == 0:
            return values
        low, high = values.min(), values.max()
        if not (low > -EXACT_WHOLE and high < EXACT_WHOLE) and (np.abs(values) >= EXACT_WHOLE).any():
            verdict.large.add(field.name)
        if not (np.isfinite(low) and np.isfinite(high)):
            if not field.nullable and column.null_count:
                verdict.breaks(pc.is_null(column).to_numpy(zero_copy_only=False), "missing", field.name)
            allowed = np.isfinite(values) | (np.isnan(values) if field.nullable else False)
            verdict.breaks(~allowed, "finite", field.name)
            low = np.nan
        if field.name in NOT_NEGATIVE and not low >= 0:
            verdict.breaks(values < 0, "negative", field.name)
        if pa.types.is_integer(field.type):
            most = EXACT_WHOLE if field.type == pa.int64() else _LARGEST_INT32
            broken = (values != np.floor(values)) | (np.abs(values) > most)
            verdict.breaks(broken & ~np.isnan(values), "whole", field.name)
        return values

    def _remark_prices(self, numbers: dict[str, np.ndarray], verdict: Verdict) -> None:
        """Count good rows with such prices; of a bar the low tells."""
        if any(len(numbers[name]) and not numbers[name].min() > 0 for name in _PRICES[self._kind]):
            odd = np.any([numbers[name] <= 0 for name in _PRICES[self._kind]], axis=0)
            verdict.breaks(odd, "price")


class Shown(NamedTuple):
    """Of rows the symbols, the times as they are written, their `zones.Twice.changes`, and which are good so far."""

    symbols: pa.Array
    times: np.ndarray
    changes: np.ndarray
    good: np.ndarray


class Clocks(Judge):
    """Takes note of what clocks showed in the rows of a block, and judges nothing else: it gives no rows.

    `shown` is of the block that was asked last; None: it had no rows at all.
    """

    def __init__(self, file: RecognisedFile) -> None:
        times = file.times and msgspec.structs.replace(file.times, guessed=False)
        super().__init__(msgspec.structs.replace(file, times=times))
        self.shown: Shown | None = None

    @property
    def change(self) -> bool:
        """Whether the file has times that clocks may have shown twice."""
        times = self._times
        return not times.dates and not times.are_instants and self._zone is not None and self._zone.changes

    def __call__(self, columns: dict[str, pa.Array], verdict: Verdict) -> pa.Table:
        """Take note of the rows."""
        symbols = self._symbols(columns, verdict)
        values = self._written(columns, verdict)
        changes = Zone(self._times.zone or "UTC").twice(values).changes
        self.shown = Shown(symbols, values, changes, verdict.mask)
        return pa.table({})

    def tell(self, shown: Sequence[Shown], *, full: bool) -> list[np.ndarray]:
        """What the order of the rows of consecutive blocks tells, for each: see `zones.told_apart`.

        `full`: rows of the same hour came before them, which are not known any more.
        """
        if not shown:
            return []
        places: dict[str, int] = {}
        parts = []
        for each in shown:
            names = each.symbols.dictionary.to_pylist()
            codes = np.array([places.setdefault(name, len(places)) for name in names], np.int64)
            parts.append((codes[each.symbols.indices.to_numpy()], *each[1:]))
        apart = self.order_tells(*map(np.concatenate, zip(*parts, strict=True)))
        if full and self._kind is Kind.BARS:
            apart[apart != ONCE] = UNCLEAR
        return np.split(apart, np.cumsum([len(each.times) for each in shown])[:-1])


def _filled(column: pa.Array, missing: np.ndarray, known: float) -> np.ndarray:
    """The values, and where one is missing the last number before it, which at the beginning is `known`."""
    values = np.asarray(column.to_numpy(zero_copy_only=False))
    rows = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), -1))
    return np.where(missing, np.where(rows >= 0, values[rows], known), values)


def _reject_outside(values: np.ndarray, none: np.ndarray, low: int, high: int, verdict: Verdict) -> bool:
    """Reject what is no time or not in [low, high); whether there was any."""
    if len(values) == 0 or (values.min() >= low and values.max() < high and not none.any()):
        return False
    verdict.breaks(none | (values < low) | (values >= high), "range")
    return True


def _known_symbols(names: Sequence[str | None]) -> tuple[np.ndarray, list[str]]:
    """For each name the place of its symbol among those that can be, else -1; and these, without spaces around."""
    places: dict[str, int] = {}
    codes = np.empty(len(names), np.int32)
    for number, name in enumerate(names):
        try:
            codes[number] = places.setdefault(check_symbol((name or "").strip()), len(places))
        except InvalidSymbol:
            codes[number] = -1
    return codes, list(places)


def _can_be_source(name: str | None) -> bool:
    return name is not None and 0 < len(name) <= _LONGEST_SOURCE and name.isprintable()


def _unnumbered(columns: dict[str, pa.Array]) -> np.ndarray:
    """The rows that have neither an id nor an ordinal, in a file that gives ordinals."""
    rows: np.ndarray = columns["ordinal"].is_null().to_numpy(zero_copy_only=False)
    if "id" in columns:
        rows = rows & columns["id"].is_null().to_numpy(zero_copy_only=False)
    return rows


def _check_order(numbers: dict[str, np.ndarray], verdict: Verdict) -> None:
    high, low = numbers["high"], numbers["low"]
    for name in ("open", "close"):
        if not (high >= numbers[name]).all():
            verdict.breaks(high < numbers[name], "high", name)
        if not (low <= numbers[name]).all():
            verdict.breaks(low > numbers[name], "low", name)


def _stored(values: np.ndarray, field: pa.Field) -> pa.Array:
    if field.nullable and (missing := np.isnan(values)).any():
        return pa.array(np.where(missing, 0, values), mask=missing).cast(field.type, safe=False)
    return pa.array(values).cast(field.type, safe=False)
