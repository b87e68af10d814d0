"""The records, their Arrow schemas, and the words that name them.

Time is UTC int64 nanoseconds everywhere; in Arrow it is `timestamp('ns', 'UTC')`. Prices and volumes are float64.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache

import msgspec
import pyarrow as pa

from tapehouse.errors import InvalidRequest, InvalidSymbol, UnknownColumn, UnknownInterval

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 3_600 * SECOND_NS
DAY_NS = 86_400 * SECOND_NS
MIN_TIME_NS = -(2**63) + 1
MAX_TIME_NS = 2**63 - 1

TIMESTAMP = pa.timestamp("ns", "UTC")
NAME = pa.dictionary(pa.int32(), pa.string())
MAX_SYMBOL_LENGTH = 128


class Kind(StrEnum):
    """What a record is."""

    BARS = "bars"
    TRADES = "trades"
    QUOTES = "quotes"


class Interval(StrEnum):
    """The time that a bar spans. Up to `4h` it is a fixed number of nanoseconds; days and longer go by a calendar."""

    S1 = "1s"
    S5 = "5s"
    S15 = "15s"
    S30 = "30s"
    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H4 = "4h"
    D1 = "1d"
    W1 = "1w"
    MO1 = "1mo"

    @classmethod
    def parse(cls, text: str) -> Interval:
        """The interval of that name; raises `UnknownInterval` with the names there are."""
        try:
            return cls(text)
        except ValueError:
            known = " ".join(cls)
            raise UnknownInterval(f"unknown interval {text[:40]!r}; expected one of {known}", interval=text) from None

    @property
    def nanos(self) -> int:
        """Nanoseconds it spans; for days and longer the nominal length (a month counts 30 days)."""
        return _NANOS[self]

    @property
    def by_calendar(self) -> bool:
        """Whether its edges follow an instrument's calendar and time zone instead of the clock."""
        return self in (Interval.D1, Interval.W1, Interval.MO1)

    @property
    def alignment(self) -> tuple[int, str]:
        """Of what bars below a day open at a multiple (nanoseconds), and how that is said.

        Hours begin on a quarter of one, since sessions and zones do: at 9:30, at +05:45.
        """
        if self.nanos > Interval.M30.nanos:
            return Interval.M15.nanos, "on a quarter of an hour"
        return self.nanos, f"a multiple of {self}"

    def divides(self, coarser: Interval) -> bool:
        """Whether whole bars of this interval make up one bar of the coarser one (weeks do not make up months)."""
        if self is Interval.W1 or self.nanos >= coarser.nanos:
            return False
        return coarser.by_calendar or coarser.nanos % self.nanos == 0


_NANOS = {
    Interval.S1: SECOND_NS,
    Interval.S5: 5 * SECOND_NS,
    Interval.S15: 15 * SECOND_NS,
    Interval.S30: 30 * SECOND_NS,
    Interval.M1: MINUTE_NS,
    Interval.M5: 5 * MINUTE_NS,
    Interval.M15: 15 * MINUTE_NS,
    Interval.M30: 30 * MINUTE_NS,
    Interval.H1: HOUR_NS,
    Interval.H4: 4 * HOUR_NS,
    Interval.D1: DAY_NS,
    Interval.W1: 7 * DAY_NS,
    Interval.MO1: 30 * DAY_NS,
}


class OnConflict(StrEnum):
    """What happens to a row whose key the store already has with other values: `OWN` replaces its own source's only."""

    REPLACE = "replace"
    KEEP = "keep"
    OWN = "own"
    PREFER = "prefer"
    ERROR = "error"


def check_order(on_conflict: OnConflict, prefer: Sequence[str]) -> None:
    """`InvalidRequest` for `PREFER` without an order, by which every newcomer would replace what it should spare.

    So is an order (of sources, best first) without `PREFER`, which would mean nothing.
    """
    if on_conflict == OnConflict.PREFER and not prefer:
        raise InvalidRequest(
            "on_conflict=prefer needs the order of the sources, best first (prefer)", parameter="prefer"
        )
    if prefer and on_conflict != OnConflict.PREFER:
        raise InvalidRequest(
            f"prefer is for on_conflict=prefer: it means nothing with {on_conflict}", parameter="prefer"
        )


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """OHLCV over an interval, stamped with the time it opens."""

    symbol: str
    timestamp: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float | None = None
    trades: int | None = None
    adj_close: float | None = None
    source: str | None = None


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """One trade; without the source's `id`, `ordinal` counts equal (timestamp, price, size) of that source from 0."""

    symbol: str
    timestamp: int
    price: float
    size: float
    side: str | None = None
    exchange: str | None = None
    conditions: str | None = None
    id: str | None = None
    ordinal: int | None = None
    source: str | None = None


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """Best bid and ask; without the source's `id`, `ordinal` counts equal quotes of one time and source from 0."""

    symbol: str
    timestamp: int
    bid: float
    bid_size: float
    ask: float
    ask_size: float
    exchange: str | None = None
    conditions: str | None = None
    id: str | None = None
    ordinal: int | None = None
    source: str | None = None


_KEYS = [pa.field("symbol", NAME, nullable=False), pa.field("timestamp", TIMESTAMP, nullable=False)]
_IDENTITY = [pa.field("id", pa.string()), pa.field("ordinal", pa.int32()), pa.field("source", NAME)]


def _required(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.float64(), nullable=False) for name in names]


def _text(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.string()) for name in names]


SCHEMAS: dict[Kind, pa.Schema] = {
    Kind.BARS: pa.schema(
        [
            *_KEYS,
            *_required("open", "high", "low", "close", "volume"),
            pa.field("vwap", pa.float64()),
            pa.field("trades", pa.int64()),
            pa.field("adj_close", pa.float64()),
            pa.field("source", NAME),
        ]
    ),
    Kind.TRADES: pa.schema([*_KEYS, *_required("price", "size"), *_text("side", "exchange", "conditions"), *_IDENTITY]),
    Kind.QUOTES: pa.schema(
        [*_KEYS, *_required("bid", "bid_size", "ask", "ask_size"), *_text("exchange", "conditions"), *_IDENTITY]
    ),
}
"""Every column that a record of a kind can have. A written table needs the non-nullable ones; others may be absent."""

PROVENANCE: dict[str, pa.DataType] = {"commit": pa.int64()}
"""Columns that the store adds, readable by name: the commit that brought the row."""

DEFAULT_COLUMNS: dict[Kind, tuple[str, ...]] = {
    Kind.BARS: ("symbol", "timestamp", "open", "high", "low", "close", "volume"),
    Kind.TRADES: ("symbol", "timestamp", "price", "size", "side", "id"),
    Kind.QUOTES: ("symbol", "timestamp", "bid", "bid_size", "ask", "ask_size"),
}
"""What a read returns when no columns are named."""


@lru_cache(maxsize=256)
def read_schema(kind: Kind, columns: tuple[str, ...] | None) -> pa.Schema:
    """The schema of a read of those columns, in that order; `UnknownColumn` names one that is not there."""
    known = {field.name: field for field in SCHEMAS[kind]} | {n: pa.field(n, t) for n, t in PROVENANCE.items()}
    names = DEFAULT_COLUMNS[kind] if columns is None else columns
    for name in names:
        if name not in known:
            raise UnknownColumn(f"{kind} have no column {name[:40]!r}; there are {', '.join(known)}", column=name)
    if len(set(names)) != len(names):
        raise UnknownColumn("a column is named twice", columns=list(names))
    return pa.schema([known[name] for name in names])


_FORBIDDEN_IN_SYMBOL = re.compile(r"[\x00-\x20\x7f\\,;\"'`<>|*?\[\]{}]|\.\.|^[/.]|/$")


def check_symbol(symbol: str) -> str:
    """The symbol itself when it can be one; `InvalidSymbol` otherwise.

    A symbol is spelled as its source spells it (`BRK.B`, `BTC/USD`, `^GSPC`, `ES=F`): 1 to 128 characters without
    spaces, control characters, quotes, commas, wildcards or `..`.
    """
    if not symbol or len(symbol) > MAX_SYMBOL_LENGTH:
        raise InvalidSymbol(
            f"a symbol has 1 to {MAX_SYMBOL_LENGTH} characters, this one {len(symbol)}: {symbol[:40]!r}",
            symbol=symbol[:MAX_SYMBOL_LENGTH],
        )
    if found := _FORBIDDEN_IN_SYMBOL.search(symbol):
        raise InvalidSymbol(f"symbol {symbol!r} has {found.group()!r}, which no symbol may have", symbol=symbol)
    return symbol


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the symbols that match `pattern` (a symbol, or one with `*`); the longest match counts.

    `calendar` is `24/7`, `24/5` or a name of exchange_calendars (`XNYS`); `tick_size` is in units of `currency`.
    """

    pattern: str
    calendar: str = "24/7"
    timezone: str = "UTC"
    tick_size: float | None = None
    currency: str | None = None
    asset_class: str | None = None


class Instruments:
    """Instruments, looked up by symbol: a symbol's own name first, then the longest pattern that it matches."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        instruments = list(instruments)
        self._exact = {known.pattern: known for known in instruments if "*" not in known.pattern}
        wild = [known for known in instruments if "*" in known.pattern]
        self._wild = sorted(wild, key=lambda known: (-len(known.pattern), known.pattern))

    def of(self, symbol: str) -> Instrument:
        """What is known of the symbol; the defaults (24/7, UTC) when nothing is."""
        if exact := self._exact.get(symbol):
            return exact
        found = (known for known in self._wild if wildcard(known.pattern).fullmatch(symbol))
        return next(found, None) or Instrument(pattern=symbol)


@lru_cache(maxsize=1_024)
def wildcard(pattern: str, single: str | None = None) -> re.Pattern[str]:
    """A pattern in which `*` is any text, and `single` (when given) any one character; all else is itself."""
    parts = [".*" if char == "*" else "." if char == single else re.escape(char) for char in pattern]
    return re.compile("".join(parts), re.DOTALL)


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One write to the store. `number` is the newest commit after it; a write that changed nothing makes no new one.

    `recorded` is UTC nanoseconds and never runs backwards. `rejected` rows lost to stored ones under `keep` or
    `prefer`; they are kept as versions that were never current. `start` and `end` span the rows, `[start, end)`.
    `action` is write, delete or undo; of an undo, `deleted` counts rows that went, `inserted` and `replaced` those that
    came back where there was none or another one, `unchanged` those of the batch that others have changed since.
    """

    number: int
    recorded: int
    kind: Kind
    interval: Interval | None = None
    batch: str | None = None
    action: str = "write"
    inserted: int = 0
    replaced: int = 0
    unchanged: int = 0
    rejected: int = 0
    deleted: int = 0
    start: int | None = None
    end: int | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit changed: announced to everything that follows the store. Times are `[start, end)`."""

    commit: int
    kind: Kind
    interval: Interval | None
    symbols: tuple[str, ...]
    start: int
    end: int


class Position(msgspec.Struct, frozen=True, order=True):
    """A place in a partition of the log. A new epoch says that history was lost."""

    epoch: int
    offset: int
