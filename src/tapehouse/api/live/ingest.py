"""`/v1/ingest`: live records by HTTP, in any format that can be posted, and over a WebSocket with acknowledgements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

import msgspec
import pyarrow as pa
from fastapi import APIRouter, Depends, WebSocket
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from tapehouse.api.bodies import body_of
from tapehouse.api.context import Context, Here
from tapehouse.api.formats import answer_json
from tapehouse.api.keys import Scope
from tapehouse.api.live.parts import Live, live_of
from tapehouse.api.problems import documented
from tapehouse.api.routes import parameters as given
from tapehouse.api.routes.writes import media_type_of
from tapehouse.api.security import checked_key, needs
from tapehouse.codec import Times, decode_table, encode_document
from tapehouse.codec.live.channels import parse_channel
from tapehouse.errors import InvalidRequest, TapehouseError
from tapehouse.ingest.base import Arrival, Receipt
from tapehouse.model import Interval, Kind

router = APIRouter(prefix="/v1", tags=["live"])

_RECEIPT: dict[str, Any] = {
    "accepted": 2, "repeated": 0, "rejected": 0, "late": 0, "gap": None, "next": 3, "examples": [],
    "positions": {"0": {"epoch": 1704205800000, "offset": 17}},
}  # fmt: skip
_ANSWERS = documented(400, 401, 403, 408, 413, 415, 422, 501, 503, example=_RECEIPT)


@router.post("/ingest/trades", dependencies=[needs(Scope.WRITE)], responses=_ANSWERS, summary="Ingest live trades")
async def ingest_trades(
    request: Request, here: Here, asked: Annotated[given.Ingested, Depends(given.Ingested.of)]
) -> Response:
    """Append trades to the log; what the answer counts as accepted is there when it comes."""
    return await _ingest(request, here, asked, Kind.TRADES, None)


@router.post("/ingest/quotes", dependencies=[needs(Scope.WRITE)], responses=_ANSWERS, summary="Ingest live quotes")
async def ingest_quotes(
    request: Request, here: Here, asked: Annotated[given.Ingested, Depends(given.Ingested.of)]
) -> Response:
    """Append quotes to the log; what the answer counts as accepted is there when it comes."""
    return await _ingest(request, here, asked, Kind.QUOTES, None)


@router.post("/ingest/bars", dependencies=[needs(Scope.WRITE)], responses=_ANSWERS, summary="Ingest live bars")
async def ingest_bars(
    request: Request, here: Here, asked: Annotated[given.IngestedBars, Depends(given.IngestedBars.of)]
) -> Response:
    """Append bars whose time is over to the log; what the answer counts as accepted is there when it comes."""
    return await _ingest(request, here, asked, Kind.BARS, asked.interval)


async def _ingest(
    request: Request, here: Context, asked: given.Ingested, kind: Kind, interval: Interval | None
) -> Response:
    live, media_type = live_of(request), media_type_of(request)
    limits = {"max_rows": here.settings.max_ingest_rows, "max_bytes": here.settings.max_body_bytes}

    def take(body: bytearray) -> Receipt:
        table = decode_table(kind, media_type, body, times=asked.times, **limits)
        if asked.heartbeat_s is not None:
            live.ingest.beat(asked.source, asked.heartbeat_s)
        arrival = Arrival(
            kind=kind, interval=interval, table=table, source=asked.source, sequence=asked.sequence,
            session=asked.session,
        )  # fmt: skip
        return live.ingest.take(arrival)

    async with body_of(request, here) as body:
        receipt = await here.workers.ingest.run(partial(take, body), request=request)
    return answer_json(msgspec.to_builtins(receipt, str_keys=True))


class Sent(msgspec.Struct, forbid_unknown_fields=True):
    """A message of a producer: records of a channel, which the answer calls by `id`; without any, a heartbeat."""

    channel: str | None = None
    rows: list[dict[str, Any]] = []
    source: Annotated[str, Meta(min_length=1, max_length=256)] = "live"
    sequence: Annotated[int, Meta(ge=0)] | None = None
    session: Annotated[str, Meta(max_length=64)] = ""
    heartbeat_s: float | None = None
    id: str | int | None = None


_DECODERS: dict[type, Callable[[Any], Sent]] = {
    str: msgspec.json.Decoder(Sent).decode,
    bytes: msgspec.msgpack.Decoder(Sent).decode,
}
_ENCODERS: dict[type, Callable[[Any], bytes]] = {str: msgspec.json.encode, bytes: msgspec.msgpack.encode}


@router.websocket("/ingest")
async def produce(websocket: WebSocket) -> None:
    """Records message by message, each answered with `ack` once the log has them, or `error`; see docs."""
    live, here = live_of(websocket), websocket.app.state.context
    checked_key(websocket, here, Scope.WRITE)
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        while True:
            event = await websocket.receive()
            if event["type"] == "websocket.disconnect":
                break
            message = event["bytes"] if event.get("text") is None else event["text"]
            answer = _ENCODERS[type(message)](await _answered(live, here, message))
            await (websocket.send_text(answer.decode()) if isinstance(message, str) else websocket.send_bytes(answer))


async def _answered(live: Live, here: Context, message: str | bytes) -> Mapping[str, Any]:
    name: str | int | None = None
    try:
        sent = _decode(message)
        name = sent.id
        receipt = await here.workers.ingest.run(partial(_take, live, here, sent))
    except TapehouseError as exc:
        told = {"code": exc.code, "message": exc.message, "retryable": exc.retryable}
        return {"type": "error", "id": name, **told}
    return {"type": "ack", "id": name, **msgspec.to_builtins(receipt, str_keys=True)}


def _decode(message: str | bytes) -> Sent:
    try:
        return _DECODERS[type(message)](message)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"this message is not understood: {exc}") from exc


def _take(live: Live, here: Context, sent: Sent) -> Receipt:
    live.ingest.beat(sent.source, sent.heartbeat_s)
    if sent.channel is None:
        return Receipt()
    channel = parse_channel(sent.channel)
    if channel.kind is None:
        raise InvalidRequest(f"{channel} are made here, and not taken", parameter="channel")
    body = msgspec.json.encode({"rows": sent.rows})
    table = decode_table(
        channel.kind, "application/json", body, times=Times.RFC3339, max_rows=here.settings.max_ingest_rows
    ) if sent.rows else pa.table({})  # fmt: skip
    if not sent.rows:
        return Receipt()
    arrival = Arrival(
        kind=channel.kind, interval=channel.interval, table=table, source=sent.source, sequence=sent.sequence,
        session=sent.session,
    )  # fmt: skip
    return live.ingest.take(arrival)


@router.get(
    "/sources", dependencies=[needs(Scope.READ)], responses=documented(401, 403, 501, example={"sources": []}),
    summary="Live sources",
)  # fmt: skip
async def sources(request: Request, asked: Annotated[given.Timed, Depends(given.Timed.of)]) -> Response:
    """Who sends live records: when each was heard, whether it is silent, and what became of what it sent."""
    live = live_of(request)
    return Response(encode_document({"sources": live.ingest.sources()}, asked.times), media_type="application/json")


@router.get(
    "/ingest/rejected", dependencies=[needs(Scope.READ)],
    responses=documented(401, 403, 501, example={"rejected": []}), summary="Records set aside",
)  # fmt: skip
async def rejected(request: Request, asked: Annotated[given.Listed, Depends(given.Listed.of)]) -> Response:
    """The live records that were set aside last, newest first, each with the reason."""
    found = live_of(request).ingest.rejected(asked.limit)
    return Response(encode_document({"rejected": found}, asked.times), media_type="application/json")
