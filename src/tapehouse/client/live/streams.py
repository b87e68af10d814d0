"""Moves the messages of a stream, with websockets. The two shells are the same but for `await`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from tapehouse.client.http import CONNECT_TIMEOUT_S, Server
from tapehouse.client.live.following import PATH, SILENT_S, Event, Following, Reconnected
from tapehouse.errors import Denied, InvalidRequest, NotSupported, ServerUnreachable, TapehouseError

_REFUSED = {401: "unauthenticated", 403: "forbidden"}


def serving(backend: Any) -> Server:
    """The server behind a client; `NotSupported` when it has opened a folder itself."""
    server = getattr(backend, "server", None)
    if not isinstance(server, Server):
        raise NotSupported("a folder that no server owns has no live records: start one with `tapehouse serve`")
    return server


class Stream:
    """Events of a subscription, as they come: `for event in stream`. Connections that are lost are made again.

    `position` is what `start` of a later stream takes to go on where this one is. Close it, or use it in a `with`.
    """

    def __init__(self, server: Server, following: Following) -> None:
        self._server, self._following = server, following
        self._events: Generator[Event] = self._run()

    @property
    def position(self) -> str | None:
        """Up to where everything came."""
        return self._following.position

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *given: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; idempotent."""
        self._events.close()

    def _run(self) -> Generator[Event]:
        following = self._following
        while True:
            try:
                with _connected(self._server) as socket:
                    socket.send(following.request())
                    if following.connections > 1:
                        yield Reconnected()
                    while True:
                        event = following.take(socket.recv(SILENT_S))
                        if event is not None:
                            yield event
            except _lost() as exc:
                if following.connections == 0:
                    raise _unreachable(self._server, exc) from exc
            time.sleep(following.next_retry_s())


class AsyncStream:
    """Events of a subscription, as they come: `async for event in stream`. See `Stream`."""

    def __init__(self, reach: Callable[[], Awaitable[Server]], following: Following) -> None:
        self._reach, self._following = reach, following
        self._events: AsyncGenerator[Event] = self._run()

    @property
    def position(self) -> str | None:
        """Up to where everything came."""
        return self._following.position

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *given: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connection; idempotent."""
        await self._events.aclose()

    async def _run(self) -> AsyncGenerator[Event]:
        following, server = self._following, await self._reach()
        while True:
            try:
                async with _connected_async(server) as socket:
                    await socket.send(following.request())
                    if following.connections > 1:
                        yield Reconnected()
                    while True:
                        async with asyncio.timeout(SILENT_S):
                            message = await socket.recv()
                        event = following.take(message)
                        if event is not None:
                            yield event
            except _lost() as exc:
                if following.connections == 0:
                    raise _unreachable(server, exc) from exc
            await asyncio.sleep(following.next_retry_s())


def _options(server: Server) -> tuple[str, dict[str, Any]]:
    """The address, and what websockets is told beside it."""
    url = server.url.rstrip("/").replace("http", "ws", 1) + PATH
    headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
    return url, {
        "additional_headers": headers,
        "open_timeout": CONNECT_TIMEOUT_S,
        "max_size": None,
        "compression": None if server.is_here else "deflate",
        **({"proxy": None} if server.is_here else {}),
    }


@contextmanager
def _connected(server: Server) -> Iterator[Any]:
    from websockets.sync import client

    url, options = _options(server)
    with _refusals(server):
        connecting = client.connect(url, **options) if server.socket is None else _unix(client, server, url, options)
        socket = connecting.__enter__()
    try:
        yield socket
    finally:
        connecting.__exit__(None, None, None)


@asynccontextmanager
async def _connected_async(server: Server) -> AsyncIterator[Any]:
    from websockets.asyncio import client

    url, options = _options(server)
    with _refusals(server):
        connecting = client.connect(url, **options) if server.socket is None else _unix(client, server, url, options)
        socket = await connecting.__aenter__()
    try:
        yield socket
    finally:
        await connecting.__aexit__(None, None, None)


def _unix(client: Any, server: Server, url: str, options: dict[str, Any]) -> Any:
    return client.unix_connect(
        server.socket, url, **{name: value for name, value in options.items() if name != "proxy"}
    )


@contextmanager
def _refusals(server: Server) -> Iterator[None]:
    """A server that answers, and does not let us in, is not asked again."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

    try:
        yield
    except InvalidStatus as exc:
        status = exc.response.status_code
        if status >= 500:
            raise
        known: type[TapehouseError] = Denied if status in _REFUSED else NotSupported
        raise known(f"{server} does not stream to us: it answered {status}", status=status) from exc
    except (InvalidURI, InvalidHandshake) as exc:
        if isinstance(exc, InvalidURI):
            raise InvalidRequest(f"{server} is not an address: {exc}") from exc
        raise


def _lost() -> tuple[type[BaseException], ...]:
    """What a lost connection raises."""
    from websockets.exceptions import ConnectionClosed, InvalidHandshake

    return ConnectionClosed, InvalidHandshake, OSError, TimeoutError, EOFError


def _unreachable(server: Server, exc: BaseException) -> ServerUnreachable:
    return ServerUnreachable(f"nobody answers at {server} ({exc or 'timed out'})", url=server.url)
