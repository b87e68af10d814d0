"""`tapehouse serve` as a process: what it prints, how it starts and stops, and what stops the start."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow as pa
import pytest
from tests.system.conftest import LIMIT_S, TAPEHOUSE, MakesServer, Server, clean_environment, until
from tests.unit.api.parts import ARROW, bars

from tapehouse.api.keys import Keys

REST_RSS_BYTES = 250_000_000


def body_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def post(server: Server, table: pa.Table, interval: str = "1d") -> dict[str, Any]:
    url = f"{server.url}v1/bars?interval={interval}&source=test"
    answer = httpx.post(url, content=body_of(table), headers={"content-type": ARROW}, timeout=LIMIT_S)
    assert answer.status_code == 200, answer.text
    commit: dict[str, Any] = answer.json()
    return commit


def log_of(server: Server) -> str:
    return (server.folder / "server.log").read_text()


def closes(server: Server) -> list[float]:
    found: list[float] = httpx.get(f"{server.url}v1/bars?interval=1d").json()["columns"]["close"]
    return found


def refusal(folder: Path, *flags: str, **environment: str) -> str:
    """What a start that has to fail says."""
    command = [TAPEHOUSE, "serve", "--port", "0", *flags]
    env = clean_environment() | environment
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=LIMIT_S, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def server(make_server: MakesServer) -> Server:
    started = make_server()
    started.start()
    return started


@pytest.fixture(scope="module")
def idle(make_server: MakesServer) -> Server:
    """A server that is only looked at."""
    started = make_server()
    started.start()
    return started


def test_it_says_where_it_is_and_what_it_holds(server: Server) -> None:
    assert f"serves {server.url[:-1]} (no key needed)" in log_of(server)
    assert "0 symbols, 0 rows; `tapehouse load PATH` brings some" in log_of(server)

    post(server, bars("AAPL", [1.0, 2.0]))
    server.stop()
    server.start()
    assert "1 symbol, 2 rows, 2024-01-02 to 2024-01-03" in log_of(server)
    assert closes(server) == [1.0, 2.0]


def test_a_server_at_rest_is_small(idle: Server) -> None:
    assert httpx.get(f"{idle.url}readyz").status_code == 200
    process = psutil.Process(idle.process.pid)
    libraries = {Path(mapped.path).name for mapped in process.memory_maps() if "site-packages" in mapped.path}

    assert process.memory_info().rss < REST_RSS_BYTES
    assert not [name for name in libraries if "polars" in name]
    assert not [mapped.path for mapped in process.memory_maps() if "/pandas/" in mapped.path]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_leaves_the_folder_free(server: Server, number: signal.Signals) -> None:
    post(server, bars("AAPL", [1.0]))
    server.process.send_signal(number)

    assert server.process.wait(LIMIT_S) == 0
    assert not (server.folder / "data" / "tapehouse.sock").exists()
    assert '"symbol": "AAPL"' in server.run("symbols", "--json") or "AAPL" in server.run("symbols")


def test_open_requests_are_answered_before_it_stops(server: Server) -> None:
    post(server, bars("AAPL", [float(i + 2) for i in range(200_000)], step=60_000_000_000), "1m")
    with httpx.stream("GET", f"{server.url}v1/bars?interval=1m&format=csv", timeout=LIMIT_S) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("symbol,")
        server.process.terminate()
        assert sum(1 for _ in lines) == 200_000
    assert server.process.wait(LIMIT_S) == 0


def test_a_client_that_does_not_read_cannot_keep_it_from_stopping(make_server: MakesServer) -> None:
    server = make_server("--shutdown-timeout-s", "1")
    server.start()
    post(server, bars("AAPL", [float(i + 2) for i in range(200_000)], step=60_000_000_000), "1m")
    with socket.create_connection(("127.0.0.1", server.port)) as stuck:
        stuck.sendall(b"GET /v1/bars?interval=1m&format=csv HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until("an open answer", lambda: "tapehouse_open_answers 1.0" in httpx.get(f"{server.url}metrics").text)
        server.process.terminate()
        assert server.process.wait(LIMIT_S) == 0
    assert "Traceback" not in log_of(server)


def test_what_was_answered_survives_kill(server: Server) -> None:
    post(server, bars("AAPL", [1.0, 2.0, 3.0]))
    server.process.kill()
    server.process.wait(LIMIT_S)
    assert (server.folder / "data" / "tapehouse.sock").exists()

    server.start()

    assert closes(server) == [1.0, 2.0, 3.0]
    assert json.loads(server.run("symbols", "--json"))  # through the new socket


def test_a_second_server_names_the_owner(idle: Server) -> None:
    message = refusal(idle.folder, "--store", idle.store)

    assert f"is in use by process {idle.process.pid}" in message
    assert f"serving http://127.0.0.1:{idle.port}" in message


def test_a_port_that_is_taken(idle: Server, tmp_path: Path) -> None:
    message = refusal(tmp_path, "--port", str(idle.port))

    assert f"127.0.0.1:{idle.port} is taken by another program" in message
    assert "--port" in message
    assert not (tmp_path / "data").exists()  # the data was not touched


def test_beyond_loopback_it_needs_keys(tmp_path: Path) -> None:
    message = refusal(tmp_path, "--host", "0.0.0.0")

    assert "host is 0.0.0.0, which others can reach, and there are no keys" in message
    assert "tapehouse keys add" in message


def test_beyond_loopback_with_keys(make_server: MakesServer) -> None:
    server = make_server("--host", "0.0.0.0")
    token = Keys(server.folder / "data" / "keys.json").add("k", "write")
    server.flags = (*server.flags, "--log-format", "text")
    with running(server) as port:
        assert "(a key is needed)" in log_of(server)
        url = f"http://127.0.0.1:{port}/v1/stats"
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, headers={"x-api-key": token}).status_code == 200
        transport = httpx.HTTPTransport(uds=str(server.folder / "data" / "tapehouse.sock"))
        with httpx.Client(transport=transport, base_url="http://localhost") as by_socket:
            assert by_socket.get("/v1/stats").status_code == 200


@contextmanager
def running(server: Server) -> Iterator[int]:
    """The server, whose address is not loopback's, and its port."""
    log = server.folder / "server.log"
    command = [TAPEHOUSE, "serve", "--store", server.store, "--port", "0", *server.flags]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=server.folder, stdout=out, stderr=out, env=clean_environment())
    try:
        until("an address", lambda: "serves http://0.0.0.0:" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield int(log.read_text().partition("serves http://0.0.0.0:")[2].split()[0])
    finally:
        process.terminate()
        assert process.wait(LIMIT_S) == 0


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        ([], {"TAPEHOUSE_PROT": "1"}, "there is no setting 'TAPEHOUSE_PROT'; did you mean 'TAPEHOUSE_PORT'?"),
        (["--host", "no.such.host.example"], {"TAPEHOUSE_INSECURE": "true"}, "which is no address"),
        (["--instruments", "missing.json"], {}, "cannot read the instruments in missing.json"),
    ],
)
def test_settings_that_stop_the_start(
    tmp_path: Path, flags: list[str], environment: dict[str, str], message: str
) -> None:
    assert message in refusal(tmp_path, *flags, **environment)


def test_a_data_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")

    assert "data is not a folder" in refusal(tmp_path)


def test_instruments_are_put_at_the_start(make_server: MakesServer) -> None:
    server = make_server("--instruments", "instruments.toml")
    toml = '[[instruments]]\npattern = "AAPL"\ncalendar = "24/5"\ntimezone = "America/New_York"\n'
    (server.folder / "instruments.toml").write_text(toml)
    server.start()

    (instrument,) = httpx.get(f"{server.url}v1/instruments").json()["instruments"]

    assert instrument["timezone"] == "America/New_York"
    server.stop()
    (server.folder / "instruments.json").write_text('[{"pattern": "AAPL", "calendar": "XNYX"}]')
    assert "instruments.json: unknown calendar 'XNYX'" in refusal(
        server.folder, "--store", server.store, "--instruments", "instruments.json"
    )


def test_it_compacts_by_itself(make_server: MakesServer) -> None:
    server = make_server("--compact-interval-s", "0.2")
    server.start()
    post(server, bars("AAPL", [float(i + 2) for i in range(1_000)], first=1_499_990_400 * 10**9))

    until(
        "a compaction",
        lambda: 'tapehouse_compactions_total{outcome="done"}' in httpx.get(f"{server.url}metrics").text,
    )
    until("rows in the archive", lambda: list((server.folder / "data").rglob("*.parquet")))
    assert len(closes(server)) == 1_000


def test_log_lines_can_be_json(make_server: MakesServer) -> None:
    server = make_server("--log-format", "json", "--log-level", "debug")
    server.start()
    httpx.get(f"{server.url}healthz")
    server.stop()

    lines = [json.loads(line) for line in log_of(server).splitlines()]

    assert {"time", "level", "logger", "message"} <= set(lines[0])
    (serving,) = [line for line in lines if line["message"] == "serving"]
    assert serving["rows"] == 0
    assert serving["address"] == server.url[:-1]
    assert [line for line in lines if "GET /healthz 200" in line["message"]]


def test_a_second_signal_does_not_wait_for_open_requests(make_server: MakesServer) -> None:
    server = make_server("--shutdown-timeout-s", str(10 * LIMIT_S))
    server.start()
    post(server, bars("AAPL", [float(i + 2) for i in range(200_000)], step=60_000_000_000), "1m")
    with socket.create_connection(("127.0.0.1", server.port)) as stuck:
        stuck.sendall(b"GET /v1/bars?interval=1m&format=csv HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until("an open answer", lambda: "tapehouse_open_answers 1.0" in httpx.get(f"{server.url}metrics").text)
        server.process.terminate()
        until("a stop", lambda: "stopping" in log_of(server))
        server.process.terminate()
        assert server.process.wait(LIMIT_S) == 0
    assert "Traceback" not in log_of(server)
