"""Files that are sent to be loaded: taken piece by piece, in memory no larger than a piece.

They come as `multipart/form-data`, as browsers and `curl -F` send them, or one file as the body itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header
from starlette.requests import Request

from tapehouse.api.bodies import parts_of
from tapehouse.api.context import Context
from tapehouse.errors import InvalidRequest, LimitExceeded
from tapehouse.jobs.base import Upload

PIECE_BYTES = 1024 * 1024
_FIELD_BYTES = 64 * 1024


async def receive(request: Request, here: Context, take: Callable[[bytes], None]) -> None:
    """Hand the body to `take` piece by piece, in threads, each within the stall timeout; raises what it raises."""
    here.open_bodies.take(2 * PIECE_BYTES)
    try:
        piece = bytearray()
        async for part in parts_of(request, here.settings.stall_timeout_s):
            piece += part
            if len(piece) >= PIECE_BYTES:
                await asyncio.to_thread(take, bytes(piece))
                piece.clear()
        if piece:
            await asyncio.to_thread(take, bytes(piece))
    finally:
        here.open_bodies.give_back(2 * PIECE_BYTES)


class Form:
    """A form as it comes in: its files go to the upload as they do, and the field `options` is kept."""

    def __init__(self, content_type: str, upload: Upload) -> None:
        _, parameters = parse_options_header(content_type)
        if b"boundary" not in parameters:
            raise InvalidRequest("multipart/form-data needs a boundary", parameter="Content-Type")
        self.options = bytearray()
        self._upload = upload
        self._header, self._value = bytearray(), bytearray()
        self._disposition = ""
        self._take: Callable[[bytes], Any] = bytearray().extend
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_data,
            "on_part_data": lambda data, start, end: self._take(data[start:end]),
            "on_part_end": upload.end,
        }
        try:
            self._parser = MultipartParser(parameters[b"boundary"], cast(Any, callbacks))
        except FormParserError as exc:
            raise InvalidRequest(f"the form cannot be read: {exc}", parameter="Content-Type") from exc

    def feed(self, data: bytes) -> None:
        """The next bytes of the body; `InvalidRequest` says what is wrong with the form."""
        try:
            self._parser.write(data)
        except FormParserError as exc:
            raise InvalidRequest(f"the form cannot be read: {exc}") from exc

    def end(self) -> None:
        """The body has ended; `InvalidRequest` when the form has not."""
        if self._parser.state is not MultipartState.END:
            raise InvalidRequest("the form is cut off")

    def _begin_part(self) -> None:
        self._disposition = ""
        self._header.clear()
        self._value.clear()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value.decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def _begin_data(self) -> None:
        _, said = parse_options_header(_latin(self._disposition))
        name = said.get(b"name", b"").decode("utf-8", "replace")
        file = said.get(b"filename")
        if file is not None and name in ("file", "files"):
            self._upload.begin(file.decode("utf-8", "replace"))
            self._take = self._upload.write
        elif file is None and name == "options":
            self._take = self._keep
        else:
            raise InvalidRequest(
                f"the form has a part {name[:64]!r}; expected files called `file`, and `options` as JSON",
                parameter=name[:64],
            )

    def _keep(self, data: bytes) -> None:
        self.options += data
        if len(self.options) > _FIELD_BYTES:
            raise LimitExceeded(f"options has at most {_FIELD_BYTES:,} bytes", limit=_FIELD_BYTES, parameter="options")


def _latin(text: str) -> str:
    """UTF-8 in the form that `parse_options_header` takes headers in, and gives back as the bytes that they were."""
    return text.encode("utf-8").decode("latin-1")
