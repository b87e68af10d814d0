"""`/v1/stream`: a WebSocket on which a client subscribes. What it is sent is written by the hub, not through here."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from tapehouse.api.context import Context
from tapehouse.api.keys import Scope
from tapehouse.api.live.parts import live_of
from tapehouse.api.live.sockets import SOCKET, StreamProtocol
from tapehouse.api.security import checked_key
from tapehouse.codec.live.messages import Wire
from tapehouse.errors import Denied, InvalidRequest, Unavailable
from tapehouse.stream.base import CloseCode, Session

router = APIRouter()

_AUTHENTICATED_WITHIN_S = 10.0

logger = logging.getLogger(__name__)


@router.websocket("/v1/stream")
async def stream(websocket: WebSocket) -> None:
    """Records as they come, and from any time on; see docs/reference/stream.md."""
    streams = live_of(websocket).streams
    if streams is None:
        raise Unavailable("this server does not stream yet")
    socket: StreamProtocol = websocket.scope[SOCKET]
    socket.wire = _wire(websocket)
    known = _known(websocket)
    await websocket.accept()
    session = streams.open(socket, authenticated=known)
    if not known:
        asyncio.get_running_loop().call_later(_AUTHENTICATED_WITHIN_S, _turn_away, session, socket)
    try:
        with suppress(WebSocketDisconnect):
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                text = message.get("text")
                session.receive(message["bytes"] if text is None else text)
    finally:
        session.close()


def _wire(websocket: WebSocket) -> Wire:
    given = websocket.query_params.get("format", "json")
    if given not in tuple(Wire):
        raise InvalidRequest(f"format is {given[:40]!r}; a stream is json or msgpack", parameter="format")
    return Wire(given)


def _known(websocket: WebSocket) -> bool:
    """Whether the key that came along, if any has to, lets this client read; a browser sends its own afterwards."""
    here: Context = websocket.app.state.context
    try:
        checked_key(websocket, here, Scope.READ)
    except Denied:
        if "authorization" in websocket.headers or "x-api-key" in websocket.headers:
            raise
        return False
    return True


def _turn_away(session: Session, socket: StreamProtocol) -> None:
    if not session.authenticated:
        socket.close(CloseCode.UNAUTHENTICATED, f"no key came within {_AUTHENTICATED_WITHIN_S:g} s")
