"""What can go wrong between a client and a server, with real servers and real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.unit.client.conftest import Serve, Waiting, bars

from tapehouse import Client
from tapehouse.api.answers.coding import Coding, choose
from tapehouse.api.keys import Keys, Scope
from tapehouse.client.http import Server, _arguments
from tapehouse.client.wire import Outgoing
from tapehouse.errors import (
    Forbidden,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    RateLimited,
    ServerUnreachable,
    Unauthenticated,
    Unavailable,
)

KINDS = [pytest.param(Client, id="sync"), pytest.param(Waiting, id="async")]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_there(kind: Any) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    with kind(url) as client, pytest.raises(ServerUnreachable, match="`tapehouse serve`") as caught:
        client.symbols()
    assert url in caught.value.message
    assert caught.value.retryable


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("url", ["http://", "http://:80", "http://127.0.0.1:99999"])
def test_a_url_that_is_none(kind: Any, url: str) -> None:
    with pytest.raises(InvalidRequest, match="is not an address"):
        kind(url)


class Relay:
    """Passes bytes between clients and a server, and cuts the connection after so many of the server's."""

    def __init__(self, port: int, cut_after: int) -> None:
        self._target = port
        self._cut_after = cut_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inside, _ = self._listener.accept()
                self._pass(inside)

    def _pass(self, inside: socket.socket) -> None:
        with inside, socket.create_connection(("127.0.0.1", self._target)) as outside:
            outside.sendall(inside.recv(65_536))
            left = self._cut_after
            while left > 0 and (data := outside.recv(left)):
                inside.sendall(data)
                left -= len(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def many(serve: Serve) -> Any:
    """A server with more rows than fit one network buffer."""
    server = serve()
    with Client(server.url) as client:
        client.upload(bars(closes=[float(1 + n % 97) for n in range(20_000)], first=0), interval="1d")
    return server


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut_after", [0, 40, 400, 1_500, 100_000])
def test_an_answer_that_is_cut_off_is_an_error(kind: Any, cut_after: int, many: Any) -> None:
    with contextlib.closing(Relay(many.port, cut_after)) as relay, kind(relay.url) as client:
        with pytest.raises(Unavailable, match="cut off"):
            client.bars("AAPL")
        with pytest.raises(Unavailable, match="cut off"):
            read_on(client.stream_bars("AAPL"))


def read_on(stream: Any) -> None:
    with stream:
        for frame in stream:
            assert frame.height


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_says_nothing(kind: Any, silent: str) -> None:
    with kind(silent, timeout_s=0.05) as client, pytest.raises(Unavailable, match=r"sent nothing for 0\.05 s"):
        client.symbols()


@pytest.mark.parametrize("kind", KINDS)
def test_keys(kind: Any, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(tmp_path / "keys.json")
    reader, writer = keys.add("reader"), keys.add("writer", Scope.WRITE)
    url = serve(keys=keys).url
    with kind(url) as client, pytest.raises(Unauthenticated):
        client.symbols()
    with kind(url, key=reader) as client, pytest.raises(Forbidden):
        client.upload(bars(), interval="1d")
    monkeypatch.setenv("TAPEHOUSE_KEY", writer)
    monkeypatch.setenv("TAPEHOUSE_URL", url)
    with kind() as client:
        assert client.upload(bars(), interval="1d").inserted == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_limited_key_waits_its_turn_to_read_but_not_to_write(kind: Any, tmp_path: Path, serve: Serve) -> None:
    keys = Keys(tmp_path / "keys.json")
    key = keys.add("slow", Scope.WRITE, rate_per_s=1)
    with kind(serve(keys=keys).url, key=key) as client:
        assert client.symbols() == []
        assert client.symbols() == []  # refused, and asked again when the server said
        with pytest.raises(RateLimited) as caught:
            client.upload(bars(), interval="1d")
        assert caught.value.details["retry_after_s"] >= 1


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_the_server_takes_goes_in_parts(kind: Any, serve: Serve) -> None:
    frame = pl.concat([bars("A"), bars("B")])
    with kind(serve(max_upload_rows=4).url) as client:
        with pytest.raises(LimitExceeded):
            client.upload(frame, interval="1d")
        assert client.symbols() == []
        assert [commit.inserted for commit in client.upload_parts(frame, rows=4, interval="1d")] == [4, 2]


def test_a_question_that_fits_no_url(serve: Serve) -> None:
    with Client(serve().url) as client, pytest.raises(LimitExceeded, match="fewer symbols"):
        client.bars([f"SYMBOL{n:05}" for n in range(10_000)])


def test_something_else_at_the_address() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other, ThreadPoolExecutor(1) as threads:
        threads.submit(other.serve_forever, 0.01)
        with Client(f"http://127.0.0.1:{other.server_port}") as client, pytest.raises(NotFound):
            client.symbols()
        other.shutdown()


@pytest.mark.parametrize("beyond", ["/docs", "?key=1", "/a?b=c", "#top"])
def test_an_address_that_goes_on_after_the_port(beyond: str) -> None:
    with pytest.raises(InvalidRequest, match="goes on after the host and port: leave out"):
        Client("http://127.0.0.1:8720" + beyond)


def test_many_threads_share_a_client(serve: Serve) -> None:
    with Client(serve().url) as client, ThreadPoolExecutor(8) as threads:
        client.upload(bars(), interval="1d")
        heights = list(threads.map(lambda _: client.bars("AAPL").height, range(64)))
    assert heights == [3] * 64


@pytest.mark.parametrize(
    ("server", "here"),
    [
        (Server(url="http://127.0.0.1:8720"), True),
        (Server(url="http://localhost"), True),
        (Server(url="http://localhost", socket="a.sock"), True),
        (Server(url="https://data.example.com"), False),
    ],
)
def test_only_a_server_elsewhere_is_asked_for_compression(server: Server, here: bool) -> None:
    coding = _arguments(Outgoing(path="/v1/bars"), server)["headers"]["Accept-Encoding"]
    assert (coding == "identity") == here
    assert (choose(coding, only_if_asked=True) is Coding.IDENTITY) == here  # Arrow, too
