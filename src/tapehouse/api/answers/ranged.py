"""Answers that are read in ranges, or whose length is asked for: written once, kept, and sent in parts."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Generator

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tapehouse.api import problems
from tapehouse.api.answers.ranges import Range, parse_range
from tapehouse.api.answers.spool import Reader, Rendered
from tapehouse.api.answers.validators import ETag, question
from tapehouse.api.context import Context
from tapehouse.api.streaming import STEP_BYTES, Sending, respond
from tapehouse.api.workers import client_of

_PROGRAM_LENGTH = 200


def wants_ranges(request: Request) -> bool:
    """Whether a request of a file can only be answered by one who has the whole of it."""
    return request.method == "HEAD" or (
        request.method == "GET" and parse_range(request.headers.get("range")) is not None
    )


async def answer_in_ranges(here: Context, request: Request, media_type: str, begin: Callable[[], Sending]) -> Response:
    """The part asked for of the answer that `begin`, called in a thread, opens, or of the one this client reads."""
    wanted = parse_range(request.headers.get("range")) if request.method == "GET" else None
    reader = _reader(request, media_type)
    condition = request.headers.get("if-range")
    rendered = _known(here, reader, wanted, condition)
    if rendered is None:
        sending = await here.workers.query.run(begin, request=request, discard=Sending.close)
        if sending.status == 304:
            return Response(status_code=304, headers=sending.headers)
        rendered = await _render(here, request, sending, reader)
    rendered.users += 1
    try:
        return await _part(here, request, rendered, wanted, condition, media_type)
    finally:
        here.spool.release(rendered)
        asyncio.get_running_loop().call_later(here.settings.keep_ranges_s, here.spool.expire)


def _reader(request: Request, media_type: str) -> Reader:
    program = request.headers.get("user-agent", "")[:_PROGRAM_LENGTH]
    return (client_of(request), program, media_type, *question(request))


def _known(here: Context, reader: Reader, wanted: Range | None, condition: str | None) -> Rendered | None:
    if wanted is not None and condition is not None:
        return here.spool.find(condition.strip())
    if wanted is None or wanted.is_suffix:
        return here.spool.in_the_middle(reader)
    return here.spool.of(reader)


async def _render(here: Context, request: Request, sending: Sending, reader: Reader) -> Rendered:
    """All of the answer, in the spool."""
    rendered = Rendered()
    taken = 0

    def write(data: bytes) -> None:
        rendered.write(data)

    def step() -> int:
        data = sending.step()
        write(data)
        return len(data)

    try:
        here.open_answers.take()
        try:
            here.spool.take(len(sending.first))
            taken = len(sending.first)
            await here.workers.query.run(lambda: write(sending.first), client=client_of(request), admitted=True)
            while not sending.done:
                if await request.is_disconnected():
                    raise ClientDisconnect
                size = await here.workers.query.run(step, client=client_of(request), admitted=True)
                here.spool.take(size)
                taken += size
        finally:
            here.open_answers.give_back()
        tag = sending.headers.get("ETag", f'"{secrets.token_hex(12)}"')  # a store that does not remember has no tags
        rendered.etag = ETag(tag.removeprefix("W/").strip('"'))
        rendered.headers = {**sending.headers, "ETag": str(rendered.etag)}
        return here.spool.keep(rendered, reader)
    except BaseException:
        here.spool.give_back(taken)
        here.workers.let_go(rendered.close)
        raise
    finally:
        here.workers.let_go(sending.close)


async def _part(
    here: Context,
    request: Request,
    rendered: Rendered,
    wanted: Range | None,
    condition: str | None,
    media_type: str,
) -> Response:
    assert rendered.etag is not None
    if rendered.etag.is_in(request.headers.get("if-none-match")):
        return Response(status_code=304, headers=rendered.headers)
    if request.method == "HEAD":
        return _head(rendered, media_type)
    start, end, status = 0, rendered.size, 200
    if wanted is not None and (condition is None or rendered.etag.is_exactly(condition)):
        place = wanted.of(rendered.size)
        if place is None:
            return _none_of_it(request, rendered)
        (start, end), status = place, 206
    headers = {**rendered.headers, "Content-Length": str(end - start)}
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{rendered.size}"
    return await _sent(here, request, rendered, (start, end), headers, status, media_type)


async def _sent(
    here: Context,
    request: Request,
    rendered: Rendered,
    place: tuple[int, int],
    headers: dict[str, str],
    status: int,
    media_type: str,
) -> Response:
    rendered.note_read(*place)
    loop = asyncio.get_running_loop()
    rendered.users += 1

    def close() -> None:
        loop.call_soon_threadsafe(here.spool.release, rendered)

    def begin() -> Sending:
        return Sending(_pieces(rendered, *place), close, headers=headers, status=status)

    return await respond(here, request, here.workers.query, begin, media_type)


def _pieces(rendered: Rendered, start: int, end: int) -> Generator[bytes]:
    for place in range(start, end, STEP_BYTES):
        yield rendered.read(place, min(end, place + STEP_BYTES))


def _head(rendered: Rendered, media_type: str) -> Response:
    return Response(headers={**rendered.headers, "Content-Length": str(rendered.size)}, media_type=media_type)


def _none_of_it(request: Request, rendered: Rendered) -> Response:
    detail = f"the answer has {rendered.size:,} bytes, and none of those that are asked for"
    response = problems.problem(request, 416, problems.HTTP_CODES[416], detail)
    response.headers["Content-Range"] = f"bytes */{rendered.size}"
    return response
