"""What the tests of the API build: an API over a real store, and a client that calls it in this process."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pyarrow as pa

from tapehouse.api.app import Api, create_app
from tapehouse.api.keys import Keys
from tapehouse.model import TIMESTAMP
from tapehouse.query.base import Limits
from tapehouse.query.history import StoredHistory
from tapehouse.settings import Settings

DAY_NS = 86_400_000_000_000
JAN_2_NS = 1_704_153_600_000_000_000  # 2024-01-02T00:00:00Z
ARROW = "application/vnd.apache.arrow.stream"
ARROW_FILE = "application/vnd.apache.arrow.file"


def bars(symbol: str, closes: list[float], first: int = JAN_2_NS, step: int = DAY_NS) -> pa.Table:
    """One bar a day, from 2 January 2024 on."""
    return pa.table(
        {
            "symbol": pa.array([symbol] * len(closes)).dictionary_encode(),
            "timestamp": pa.array([first + i * step for i in range(len(closes))], TIMESTAMP),
            "open": closes,
            "high": [close + 1 for close in closes],
            "low": [close - 1 for close in closes],
            "close": closes,
            "volume": [100.0] * len(closes),
        }
    )


def build(store: Any, keys: Keys | None = None, page: Any = None, **settings: Any) -> Api:
    """An API with those settings."""
    chosen = Settings(**settings)
    limits = Limits(symbols=chosen.max_symbols, page_rows=chosen.max_page_rows, buckets=chosen.max_buckets)
    return create_app(StoredHistory(store, limits), store, chosen, keys, page)


class Client:
    """Calls an ASGI app in this process, one request after another."""

    def __init__(self, app: Any, host: str, headers: dict[str, str] | None = None) -> None:
        self._runner = asyncio.Runner()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url=f"http://{host}", headers=headers)

    def request(self, method: str, path: str, **how: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **how))

    def get(self, path: str, params: Any = None, **headers: str) -> httpx.Response:
        return self.request("GET", path, params=params, headers=headers)

    def post(self, path: str, params: Any = None, **how: Any) -> httpx.Response:
        return self.request("POST", path, params=params, **how)

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


def refused(response: httpx.Response, status: int, code: str, parameter: str | None = None) -> dict[str, Any]:
    """The problem document of an answer that has to be one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code, problem
    assert problem["type"] == f"https://tapehouse.dev/errors/{code}"
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    if parameter is not None:
        assert problem["parameter"] == parameter, problem
    return problem
