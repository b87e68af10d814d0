"""The HTTP API: every route over one history and one store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.types import Scope as ASGIScope

from tapehouse.api import problems
from tapehouse.api.answers.spool import Spool
from tapehouse.api.answers.validators import Tags
from tapehouse.api.context import Context, Metrics
from tapehouse.api.keys import Keys
from tapehouse.api.live import ingest, log, streams
from tapehouse.api.live.parts import Live
from tapehouse.api.routes import history as reads
from tapehouse.api.routes import jobs, ops, trust, writes
from tapehouse.api.routes.parameters import Parameters
from tapehouse.api.security import SECURITY_SCHEMES, FromSocket, Gate
from tapehouse.api.workers import Readiness, Slots, Workers
from tapehouse.errors import TapehouseError
from tapehouse.jobs.base import Loads
from tapehouse.query.base import History
from tapehouse.settings import Settings
from tapehouse.store.base import Store

_ROUTERS = (
    reads.router,
    writes.router,
    ingest.router,
    log.router,
    jobs.router,
    trust.router,
    ops.router,
    streams.router,
)
_EXPOSED = [
    "Accept-Ranges",
    "Content-Range",
    "ETag",
    "Link",
    "Retry-After",
    "Tapehouse-Commit",
    "Tapehouse-Made-From",
    "Tapehouse-Next-Page",
    "X-Request-Id",
]
_CONDITIONS = ["If-None-Match", "If-Range", "Range"]
_DESCRIPTION = """\
Market data: bars, trades and quotes, with what was known when. Times are UTC; spans are `[start, end)`; errors are
problem documents (RFC 9457) with a stable `code`."""


@dataclass(frozen=True)
class Page:
    """The page at `/`: a folder with `index.html`, and the policy that a browser is to hold it to."""

    static: Path
    policy: str


@dataclass(frozen=True)
class Api:
    """One app behind two doors, and what its routes work with."""

    over_tcp: ASGIApp
    """Checks Host, Origin and keys."""
    over_socket: ASGIApp
    """For the Unix socket, which only its owner can open: checks nothing."""
    context: Context
    fastapi: FastAPI

    def close(self) -> None:
        """Drop calls of the store that wait, and wait for those that run: blocks."""
        self.context.workers.close()
        self.context.spool.close()


def create_app(
    history: History,
    store: Store,
    settings: Settings,
    keys: Keys | None = None,
    page: Page | None = None,
    loads: Loads | None = None,
    live: Live | None = None,
) -> Api:
    """The API of a store. Keys, when there are any, are asked for on TCP. Without `loads`, no jobs are run; without
    `live`, no live records are taken."""
    workers = Workers(settings)
    context = Context(
        history=history,
        store=store,
        settings=settings,
        keys=keys,
        workers=workers,
        metrics=Metrics(),
        ready=Readiness(store, workers.ready),
        open_answers=Slots(settings.max_open_answers, "too many large answers are being sent already", 5.0),
        open_bodies=Slots(settings.max_open_body_bytes, "other bodies take all memory that there is for them", 5.0),
        tags=Tags(store),
        spool=Spool(settings.max_range_bytes, settings.keep_ranges_s, time.monotonic),
        open_events=Slots(settings.max_job_watchers, "too many watch jobs already", 5.0),
        loads=loads,
        live=live,
    )
    context.metrics.observe(store, workers, context.open_answers, context.open_bodies, context.open_events)
    app = _with_routes(page)
    app.state.context = context
    over_tcp: ASGIApp = app
    if settings.allowed_origins:
        over_tcp = _with_cors(app, [origin.rstrip("/").lower() for origin in settings.allowed_origins])
    return Api(
        over_tcp=ops.Observed(Gate(over_tcp, settings, keys), context),
        over_socket=ops.Observed(FromSocket(app), context),
        context=context,
        fastapi=app,
    )


def _with_routes(page: Page | None) -> FastAPI:
    app = FastAPI(
        title="Tapehouse",
        version=version("tapehouse"),
        description=_DESCRIPTION,
        docs_url=None,  # its scripts would come from somebody else's server
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={
            TapehouseError: problems.of_error,
            HTTPException: problems.of_http,
            ClientDisconnect: problems.of_disconnect,
            Exception: problems.of_crash,
        },
    )
    for router in _ROUTERS:
        app.include_router(router)
        _answer_head(app, router)
    if page is not None:
        _add_page(app, page)
    _describe(app)
    return app


def _answer_head(app: FastAPI, router: APIRouter) -> None:
    """`HEAD` where there is `GET`, which FastAPI leaves to us; not of events, since their answer has no end."""
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    known = {route.path for route in routes if "HEAD" in (route.methods or ())}
    for route in routes:
        endless = "text/event-stream" in route.responses.get(200, {}).get("content", {})
        if "GET" in (route.methods or ()) and route.path not in known and not endless:
            app.add_api_route(
                route.path, route.endpoint, methods=["HEAD"], dependencies=route.dependencies, include_in_schema=False
            )


def _with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "X-API-Key", "Content-Type", "Content-Encoding", "Last-Event-ID", *_CONDITIONS],
        expose_headers=_EXPOSED,
    )


class _Static(StaticFiles):
    """Files with an ETag, asked after at every use, so that a newer version shows at once."""

    def __init__(self, page: Page) -> None:
        super().__init__(directory=page.static)
        self._headers = _page_headers(page)

    async def get_response(self, path: str, scope: ASGIScope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response


def _page_headers(page: Page) -> dict[str, str]:
    return {
        "Content-Security-Policy": page.policy,
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }


def _add_page(app: FastAPI, page: Page) -> None:
    headers = _page_headers(page)

    async def index() -> Response:
        return FileResponse(page.static / "index.html", headers=headers)

    app.add_api_route("/", index, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/static", _Static(page))


def _describe(app: FastAPI) -> None:
    """OpenAPI, with what FastAPI cannot see: the query parameters and the keys, which we check ourselves."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            schema.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
            schema["security"] = [{name: []} for name in SECURITY_SCHEMES] + [{}]
            for route, model in _parameters():
                for method in route.methods or ():
                    operation = schema["paths"][route.path_format][method.lower()]
                    in_path = [each for each in operation.get("parameters", []) if each["in"] == "path"]
                    operation["parameters"] = in_path + model.described()
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _parameters() -> Iterator[tuple[APIRoute, type[Parameters]]]:
    """The routes that take parameters, and which."""
    for router in _ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute) and "asked" in (hints := get_type_hints(route.endpoint)):
                yield route, hints["asked"]
