"""What an answer can be written as, and everything that has no rows: JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from tapehouse.api.answers.coding import choose, compressed
from tapehouse.api.answers.validators import ASK_AGAIN
from tapehouse.api.context import Context
from tapehouse.api.streaming import Sending, respond
from tapehouse.api.workers import Lane
from tapehouse.codec import Times, encode_document, encode_list

_LIST_STEP_S = 0.1
"""After how long a list lets others have its thread, and looks whether its client is still there."""


class Format(StrEnum):
    """What rows can be sent as."""

    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"
    FILE = "file"
    JSONL = "jsonl"
    MSGPACK = "msgpack"
    PARQUET = "parquet"


class Compression(StrEnum):
    """How Arrow compresses its own buffers."""

    ZSTD = "zstd"
    LZ4 = "lz4"


class Layout(StrEnum):
    """How JSON and msgpack hold a table."""

    COLUMNS = "columns"
    ROWS = "rows"


MEDIA_TYPES = {
    Format.JSON: "application/json",
    Format.CSV: "text/csv",
    Format.ARROW: "application/vnd.apache.arrow.stream",
    Format.FILE: "application/vnd.apache.arrow.file",
    Format.JSONL: "application/x-ndjson",
    Format.MSGPACK: "application/msgpack",
    Format.PARQUET: "application/vnd.apache.parquet",
}
ACCEPTED = {media_type: format_ for format_, media_type in MEDIA_TYPES.items()} | {
    "application/jsonl": Format.JSONL,
    "application/vnd.msgpack": Format.MSGPACK,
    "application/x-msgpack": Format.MSGPACK,
}
"""By the names that `Accept` may call them."""


class Wanted(Protocol):
    """How an answer is to be written: `parameters.Written`."""

    @property
    def format(self) -> Format | None: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def times(self) -> Times: ...
    @property
    def compression(self) -> Compression | None: ...


def answer_json(document: Mapping[str, Any], times: Times = Times.RFC3339) -> Response:
    """A small document of structs, its times written as asked for."""
    return json_response(encode_document(document, times))


def json_response(encoded: bytes) -> Response:
    """JSON that is encoded already."""
    return Response(encoded, media_type=MEDIA_TYPES[Format.JSON])


async def answer_list(
    here: Context,
    request: Request,
    lane: Lane,
    name: str,
    parts: Callable[[], Iterable[Sequence[Any]]],
    times: Times = Times.RFC3339,
    *,
    of_commits: bool = False,
) -> Response:
    """`{name: [...]}` of the parts of a list, each made and encoded in a thread of the lane when its turn comes.

    With `of_commits` it depends on nothing but what commits and instruments say, and so can be asked after by a tag.
    """
    coding = choose(request.headers.get("accept-encoding"))

    def begin() -> Sending:
        headers = {"Vary": "Accept-Encoding"}
        if of_commits and (tag := here.tags.of_newest(request, coding)) is not None:
            headers |= {"ETag": str(tag), "Cache-Control": ASK_AGAIN}
            if tag.is_in(request.headers.get("if-none-match")):
                return Sending.unchanged(headers)
        headers |= coding.headers
        return Sending(compressed(encode_list(name, parts(), times), coding), headers=headers, step_s=_LIST_STEP_S)

    return await respond(here, request, lane, begin, MEDIA_TYPES[Format.JSON])


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
        "ETag": {"description": "For `If-None-Match` and `If-Range`.", "schema": {"type": "string"}},
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
        MEDIA_TYPES[Format.JSONL]: {
            "schema": {"type": "string"},
            "example": '{"symbol":"AAPL","timestamp":"2024-01-02T00:00:00Z","close":185.64}\n',
        },
        **{
            MEDIA_TYPES[each]: {"schema": {"type": "string", "format": "binary"}}
            for each in (Format.MSGPACK, Format.ARROW, Format.FILE, Format.PARQUET)
        },
    },
}
"""What OpenAPI says of an answer with rows."""
