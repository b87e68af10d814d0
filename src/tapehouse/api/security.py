"""Who may talk to this server: by which Host and from which Origin, and with which key.

Any web page can make a browser send requests to localhost, so a server that asks for no key checks by what name it was
called and from where. The Unix socket needs neither: whoever can open it may read the folder itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from tapehouse.api import problems
from tapehouse.api.context import Context, Here
from tapehouse.api.keys import Keys, Scope
from tapehouse.api.workers import CLIENT
from tapehouse.errors import Forbidden, InvalidSetting
from tapehouse.settings import Settings

TRUSTED = "tapehouse.trusted"
"""Set in the scope of a request that came by the Unix socket."""

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(settings: Settings, keys: Keys | None) -> None:
    """Raise `InvalidSetting` for a server that anybody in the network could use."""
    if not (is_loopback(settings.host) or settings.insecure or (keys is not None and keys.asked_for)):
        raise InvalidSetting(
            f"host is {settings.host}, which others can reach, and there are no keys: make one with "
            "`tapehouse keys add NAME --scope read`, or say --insecure to let everybody do everything",
            setting="host",
        )


def needs(scope: Scope) -> Any:
    """What a route that needs a key of that scope depends on."""

    async def check(request: Request, here: Here) -> None:
        checked_key(request, here, scope)

    return Depends(check)


def checked_key(connection: HTTPConnection, here: Context, scope: Scope) -> None:
    """Note whose key a request or a WebSocket brought; `Denied` when it needs one of that scope and has none."""
    if here.keys is None or TRUSTED in connection.scope:
        return
    if here.keys.asked_for or not (is_loopback(here.settings.host) or here.settings.insecure):
        connection.scope[CLIENT] = f"key {here.keys.check(_token(connection.headers), scope).name}"


def key_check(here: Context, scope: Scope) -> Callable[[str], None]:
    """Checks a key that came in a message; `Denied` when it is not known, or not of that scope."""

    def check(key: str) -> None:
        if here.keys is not None:
            here.keys.check(key, scope)

    return check


def _token(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key")


class Gate:
    """Stands before the app on TCP: turns away requests with a Host or an Origin that is not ours."""

    def __init__(self, app: ASGIApp, settings: Settings, keys: Keys | None) -> None:
        self._app = app
        self._keys = keys
        self._loopback = is_loopback(settings.host)
        self._names = _LOOPBACK_NAMES | {_without_port(name.lower()) for name in settings.allowed_hosts}
        self._names |= {_as_host(settings.host.lower())}
        self._restricted = bool(settings.allowed_hosts)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.allowed_origins)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            self._check(HTTPConnection(scope).headers)
        except Forbidden as error:
            response = await problems.of_error(problems.request_of(scope), error)
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0].lower()):
            raise Forbidden(
                f"this server is not called {', '.join(hosts)[:100]!r}; allowed_hosts adds names", header="Host"
            )
        for origin in headers.getlist("origin"):
            if not self._may_call(origin.lower(), hosts[0].lower()):
                raise Forbidden(
                    f"pages of {origin[:100]!r} may not call this server; allowed_origins adds some", header="Origin"
                )

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host)
        if name in self._names:
            return True
        if self._loopback or self._restricted:
            return False
        # Beyond loopback we do not know our names. With keys, no page can do harm by calling us what it likes. Without,
        # the danger is a name that a page's owner points here; an address is no such name.
        return (self._keys is not None and self._keys.asked_for) or _is_address(name)

    def _may_call(self, origin: str, host: str) -> bool:
        if origin in self._origins:
            return True
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc == host


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _as_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


class FromSocket:
    """Stands before the app on the Unix socket, and marks what comes through as trusted."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        scope[TRUSTED] = True  # in place: what stands outside reads the route from this scope
        await self._app(scope, receive, send)
