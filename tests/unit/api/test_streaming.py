"""Large answers, and many of them, over a real connection: pace, disconnection, overload, slow bodies."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from tests.unit.api.parts import ARROW, bars, refused

from tapehouse.api import workers
from tapehouse.api.streaming import STEP_BYTES
from tapehouse.errors import StoreDamaged, Unavailable
from tapehouse.model import Interval, Kind
from tapehouse.server import Background
from tapehouse.settings import Settings
from tapehouse.store.base import Reading, Selection
from tapehouse.store.duckdb import DuckDBStore

ROWS = 300_000
SMALL = "/v1/bars?interval=1m&limit=3&symbols=AAPL&start=2024-01-02&end=2024-01-02T00:10:00Z"
LARGE = "/v1/bars?interval=1m&format=arrow"
PATIENCE_S = 20.0

Serve = Callable[..., Path]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBStore]:
    """So many bars that they fit neither one step of an answer nor the buffers of a socket."""
    store = DuckDBStore(tmp_path_factory.mktemp("data"))
    table = bars("AAPL", [float(i % 1000 + 2) for i in range(ROWS)], step=60_000_000_000)
    store.write(Kind.BARS, table, interval=Interval.M1)
    yield store
    store.close()


@pytest.fixture
def serve(store: DuckDBStore, tmp_path: Path) -> Iterator[Serve]:
    """Serves the store (or `of`) with those settings, and returns the socket's path."""
    with ExitStack() as stack:

        def start(of: Any = None, **settings: Any) -> Path:
            path = tmp_path / f"{time.monotonic_ns()}.sock"
            running = Background(of or store, path, Settings(shutdown_timeout_s=1.0, **settings))
            stack.callback(running.close)
            return path

        yield start


def client_of(path: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost", timeout=PATIENCE_S)


def raw(path: Path, request: str) -> socket.socket:
    """A connection on which a request was sent, and of whose answer nothing was read."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE_S)
    connection.connect(str(path))
    connection.sendall(request.encode())
    return connection


def ask(target: str) -> str:
    return f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def drained(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def test_a_large_answer_comes_whole_in_steps(serve: Serve, store: DuckDBStore) -> None:
    with client_of(serve()) as client:
        with client.stream("GET", LARGE) as answer:
            assert "content-length" not in answer.headers
            assert answer.headers["tapehouse-commit"] == "1"
            pieces = list(answer.iter_raw())
        table = pa.ipc.open_stream(b"".join(pieces)).read_all()
        text = client.get("/v1/bars?interval=1m&format=csv").text

    assert len(b"".join(pieces)) > 20 * STEP_BYTES
    assert table.num_rows == ROWS
    assert text.count("\n") == ROWS + 1
    assert store.stats()["open_readings"] == 0


def test_json_rows_stream_too(serve: Serve) -> None:
    with client_of(serve(max_page_rows=10)) as client:
        document = client.get("/v1/bars?interval=1m&layout=rows").json()

    assert len(document["rows"]) == ROWS
    assert document["next_page"] is None


def test_a_small_answer_is_sent_whole(serve: Serve) -> None:
    with client_of(serve()) as client:
        answer = client.get(SMALL, headers={"accept-encoding": "identity"})

    assert int(answer.headers["content-length"]) == len(answer.content)


def test_a_client_that_goes_away_ends_the_work(serve: Serve, store: DuckDBStore) -> None:
    path = serve()
    connection = raw(path, ask(LARGE))
    with client_of(path) as client:
        eventually(lambda: metric(client, "tapehouse_open_answers") == 1)
        connection.recv(1_000)
        connection.close()
        eventually(lambda: metric(client, "tapehouse_open_answers") == 0)
        assert metric(client, "tapehouse_rows_served_total") < ROWS
    eventually(lambda: store.stats()["open_readings"] == 0)


def test_a_client_that_stops_reading_is_cut_off(serve: Serve, store: DuckDBStore) -> None:
    path = serve(stall_timeout_s=0.2)
    with raw(path, ask(LARGE)) as connection, client_of(path) as client:
        eventually(lambda: metric(client, "tapehouse_stalled_clients_total") == 1)
        eventually(lambda: store.stats()["open_readings"] == 0)
        assert metric(client, "tapehouse_open_answers") == 0
        assert not drained(connection).endswith(b"0\r\n\r\n")  # nobody takes it for the whole answer


def test_a_slow_reader_keeps_nobody_waiting(serve: Serve) -> None:
    path = serve(max_concurrent_queries=1)
    with raw(path, ask(LARGE)), raw(path, ask(LARGE)), client_of(path) as client:
        eventually(lambda: metric(client, "tapehouse_open_answers") == 2)
        for _ in range(10):
            assert client.get(SMALL).status_code == 200


def test_too_many_large_answers(serve: Serve, store: DuckDBStore) -> None:
    path = serve(max_open_answers=1)
    with raw(path, ask(LARGE)), client_of(path) as client:
        eventually(lambda: metric(client, "tapehouse_open_answers") == 1)
        answer = client.get(LARGE)
        refused(answer, 503, "overloaded")
        assert answer.headers["retry-after"] == "5"
        assert client.get(SMALL).status_code == 200
    eventually(lambda: store.stats()["open_readings"] == 0)


class Blocking:
    """The store, but for one method, which waits until it is let go; `calls` counts how often it was called."""

    def __init__(self, store: Any, method: str = "coverage") -> None:
        self._store = store
        self._method = method
        self.calls = 0
        self.go_on = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return self._wait if name == self._method else getattr(self._store, name)

    def _wait(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        self.go_on.wait(PATIENCE_S)
        return getattr(self._store, self._method)(*args, **options)


def test_too_many_queries(serve: Serve, store: DuckDBStore) -> None:
    blocking = Blocking(store)
    path = serve(of=blocking, max_concurrent_queries=1, max_waiting_queries=1)
    with raw(path, ask("/v1/symbols")) as first, client_of(path) as client:
        eventually(lambda: blocking.calls == 1)
        with raw(path, ask("/v1/symbols")) as second:
            eventually(lambda: metric(client, "tapehouse_pending_queries") == 2)
            answer = client.get("/v1/symbols")
            refused(answer, 503, "overloaded")
            assert answer.headers["retry-after"] == "1"
            blocking.go_on.set()
            for connection in (first, second):
                assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert client.get("/v1/symbols").status_code == 200


def test_a_call_whose_client_has_gone_is_not_made(serve: Serve, store: DuckDBStore) -> None:
    blocking = Blocking(store)
    path = serve(of=blocking, max_concurrent_queries=1)
    with client_of(path) as client:
        gone = [raw(path, ask("/v1/symbols")) for _ in range(5)]
        eventually(lambda: metric(client, "tapehouse_pending_queries") == 5)
        for connection in gone:
            connection.close()
        eventually(lambda: metric(client, "tapehouse_disconnected_clients_total") == 5)
        assert metric(client, "tapehouse_pending_queries") == 1  # the one that runs still has its thread
        assert client.get("/v1/stats").status_code == 200
        blocking.go_on.set()
        eventually(lambda: metric(client, "tapehouse_pending_queries") == 0)
    assert blocking.calls == 1


def test_a_stop_drops_the_calls_that_wait(store: DuckDBStore, tmp_path: Path) -> None:
    blocking = Blocking(store)
    path = tmp_path / "s.sock"
    running = Background(blocking, path, Settings(shutdown_timeout_s=0.2, max_concurrent_queries=1))
    with ExitStack() as stack:
        client = stack.enter_context(client_of(path))
        for _ in range(5):
            stack.enter_context(raw(path, ask("/v1/symbols")))
        eventually(lambda: metric(client, "tapehouse_pending_queries") == 5)
        stopping = threading.Thread(target=running.close)
        stopping.start()
        stopping.join(2.0)
        assert stopping.is_alive()  # a store that is being called is not closed
        blocking.go_on.set()
        stopping.join(PATIENCE_S)
        assert not stopping.is_alive()
    assert blocking.calls == 1


def test_reads_do_not_wait_behind_writes(serve: Serve, store: DuckDBStore) -> None:
    blocking = Blocking(store, "write")
    path = serve(of=blocking, max_concurrent_queries=1, max_concurrent_writes=1)
    row = "timestamp,open,high,low,close,volume\n2024-01-02T00:00:00Z,1,1,1,1,1\n"
    head = "POST /v1/bars?interval=1d&symbol=NEW HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
    post = f"{head}Content-Length: {len(row)}\r\n\r\n{row}"
    with raw(path, post), raw(path, post), client_of(path) as client:
        eventually(lambda: metric(client, "tapehouse_pending_queries") == 2)
        assert client.get(SMALL).status_code == 200
        assert client.get("/readyz").status_code == 200
        blocking.go_on.set()


def test_readiness_does_not_wait_behind_reads(serve: Serve, store: DuckDBStore) -> None:
    blocking = Blocking(store)
    path = serve(of=blocking, max_concurrent_queries=1)
    with raw(path, ask(SMALL)), raw(path, ask(SMALL)), client_of(path) as client:
        eventually(lambda: blocking.calls == 1)
        assert client.get("/readyz").status_code == 200
        assert client.get("/metrics").status_code == 200
        blocking.go_on.set()


def test_readiness_is_asked_once_however_many_want_to_know(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_READY_WITHIN_S", 0.05)
    blocking = Blocking(store, "stats")
    lane = workers.Lane("ready", 1)
    ready = workers.Readiness(blocking, lane)  # type: ignore[arg-type]

    async def check() -> list[BaseException | None]:
        refusals = [await asyncio.gather(*[ready.check() for _ in range(10)], return_exceptions=True) for _ in range(3)]
        assert lane.pending == 1  # nobody waits any more, but the thread is not free
        blocking.go_on.set()
        await ready.check()
        await asyncio.gather(*[ready.check() for _ in range(10)])
        return [refusal for each in refusals for refusal in each]

    refused_all = asyncio.run(check())
    lane.close()
    assert all(isinstance(refusal, Unavailable) for refusal in refused_all)
    assert len(refused_all) == 30
    assert blocking.calls == 1
    assert lane.pending == 0


def test_an_answer_that_nobody_waits_for_is_let_go(serve: Serve, store: DuckDBStore) -> None:
    blocking = Blocking(store, "read")
    path = serve(of=blocking, max_concurrent_queries=1)
    with client_of(path) as client:
        with raw(path, ask(LARGE)):
            eventually(lambda: blocking.calls == 1)
        eventually(lambda: metric(client, "tapehouse_disconnected_clients_total") == 1)
        blocking.go_on.set()
        eventually(lambda: metric(client, "tapehouse_pending_queries") == 0)
        assert metric(client, "tapehouse_open_answers") == 0
    eventually(lambda: store.stats()["open_readings"] == 0)


def test_no_more_large_answers_than_allowed_when_they_come_at_once(serve: Serve, store: DuckDBStore) -> None:
    path = serve(max_open_answers=2)
    with ExitStack() as stack:
        client = stack.enter_context(client_of(path))
        connections = [stack.enter_context(raw(path, ask(LARGE))) for _ in range(10)]
        starts = sorted(connection.recv(12) for connection in connections)
        assert starts == [b"HTTP/1.1 200"] * 2 + [b"HTTP/1.1 503"] * 8
        assert metric(client, "tapehouse_open_answers") == 2
    eventually(lambda: store.stats()["open_readings"] == 0)


def test_an_upload_that_breaks_off_is_no_error(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tapehouse")
    path = serve()
    head = (
        "POST /v1/bars?interval=1d HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\nContent-Length: 99\r\n\r\n"
    )
    with client_of(path) as client:
        raw(path, head + "Content-Length: 99\r\n\r\nsymbol").close()
        eventually(lambda: metric(client, "tapehouse_disconnected_clients_total") == 1)
    (said,) = [record for record in caplog.records if "the client went away" in record.getMessage()]
    assert said.levelno == logging.INFO
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_many_at_once_all_get_their_answer(serve: Serve) -> None:
    path = serve()

    async def ask_all() -> list[int]:
        transport = httpx.AsyncHTTPTransport(uds=str(path), limits=httpx.Limits(max_connections=300))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60.0) as client:
            questions = [client.get(SMALL) for _ in range(200)]
            return [answer.status_code for answer in await asyncio.gather(*questions)]

    assert asyncio.run(ask_all()) == [200] * 200


class Breaking:
    """The store, but for reads, which break after a few batches."""

    def __init__(self, store: DuckDBStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, selection: Selection) -> Reading:
        reading = self._store.read(selection)

        def batches() -> Iterator[pa.RecordBatch]:
            for number, batch in enumerate(
                batch.slice(at, 20_000) for batch in reading for at in range(0, 20_000, 20_000)
            ):
                yield batch
                if number == 3:
                    raise StoreDamaged("a page is torn")

        return Reading(reading.schema, reading.commit, batches(), reading.close)


def test_an_answer_that_breaks_off_is_not_taken_for_whole(
    serve: Serve, store: DuckDBStore, caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(serve(of=Breaking(store))) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(LARGE, headers={"accept": ARROW})
        eventually(lambda: "a page is torn" in caplog.text)
    eventually(lambda: store.stats()["open_readings"] == 0)


def test_a_body_that_does_not_come(serve: Serve) -> None:
    head = (
        "POST /v1/bars?interval=1m HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\nContent-Length: 100\r\n\r\n"
    )
    with raw(serve(stall_timeout_s=0.2), head + "symbol,") as connection:
        answer = connection.recv(10_000)

    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"request_timeout"' in answer


def test_a_body_that_is_too_large_is_refused_before_it_comes(serve: Serve) -> None:
    head = "POST /v1/bars?interval=1m HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
    with raw(serve(), head + "Content-Length: 99999999999\r\n\r\n") as connection:
        answer = connection.recv(10_000)

    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"code":"limit_exceeded"' in answer


def test_bodies_together_take_no_more_than_there_is_for_them(serve: Serve) -> None:
    path = serve(max_open_body_bytes=3_000_000)
    head = "POST /v1/bars?interval=1d HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
    with client_of(path) as client:
        with raw(path, head + "Content-Length: 2000000\r\n\r\nsymbol"):
            eventually(lambda: metric(client, "tapehouse_open_body_bytes") == 2_000_000)
            with raw(path, head + "Content-Length: 2000000\r\n\r\n") as told:
                answer = told.recv(10_000)
                assert answer.startswith(b"HTTP/1.1 503")
                assert b"retry-after: 5" in answer
            chunk = "fffff\r\n" + "x" * 0xFFFFF + "\r\n"
            with raw(path, head + "Transfer-Encoding: chunked\r\n\r\n" + chunk) as untold:
                untold.sendall(b"100\r\n" + b"x" * 0x100 + b"\r\n")
                assert untold.recv(10_000).startswith(b"HTTP/1.1 503")
        eventually(lambda: metric(client, "tapehouse_open_body_bytes") == 0)
        for _ in range(3):  # what was refused or answered has given its room back
            assert client.post("/v1/bars?interval=1d", content=b"x" * 2_000_000).status_code == 415
            typed = {"content-type": "text/csv"}
            assert client.post("/v1/bars?interval=1d", content=b"x" * 2_000_000, headers=typed).status_code == 422
        assert metric(client, "tapehouse_open_body_bytes") == 0


def test_a_body_that_drips_is_cut_off(serve: Serve) -> None:
    head = "POST /v1/bars?interval=1d HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
    with raw(serve(stall_timeout_s=0.5), head + "Content-Length: 9999\r\n\r\n") as connection:
        connection.settimeout(0.1)
        answer = b""
        for _ in range(100):
            connection.sendall(b"x")
            try:
                answer = connection.recv(1_000)
                break
            except TimeoutError:
                pass
    assert answer.startswith(b"HTTP/1.1 408")


def test_requests_by_the_socket_are_counted_by_their_route(serve: Serve) -> None:
    with client_of(serve()) as client:
        client.get(SMALL)
        assert (
            'tapehouse_http_requests_total{method="GET",route="/v1/bars",status="200"} 1.0'
            in client.get("/metrics").text
        )


def test_the_socket_is_this_user_s_alone_and_goes_with_the_server(store: DuckDBStore, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("left by a killed owner")
    running = Background(store, path, Settings())

    assert path.stat().st_mode & 0o777 == 0o600
    running.close()
    running.close()
    assert not path.exists()
    assert store.stats()["rows"] >= ROWS  # the store stays open
