"""Errors as problem documents (RFC 9457), with a stable `code` and nothing of our insides."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope as ASGIScope

from tapehouse.errors import InvalidToken, RateLimited, StoreError, TapehouseError, Unauthenticated, Unavailable

TYPE = "https://tapehouse.dev/errors/"
MEDIA_TYPE = "application/problem+json"
HTTP_CODES = {
    404: "no_such_route",
    405: "method_not_allowed",
    408: "request_timeout",
    416: "range_not_satisfiable",
    431: "headers_too_large",
}
"""Codes of what no error of ours stands for."""

CLIENT_GONE = 499
"""The status, which no client ever sees, of a request whose client went away before the answer."""

_PARAMETER_OF_DETAIL = {
    "symbol": "symbols",
    "symbols": "symbols",
    "column": "columns",
    "columns": "columns",
    "commit": "as_of",
    "measure": "measures",
    "measures": "measures",
    "interval": "interval",
}
"""Which parameter of a question an error is about that names no parameter, by the details it gives."""

_MEMBERS = frozenset({"type", "title", "status", "detail", "code", "instance", "request_id"})
_LONGEST_DETAIL = 200
_INTERNAL = "something went wrong here; the server's log has it under this request id"

logger = logging.getLogger(__name__)


def request_of(scope: ASGIScope) -> Request:
    """The request of a scope; of a WebSocket, the one that it began with."""
    return Request(scope if scope["type"] == "http" else {**scope, "type": "http", "method": "GET"})


def problem(request: Request, status: int, code: str, detail: str, **members: Any) -> Response:
    """A problem document as an answer; `members` stand beside the standard ones."""
    found = {name: _short(value) for name, value in members.items() if name not in _MEMBERS}
    encoded = document(status, code, detail, **found, request_id=request.scope.get("tapehouse.request_id"))
    return Response(encoded, status, media_type=MEDIA_TYPE)


def document(status: int, code: str, detail: str, **members: Any) -> bytes:
    """A problem document."""
    found = {
        "type": TYPE + code,
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        **members,
    }
    return msgspec.json.encode(found, enc_hook=str)


def _short(value: Any) -> Any:
    """What was sent to us may be long, and is not sent back at length."""
    if isinstance(value, str):
        return value[:_LONGEST_DETAIL]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [_short(each) for each in value[:20]]
    return value


async def of_error(request: Request, error: Exception) -> Response:
    """Of an error of ours."""
    assert isinstance(error, TapehouseError)
    if isinstance(error, StoreError):
        logger.error("%s: %s", request.scope.get("tapehouse.request_id"), error, exc_info=error)
    details = dict(error.details)
    if "field" in details:
        details["parameter"] = details.pop("field")
    if request.method in ("GET", "DELETE") and "parameter" not in details:
        details.update(_parameter(error))
    wait_s, codings = details.pop("retry_after_s", None), details.pop("accept_encoding", None)
    response = problem(request, error.status, error.code, error.message, **details)
    if wait_s is not None or isinstance(error, RateLimited | Unavailable):
        response.headers["Retry-After"] = str(math.ceil(wait_s or 1))
    if codings is not None:
        response.headers["Accept-Encoding"] = codings  # RFC 9110, 15.5.16
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _parameter(error: TapehouseError) -> dict[str, str]:
    if isinstance(error, InvalidToken):
        return {"parameter": "page"}
    return next(({"parameter": name} for key, name in _PARAMETER_OF_DETAIL.items() if key in error.details), {})


async def of_http(request: Request, error: Exception) -> Response:
    """Of a route that is not there, a method that it does not know, and the like."""
    assert isinstance(error, HTTPException)
    code = HTTP_CODES.get(error.status_code, "invalid_request")
    detail = f"{request.method} {request.url.path[:_LONGEST_DETAIL]}: {HTTPStatus(error.status_code).phrase}"
    response = problem(request, error.status_code, code, detail)
    response.headers.update(error.headers or {})
    return response


async def of_disconnect(request: Request, error: Exception) -> Response:
    """Of a client that went away, and will not read this; the status is for the log and the metrics."""
    return Response(status_code=CLIENT_GONE)


async def of_crash(request: Request, error: Exception) -> Response:
    """Of what nobody foresaw; it is logged where it is caught for good."""
    return problem(request, 500, TapehouseError.code, _INTERNAL)


def documented(*statuses: int, ok: Mapping[str, Any] | None = None, example: Any = None) -> dict[int | str, Any]:
    """What OpenAPI says of a route's answers: a good one (or an example of its JSON), and problems."""
    good = ok or {"description": "Done.", "content": {"application/json": {"example": example}}}
    return {200: good, **{status: _documented(status) for status in statuses}}


def _documented(status: int) -> dict[str, Any]:
    example = {
        "type": f"{TYPE}unknown_interval",
        "title": "Unknown interval",
        "status": status,
        "detail": "unknown interval '7m'; expected one of 1s 5s 15s 30s 1m 5m 15m 30m 1h 4h 1d 1w 1mo",
        "code": "unknown_interval",
        "parameter": "interval",
    }
    content: dict[str, Any] = {"schema": {"type": "object"}}
    if status == 400:
        content["example"] = example
    return {"description": f"A problem: {HTTPStatus(status).phrase}.", "content": {MEDIA_TYPE: content}}
