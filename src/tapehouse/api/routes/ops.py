"""For those who run the server: is it there, what does it hold, what has it done, and what went wrong."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as ASGIScope

from tapehouse.api.context import Context, Here, capable
from tapehouse.api.formats import answer_json
from tapehouse.api.keys import Scope
from tapehouse.api.problems import CLIENT_GONE, documented
from tapehouse.api.routes import parameters as given
from tapehouse.api.security import needs
from tapehouse.errors import StoreError, Unavailable
from tapehouse.store.base import Capability, CompactionReport

router = APIRouter(tags=["operations"])

logger = logging.getLogger(__name__)

_REPORT = {"rows": 97_500, "spans": 12, "files_written": 12, "files_replaced": 0, "bytes": 409_600, "seconds": 0.2}
_STATS = {"version": "0.1.0", "uptime_s": 12.5, "recorded": 3, "store": {"rows": 97_500}}


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", responses=documented(example={"status": "alive"}), summary="Is the process alive?")
async def healthz() -> Response:
    """200 while the process runs."""
    return answer_json({"status": "alive"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses=documented(503, example={"status": "ready"}), summary="Does the store answer?")
async def readyz(here: Here) -> Response:
    """200 when the store answers within five seconds."""
    try:
        await here.ready.check()
    except StoreError as exc:
        raise Unavailable(f"the store does not answer: {exc}", retry_after_s=5.0) from exc
    return answer_json({"status": "ready"})


@router.get(
    "/metrics",
    dependencies=[needs(Scope.READ)],
    responses=documented(401, ok={"description": "Prometheus text.", "content": {"text/plain": {}}}),
    summary="Metrics",
)
async def metrics(request: Request, here: Here) -> Response:
    """Counters and gauges for Prometheus."""
    text = await here.workers.metrics.run(partial(generate_latest, here.metrics.registry), request=request)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get(
    "/v1/stats", dependencies=[needs(Scope.READ)], responses=documented(401, 403, example=_STATS), summary="Statistics"
)
async def stats(request: Request, here: Here, asked: Annotated[given.Nothing, Depends(given.Nothing.of)]) -> Response:
    """Sizes and counts."""
    held = await here.workers.query.run(here.store.stats, request=request)
    uptime_s = round(time.monotonic() - here.started_s, 3)
    recorded = here.live.recorded if here.live is not None else 0
    return answer_json({"version": version("tapehouse"), "uptime_s": uptime_s, "recorded": recorded, "store": held})


@router.post(
    "/v1/compact",
    dependencies=[needs(Scope.ADMIN)],
    responses=documented(400, 401, 403, 501, 507, example=_REPORT),
    summary="Compact",
)
async def compact(
    request: Request, here: Here, asked: Annotated[given.Compacted, Depends(given.Compacted.of)]
) -> Response:
    """Move what has settled, or everything, into the archive now."""
    compaction = partial(compact_now, here, everything=asked.everything)
    return answer_json(_plain(await here.workers.compact.run(compaction, request=request)))


def compact_now(here: Context, *, everything: bool = False) -> CompactionReport:
    """Compact, and count how it ended."""
    try:
        report: CompactionReport = capable(here.store, Capability.COMPACTS).compact(everything=everything)
    except Exception:
        here.metrics.compactions.labels("failed").inc()
        raise
    here.metrics.compactions.labels("done").inc()
    here.metrics.compacted_rows.inc(report.rows)
    return report


def _plain(report: CompactionReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in report.__struct_fields__}


class Observed:
    """Around everything: numbers each request, times and counts it, logs what failed."""

    def __init__(self, app: ASGIApp, here: Context) -> None:
        self._app = app
        self._here = here

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Nobody may guess a secret; a number need only be another one, and the system's generator is a system call.
        request_id = scope["tapehouse.request_id"] = f"{random.getrandbits(64):016x}"
        own_headers = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
        started_s = time.perf_counter()
        status = 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *own_headers]}
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            # The problem document is sent already, or, in the middle of an answer, the server closes the connection.
            logger.exception("%s %s %s failed", request_id, scope["method"], scope["path"])
        except asyncio.CancelledError:
            # Only a server that stops cancels requests, and this is the end of this one.
            logger.warning("%s %s %s was cut off: the server stops", request_id, scope["method"], scope["path"])
        finally:
            self._note(scope, status, time.perf_counter() - started_s, request_id)

    def _note(self, scope: ASGIScope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._here.metrics.requests.labels(route, scope["method"], status).inc()
        self._here.metrics.latency.labels(route).observe(seconds)
        line = "%s %s %s %d %.1f ms"
        if status == CLIENT_GONE:
            self._here.metrics.disconnected.inc()
            logger.info("%s %s %s: the client went away", request_id, scope["method"], scope["path"])
        logger.debug(line, request_id, scope["method"], scope["path"], status, seconds * 1_000)
