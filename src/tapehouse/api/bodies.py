"""Bodies of requests: read no further than they may go, and together no more of them than memory allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.exceptions import HTTPException
from starlette.requests import Request

from tapehouse.api.context import Context
from tapehouse.errors import LimitExceeded, UnsupportedMediaType

_PART_BYTES = 1024 * 1024
"""What is taken of the budget at a time where a body's length is not known, and what has to come in a stall timeout."""


@asynccontextmanager
async def body_of(request: Request, here: Context) -> AsyncIterator[bytearray]:
    """The body, whose place in memory is kept until the end of the block.

    Raises `LimitExceeded` for one that is too large, `Overloaded` where others take the memory, and 408 when the
    client stops sending. A compressed one is `UnsupportedMediaType`: the limit would say nothing of its size.
    """
    _check_coding(request)
    taken = _told(request, here)
    here.open_bodies.take(taken)
    try:
        body = bytearray()
        async for part in parts_of(request, here.settings.stall_timeout_s):
            body += part
            if len(body) > here.settings.max_body_bytes:
                raise _too_large(here)
            while len(body) > taken:
                here.open_bodies.take(_PART_BYTES)
                taken += _PART_BYTES
        yield body
    finally:
        here.open_bodies.give_back(taken)


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


def _check_coding(request: Request) -> None:
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise UnsupportedMediaType(
            f"Content-Encoding is {coding[:64]!r}; a body is sent as it is, not compressed",
            parameter="Content-Encoding",
        )
