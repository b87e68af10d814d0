"""What a request asks of each symbol: checked, with dates made instants, and with what its bars can be made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from tapehouse.calendars import midnight
from tapehouse.errors import InvalidRequest, InvalidTime, LimitExceeded, NotFound
from tapehouse.model import DAY_NS, MAX_TIME_NS, MIN_TIME_NS, Instrument, Interval, Kind, check_symbol
from tapehouse.query.base import Bound, Limits, Request
from tapehouse.store.base import Series
from tapehouse.times import format_time


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of one symbol: stamps in `[start, end)`.

    `stored` is its series of the interval asked for, `parts` are all series that such bars can be made from, coarse
    to fine and trades last; `used` are those of them that may have rows in the span.
    """

    symbol: str
    instrument: Instrument
    start: int
    end: int
    stored: Series | None
    parts: tuple[Series, ...]
    used: tuple[Series, ...]

    def since(self, start: int) -> Plan:
        """The same with stamps from `start` on."""
        return replace(self, start=max(start, self.start))

    def before(self, end: int) -> Plan:
        """The same with stamps before `end`."""
        return replace(self, end=min(end, self.end))


def make_plan(request: Request, symbol: str, instrument: Instrument, held: Sequence[Series]) -> Plan:
    """The plan of one symbol of a checked request."""
    start, end = resolve(request, instrument)
    stored = next((s for s in held if (s.kind, s.interval) == (request.kind, request.interval)), None)
    parts = _parts(request.interval, held) if request.kind is Kind.BARS and not request.stored else ()
    used = tuple(part for part in parts if request.interval and _reaches(part, start, end, request.interval))
    return Plan(symbol, instrument, start, end, stored, parts, used)


def _parts(interval: Interval | None, held: Sequence[Series]) -> tuple[Series, ...]:
    if interval is None:
        return ()
    bars = [s for s in held if s.kind is Kind.BARS and s.interval is not None and s.interval.divides(interval)]
    bars.sort(key=lambda s: -s.interval.nanos if s.interval else 0)
    return (*bars, *(s for s in held if s.kind is Kind.TRADES))


def _reaches(part: Series, start: int, end: int, interval: Interval) -> bool:
    """Whether the series may have rows in a bucket stamped in the span; errs on the side of yes."""
    reach = reach_of(interval)
    return part.first < end + reach and part.last >= start - reach


def reach_of(interval: Interval) -> int:
    """Nanoseconds that surely hold the way from a bar's stamp to any of its parts, whatever the calendar."""
    return interval.nanos + 2 * DAY_NS if interval.by_calendar else interval.nanos


def resolve(request: Request, instrument: Instrument) -> tuple[int, int]:
    """The request's span for that instrument; `InvalidTime` unless it starts before it ends."""
    start = _instant(request.start, instrument.timezone, MIN_TIME_NS)
    end = _instant(request.end, instrument.timezone, MAX_TIME_NS)
    if start >= end:
        raise InvalidTime(
            f"start {_shown(request.start)} is not before end {_shown(request.end)}; the end is exclusive",
            start=_shown(request.start),
            end=_shown(request.end),
        )
    return start, end


def _instant(bound: Bound | None, zone: str, default: int) -> int:
    if bound is None:
        return default
    return midnight(bound, zone) if isinstance(bound, date) else bound


def _shown(bound: Bound | None) -> str | None:
    if bound is None:
        return None
    return bound.isoformat() if isinstance(bound, date) else format_time(bound)


def check_symbols(symbols: Sequence[str] | None, limits: Limits) -> tuple[str, ...] | None:
    """The distinct symbols, sorted; raises when there is none, one that cannot be one, or too many."""
    if symbols is None:
        return None
    if not symbols:
        raise InvalidRequest("no symbols asked for; leave them out to ask for all")
    if len(symbols) > limits.symbols:
        raise LimitExceeded(
            f"{len(symbols)} symbols asked for; at most {limits.symbols} in one request", limit=limits.symbols
        )
    return tuple(sorted({check_symbol(symbol) for symbol in symbols}))


def check_limit(limit: int | None, limits: Limits) -> None:
    """Raises unless a page has 1 to `limits.page_rows` rows."""
    if limit is not None and limit < 1:
        raise InvalidRequest(f"limit {limit} is too small; a page has at least 1 row", limit=limit)
    if limit is not None and limit > limits.page_rows:
        raise LimitExceeded(
            f"limit {limit} is too large; a page has at most {limits.page_rows} rows (without limit all is streamed)",
            limit=limits.page_rows,
        )


def check_interval(request: Request, held: Mapping[str, Sequence[Series]]) -> None:
    """Raises for bars without an interval, saying what is stored, and for trades or quotes with one."""
    if request.kind is not Kind.BARS and request.interval is not None:
        raise InvalidRequest(f"{request.kind} have no interval; leave it out", interval=request.interval)
    if request.kind is Kind.BARS and request.interval is None:
        raise InvalidRequest(f"bars need an interval; stored {stored_text(held)}")


def check_answerable(request: Request, plans: Sequence[Plan], held: Mapping[str, Sequence[Series]]) -> None:
    """Raises `NotFound` when no symbol asked for has such rows, or anything to make them from, at any time."""
    if request.symbols is not None and not any(found.stored or found.parts for found in plans):
        what = f"{request.interval} bars" if request.interval else str(request.kind)
        finer = " or anything finer to make them from" if request.interval and not request.stored else ""
        raise NotFound(f"no {what}{finer}; stored {stored_text(held)}", symbols=[found.symbol for found in plans[:5]])


def stored_text(held: Mapping[str, Sequence[Series]]) -> str:
    """What is stored of some symbols, for a message: "are AAPL: 1m, 1d; MSFT: trades"."""
    if not held:
        return "is nothing yet"
    shown = [f"{symbol}: {', '.join(name_of(s) for s in series)}" for symbol, series in list(held.items())[:5]]
    more = f" and {len(held) - 5} more symbols" if len(held) > 5 else ""
    return f"are {'; '.join(shown)}{more}"


def name_of(series: Series) -> str:
    """A series as people read it: its interval, or its kind."""
    return str(series.interval or series.kind)
