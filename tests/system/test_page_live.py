"""The page while records come in: the chart moves, and says how the connection does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.system.conftest import LIMIT_S, Server, until
from tests.system.test_page import Page, page

__all__ = ["page"]

MINUTE_NS = 60 * 10**9


@pytest.fixture
def live(make_server: Any) -> Iterator[Server]:
    """A server that has some minutes of trades of `AAPL`, and makes their bars."""
    server = make_server("--record-interval-s", "0.1", "--grace-s", "0.2")
    server.start()
    for minutes in range(30, 0, -1):
        send(server, 100 + minutes, time.time_ns() - minutes * MINUTE_NS)
    until("the bars are stored", lambda: len(bars(server)) >= 29)
    yield server
    server.stop()


def send(server: Server, price: float, at: int | None = None) -> None:
    row = {"symbol": "AAPL", "timestamp": time.time_ns() if at is None else at, "price": price, "size": 10}
    httpx.post(f"{server.url}v1/ingest/trades", json={"rows": [row]}, timeout=LIMIT_S).raise_for_status()


def bars(server: Server) -> list[float]:
    asked = {"symbols": "AAPL", "interval": "1m", "stored": "true"}
    found: list[float] = httpx.get(f"{server.url}v1/bars", params=asked).json()["columns"]["close"]
    return found


def close(page: Page) -> str:
    return page.text("[data-value=close]")


@pytest.mark.browser
def test_the_chart_moves_as_trades_come(live: Server, page: Page) -> None:
    page.show(live, "AAPL", "interval=1m")
    page.until("live", lambda: page.text("#live") == "Live")
    asked = len(page.fetched())
    for price in (150.25, 151.5, 149.75):
        send(live, price)
        page.until(f"the chart shows {price}", lambda price=price: close(page) == f"{price:.2f}")  # type: ignore[misc]
    assert len(page.fetched()) == asked, "nothing was fetched for it"
    page.until("a candle", lambda: page.pixels("--up", "#chart") + page.pixels("--down", "#chart") > 50)


@pytest.mark.browser
def test_it_goes_on_after_the_server_was_away(live: Server, page: Page) -> None:
    page.show(live, "AAPL", "interval=1m")
    page.until("live", lambda: page.text("#live") == "Live")
    live.stop()
    page.until("not connected", lambda: page.text("#live") in ("Not connected", "Connecting"))
    live.start()
    page.until("live again", lambda: page.text("#live") == "Live")
    send(live, 175.5)
    page.until("the chart moves", lambda: close(page) == "175.50")
    page.complaints()  # the browser's own, of the connections that failed
