"""A simulated market: trades and quotes of any number of symbols at any rate, the same each time for the same seed.

Time is cut into blocks, which lie where they lie whatever is asked for: each has a generator of its own, seeded with
the market's seed and the block's number, and begins with the prices that the one before ended with. So what is made
does not depend on how it is asked for, and a market is restored from a block's beginning. No I/O, no clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.errors import InvalidData, InvalidRequest
from tapehouse.model import SCHEMAS, SECOND_NS, TIMESTAMP, Kind
from tapehouse.sources.sim.arrivals import FILLS_PER_ORDER, Arrivals, Sizes, arrive, zipf_shares
from tapehouse.sources.sim.hours import ALWAYS, CLOSED_VARIANCE, SESSIONS_YEAR_S, Hours, Pace, SessionsOf
from tapehouse.sources.sim.prices import Correlation, Path, Standing, Walk
from tapehouse.sources.sim.universe import Grid, SimInstrument, default_symbols

_STEPS_NS = tuple(ms * 1_000_000 for ms in (1_000, 500, 200, 100, 50))
_EVENTS_A_BLOCK = 32_768
_CELLS_A_BLOCK = 262_144
_MAX_STEPS = 60

Columns = dict[str, np.ndarray]


class SimBatch(NamedTuple):
    """What a step made, each in order of time; None where there is nothing."""

    trades: pa.RecordBatch | None
    quotes: pa.RecordBatch | None


class _State(msgspec.Struct, frozen=True, array_like=True):
    """A market at the beginning of its block `number`, of which everything before `until` was given.

    `trades` were made before it. `market` is a digest of what the market was made with.
    """

    market: bytes
    until: int
    number: int
    trades: int
    log_price: bytes
    noise: bytes


@dataclass(frozen=True, slots=True)
class _Block:
    """What happens in a block, in order of time."""

    end: int
    trades: Columns
    quotes: Columns


class SimMarket:
    """Trades and quotes of instruments, or of so many of `default_symbols`, from `start_ns` on.

    `trades_per_s` is the mean rate while all are open, over all symbols; symbol k (from 1) has a share proportional to
    k ** -`zipf`. There are `quotes_per_trade` as many quotes. Without `sessions` all are always open; the calendar
    `24/7` is in any case. Raises `InvalidRequest` for what makes no market.
    """

    def __init__(
        self,
        symbols: Sequence[SimInstrument] | int,
        *,
        seed: int,
        trades_per_s: float,
        start_ns: int,
        quotes_per_trade: float = 2.0,
        zipf: float = 1.0,
        sessions: SessionsOf | None = None,
        correlation: Correlation = Correlation(),  # noqa: B008  (it is frozen)
    ) -> None:
        instruments = default_symbols(symbols) if isinstance(symbols, int) else [each.check() for each in symbols]
        _check(instruments, seed, trades_per_s, quotes_per_trade, zipf)
        made_with = (instruments, seed, trades_per_s, start_ns, quotes_per_trade, zipf, correlation, sessions is None)
        self._digest = hashlib.sha256(msgspec.msgpack.encode(made_with)).digest()[:16]
        self._seed, self._start = seed, start_ns
        self._symbols = pa.array([instrument.symbol for instrument in instruments], pa.string())
        calendars = sorted({instrument.calendar for instrument in instruments} if sessions else {ALWAYS})
        self._hours, self._calendars = Hours(calendars, sessions), len(calendars)
        groups = [calendars.index(instrument.calendar) if sessions else 0 for instrument in instruments]
        self._groups = np.array(groups)
        self._walk = Walk(instruments, correlation, self._groups)
        self._sizes = Sizes(instruments)
        self._ticks = Grid.of([instrument.tick for instrument in instruments])
        shares = zipf_shares(len(instruments), zipf)
        self._trade_rates, self._quote_rates = shares * trades_per_s, shares * trades_per_s * quotes_per_trade
        self._step_ns, self._steps = _cut(trades_per_s * (1 + quotes_per_trade), len(instruments))
        self._until, self._number, self._trades = start_ns, start_ns // self._block_ns, 0
        self._standing = self._walk.start()
        self._block: _Block | None = None
        self._after: Standing = self._standing

    @property
    def until_ns(self) -> int:
        """Where the next step begins: everything before was given."""
        return self._until

    def opens_ns(self) -> int | None:
        """The first instant from `until_ns` on at which anything trades; None when nothing does for a year."""
        return self._hours.opens(self._until)

    def step(self, until_ns: int) -> SimBatch:
        """What happens in `[previous until_ns, until_ns)`; it takes memory for all of that.

        The columns are those of the model: trades with side and id, ids counting from 1. Raises `InvalidRequest` when
        `until_ns` is before the previous one.
        """
        if until_ns < self._until:
            raise InvalidRequest(f"a market does not go back: it came to {self._until}, not {until_ns}")
        trades, quotes = [], []
        while self._until < until_ns and self._enter(until_ns):
            assert self._block is not None
            trades.append(_between(self._block.trades, self._until, until_ns))
            quotes.append(_between(self._block.quotes, self._until, until_ns))
            self._until = min(until_ns, max(self._until, self._block.end))
            if self._block.end <= until_ns:
                self._leave()
        self._until = until_ns
        return SimBatch(self._trades_of(_joined(trades)), self._quotes_of(_joined(quotes)))

    def state(self) -> bytes:
        """What `restore` needs to go on from here: 16 bytes a symbol, and a few."""
        standing = self._standing
        return msgspec.msgpack.encode(
            _State(
                market=self._digest,
                until=self._until,
                number=self._number,
                trades=self._trades,
                log_price=standing.log_price.astype("<f8").tobytes(),
                noise=standing.noise.astype("<f8").tobytes(),
            )
        )

    def restore(self, state: bytes) -> None:
        """Go on where another market, made with the same arguments, was; `InvalidData` when that was not so."""
        try:
            found = msgspec.msgpack.decode(state, type=_State)
        except msgspec.MsgspecError as exc:
            raise InvalidData(f"this is no state of a simulated market: {exc}") from exc
        if found.market != self._digest:
            raise InvalidData("this state is of a simulated market that was made with other arguments")
        self._until, self._number, self._trades = found.until, found.number, found.trades
        self._standing = Standing(np.frombuffer(found.log_price, "<f8"), np.frombuffer(found.noise, "<f8"))
        self._block = None

    @property
    def _block_ns(self) -> int:
        return self._step_ns * self._steps

    def _enter(self, until: int) -> bool:
        """Make the next block in which anything is open, unless it is there; False when it begins too late."""
        if self._block is None:
            start = self._number * self._block_ns
            opens = self._hours.opens(max(start, self._start))
            if opens is None or opens // self._block_ns * self._block_ns >= until:
                return False
            self._block = self._make(opens // self._block_ns)
        return True

    def _leave(self) -> None:
        assert self._block is not None
        self._standing, self._trades = self._after, self._trades + len(self._block.trades["time"])
        self._number = self._block.end // self._block_ns
        self._block = None

    def _make(self, number: int) -> _Block:
        # Numbers of blocks before 1970 are negative, and a seed is not.
        rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(self._seed, spawn_key=(number % 2**64,))))
        start, pause_ns = number * self._block_ns, (number - self._number) * self._block_ns
        standing = self._standing
        if pause_ns:
            years = np.full(self._calendars, CLOSED_VARIANCE * pause_ns / SECOND_NS / SESSIONS_YEAR_S)
            standing = self._walk.across(standing, years, rng)
        pace = self._hours.pace(start + self._step_ns * np.arange(self._steps + 1))
        path, self._after = self._walk.along(standing, pace.years, self._step_ns, rng)
        trades = self._arrive(self._trade_rates, FILLS_PER_ORDER, start, pace, rng)
        quotes = self._arrive(self._quote_rates, 1.0, start, pace, rng)
        return _Block(
            start + self._block_ns,
            self._make_trades(trades, path, start, rng),
            self._make_quotes(quotes, path, start, rng),
        )

    def _arrive(self, rates: np.ndarray, fills: float, start: int, pace: Pace, rng: np.random.Generator) -> Arrivals:
        """What comes at those rates (per second); at the edges of sessions, only what is inside."""
        expected = pace.busy[:, self._groups] * (rates * (self._step_ns / SECOND_NS))
        found = arrive(expected, self._step_ns, fills, rng)
        if start < self._start:
            found = found.where(found.times >= self._start - start)
        if not pace.partly.any():
            return found
        group = self._groups.take(found.cells % len(self._groups))
        inside = [self._hours.is_open(number, start + found.times) for number in range(self._calendars)]
        return found.where(np.stack(inside)[group, np.arange(len(group))])

    def _make_trades(self, arrivals: Arrivals, path: Path, start: int, rng: np.random.Generator) -> Columns:
        symbols = arrivals.cells % len(self._groups)
        sides = path.sides(arrivals.cells, arrivals.times % self._step_ns / self._step_ns)
        buys = rng.integers(0, 2, 1 + int(arrivals.orders.max(initial=0)), np.int8).take(arrivals.orders)
        return {
            "time": start + arrivals.times,
            "symbol": symbols.astype(np.int32),
            "price": self._ticks.values(np.where(buys, sides.ask, sides.bid), symbols),
            "size": self._sizes.trades(symbols, rng),
            "side": buys,
            "id": np.arange(self._trades + 1, self._trades + 1 + len(symbols)),
        }

    def _make_quotes(self, arrivals: Arrivals, path: Path, start: int, rng: np.random.Generator) -> Columns:
        symbols = arrivals.cells % len(self._groups)
        sides = path.sides(arrivals.cells, arrivals.times % self._step_ns / self._step_ns)
        return {
            "time": start + arrivals.times,
            "symbol": symbols.astype(np.int32),
            "bid": self._ticks.values(sides.bid, symbols),
            "bid_size": self._sizes.quotes(symbols, rng),
            "ask": self._ticks.values(sides.ask, symbols),
            "ask_size": self._sizes.quotes(symbols, rng),
        }

    def _trades_of(self, columns: Columns) -> pa.RecordBatch | None:
        if not columns or not len(columns["time"]):
            return None
        return self._batch(
            Kind.TRADES,
            columns,
            price=pa.array(columns["price"]),
            size=pa.array(columns["size"]),
            side=_SIDES.take(pa.array(columns["side"])),
            id=pa.array(columns["id"]).cast(pa.string()),
        )

    def _quotes_of(self, columns: Columns) -> pa.RecordBatch | None:
        if not columns or not len(columns["time"]):
            return None
        values = {name: pa.array(columns[name]) for name in ("bid", "bid_size", "ask", "ask_size")}
        return self._batch(Kind.QUOTES, columns, **values)

    def _batch(self, kind: Kind, columns: Mapping[str, np.ndarray], **values: pa.Array) -> pa.RecordBatch:
        symbol = pa.DictionaryArray.from_arrays(pa.array(columns["symbol"]), self._symbols)
        values = {"symbol": symbol, "timestamp": pa.array(columns["time"]).view(TIMESTAMP), **values}
        schema = pa.schema([SCHEMAS[kind].field(name) for name in values])
        return pa.RecordBatch.from_arrays(list(values.values()), schema=schema)


_SIDES = pa.array(["sell", "buy"])


def _check(instruments: Sequence[SimInstrument], seed: int, rate: float, quotes: float, zipf: float) -> None:
    if not instruments:
        raise InvalidRequest("a market has at least one symbol")
    if len({instrument.symbol for instrument in instruments}) < len(instruments):
        raise InvalidRequest("two instruments of a market have the same symbol")
    if seed < 0:
        raise InvalidRequest(f"a seed is at least 0, not {seed}")
    if not (0 < rate < float("inf") and 0 <= quotes < float("inf") and 0 <= zipf < float("inf")):
        raise InvalidRequest(
            f"trades_per_s is more than 0, quotes_per_trade and zipf at least 0, not {rate}, {quotes}, {zipf}"
        )


def _cut(events_per_s: float, symbols: int) -> tuple[int, int]:
    """How long a step is (nanoseconds) and how many are a block, which is made at once: fewer when more happens."""
    step_ns = next((step for step in _STEPS_NS if events_per_s * step / SECOND_NS <= _EVENTS_A_BLOCK), _STEPS_NS[-1])
    few = _EVENTS_A_BLOCK / (events_per_s * step_ns / SECOND_NS)
    return step_ns, int(max(1, min(_MAX_STEPS, few, _CELLS_A_BLOCK / symbols)))


def _between(columns: Columns, start: int, end: int) -> Columns:
    """The rows of those times; ids say which they are, however they are cut."""
    first, last = np.searchsorted(columns["time"], [start, end])
    return {name: column[first:last] for name, column in columns.items()}


def _joined(parts: Sequence[Columns]) -> Columns:
    if len(parts) < 2:
        return parts[0] if parts else {}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
