"""Where connections come in: uvicorn, held to limits that apply before anybody has said who they are.

A head (the request line and the headers) is refused once it is larger than `max_header_bytes`, a connection that does
not bring a whole one within `header_timeout_s` is closed, and so is one beyond `max_connections`. So is a longer target
than the parser takes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from asyncio.events import TimerHandle
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tapehouse.api import problems
from tapehouse.api.live.sockets import StreamProtocol
from tapehouse.api.workers import PRESENCE, Presence
from tapehouse.settings import Settings

KEEP_ALIVE_S = 75
MAX_TARGET_BYTES = 65_535
"""llhttp, which parses it, takes no longer one."""
_REFUSED_RETRY_AFTER_S = 5

logger = logging.getLogger(__name__)


class _Config(uvicorn.Config):
    """uvicorn's, and the limits of our protocol, which is given nothing else."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        super().__init__(
            app,
            http=Guarded,
            ws=StreamProtocol,
            ws_per_message_deflate=False,  # ours begins anew with each message
            ws_ping_interval=settings.stream_heartbeat_s,
            ws_ping_timeout=None,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
        )
        self.limits = settings


class Door(uvicorn.Server):
    """One listening socket, served by uvicorn without its own idea of signals."""

    def __init__(self, app: ASGIApp, settings: Settings, listener: socket.socket) -> None:
        super().__init__(_Config(app, settings))
        self._listener = listener

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until_closed(self) -> None:
        """Accept requests until `close`, then wait for those that are open; those that take too long are cancelled."""
        try:
            await self.serve(sockets=[self._listener])
        finally:
            for task in list(self.server_state.tasks):
                task.cancel()

    def close(self, *, at_once: bool = False) -> None:
        """Accept no more; `at_once` does not wait for open requests."""
        self.should_exit = True
        self.force_exit = self.force_exit or at_once


class Guarded(HttpToolsProtocol):
    """uvicorn's protocol, with limits on heads, on the time they take, and on the number of connections."""

    def __init__(self, config: Any, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        self._limits: Settings = config.limits
        self._head_bytes = self._target_bytes = 0
        """Of the request line (and of what it asks for), headers and trailers of this message that are parsed."""
        self._unparsed_bytes = 0
        """What came in since the parser last reported anything: it keeps the beginning of a header to itself."""
        self._reported = False
        self._in_head = False
        self._head_timer: TimerHandle | None = None
        self._presence = Presence()
        self._upgraded = False

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, and watch it no longer."""
        self._upgraded = True
        self._forget_timer()
        super().handle_websocket_upgrade()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            most = f"{self._limits.max_connections:,} connections are open already"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", most, _REFUSED_RETRY_AFTER_S)
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)
        self._presence.leave()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._reported = False
        super().data_received(data)
        if self._upgraded:
            return
        self._unparsed_bytes = 0 if self._reported else self._unparsed_bytes + len(data)
        self._check_head()
        # uvicorn counts down to the end of an idle connection, but not once anything has come in.
        if (self.cycle is None or self.cycle.response_complete) and self.timeout_keep_alive_task is None:
            self._expect_head()

    def on_message_begin(self) -> None:
        self._reported = self._in_head = True
        self._head_bytes = self._target_bytes = 0
        super().on_message_begin()
        self.scope[PRESENCE] = self._presence  # type: ignore[literal-required]

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        self._target_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)  # a colon and the end of the line
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._reported, self._in_head = True, False
        self._forget_timer()
        self._check_head()
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._reported = True
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._reported = True
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_head:  # the beginning of the next request is here already
            self._expect_head()

    def _count(self, size: int) -> None:
        self._reported = True
        self._head_bytes += size

    def _check_head(self) -> None:
        if self._target_bytes > MAX_TARGET_BYTES:
            most = f"what is asked for (path and query) may have {MAX_TARGET_BYTES:,} bytes; ask for less at once"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", most)
        if self._head_bytes + self._unparsed_bytes > self._limits.max_header_bytes:
            most = f"the request line and the headers may have {self._limits.max_header_bytes:,} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", most)

    def _expect_head(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self._limits.header_timeout_s, self._on_head_timeout)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        late = f"no whole request came within {self._limits.header_timeout_s:g} s"
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", late)

    def _refuse(self, status: HTTPStatus, code: str, detail: str, retry_after_s: int | None = None) -> None:
        """Answer before there is a request, and close. In the middle of an answer, only close."""
        if self.transport.is_closing():
            return
        logger.info("%s: %s", _client(self.client), detail)
        if self.cycle is None or self.cycle.response_complete:
            body = problems.document(status, code, detail)
            wait = "" if retry_after_s is None else f"Retry-After: {retry_after_s}\r\n"
            head = (
                f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: {problems.MEDIA_TYPE}\r\n"
                f"Content-Length: {len(body)}\r\n{wait}Connection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


def _client(address: tuple[str, int] | None) -> str:
    return "a connection" if address is None else f"a connection of {address[0]}"
