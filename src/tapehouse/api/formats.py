"""What an answer is written as: rows in the format asked for, and everything else as JSON."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response

from tapehouse.api.context import Context
from tapehouse.api.streaming import Sending, respond
from tapehouse.api.workers import Lane
from tapehouse.codec import (
    Times,
    encode_columns,
    encode_csv,
    encode_document,
    encode_file,
    encode_list,
    encode_rows,
    encode_stream,
)
from tapehouse.errors import LimitExceeded, NotAcceptable
from tapehouse.query.base import Answer

_LIST_STEP_S = 0.1
"""After how long a list lets others have its thread, and looks whether its client is still there."""

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


async def answer_rows(
    here: Context, request: Request, wanted: Wanted, ask: Callable[[], Answer], paged: bool
) -> Response:
    """The answer that `ask`, called in a worker thread, opens; a paged one says how to go on."""
    format_ = negotiate(wanted.format, request.headers.get("accept"))
    whole = paged or format_ is Format.FILE or (format_ is Format.JSON and wanted.layout is Layout.COLUMNS)

    def begin() -> Sending:
        return _open(here, request, format_, wanted, ask(), whole)

    return await respond(here, request, here.workers.query, begin, MEDIA_TYPES[format_])


async def answer_table(
    here: Context, request: Request, wanted: Wanted, lane: Lane, ask: Callable[[], pa.Table]
) -> Response:
    """The table that `ask`, called in a thread of the lane, returns."""
    format_ = negotiate(wanted.format, request.headers.get("accept"))

    def begin() -> Sending:
        table = ask()
        rows = _Rows(table.schema, _counted(here, table.to_batches()))
        return Sending(_encoded(rows, format_, wanted), headers=_headers(rows, request))

    return await respond(here, request, lane, begin, MEDIA_TYPES[format_])


def _open(here: Context, request: Request, format_: Format, wanted: Wanted, answer: Answer, whole: bool) -> Sending:
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
        return Sending(_encoded(rows, format_, wanted), close, headers=_headers(rows, request))
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


def _headers(rows: _Rows, request: Request) -> dict[str, str]:
    headers = {"Vary": "Accept"}
    if rows.commit is None:
        return headers
    headers["Tapehouse-Commit"] = str(rows.commit)
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
) -> Response:
    """`{name: [...]}` of the parts of a list, each made and encoded in a thread of the lane when its turn comes."""

    def begin() -> Sending:
        return Sending(encode_list(name, parts(), times), step_s=_LIST_STEP_S)

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
