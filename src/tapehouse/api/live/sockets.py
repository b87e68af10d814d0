"""WebSocket connections: uvicorn's, whose transport the hub writes ready frames to.

Compression begins anew with each message, so that a message is compressed once for all who take it. What is written by
uvicorn (the handshake, pongs, the closing handshake) and what the hub writes are whole frames, and so can follow each
other in any order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tapehouse.api import problems
from tapehouse.codec.live.frames import WINDOW_BITS, close
from tapehouse.codec.live.messages import Wire
from tapehouse.settings import Settings

SOCKET = "tapehouse.socket"
"""Where the scope of a WebSocket has the connection itself."""
_CLOSE_WITHIN_S = 5.0
"""A client that does not read is not waited for longer than that with the close frame."""

logger = logging.getLogger(__name__)


class StreamProtocol(WebSocketsSansIOProtocol):
    """See `stream.base.Socket`."""

    def __init__(self, config: Any, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        self._settings: Settings = config.limits
        factory = ServerPerMessageDeflateFactory(
            server_no_context_takeover=True,
            server_max_window_bits=WINDOW_BITS,
            client_max_window_bits=WINDOW_BITS,
            compress_settings={"memLevel": 4},
        )
        self.conn = ServerProtocol(
            extensions=[factory], max_size=self._settings.max_message_bytes, logger=logging.getLogger("uvicorn.error")
        )
        self._on_writable: Callable[[], None] | None = None
        self._closing = False
        self.wire = Wire.JSON

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        # Above the limit the hub stops writing, and below half of it goes on.
        most = self._settings.max_outbox_bytes
        transport.set_write_buffer_limits(high=most, low=most // 2)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._on_writable = None
        super().connection_lost(exc)

    def handle_connect(self, event: Request) -> None:
        """Let the app find the connection in its scope; one too many is refused."""
        if len(self.connections) > self._settings.max_connections:
            most = f"{self._settings.max_connections:,} connections are open already"
            body = problems.document(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", most)
            response = self.conn.reject(HTTPStatus.SERVICE_UNAVAILABLE, body.decode())
            self.conn.send_response(response)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = self.handshake_complete = True
            self.transport.close()
            return
        super().handle_connect(event)
        if hasattr(self, "scope"):
            self.scope[SOCKET] = self  # type: ignore[literal-required]

    def handle_pong(self, event: Frame) -> None:
        """uvicorn's goes on counting only with a limit for pongs, which would cut off who has much to read first."""
        if self.pending_ping_payload == bytes(event.data):
            self.last_ping_rtt = self.loop.time() - self.ping_sent_at
            self.pending_ping_payload = None

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        if self._on_writable is not None:
            self._on_writable()

    @property
    def compressed(self) -> bool:
        """See `Socket.compressed`."""
        return any(isinstance(each, PerMessageDeflate) for each in self.conn.extensions)

    def write(self, data: bytes) -> None:
        """See `Socket.write`."""
        if data and not (self._closing or self.close_sent or self.transport.is_closing()):
            self.transport.write(data)

    @property
    def pending(self) -> int:
        """See `Socket.pending`."""
        return self.transport.get_write_buffer_size()

    @property
    def reads(self) -> bool:
        """See `Socket.reads`."""
        return self.writable.is_set() and not self._closing

    def on_writable(self, call: Callable[[], None]) -> None:
        """See `Socket.on_writable`."""
        self._on_writable = call

    def close(self, code: int, reason: str) -> None:
        """See `Socket.close`."""
        if self._closing or self.transport.is_closing():
            return
        self.transport.write(close(code, reason))
        # From here on it is as if uvicorn had sent it: it ends the connection when the client has answered.
        self._closing = self.close_sent = True
        self.close_timer = self.loop.call_later(_CLOSE_WITHIN_S, self.transport.abort)
