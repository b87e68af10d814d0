"""Rows as an answer: which format was asked for, and how it is sent without holding more than a piece of it.

A step of an answer (asking the store, encoding the next half megabyte) runs in a worker thread; between steps the
answer holds no thread, so a client that reads slowly keeps nobody waiting. What fits one step is sent whole.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import msgspec
import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from tapehouse.api.context import Context
from tapehouse.codec import Times, encode_columns, encode_csv, encode_file, encode_rows, encode_stream, time_text
from tapehouse.errors import LimitExceeded, NotAcceptable, Overloaded
from tapehouse.query.base import Answer

STEP_BYTES = 512 * 1024
"""About how much is encoded before it is sent."""

_LONGEST_HEADER = 4_000


class Format(StrEnum):
    """What rows can be sent as."""

    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"
    FILE = "file"


class Layout(StrEnum):
    """How JSON holds a table."""

    COLUMNS = "columns"
    ROWS = "rows"


MEDIA_TYPES = {
    Format.JSON: "application/json",
    Format.CSV: "text/csv",
    Format.ARROW: "application/vnd.apache.arrow.stream",
    Format.FILE: "application/vnd.apache.arrow.file",
}


class Wanted(Protocol):
    """How an answer is to be written: `parameters.Written`."""

    @property
    def format(self) -> Format | None: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def times(self) -> Times: ...


def negotiate(asked: Format | None, accept: str | None) -> Format:
    """The format to answer in; `NotAcceptable` names what there is."""
    if asked is not None or not accept:
        return asked or Format.JSON
    ranked = sorted(_ranges(accept), key=lambda one: -one[1])
    for media_range, quality in ranked:
        for format_, media_type in MEDIA_TYPES.items():
            if quality > 0 and _matches(media_range, media_type):
                return format_
    raise NotAcceptable(f"{accept[:100]!r} is none of {', '.join(MEDIA_TYPES.values())}", parameter="Accept")


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.split(","):
        media_range, *parameters = (each.strip().lower() for each in part.split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        try:
            yield media_range, float(quality)
        except ValueError:
            yield media_range, 0.0


def _matches(media_range: str, media_type: str) -> bool:
    if media_range in ("*/*", media_type):
        return True
    return media_range.endswith("/*") and media_type.startswith(media_range[:-1])


@dataclass
class _Rows:
    """What is to be sent: rows as they come, or gathered; `commit` is None where rows are of none."""

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
    commit: int | None = None
    made_from: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    next_page: str | None = None


class _Sending:
    """An answer that is encoded step by step, by one thread at a time, though not always the same."""

    def __init__(self, rows: _Rows, pieces: Generator[bytes], close: Callable[[], None]) -> None:
        self.rows = rows
        self.done = False
        self._pieces = pieces
        self._close = close
        self._lock = threading.Lock()
        self.first = self.step()

    def step(self) -> bytes:
        """The next bytes; `done` after the last."""
        parts: list[bytes] = []
        size = 0
        with self._lock:
            while size < STEP_BYTES and not self.done:
                piece = next(self._pieces, None)
                self.done = piece is None
                parts.append(piece or b"")
                size += len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        """Let go of the answer, once the step that may be running is over."""
        with self._lock:
            self.done = True
            self._pieces.close()
            self._close()


async def answer_rows(
    here: Context, request: Request, wanted: Wanted, ask: Callable[[], Answer], paged: bool
) -> Response:
    """The answer that `ask`, called in a worker thread, opens; a paged one says how to go on."""
    format_ = negotiate(wanted.format, request.headers.get("accept"))
    whole = paged or format_ is Format.FILE or (format_ is Format.JSON and wanted.layout is Layout.COLUMNS)
    return await _respond(here, request, format_, lambda: _open(here, format_, wanted, ask(), whole))


async def answer_table(here: Context, request: Request, wanted: Wanted, ask: Callable[[], pa.Table]) -> Response:
    """The table that `ask`, called in a worker thread, returns."""
    format_ = negotiate(wanted.format, request.headers.get("accept"))

    def begin() -> _Sending:
        table = ask()
        rows = _Rows(table.schema, _counted(here, table.to_batches()))
        return _Sending(rows, _encoded(rows, format_, wanted), lambda: None)

    return await _respond(here, request, format_, begin)


def _open(here: Context, format_: Format, wanted: Wanted, answer: Answer, whole: bool) -> _Sending:
    batches = _counted(here, answer)

    def close() -> None:
        batches.close()
        answer.close()

    try:
        rows = _Rows(answer.schema, batches, answer.commit, answer.made_from)
        if whole:
            rows.batches = _gathered(batches, here.settings.max_page_rows)
            rows.next_page = answer.next_page
            close()
        return _Sending(rows, _encoded(rows, format_, wanted), close)
    except BaseException:
        close()
        raise


def _counted(here: Context, batches: Iterable[pa.RecordBatch]) -> Generator[pa.RecordBatch]:
    for batch in batches:
        here.metrics.rows_served.inc(batch.num_rows)
        yield batch


def _gathered(batches: Iterable[pa.RecordBatch], most: int) -> list[pa.RecordBatch]:
    gathered, rows = [], 0
    for batch in batches:
        gathered.append(batch)
        rows += batch.num_rows
        if rows > most:
            raise LimitExceeded(
                f"this answer has more than {most:,} rows, too many for JSON columns or an Arrow file: ask for "
                "layout=rows, format=csv or format=arrow, which stream, or for pages with limit",
                parameter="limit",
                limit=most,
            )
    return gathered


def _encoded(rows: _Rows, format_: Format, wanted: Wanted) -> Generator[bytes]:
    if format_ is Format.CSV:
        return encode_csv(rows.schema, rows.batches, wanted.times)
    if format_ is Format.ARROW:
        return encode_stream(rows.schema, rows.batches)
    if format_ is Format.FILE:
        return encode_file(pa.Table.from_batches(list(rows.batches), rows.schema))
    head, tail = ({}, {}) if rows.commit is None else _frame(rows)
    if wanted.layout is Layout.ROWS:
        return encode_rows(rows.batches, head, tail, wanted.times)
    return encode_columns(pa.Table.from_batches(list(rows.batches), rows.schema), head, tail, wanted.times)


def _frame(rows: _Rows) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"commit": rows.commit, "made_from": dict(rows.made_from)}, {"next_page": rows.next_page}


async def _respond(here: Context, request: Request, format_: Format, begin: Callable[[], _Sending]) -> Response:
    sending = await here.workers.run(begin)
    headers = {"Vary": "Accept", **_headers(sending.rows, request)}
    media_type = MEDIA_TYPES[format_]
    if sending.done:
        sending.close()
        return Response(sending.first, headers=headers, media_type=media_type)
    if here.open_answers.locked():
        here.workers.submit(sending.close)
        raise Overloaded("too many large answers are being sent already", retry_after_s=5.0)
    return _Streamed(here, sending, headers, media_type)


class _Streamed(StreamingResponse):
    """Sends step by step; the client sets the pace, and its going away ends the work."""

    def __init__(self, here: Context, sending: _Sending, headers: Mapping[str, str], media_type: str) -> None:
        self._here = here
        self._sending = sending
        super().__init__(self._steps(), headers=headers, media_type=media_type)

    async def _steps(self) -> AsyncIterator[bytes]:
        yield self._sending.first
        while not self._sending.done:
            yield await self._here.workers.run(self._sending.step, admitted=True)

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._here.settings.stall_timeout_s):
                await send(message)

        self._here.metrics.open_answers.inc()
        try:
            async with self._here.open_answers:
                await super().stream_response(send_in_time)
        except TimeoutError:
            # Returning without the end of the body makes the server close the connection: nobody takes it for whole.
            self._here.metrics.stalled.inc()
        finally:
            self._here.metrics.open_answers.dec()
            self._here.workers.submit(self._sending.close)


def _headers(rows: _Rows, request: Request) -> dict[str, str]:
    if rows.commit is None:
        return {}
    headers = {"Tapehouse-Commit": str(rows.commit)}
    if rows.made_from:
        headers["Tapehouse-Made-From"] = _made_from(rows.made_from)
    if rows.next_page is not None:
        others = [(name, value) for name, value in request.query_params.multi_items() if name != "page"]
        following = f"{request.url.path}?{urlencode([*others, ('page', rows.next_page)])}"
        headers["Tapehouse-Next-Page"] = rows.next_page
        headers["Link"] = f'<{following}>; rel="next"'
    return headers


def _made_from(made_from: Mapping[str, tuple[str, ...]]) -> str:
    """`AAPL=1m;MSFT=1m,trades`; of so many symbols that it would be refused as a header, `*=` all sources."""
    text = ";".join(f"{quote(symbol, safe='')}={','.join(sources)}" for symbol, sources in made_from.items())
    if len(text) <= _LONGEST_HEADER:
        return text
    return "*=" + ",".join(dict.fromkeys(source for sources in made_from.values() for source in sources))


TIME_FIELDS = frozenset({"first", "last", "start", "end", "recorded"})
"""The members of a document that are times, all of them UTC nanoseconds inside."""


def answer_json(document: Mapping[str, Any], times: Times = Times.RFC3339) -> Response:
    """A document of structs, its times written as asked for."""
    plain = _with_times(msgspec.to_builtins(document), times)
    return Response(msgspec.json.encode(plain), media_type=MEDIA_TYPES[Format.JSON])


def _with_times(value: Any, times: Times) -> Any:
    if isinstance(value, list):
        return [_with_times(each, times) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: time_text(each, times) if name in TIME_FIELDS and isinstance(each, int) else _with_times(each, times)
        for name, each in value.items()
    }


_COLUMNS_EXAMPLE = {
    "commit": 12,
    "made_from": {},
    "columns": {"symbol": ["AAPL"], "timestamp": ["2024-01-02T00:00:00Z"], "close": [185.64]},
    "next_page": None,
}
_ROWS_EXAMPLE = {
    "commit": 12,
    "made_from": {},
    "rows": [{"symbol": "AAPL", "timestamp": "2024-01-02T00:00:00Z", "close": 185.64}],
    "next_page": None,
}
ROWS_DOCUMENTED: dict[str, Any] = {
    "description": "The rows, in the format asked for.",
    "headers": {
        "Tapehouse-Commit": {"description": "The commit they are as of.", "schema": {"type": "integer"}},
        "Tapehouse-Made-From": {"description": "What was resampled, and from what.", "schema": {"type": "string"}},
        "Tapehouse-Next-Page": {"description": "The token of the next page.", "schema": {"type": "string"}},
    },
    "content": {
        MEDIA_TYPES[Format.JSON]: {
            "schema": {"type": "object"},
            "examples": {"columns": {"value": _COLUMNS_EXAMPLE}, "rows": {"value": _ROWS_EXAMPLE}},
        },
        MEDIA_TYPES[Format.CSV]: {
            "schema": {"type": "string"},
            "example": "symbol,timestamp,close\nAAPL,2024-01-02T00:00:00Z,185.64\n",
        },
        MEDIA_TYPES[Format.ARROW]: {"schema": {"type": "string", "format": "binary"}},
        MEDIA_TYPES[Format.FILE]: {"schema": {"type": "string", "format": "binary"}},
    },
}
"""What OpenAPI says of an answer with rows."""
