"""Long work: loads are asked for, watched and cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Send
from starlette.types import Scope as ASGIScope

from tapehouse.api.bodies import body_of
from tapehouse.api.context import Context, Here
from tapehouse.api.formats import answer_json
from tapehouse.api.keys import Scope
from tapehouse.api.problems import documented
from tapehouse.api.routes import parameters as given
from tapehouse.api.routes.uploads import Form, receive
from tapehouse.api.security import TRUSTED, needs
from tapehouse.bulk.base import LoadOptions
from tapehouse.bulk.checks.base import Validate
from tapehouse.codec import Times, encode_document
from tapehouse.errors import InvalidRequest, NotFound, NotSupported, UnsupportedMediaType
from tapehouse.jobs.base import Job, LoadRequest, Loads, State

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[needs(Scope.WRITE)])

HEARTBEAT_S = 15.0
"""After how long without news a watcher is sent a sign of life."""
_EVENTS_APART_S = 0.1

_OURS = ("threads", "workers", "block_bytes", "batch_rows", "retries")
"""How the server goes about a load is not for others to say."""

JOB_EXAMPLE = {
    "id": "5f0c3b1a9d2e4c77",
    "kind": "load",
    "state": "running",
    "version": 7,
    "batch": "load-20240103T090000Z-1a2b3c",
    "what": ["us-daily.csv.gz"],
    "created": "2024-01-03T09:00:00Z",
    "started": "2024-01-03T09:00:00.01Z",
    "ended": None,
    "progress": {
        "file": "us-daily.csv.gz",
        "file_number": 1,
        "files": 1,
        "bytes_done": 150_000,
        "bytes_total": 300_000,
        "rows": 6_000,
        "quarantined": 0,
        "rows_per_s": 200_000.0,
        "eta_s": 0.03,
    },
    "report": None,
    "hidden": 0,
    "files": 0,
    "refused": 0,
    "problems": [],
    "error": None,
    "resume": None,
}
_ANSWER = documented(400, 401, 403, 404, 501, example=JOB_EXAMPLE)
_EVENTS: dict[int | str, Any] = {
    **documented(
        401,
        403,
        404,
        501,
        503,
        ok={
            "description": "An event for each change, the newest state of the job; the last one is final.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": 'id: 7\ndata: {"id": ...}\n\n'}},
        },
    ),
    204: {"description": "The job is over, and `Last-Event-ID` was its last event."},
}
_FORM = {
    "type": "object",
    "properties": {
        "options": {"type": "string", "description": "Options of the load, as JSON."},
        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
    },
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {"paths": ["/srv/vendor/2024"], "options": {"interval": "1m", "on_conflict": "keep"}},
            },
            "multipart/form-data": {"schema": _FORM},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(
    "/load",
    responses=documented(400, 401, 403, 408, 413, 415, 501, 503, 507, example=JOB_EXAMPLE),
    openapi_extra=_BODY,
    summary="Load files",
)
async def load(request: Request, here: Here, asked: Annotated[given.Loaded, Depends(given.Loaded.of)]) -> Response:
    """Load files as a job, and answer at once with it. As JSON, `paths` that the server can reach and may load from;
    as a form, the files themselves; with `name`, the body is one file."""
    loads = loads_of(here)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if asked.name is not None:
        job = await _load_body(request, here, loads, asked)
    elif kind == "multipart/form-data":
        job = await _load_form(request, here, loads)
    elif kind == "application/json":
        job = await _load_paths(request, here, loads)
    else:
        raise UnsupportedMediaType(
            f"Content-Type is {kind[:64]!r}: send application/json with paths, multipart/form-data with files, or a "
            "file itself and its name as the parameter `name`",
            parameter="Content-Type",
        )
    return _answer(job, asked.times)


async def _load_paths(request: Request, here: Context, loads: Loads) -> Job:
    async with body_of(request, here) as body:
        try:
            asked = msgspec.json.decode(bytes(body) or b"{}")
            said = asked.pop("options", {}) if isinstance(asked, dict) else {}
            wanted = msgspec.convert(asked, LoadRequest)
        except (msgspec.MsgspecError, TypeError) as exc:
            raise InvalidRequest(f'the body is not {{"paths": [...], "options": {{...}}}}: {exc}') from exc
    trusted = TRUSTED in request.scope
    options, validate = _options(loads, said, trusted)
    wanted = msgspec.structs.replace(wanted, options=options, validate=validate)
    return await here.workers.write.run(partial(loads.load, wanted, anywhere=trusted), request=request)


async def _load_form(request: Request, here: Context, loads: Loads) -> Job:
    upload = await asyncio.to_thread(loads.upload)
    try:
        form = Form(request.headers["content-type"], upload)
        await receive(request, here, form.feed)
        form.end()
        said = _options(loads, _json(bytes(form.options) or b"{}"), TRUSTED in request.scope)
    except BaseException:
        here.workers.let_go(upload.discard)
        raise
    return await here.workers.write.run(partial(loads.load_upload, upload, *said))


async def _load_body(request: Request, here: Context, loads: Loads, asked: given.Loaded) -> Job:
    said = _options(loads, _json((asked.options or "{}").encode()), TRUSTED in request.scope)
    upload = await asyncio.to_thread(loads.upload)
    try:
        await asyncio.to_thread(upload.begin, asked.name or "")
        await receive(request, here, upload.write)
        await asyncio.to_thread(upload.end)
    except BaseException:
        here.workers.let_go(upload.discard)
        raise
    return await here.workers.write.run(partial(loads.load_upload, upload, *said))


@router.get("", responses=documented(400, 401, 403, 501, example={"jobs": [JOB_EXAMPLE]}), summary="Jobs")
async def jobs(request: Request, here: Here, asked: Annotated[given.Listed, Depends(given.Listed.of)]) -> Response:
    """What waits, runs, and ran, newest first, without the reports."""
    found = loads_of(here).jobs.jobs()[: asked.limit]
    return answer_json(
        {"jobs": [msgspec.to_builtins(msgspec.structs.replace(job, report=None)) for job in found]}, asked.times
    )


@router.get("/{id}", responses=_ANSWER, summary="A job")
async def job(here: Here, id: str, asked: Annotated[given.Timed, Depends(given.Timed.of)]) -> Response:
    """How a job is now, with its report once it has one."""
    return _answer(loads_of(here).jobs.job(id), asked.times)


@router.post("/{id}/cancel", responses=_ANSWER, summary="Cancel a job")
async def cancel(
    request: Request, here: Here, id: str, asked: Annotated[given.Timed, Depends(given.Timed.of)]
) -> Response:
    """Ask a job to end after its current step, or never to begin. What it wrote stays; of one that is over, nothing
    changes."""
    cancelled = await here.workers.write.run(partial(loads_of(here).jobs.cancel, id), request=request)
    return _answer(cancelled, asked.times)


@router.get("/{id}/events", responses=_EVENTS, summary="Watch a job")
async def events(
    request: Request, here: Here, id: str, asked: Annotated[given.Timed, Depends(given.Timed.of)]
) -> Response:
    """Server-sent events: the job as it is now and after every change, until it is over. A watcher that is slow, or
    was away (`Last-Event-ID`), gets the newest state at once."""
    last = request.headers.get("last-event-id")
    now = loads_of(here).jobs.job(id)
    if now.state.is_over and last == str(now.version):
        return Response(status_code=204)  # tells an EventSource not to come again
    here.open_events.take()
    return _Watched(here, id, last, asked.times)


class _Watched(StreamingResponse):
    """The changes of a job, as events."""

    def __init__(self, here: Context, id: str, last: str | None, times: Times) -> None:
        self._here = here
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_events(here, id, last, times), headers=headers, media_type="text/event-stream")

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._here.open_events.give_back()

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._here.settings.stall_timeout_s):
                await send(message)

        try:
            await super().stream_response(send_in_time)
        except TimeoutError:
            self._here.metrics.stalled.inc()


async def _events(here: Context, id: str, last: str | None, times: Times) -> AsyncIterator[bytes]:
    watched = loads_of(here).jobs
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(changed.set)

    unlisten = watched.listen(id, wake)
    try:
        while True:
            changed.clear()
            try:
                now = watched.job(id)
            except NotFound:  # it was over, and is old
                return
            if str(now.version) != last:
                last = str(now.version)
                yield b"id: %d\ndata: %s\n\n" % (now.version, encode_document(now, times))
            if now.state.is_over or (watched.stopping and now.state is State.QUEUED):
                return
            await asyncio.sleep(_EVENTS_APART_S)
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await changed.wait()
            except TimeoutError:
                yield b": nothing new\n\n"
    finally:
        unlisten()


def loads_of(here: Context) -> Loads:
    """What takes loads; `NotSupported` where no jobs are run."""
    if here.loads is None:
        raise NotSupported("this server runs no jobs")
    return here.loads


def _answer(job: Job, times: Times) -> Response:
    return answer_json(msgspec.to_builtins(job), times)


def _json(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError as exc:
        raise InvalidRequest(f"options is not JSON: {exc}", parameter="options") from exc


def _options(loads: Loads, said: Any, trusted: bool) -> tuple[LoadOptions, Validate]:
    """Options of a load, and how much of it is checked; `InvalidRequest` names what is wrong."""
    if not isinstance(said, dict):
        raise InvalidRequest("options is an object", parameter="options")
    known = [name for name in LoadOptions.__struct_fields__ if trusted or name not in _OURS] + ["validate"]
    if unknown := [name for name in said if name not in known]:
        raise InvalidRequest(
            f"there is no option {str(unknown[0])[:64]!r}; there are {', '.join(known)}", parameter="options"
        )
    try:
        validate = msgspec.convert(said.get("validate", "sample"), Validate)
        plain = {name: said[name] for name in said if name not in ("validate", "formats")}
        options = msgspec.convert(plain, LoadOptions)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"options: {exc}", parameter="options") from exc
    return msgspec.structs.replace(options, formats=loads.formats(said.get("formats", []))), validate
