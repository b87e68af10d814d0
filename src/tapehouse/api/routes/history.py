"""What is read: rows, the newest of them, aggregates, and what there is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from itertools import groupby, islice
from typing import Annotated, Any

import msgspec
import pyarrow as pa
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from tapehouse.api.answers.rows import answer_rows, answer_table
from tapehouse.api.bodies import body_of
from tapehouse.api.context import Context, Here, capable, check_number
from tapehouse.api.formats import ROWS_DOCUMENTED, answer_list
from tapehouse.api.keys import Scope
from tapehouse.api.problems import documented
from tapehouse.api.routes import parameters as given
from tapehouse.api.routes.direct import Direct
from tapehouse.api.security import needs
from tapehouse.errors import InvalidRequest, LimitExceeded, NotFound
from tapehouse.model import Commit, Kind, check_symbol
from tapehouse.query.base import COMMIT_NUMBERS_END, Coverage
from tapehouse.store.base import Capability, Series

router = APIRouter(prefix="/v1", tags=["history"], dependencies=[needs(Scope.READ)], route_class=Direct)

_CLOCK_STEP_NS = 60_000_000_000
"""A clock may be set back by so much, and then write commits before a time that has passed already."""

_PART_SYMBOLS = 1_000
_PART_ROWS = 250_000

_ROWS = documented(400, 401, 403, 404, 406, 413, 429, 503, ok=ROWS_DOCUMENTED)
_SERIES = {
    "kind": "bars",
    "interval": "1d",
    "first": "2014-01-02T00:00:00Z",
    "last": "2024-01-02T00:00:00Z",
    "rows": 2517,
}
_SYMBOLS = documented(400, 401, 403, example={"symbols": [{"symbol": "AAPL", "series": [_SERIES]}]})
_MISSING = {"start": "2020-01-02T00:00:00Z", "end": "2020-01-04T00:00:00Z", "bars": 2}
_COUNTS = {"calendar": "XNYS", "expected": 2519, "missing_bars": 2, "missing_spans": 1, "missing": [_MISSING]}
_COVERAGE = documented(400, 401, 403, 404, 413, example={"coverage": [{"symbol": "AAPL", **_SERIES, **_COUNTS}]})
_INSTRUMENT = {
    "pattern": "AAPL",
    "calendar": "XNYS",
    "timezone": "America/New_York",
    "tick_size": 0.01,
    "currency": "USD",
    "asset_class": "equity",
}
INSTRUMENTS_EXAMPLE = {"instruments": [_INSTRUMENT]}
_INSTRUMENTS = documented(400, 401, 403, 501, example=INSTRUMENTS_EXAMPLE)
Groups = Mapping[str, Sequence[str]]
_AGGREGATE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {"bucket": "1d", "measures": ["return"], "groups": {"banks": ["BAC", "C", "JPM"]}},
            }
        },
    }
}
COMMIT_EXAMPLE = {
    "number": 13,
    "recorded": "2024-01-03T09:00:00.123Z",
    "kind": "bars",
    "interval": "1d",
    "batch": "2024-01-02",
    "action": "write",
    "inserted": 390,
    "replaced": 0,
    "unchanged": 0,
    "rejected": 0,
    "deleted": 0,
    "start": "2024-01-02T00:00:00Z",
    "end": "2024-01-02T00:00:00.000000001Z",
}


@router.get("/bars", responses=_ROWS, summary="Bars")
async def bars(request: Request, here: Here, asked: Annotated[given.Bars, Depends(given.Bars.of)]) -> Response:
    """OHLCV over an interval, ordered by symbol, then time. An interval that is not stored is resampled from what
    covers it best, and the answer says so."""
    return await _rows(request, here, asked, Kind.BARS)


@router.get("/trades", responses=_ROWS, summary="Trades")
async def trades(request: Request, here: Here, asked: Annotated[given.Rows, Depends(given.Rows.of)]) -> Response:
    """Trades, ordered by symbol, then time."""
    return await _rows(request, here, asked, Kind.TRADES)


@router.get("/quotes", responses=_ROWS, summary="Quotes")
async def quotes(request: Request, here: Here, asked: Annotated[given.Rows, Depends(given.Rows.of)]) -> Response:
    """Best bids and asks, ordered by symbol, then time."""
    return await _rows(request, here, asked, Kind.QUOTES)


async def _rows(request: Request, here: Context, asked: given.Rows, kind: Kind) -> Response:
    check_number(here, asked.symbols)
    if asked.limit is not None and asked.limit > here.settings.max_page_rows:
        raise LimitExceeded(
            f"a page has at most {here.settings.max_page_rows:,} rows; without limit all is streamed", parameter="limit"
        )
    question = asked.request(kind)
    ask = partial(here.history.read, question)
    return await answer_rows(here, request, asked, ask, paged=question.limit is not None, settled=_settled(asked))


def _settled(asked: given.Rows) -> bool:
    """Whether the commit is given, and nothing that is said of an instrument later changes what is asked."""
    if isinstance(asked.start, date) or isinstance(asked.end, date):
        return False
    if asked.page is not None or asked.as_of is None:
        return asked.page is not None
    return asked.as_of < COMMIT_NUMBERS_END or asked.as_of < time.time_ns() - _CLOCK_STEP_NS


@router.get("/latest", responses=_ROWS, summary="Newest rows")
async def latest(request: Request, here: Here, asked: Annotated[given.Latest, Depends(given.Latest.of)]) -> Response:
    """The newest row of each symbol. Bars without an interval: the newest of any, with a column `interval`."""
    check_number(here, asked.symbols)
    ask = partial(here.history.latest, asked.kind, asked.symbols, asked.interval)
    return await answer_table(here, request, asked, here.workers.query, ask)


@router.get("/aggregate", responses=_ROWS, summary="Measures per symbol and bucket")
async def aggregate(
    request: Request, here: Here, asked: Annotated[given.Aggregate, Depends(given.Aggregate.of)]
) -> Response:
    """One row per symbol, or per group of symbols, and bucket of time. `return` is close / previous close - 1;
    `volatility` is the square root of the sum of squared log returns in the bucket."""
    return await _aggregate(request, here, asked, asked.groups())


@router.post("/aggregate", responses=_ROWS, openapi_extra=_AGGREGATE_BODY, summary="Measures, for long lists")
async def post_aggregate(
    request: Request, here: Here, asked: Annotated[given.Nothing, Depends(given.Nothing.of)]
) -> Response:
    """The same with the parameters in a JSON object, lists as lists, and `groups` as an object: name to symbols."""
    async with body_of(request, here) as body:
        found, groups = given.aggregate_of(body)
        return await _aggregate(request, here, found, groups)


async def _aggregate(request: Request, here: Context, asked: given.Aggregate, groups: Groups | None) -> Response:
    check_number(here, asked.symbols)
    if groups is not None and asked.group_by is not None:
        raise InvalidRequest("give one of group and group_by", parameter="group_by")

    def ask() -> pa.Table:
        found = here.history.groups(asked.group_by, asked.symbols) if asked.group_by else groups
        return here.history.aggregate(asked.request(), asked.bucket, asked.measures, found)

    return await answer_table(here, request, asked, here.workers.scan, ask)


@router.get("/symbols", responses=_SYMBOLS, summary="Symbols")
async def symbols(request: Request, here: Here, asked: Annotated[given.Match, Depends(given.Match.of)]) -> Response:
    """The symbols, and what is held of each."""
    parts = partial(_symbols, here, asked.match)
    return await answer_list(here, request, here.workers.scan, "symbols", parts, asked.times, of_commits=True)


def _symbols(here: Context, pattern: str | None) -> Iterator[list[dict[str, Any]]]:
    matching = None if pattern is None else here.history.symbols(pattern)
    series = [] if matching == [] else here.store.coverage(symbols=matching)
    by_symbol = groupby(series, key=lambda one: one.symbol)
    described = ({"symbol": symbol, "series": [_series(one) for one in held]} for symbol, held in by_symbol)
    while part := list(islice(described, _PART_SYMBOLS)):
        yield part


def _series(series: Series) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(series).items() if name != "symbol"}


@router.get("/coverage", responses=_COVERAGE, summary="Coverage")
async def coverage(
    request: Request, here: Here, asked: Annotated[given.Covered, Depends(given.Covered.of)]
) -> Response:
    """First, last, rows and what is missing in between by the instrument's calendar, of each series. Where there are
    so many series that `spans` of each would be too many, each lists fewer; `missing_spans` counts all."""
    check_number(here, asked.symbols)
    if asked.spans > here.settings.max_spans:
        raise LimitExceeded(f"spans is at most {here.settings.max_spans:,}", parameter="spans")
    parts = partial(_coverage, here, asked)
    return await answer_list(here, request, here.workers.scan, "coverage", parts, asked.times, of_commits=True)


def _coverage(here: Context, asked: given.Covered) -> Iterator[list[Coverage]]:
    """The coverage of some symbols after the other: a store call for so many rows that each is short."""
    named = None if asked.symbols is None else [check_symbol(symbol) for symbol in dict.fromkeys(asked.symbols)]
    held = here.store.coverage(symbols=named)
    if unknown := set(named or ()) - {series.symbol for series in held}:
        here.history.coverage(symbols=[symbol for symbol in named or () if symbol in unknown])  # says what is like them
    wanted = [one for one in held if asked.kind in (None, one.kind) and asked.interval in (None, one.interval)]
    spans = min(asked.spans, here.settings.max_spans // max(1, len(wanted)))
    ask = partial(here.history.coverage, kind=asked.kind, interval=asked.interval, spans=spans)
    for part in _parts(wanted, min(_PART_SYMBOLS, here.settings.max_symbols)):
        try:
            yield ask(symbols=part)
        except NotFound:  # some were deleted a moment ago
            left = {series.symbol for series in here.store.coverage(symbols=part)}
            yield ask(symbols=[symbol for symbol in part if symbol in left]) if left else []


def _parts(held: Sequence[Series], most_symbols: int) -> Iterator[list[str]]:
    """The symbols in order, in lists of about `_PART_ROWS` rows."""
    part: list[str] = []
    rows = 0
    for symbol, series in groupby(sorted(held, key=lambda one: one.symbol), key=lambda one: one.symbol):
        part.append(symbol)
        rows += sum(one.rows for one in series)
        if rows >= _PART_ROWS or len(part) == most_symbols:
            yield part
            part, rows = [], 0
    if part:
        yield part


@router.get("/instruments", responses=_INSTRUMENTS, summary="Instruments")
async def instruments(
    request: Request, here: Here, asked: Annotated[given.Nothing, Depends(given.Nothing.of)]
) -> Response:
    """What is known of symbols, or of patterns of them."""
    keeper = capable(here.store, Capability.INSTRUMENTS)
    return await answer_list(
        here, request, here.workers.query, "instruments", lambda: [keeper.instruments()], of_commits=True
    )


@router.get(
    "/commits", responses=documented(400, 401, 403, 501, example={"commits": [COMMIT_EXAMPLE]}), summary="Commits"
)
async def commits(
    request: Request, here: Here, asked: Annotated[given.Committed, Depends(given.Committed.of)]
) -> Response:
    """What was written, oldest first."""

    def parts() -> list[list[Commit]]:
        return [here.history.commits(after=asked.after, limit=asked.limit)]

    return await answer_list(here, request, here.workers.query, "commits", parts, asked.times, of_commits=True)
