"""Bodies of requests: read no further than they may go, and together no more of them than memory allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request

from tapehouse.api.answers.coding import Coding, Expanding
from tapehouse.api.context import Context
from tapehouse.errors import LimitExceeded, UnsupportedMediaType

_PART_BYTES = 1024 * 1024
"""What is taken of the budget at a time where a body's length is not known, and what has to come in a stall timeout."""

_CODINGS = ", ".join(coding for coding in Coding if coding is not Coding.IDENTITY)
_EXPANDED_BYTES = 4 * 1024 * 1024


@asynccontextmanager
async def body_of(request: Request, here: Context) -> AsyncIterator[bytearray]:
    """The body without its content coding, whose place in memory is kept until the end of the block.

    Raises `LimitExceeded` for one that is too large, compressed or not, `Overloaded` where others take the memory,
    `UnsupportedMediaType` for a coding that is not known, and 408 when the client stops sending.
    """
    coding = _coding(request)
    taken = _Taken(here)
    try:
        taken.take(_told(request, here))
        body = bytearray()
        async for part in parts_of(request, here.settings.stall_timeout_s):
            body += part
            taken.cover(len(body))
        if coding is not Coding.IDENTITY:
            body = await _expanded(request, here, Expanding(body, coding), taken)
        yield body
    finally:
        here.open_bodies.give_back(taken.bytes)


class _Taken:
    """What one request has of the memory for bodies."""

    def __init__(self, here: Context) -> None:
        self._here = here
        self.bytes = 0

    def take(self, number: int) -> None:
        self._here.open_bodies.take(number)
        self.bytes += number

    def cover(self, size: int, beside: int = 0) -> None:
        """Take what a body of that size needs, beside something else."""
        if size > self._here.settings.max_body_bytes:
            raise _too_large(self._here)
        while size + beside > self.bytes:
            self.take(_PART_BYTES)


async def _expanded(request: Request, here: Context, expanding: Expanding, taken: _Taken) -> bytearray:
    """The body that a compressed one holds, in steps, so that it is refused as soon as it is too large."""
    body, beside = bytearray(), taken.bytes
    while data := await here.workers.write.run(partial(expanding.read, _EXPANDED_BYTES), request=request):
        body += data
        taken.cover(len(body), beside)
    return body


def _told(request: Request, here: Context) -> int:
    """The length that the request tells, 0 when it does not."""
    told = request.headers.get("content-length", "")
    length = int(told) if told.isdecimal() and len(told) < 20 else 0
    if length > here.settings.max_body_bytes:
        raise _too_large(here)
    return length


def _too_large(here: Context) -> LimitExceeded:
    most = here.settings.max_body_bytes
    return LimitExceeded(f"a body has at most {most:,} bytes; send it in parts", limit=most)


async def parts_of(request: Request, stall_timeout_s: float) -> AsyncIterator[bytes]:
    """A body as it comes; each `_PART_BYTES` of it in time, so that nobody keeps memory with a byte a minute."""
    parts = aiter(request.stream())
    loop = asyncio.get_running_loop()
    due_s, came = loop.time() + stall_timeout_s, 0
    while True:
        try:
            async with asyncio.timeout_at(due_s):
                part = await anext(parts, None)
        except TimeoutError:
            raise HTTPException(408) from None
        if part is None:
            return
        yield part
        came += len(part)
        if came >= _PART_BYTES:
            due_s, came = loop.time() + stall_timeout_s, 0


def _coding(request: Request) -> Coding:
    named = request.headers.get("content-encoding", "").strip().lower().removeprefix("x-")
    if named not in ("", *Coding):
        raise UnsupportedMediaType(
            f"Content-Encoding is {named[:64]!r}; a body is sent as it is, or as one of {_CODINGS}",
            parameter="Content-Encoding",
            accept_encoding=_CODINGS,
        )
    return Coding(named or "identity")
