"""The same question over HTTP: a server process on loopback, one client that keeps its connection."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pyarrow as pa

from benchmarks import measure, ours
from benchmarks.bench import Bench
from benchmarks.measure import Figure

ABOUT = (
    "`tapehouse serve` in a process of its own, and one client on loopback that keeps its connection and decodes the "
    "answer. Every request asks for another symbol and day. Of 1,000 at once, each has a connection of its own, "
    "which is open before all ask; the server was started anew and has read one day only."
)
REQUESTS = 300
WARM_UP = 20
ARROW = {"Accept": "application/vnd.apache.arrow.stream"}
DAY_ROWS = 390
SIMULTANEOUS = 1_000
FASTAPI = "a FastAPI route that returns bytes that are there"
_FASTAPI_PROGRAM = """
import pathlib, socket, sys
import fastapi, uvicorn
app, day = fastapi.FastAPI(), pathlib.Path(sys.argv[1]).read_bytes()
@app.get("/day")
async def answer():
    return fastapi.Response(day, media_type="application/vnd.apache.arrow.stream")
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(2048)
print("http://127.0.0.1:%d" % listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])
"""


def run(bench: Bench) -> list[Figure]:
    with _server(ours.loaded(bench)) as address, httpx.Client(base_url=address) as client:
        days = bench.one_day(9, REQUESTS + WARM_UP)
        arrow = [_timed(client, question, ARROW) for question in days][WARM_UP:]
        json = [_timed(client, question, {}) for question in days][WARM_UP:]
        year = [_timed(client, question, ARROW) for question in bench.all_time(10, 6 * bench.repeats)]
        at_work = _resident(address)
        day = client.get(_target(days[0])).raise_for_status().content
    turns = [_turn(bench, seed, day) for seed in range(11, 11 + min(3, bench.repeats))]
    together, plain = sorted(turns, key=lambda turn: turn[0].p99_s)[(len(turns) - 1) // 2]
    with _server(bench.empty("nothing")) as address:
        time.sleep(3)
        at_rest = _resident(address)
    return [
        _figure("one symbol, one day, Arrow, p50", arrow, 0.5, 15.0),
        _figure("one symbol, one day, Arrow, p95", arrow, 0.95),
        _figure("one symbol, one day, JSON, p50", json, 0.5),
        _figure("one symbol, one year, Arrow, p50", year, 0.5),
        Figure(
            name="1,000 at once, one symbol and day each, cold, p99",
            unit="ms",
            ours=together.p99_s * 1e3,
            peers={FASTAPI: plain.p99_s * 1e3},
            better="lower",
            target=2_000.0,
            note=f"the middle one of {', '.join(f'{turn.p99_s * 1e3:,.0f}' for turn, _ in turns)} ms; none failed",
        ),
        Figure(
            name="1,000 at once, answers",
            unit="1/s",
            ours=SIMULTANEOUS / together.all_s,
            peers={FASTAPI: SIMULTANEOUS / plain.all_s},
            better="higher",
            ratio_to=FASTAPI,
        ),
        Figure(name="memory of a server with an empty folder, at rest", unit="MiB", ours=at_rest, better="lower"),
        Figure(name="memory of the server after these requests", unit="MiB", ours=at_work, better="lower"),
    ]


@dataclass
class _Together:
    """How long each answer took, and all of them."""

    taken_s: list[float]
    all_s: float

    @property
    def p99_s(self) -> float:
        return measure.percentile(self.taken_s, 0.99)


def _turn(bench: Bench, seed: int, day: bytes) -> tuple[_Together, _Together]:
    """Of a server that has answered one question only, and of FastAPI alone."""
    asked = bench.one_day(seed, SIMULTANEOUS)
    with _server(ours.loaded(bench)) as address:
        for _ in range(WARM_UP):
            httpx.get(address + _target(asked[0])).raise_for_status()
        ours_ = asyncio.run(_at_once(address, [_target(question) for question in asked]))
    with _fastapi(bench.empty("fastapi"), day) as address:
        return ours_, asyncio.run(_at_once(address, ["/day"] * SIMULTANEOUS))


async def _at_once(address: str, targets: list[str]) -> _Together:
    """All targets at the same time, each by a connection of its own that is open before."""
    place = address.removeprefix("http://").split(":")
    go = asyncio.Event()

    async def ask(target: str) -> float:
        reader, writer = await asyncio.open_connection(place[0], int(place[1]))
        await go.wait()
        started = time.perf_counter()
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200"), answer[:300]
        return time.perf_counter() - started

    asking = [asyncio.create_task(ask(target)) for target in targets]
    await asyncio.sleep(2)
    started = time.perf_counter()
    go.set()
    taken = await asyncio.gather(*asking)
    return _Together(taken, time.perf_counter() - started)


def _target(question: tuple[str, int, int]) -> str:
    symbol, start, end = question
    return f"/v1/bars?symbols={symbol}&interval=1m&start={_iso(start)}&end={_iso(end)}&format=arrow"


@contextmanager
def _fastapi(folder: Path, day: bytes) -> Iterator[str]:
    file = folder.with_suffix(".arrow")
    file.write_bytes(day)
    with _running([sys.executable, "-c", _FASTAPI_PROGRAM, file]) as address:
        yield address


def _figure(name: str, taken: list[float], share: float, target: float | None = None) -> Figure:
    return Figure(name=name, unit="ms", ours=measure.percentile(taken, share) * 1e3, better="lower", target=target)


def _timed(client: httpx.Client, question: tuple[str, int, int], headers: dict[str, str]) -> float:
    symbol, start, end = question
    parameters = {"symbols": symbol, "interval": "1m", "start": _iso(start), "end": _iso(end)}

    def ask() -> None:
        answer = client.get("/v1/bars", params=parameters, headers=headers).raise_for_status()
        rows = (
            pa.ipc.open_stream(answer.content).read_all().num_rows
            if headers
            else len(answer.json()["columns"]["close"])
        )
        assert rows >= DAY_ROWS, rows

    return measure.seconds(ask)


def _iso(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    command: list[str | Path] = [
        Path(sys.executable).with_name("tapehouse"),
        "serve",
        "--store",
        f"duckdb:///{folder}",
        "--port",
        "0",
    ]
    with _running(command) as address:
        yield address


@contextmanager
def _running(command: list[str | Path]) -> Iterator[str]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield _address(process)
        finally:
            process.terminate()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found.group()
    raise RuntimeError(f"the server did not start: {said}")


def _resident(address: str) -> float:
    """MiB that the process which listens there has resident."""
    import psutil

    port = int(address.rpartition(":")[2])
    owner = next(
        c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port
    )
    return float(psutil.Process(owner).memory_info().rss / 2**20)
