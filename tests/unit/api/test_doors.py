"""What a connection may do before it has said who it is: how much, how long, and how many of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.unit.api.test_streaming import PATIENCE_S, eventually

from tapehouse.server import Background
from tapehouse.settings import Settings
from tapehouse.store.memory import MemoryStore

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
Open = Callable[[], socket.socket]


@pytest.fixture
def door(store: MemoryStore, tmp_path: Path) -> Iterator[Callable[..., Open]]:
    """Serves the store with those settings, and returns what opens a connection."""
    with ExitStack() as stack:

        def serve(**settings: Any) -> Open:
            path = tmp_path / f"{time.monotonic_ns()}.sock"
            stack.callback(Background(store, path, Settings(shutdown_timeout_s=1.0, **settings)).close)

            def connect() -> socket.socket:
                connection = stack.enter_context(socket.socket(socket.AF_UNIX))
                connection.settimeout(PATIENCE_S)
                connection.connect(str(path))
                return connection

            return connect

        yield serve


def answer(connection: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def send_what_is_taken(connection: socket.socket, piece: bytes, most: int) -> int:
    """How many bytes went out before the other side closed."""
    sent = 0
    try:
        while sent < most:
            connection.sendall(piece)
            sent += len(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent


@pytest.mark.parametrize(
    "piece",
    [b"X-A: " + b"a" * 5_000 + b"\r\n", b"a" * 5_000, b"a:\r\n" * 1_000],
    ids=["headers", "one header", "names"],
)
def test_headers_without_end_are_cut_off(door: Callable[..., Open], piece: bytes) -> None:
    connection = door(max_header_bytes=16_384)()
    connection.sendall(GET + (b"X-A: " if b":" not in piece else b""))

    assert send_what_is_taken(connection, piece, 50_000_000) < 2_000_000


def test_a_long_request_line_is_cut_off(door: Callable[..., Open]) -> None:
    connection = door(max_header_bytes=16_384)()
    connection.sendall(b"GET /" + b"a" * 20_000)

    refusal = answer(connection)

    assert refusal.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"headers_too_large"' in refusal
    assert b"16,384 bytes" in refusal


@pytest.mark.parametrize(("size", "status"), [(65_535, 404), (65_536, 431), (100_000, 431), (140_000, 431)])
def test_a_target_that_the_parser_does_not_take(door: Callable[..., Open], size: int, status: int) -> None:
    connection = door()()
    connection.sendall(b"GET /" + b"a" * (size - 1) + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

    found = answer(connection)

    assert found.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"application/problem+json" in found


def test_trailers_without_end_are_cut_off(door: Callable[..., Open]) -> None:
    connection = door(max_header_bytes=16_384)()
    head = b"POST /v1/bars?interval=1d HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
    connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")

    assert send_what_is_taken(connection, b"X-A: " + b"a" * 5_000 + b"\r\n", 50_000_000) < 2_000_000


def test_headers_up_to_the_limit_are_taken(door: Callable[..., Open]) -> None:
    connection = door(max_header_bytes=16_384)()
    for _ in range(3):  # each request has the whole limit, whatever came before it on the connection
        connection.sendall(GET + b"X-A: " + b"a" * 16_000 + b"\r\n\r\n")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")


def test_a_large_body_is_no_header(door: Callable[..., Open]) -> None:
    connection = door(max_header_bytes=1_024)()
    head = b"POST /v1/bars?interval=1d HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\nConnection: close\r\n"
    connection.sendall(head + b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000)

    assert b'"code":"unreadable_file"' in answer(connection)


@pytest.mark.parametrize("sent", [b"", GET[:30], b"\r\n"])
def test_a_connection_that_brings_no_request_is_closed(door: Callable[..., Open], sent: bytes) -> None:
    connection = door(header_timeout_s=0.2)()
    connection.sendall(sent)

    assert answer(connection).startswith(b"HTTP/1.1 408 ")


def test_a_second_request_has_to_come_in_time_too(door: Callable[..., Open]) -> None:
    connection = door(header_timeout_s=0.2)()
    connection.sendall(GET + b"\r\n" + GET)

    whole = answer(connection)

    assert whole.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in whole


def test_an_idle_connection_is_kept(door: Callable[..., Open]) -> None:
    connection = door(header_timeout_s=0.2)()
    for _ in range(2):
        connection.sendall(GET + b"\r\n")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
        time.sleep(0.5)  # longer than a head may take: nobody is in the middle of one


def test_connections_are_counted(door: Callable[..., Open]) -> None:
    connect = door(max_connections=2)
    held = [connect(), connect()]
    for connection in held:
        connection.sendall(GET + b"\r\n")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")

    refusal = answer(connect())
    held.pop().close()

    assert refusal.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5\r\n" in refusal
    assert b'"code":"overloaded"' in refusal

    def let_in() -> bool:
        connection = connect()
        connection.sendall(GET + b"\r\n")
        return connection.recv(10_000).startswith(b"HTTP/1.1 200 ")

    eventually(let_in)
