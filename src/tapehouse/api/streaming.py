"""Answers that are sent step by step, so that nobody holds more than a piece of one.

A step (asking the store, encoding the next half megabyte) runs in a worker thread; between steps the answer holds no
thread, so a client that reads slowly keeps nobody waiting. What fits one step is sent whole.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from tapehouse.api.context import Context
from tapehouse.api.workers import Lane, client_of
from tapehouse.errors import Overloaded

STEP_BYTES = 512 * 1024
"""About how much is encoded before it is sent."""


class Sending:
    """An answer that is encoded step by step, by one thread at a time, though not always the same.

    A step ends after about `STEP_BYTES`, or with the first piece after `step_s`.
    """

    def __init__(
        self,
        pieces: Generator[bytes],
        close: Callable[[], None] = lambda: None,
        *,
        headers: Mapping[str, str] | None = None,
        status: int = 200,
        step_s: float | None = None,
    ) -> None:
        self.headers = headers or {}
        self.status = status
        self.done = False
        self._pieces = pieces
        self._close = close
        self._step_s = step_s
        self._lock = threading.Lock()
        self.first = self.step()

    @classmethod
    def unchanged(cls, headers: Mapping[str, str]) -> Sending:
        """The answer to one who has it already."""
        nothing: list[bytes] = []
        return cls((piece for piece in nothing), headers=headers, status=304)

    def step(self) -> bytes:
        """The next bytes; `done` after the last."""
        parts: list[bytes] = []
        size = 0
        started_s = time.monotonic()
        with self._lock:
            while size < STEP_BYTES and not self.done:
                piece = next(self._pieces, None)
                self.done = piece is None
                parts.append(piece or b"")
                size += len(parts[-1])
                if self._step_s is not None and time.monotonic() - started_s > self._step_s:
                    break
        return b"".join(parts)

    def close(self) -> None:
        """Let go of the answer, once the step that may be running is over."""
        with self._lock:
            self.done = True
            self._pieces.close()
            self._close()


async def respond(
    here: Context, request: Request, lane: Lane, begin: Callable[[], Sending], media_type: str
) -> Response:
    """The answer that `begin`, called in a thread of the lane, opens."""
    sending = await lane.run(begin, request=request, discard=Sending.close)
    if sending.done or request.method == "HEAD":
        return _at_once(here, request, sending, media_type)
    try:
        # No await lies between here and the end of the response's own call, which gives it back.
        here.open_answers.take()
    except Overloaded:
        here.workers.let_go(sending.close)
        raise
    return _Streamed(here, lane, client_of(request), sending, media_type)


def _at_once(here: Context, request: Request, sending: Sending, media_type: str) -> Response:
    """An answer that needs no further step: all of it is there, or its beginning, which `HEAD` is not sent."""
    response = Response(sending.first, sending.status, sending.headers, media_type)
    if sending.done:
        sending.close()
        return response
    del response.headers["content-length"]  # nobody knows it yet
    here.workers.let_go(sending.close)
    response.body = b""
    return response


class _Streamed(StreamingResponse):
    """Sends step by step; the client sets the pace, and its going away ends the work."""

    def __init__(self, here: Context, lane: Lane, client: str, sending: Sending, media_type: str) -> None:
        self._here = here
        self._lane = lane
        self._client = client
        self._sending = sending
        super().__init__(self._steps(), sending.status, sending.headers, media_type)

    async def _steps(self) -> AsyncIterator[bytes]:
        yield self._sending.first
        while not self._sending.done:
            yield await self._lane.run(self._sending.step, client=self._client, admitted=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._here.open_answers.give_back()
            self._here.workers.let_go(self._sending.close)

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._here.settings.stall_timeout_s):
                await send(message)

        try:
            await super().stream_response(send_in_time)
        except TimeoutError:
            # Returning without the end of the body makes the server close the connection: nobody takes it for whole.
            self._here.metrics.stalled.inc()
