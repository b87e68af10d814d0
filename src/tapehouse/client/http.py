"""Moves the bytes: requests out, answers in, with httpx. What they mean is said in `wire.py`.

The two shells are the same but for `await`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeVar

import httpx
import msgspec
import pyarrow as pa

from tapehouse.client.arrow import Arriving, RowsReceiver
from tapehouse.client.jobs.sending import form_of
from tapehouse.client.wire import Operation, Outgoing, error_from, seconds_before_retry
from tapehouse.errors import InvalidRequest, LimitExceeded, ServerUnreachable, TapehouseError, Unavailable

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is: at a URL, or behind a Unix socket."""

    url: str
    socket: str | None = None
    key: str | None = None
    timeout_s: float = 60.0

    def __str__(self) -> str:
        return self.url if self.socket is None else f"the socket {self.socket}"

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine."""
        return self.socket is not None or httpx.URL(self.url).host in _LOOPBACK

    def options(self) -> dict[str, Any]:
        """What httpx is told, beside the transport."""
        url = httpx.URL(self.url)
        return {
            "base_url": url,
            "headers": {"User-Agent": "tapehouse"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {}),
            # Waiting for one of our own connections is not the server's slowness, so it has no limit.
            "timeout": httpx.Timeout(self.timeout_s, connect=CONNECT_TIMEOUT_S, pool=None),
            # A proxy from the environment cannot reach this machine's loopback.
            "trust_env": not self.is_here,
        }


def check_url(url: str) -> None:
    """Raise `InvalidRequest` for what cannot be the address of a server."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise InvalidRequest(f"{url[:80]!r} is not an address: {exc}") from exc
    if not parsed.host or not 0 < (parsed.port or 80) < 65_536:
        raise InvalidRequest(f"{url[:80]!r} is not an address; expected http://host:port")
    beyond = parsed.raw_path.decode() if parsed.raw_path != b"/" else f"#{parsed.fragment}" if parsed.fragment else ""
    if beyond:
        raise InvalidRequest(
            f"{url[:80]!r} goes on after the host and port: leave out {beyond[:80]!r}; expected http://host:port"
        )


@contextmanager
def _translated(server: Server) -> Iterator[None]:
    """httpx's exceptions as ours."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
        raise ServerUnreachable(
            f"nobody answers at {server} ({exc or 'timed out'}); start a server with `tapehouse serve`, or open a "
            "folder instead: Client('data')",
            url=server.url,
        ) from exc
    except httpx.TimeoutException as exc:
        raise Unavailable(
            f"{server} sent nothing for {server.timeout_s:g} s; ask for less, or give the client a longer timeout_s"
        ) from exc
    except httpx.InvalidURL as exc:
        raise LimitExceeded(f"the request does not fit a URL ({exc}); ask for fewer symbols at once") from exc
    except httpx.HTTPError as exc:
        raise Unavailable(f"the answer of {server} was cut off ({exc or type(exc).__name__}); ask again") from exc


def _check(response: httpx.Response, body: bytes, server: Server) -> TapehouseError:
    return error_from(response.status_code, response.headers, body, str(server))


def _arguments(request: Outgoing, server: Server) -> dict[str, Any]:
    # On this machine, compressing takes longer than sending. Elsewhere a line is rarely as quick as gzip.
    coding = {} if server.is_here else {"Accept-Encoding": "gzip, identity;q=0.5"}
    return {
        "method": request.method,
        "url": request.path,
        "params": request.params,
        "headers": request.headers | coding,
        "content": request.content,
        **form_of(request.files, request.fields, request.on_sent),
    }


class Shell:
    """Runs operations against a server; any number of threads may share it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        transport = None if server.socket is None else httpx.HTTPTransport(uds=server.socket)
        with _translated(server):
            self._http = httpx.Client(transport=transport, **server.options())

    def run(self, operation: Operation[T]) -> T:
        """The answer; raises the error that the server's problem document names."""
        with _translated(self.server), self._answered(operation.request()) as response:
            receiver = operation.receiver(response.headers)
            for data in response.iter_bytes():
                receiver.feed(data)
            return receiver.result()

    @contextmanager
    def batches(self, operation: Operation[Any]) -> Iterator[Arriving[Iterator[pa.RecordBatch]]]:
        """The rows, decoded while they arrive."""
        with _translated(self.server), self._answered(operation.request()) as response:
            receiver = RowsReceiver(response.headers)
            pieces = response.iter_bytes()
            while receiver.schema is None and (data := next(pieces, None)) is not None:
                receiver.feed(data)
            yield receiver.arriving(_batches(self.server, receiver, pieces))

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._http.close()

    abandon = close
    """What a client that is collected calls: nothing is waited for."""

    @contextmanager
    def _answered(self, request: Outgoing) -> Iterator[httpx.Response]:
        attempt = 1
        while True:
            with self._http.stream(**_arguments(request, self.server)) as response:
                if response.is_success:
                    yield response
                    return
                wait = seconds_before_retry(request.method, response.status_code, response.headers, attempt)
                if wait is None:
                    raise _check(response, response.read(), self.server)
            time.sleep(wait)
            attempt += 1


class AsyncShell:
    """Runs operations against a server; for one event loop."""

    def __init__(self, server: Server) -> None:
        self.server = server
        transport = None if server.socket is None else httpx.AsyncHTTPTransport(uds=server.socket)
        with _translated(server):
            self._http = httpx.AsyncClient(transport=transport, **server.options())

    async def run(self, operation: Operation[T]) -> T:
        """The answer; raises the error that the server's problem document names."""
        with _translated(self.server):
            async with self._answered(operation.request()) as response:
                receiver = operation.receiver(response.headers)
                async for data in response.aiter_bytes():
                    receiver.feed(data)
                return receiver.result()

    @asynccontextmanager
    async def batches(self, operation: Operation[Any]) -> AsyncIterator[Arriving[AsyncGenerator[pa.RecordBatch, None]]]:
        """The rows, decoded while they arrive."""
        with _translated(self.server):
            async with self._answered(operation.request()) as response:
                receiver = RowsReceiver(response.headers)
                pieces = response.aiter_bytes()
                while receiver.schema is None and (data := await anext(pieces, None)) is not None:
                    receiver.feed(data)
                async with aclosing(_async_batches(self.server, receiver, pieces)) as batches:
                    yield receiver.arriving(batches)

    def waiting(self) -> Shell:
        """The same server, for a thread that waits; to be closed by whoever asked for it."""
        return Shell(self.server)

    async def close(self) -> None:
        """Close the connections; idempotent."""
        await self._http.aclose()

    @asynccontextmanager
    async def _answered(self, request: Outgoing) -> AsyncIterator[httpx.Response]:
        attempt = 1
        while True:
            async with self._http.stream(**_arguments(request, self.server)) as response:
                if response.is_success:
                    yield response
                    return
                wait = seconds_before_retry(request.method, response.status_code, response.headers, attempt)
                if wait is None:
                    raise _check(response, await response.aread(), self.server)
            await asyncio.sleep(wait)
            attempt += 1


def _batches(server: Server, receiver: RowsReceiver, pieces: Iterator[bytes]) -> Iterator[pa.RecordBatch]:
    with _translated(server):
        yield from receiver.take()
        for data in pieces:
            receiver.feed(data)
            yield from receiver.take()
        receiver.check_end()


async def _async_batches(
    server: Server, receiver: RowsReceiver, pieces: AsyncIterator[bytes]
) -> AsyncGenerator[pa.RecordBatch, None]:
    with _translated(server):
        for batch in receiver.take():
            yield batch
        async for data in pieces:
            receiver.feed(data)
            for batch in receiver.take():
                yield batch
        receiver.check_end()
