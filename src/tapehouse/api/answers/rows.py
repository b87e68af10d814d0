"""Answers with rows: opened in a thread, in the form asked for, and not sent to whoever has them already."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from urllib.parse import quote, urlencode

import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response

from tapehouse.api.answers.ranged import answer_in_ranges, wants_ranges
from tapehouse.api.answers.validators import ASK_AGAIN, IMMUTABLE, ETag
from tapehouse.api.answers.written import IN_RANGES, Form, Rows, form_of, write
from tapehouse.api.context import Context
from tapehouse.api.formats import Wanted
from tapehouse.api.streaming import Sending, respond
from tapehouse.api.workers import Lane
from tapehouse.errors import LimitExceeded
from tapehouse.query.base import Answer

_LONGEST_HEADER = 4_000


async def answer_rows(
    here: Context, request: Request, wanted: Wanted, ask: Callable[[], Answer], *, paged: bool, settled: bool
) -> Response:
    """The answer that `ask`, called in a worker thread, opens; a paged one says how to go on.

    `settled`: asked again, the same rows come for ever, as long as they need not be resampled.
    """
    form = form_of(request, wanted)

    def begin(form: Form) -> Sending:
        return _open(here, request, form, ask(), whole=paged or form.whole, settled=settled)

    if form.format in IN_RANGES and wants_ranges(request):
        return await answer_in_ranges(here, request, form.media_type, lambda: begin(form.plain()))
    return await respond(here, request, here.workers.query, lambda: begin(form), form.media_type)


async def answer_table(
    here: Context, request: Request, wanted: Wanted, lane: Lane, ask: Callable[[], pa.Table]
) -> Response:
    """The table that `ask`, called in a thread of the lane, returns."""
    form = form_of(request, wanted)

    def begin(form: Form) -> Sending:
        tag = here.tags.of_newest(request, form) if request.method in ("GET", "HEAD") else None
        if tag is not None and tag.is_in(request.headers.get("if-none-match")):
            return Sending.unchanged(_headers(form, tag))
        table = ask()
        rows = Rows(table.schema, _counted(here, table.to_batches()))
        return Sending(write(rows, form), headers=_headers(form, tag))

    if form.format in IN_RANGES and wants_ranges(request):
        return await answer_in_ranges(here, request, form.media_type, lambda: begin(form.plain()))
    return await respond(here, request, lane, lambda: begin(form), form.media_type)


def _open(here: Context, request: Request, form: Form, answer: Answer, *, whole: bool, settled: bool) -> Sending:
    batches = _counted(here, answer)

    def close() -> None:
        batches.close()
        answer.close()

    try:
        tag = here.tags.of(request, answer.commit, form, weak=form.weak)
        headers = _headers(form, tag, settled=settled and not answer.made_from)
        if tag is not None and tag.is_in(request.headers.get("if-none-match")):
            close()
            return Sending.unchanged(headers)
        rows = Rows(answer.schema, batches, answer.commit, answer.made_from)
        if whole:
            rows.batches = _gathered(batches, here.settings.max_page_rows)
            rows.next_page = answer.next_page
            close()
        return Sending(write(rows, form), close, headers=headers | _about(rows, request))
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
                f"this answer has more than {most:,} rows, too many for JSON columns, msgpack, or an Arrow or Parquet "
                "file: ask for layout=rows, format=jsonl, csv or arrow, which stream, or for pages with limit",
                parameter="limit",
                limit=most,
            )
    return gathered


def _headers(form: Form, tag: ETag | None, *, settled: bool = False) -> dict[str, str]:
    headers = {"Vary": "Accept, Accept-Encoding"} | form.coding.headers
    if form.format in IN_RANGES:
        headers["Accept-Ranges"] = "bytes"
    if tag is not None:
        headers |= {"ETag": str(tag), "Cache-Control": IMMUTABLE if settled else ASK_AGAIN}
    return headers


def _about(rows: Rows, request: Request) -> dict[str, str]:
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
