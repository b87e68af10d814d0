"""More at once than can be answered at once, over real connections: all get their turn, or are told to come again."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pytest
from tests.system.conftest import MakesServer, Server

from tapehouse import Client
from tapehouse.model import TIMESTAMP

SYMBOLS, DAYS, MINUTES = 20, 15, 390
QUESTIONS = SYMBOLS * DAYS
JAN_2_NS = 1_704_153_600_000_000_000
MINUTE_NS, DAY_NS = 60_000_000_000, 86_400_000_000_000


@pytest.fixture(scope="module")
def data(make_server: MakesServer) -> Iterator[Server]:
    """A server with some days of minutes, all in the archive."""
    server = make_server()
    server.start()
    stamps = [JAN_2_NS + day * DAY_NS + minute * MINUTE_NS for day in range(DAYS) for minute in range(MINUTES)]
    names = [f"S{number:02}" for number in range(SYMBOLS) for _ in stamps]
    values = [1.0] * len(names)
    columns = dict.fromkeys(("open", "high", "low", "close", "volume"), values)
    with Client(server.url) as client:
        client.upload(
            pa.table({"symbol": names, "timestamp": pa.array(stamps * SYMBOLS, TIMESTAMP), **columns}), interval="1m"
        )
        client.compact(everything=True)
    yield server
    server.stop()


async def ask(server: Server, number: int, *, host: str = "127.0.0.1", go: asyncio.Event) -> tuple[int, bytes]:
    """The status and all bytes of the answer to a question that nobody else asks; `host` is where it comes from."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=(host, 0))
    symbol, day = number % SYMBOLS, number // SYMBOLS % DAYS
    start = JAN_2_NS + day * DAY_NS
    target = f"/v1/bars?symbols=S{symbol:02}&interval=1m&start={start}&end={start + DAY_NS}&format=csv"
    await go.wait()
    writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return int(answer[9:12]), answer


def test_all_are_served(data: Server) -> None:
    async def at_once() -> list[tuple[int, bytes]]:
        go = asyncio.Event()
        asking = [asyncio.create_task(ask(data, number, go=go)) for number in range(QUESTIONS)]
        await asyncio.sleep(0.5)
        go.set()
        return await asyncio.gather(*asking)

    answers = asyncio.run(at_once())

    assert Counter(status for status, _ in answers) == {200: QUESTIONS}
    for number, (_, answer) in enumerate(answers):
        lines = answer.partition(b"\r\n\r\n")[2].splitlines()
        assert len(lines) == MINUTES + 1
        assert lines[1].startswith(b"S%02d," % (number % SYMBOLS))


def test_what_is_too_much_is_refused_at_once_and_nothing_is_broken_after(
    data: Server, make_server: MakesServer
) -> None:
    data.stop()
    server = make_server("--max-concurrent-queries", "1", "--max-waiting-queries", "20", like=data)
    server.start()

    async def at_once() -> list[tuple[int, bytes]]:
        go = asyncio.Event()
        asking = [asyncio.create_task(ask(server, number, go=go)) for number in range(QUESTIONS)]
        await asyncio.sleep(0.5)
        go.set()
        return await asyncio.gather(*asking)

    answers = asyncio.run(at_once())
    statuses = Counter(status for status, _ in answers)
    assert statuses[200] >= 21
    assert statuses[503] == QUESTIONS - statuses[200] > 0
    for status, answer in answers:
        if status == 503:
            assert re.search(rb"retry-after: [1-9]", answer, re.IGNORECASE)
            assert b'"code":"overloaded"' in answer
    assert asyncio.run(_one(server))[0] == 200
    server.stop()
    data.start()


async def _one(server: Server) -> tuple[int, bytes]:
    go = asyncio.Event()
    go.set()
    return await ask(server, 0, go=go)


def test_one_client_with_many_requests_does_not_keep_another_waiting(data: Server, make_server: MakesServer) -> None:
    """The second client comes last, and its few answers come long before the first one's last."""
    data.stop()
    server = make_server("--max-concurrent-queries", "1", "--max-waiting-queries", "250", like=data)
    server.start()
    order: list[str] = []

    async def noted(number: int, host: str, go: asyncio.Event) -> int:
        status, _ = await ask(server, number, host=host, go=go)
        order.append(host)
        return status

    async def at_once() -> list[int]:
        first, second = asyncio.Event(), asyncio.Event()
        many = [asyncio.create_task(noted(number, "127.0.0.2", first)) for number in range(QUESTIONS)]
        few = [asyncio.create_task(noted(number, "127.0.0.3", second)) for number in range(5)]
        await asyncio.sleep(0.5)
        first.set()
        await asyncio.sleep(0.02)
        second.set()
        await asyncio.gather(*many)
        return await asyncio.gather(*few)

    statuses = asyncio.run(at_once())
    assert statuses == [200] * 5  # although as many wait as may
    served = [place for place, host in enumerate(order) if host == "127.0.0.3"]
    assert served[-1] < len(order) - 50
    server.stop()
    data.start()
