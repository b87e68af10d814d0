"""What is written: rows posted, spans deleted, instruments put."""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import Annotated, Any

import msgspec
import pyarrow as pa
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from tapehouse.api.bodies import body_of
from tapehouse.api.context import Context, Here, capable, check_number
from tapehouse.api.formats import answer_json, json_response
from tapehouse.api.keys import Scope
from tapehouse.api.problems import documented
from tapehouse.api.routes import parameters as given
from tapehouse.api.routes.history import COMMIT_EXAMPLE, INSTRUMENTS_EXAMPLE
from tapehouse.api.security import needs
from tapehouse.calendars import timeline
from tapehouse.codec import MEDIA_TYPES, Times, decode_instruments, decode_table, encode_document
from tapehouse.errors import InvalidRequest, UnsupportedMediaType
from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, Commit, Instrument, Interval, Kind, check_symbol
from tapehouse.store.base import Capability

router = APIRouter(prefix="/v1", tags=["writes"], dependencies=[needs(Scope.WRITE)])

_COMMIT = documented(400, 401, 403, 408, 409, 413, 415, 422, 503, 507, example=COMMIT_EXAMPLE)
_INSTRUMENTS = documented(400, 401, 403, 408, 413, 415, 422, 501, 503, 507, example=INSTRUMENTS_EXAMPLE)
_BODY_EXAMPLE = {
    "columns": {
        "symbol": ["AAPL", "AAPL"],
        "timestamp": ["2024-01-02T00:00:00Z", "2024-01-03T00:00:00Z"],
        "open": [187.15, 184.22],
        "high": [188.44, 185.88],
        "low": [183.89, 183.43],
        "close": [185.64, 184.25],
        "volume": [82488700, 58414500],
    }
}
_CSV_EXAMPLE = "timestamp,open,high,low,close,volume\n2024-01-02T00:00:00Z,187.15,188.44,183.89,185.64,82488700\n"
_EXAMPLES: dict[str, Any] = {"application/json": _BODY_EXAMPLE, "text/csv": _CSV_EXAMPLE}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": {"type": "object" if media_type.endswith("json") else "string"}}
            | ({"example": _EXAMPLES[media_type]} if media_type in _EXAMPLES else {})
            for media_type in MEDIA_TYPES
        },
    }
}
_INSTRUMENTS_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"example": {"instruments": [{"pattern": "AAPL", "calendar": "XNYS"}]}}},
    }
}


@router.post("/bars", responses=_COMMIT, openapi_extra=_BODY, summary="Write bars")
async def post_bars(
    request: Request, here: Here, asked: Annotated[given.PostedBars, Depends(given.PostedBars.of)]
) -> Response:
    """All rows of the body or none, durable when the answer comes; the same rows again change nothing."""
    return await _post(request, here, asked, Kind.BARS, asked.interval)


@router.post("/trades", responses=_COMMIT, openapi_extra=_BODY, summary="Write trades")
async def post_trades(
    request: Request, here: Here, asked: Annotated[given.Posted, Depends(given.Posted.of)]
) -> Response:
    """All rows of the body or none, durable when the answer comes; the same rows again change nothing."""
    return await _post(request, here, asked, Kind.TRADES, None)


@router.post("/quotes", responses=_COMMIT, openapi_extra=_BODY, summary="Write quotes")
async def post_quotes(
    request: Request, here: Here, asked: Annotated[given.Posted, Depends(given.Posted.of)]
) -> Response:
    """All rows of the body or none, durable when the answer comes; the same rows again change nothing."""
    return await _post(request, here, asked, Kind.QUOTES, None)


async def _post(
    request: Request, here: Context, asked: given.Posted, kind: Kind, interval: Interval | None
) -> Response:
    media_type = media_type_of(request)
    limits = {"max_rows": here.settings.max_upload_rows, "max_bytes": here.settings.max_body_bytes}

    def write(body: bytearray) -> Commit:
        table = decode_table(kind, media_type, body, times=asked.times, **limits)
        return here.store.write(
            kind,
            _with_symbol(table, asked.symbol),
            interval=interval,
            on_conflict=asked.on_conflict,
            prefer=asked.prefer,
            source=asked.source,
            batch=asked.batch,
        )

    async with body_of(request, here) as body:
        commit = await here.workers.write.run(partial(write, body), request=request)
    for outcome in ("inserted", "replaced", "unchanged", "rejected"):
        here.metrics.rows_written.labels(outcome).inc(getattr(commit, outcome))
    return _commit(commit, asked.times)


def _commit(commit: Commit, times: Times) -> Response:
    return answer_json(msgspec.to_builtins(commit), times)


def media_type_of(request: Request) -> str:
    """What the body is; `UnsupportedMediaType` names what can be posted."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        raise UnsupportedMediaType(
            f"Content-Type is {media_type[:64]!r}; a body is one of {', '.join(MEDIA_TYPES)}", parameter="Content-Type"
        )
    return media_type


def _with_symbol(table: pa.Table, symbol: str | None) -> pa.Table:
    if symbol is None:
        return table
    if "symbol" in table.column_names:
        raise InvalidRequest("the body has a column symbol: leave out the parameter", parameter="symbol")
    indices = pa.nulls(table.num_rows, pa.int32()).fill_null(0)
    return table.add_column(0, "symbol", pa.DictionaryArray.from_arrays(indices, pa.array([symbol])))


@router.delete("/bars", responses=_COMMIT, summary="Delete bars")
async def delete_bars(
    request: Request, here: Here, asked: Annotated[given.DeletedBars, Depends(given.DeletedBars.of)]
) -> Response:
    """Hide all bars of a span, of every source. Reads as of an earlier commit still see them."""
    return await _delete(request, here, asked, Kind.BARS, asked.interval)


@router.delete("/trades", responses=_COMMIT, summary="Delete trades")
async def delete_trades(
    request: Request, here: Here, asked: Annotated[given.Deleted, Depends(given.Deleted.of)]
) -> Response:
    """Hide all trades of a span, of every source. Reads as of an earlier commit still see them."""
    return await _delete(request, here, asked, Kind.TRADES, None)


@router.delete("/quotes", responses=_COMMIT, summary="Delete quotes")
async def delete_quotes(
    request: Request, here: Here, asked: Annotated[given.Deleted, Depends(given.Deleted.of)]
) -> Response:
    """Hide all quotes of a span, of every source. Reads as of an earlier commit still see them."""
    return await _delete(request, here, asked, Kind.QUOTES, None)


async def _delete(
    request: Request, here: Context, asked: given.Deleted, kind: Kind, interval: Interval | None
) -> Response:
    check_number(here, asked.symbols)

    def delete() -> Commit:
        symbols = [check_symbol(symbol) for symbol in asked.symbols]
        start, end = _span(here, symbols, asked)
        return here.store.delete(kind, symbols, interval=interval, start=start, end=end)

    return _commit(await here.workers.write.run(delete, request=request), asked.times)


def _span(here: Context, symbols: list[str], asked: given.Deleted) -> tuple[int, int]:
    """The span in nanoseconds. A date is midnight in a zone, so all instruments have to share it: a delete is one."""
    zones = {here.history.instrument(symbol).timezone: here.history.instrument(symbol) for symbol in symbols}
    if len(zones) > 1 and (isinstance(asked.start, date) or isinstance(asked.end, date)):
        raise InvalidRequest(
            f"a date is another instant in each of the zones {', '.join(sorted(zones))}: give times with an offset, or "
            "delete one zone's symbols at a time",
            parameter="start" if isinstance(asked.start, date) else "end",
        )
    zone = next(iter(zones.values()))
    start = MIN_TIME_NS if asked.start is None else _instant(asked.start, zone)
    end = MAX_TIME_NS if asked.end is None else _instant(asked.end, zone)
    if start >= end:
        raise InvalidRequest("start has to be before end", parameter="start")
    return start, end


def _instant(bound: int | date, instrument: Instrument) -> int:
    if isinstance(bound, int):
        return bound
    day = bound.toordinal() - date(1970, 1, 1).toordinal()
    return int(timeline(instrument).midnights(day, day)[0])


@router.put("/instruments", responses=_INSTRUMENTS, openapi_extra=_INSTRUMENTS_BODY, summary="Put instruments")
async def put_instruments(
    request: Request, here: Here, asked: Annotated[given.Nothing, Depends(given.Nothing.of)]
) -> Response:
    """Add instruments, or replace those of the same pattern."""
    if media_type_of(request) != "application/json":
        raise UnsupportedMediaType("instruments are put as application/json", parameter="Content-Type")
    keeper = capable(here.store, Capability.INSTRUMENTS)

    def put(body: bytearray) -> bytes:
        instruments = decode_instruments(body)
        for instrument in instruments:
            timeline(instrument)
        keeper.put_instruments(instruments)
        return encode_document({"instruments": keeper.instruments()})

    async with body_of(request, here) as body:
        return json_response(await here.workers.write.run(partial(put, body), request=request))
