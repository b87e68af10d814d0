"""Writes over HTTP: all rows or none, by any content type, and an error that names the row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from tests.unit.api.conftest import Connect
from tests.unit.api.parts import ARROW, ARROW_FILE, DAY_NS, JAN_2_NS, Client, bars, refused

from tapehouse.api import bodies
from tapehouse.api.answers.coding import Expanding
from tapehouse.codec import encode_columns, encode_csv, encode_file, encode_lines, encode_stream, pack_columns
from tapehouse.model import TIMESTAMP, Instrument, Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.memory import MemoryStore

DAILY = {"interval": "1d"}
ROW = {"symbol": "TSLA", "timestamp": "2024-01-02", "open": 250, "high": 251, "low": 247, "close": 248.5, "volume": 9}
ROW |= {"timestamp": "2024-01-02T00:00:00Z"}


def stored(store: MemoryStore, symbol: str, interval: Interval = Interval.D1) -> list[float]:
    reading = store.read(Selection(interval=interval, symbols=(symbol,)))
    found: list[float] = reading.table()["close"].to_pylist()
    return found


BODIES = {
    "application/json": lambda table: b"".join(encode_columns(table, {}, {})),
    "text/csv": lambda table: b"".join(encode_csv(table.schema, table.to_batches())),
    ARROW: lambda table: b"".join(encode_stream(table.schema, table.to_batches())),
    ARROW_FILE: lambda table: b"".join(encode_file(table)),
    "application/x-ndjson": lambda table: b"".join(encode_lines(table.to_batches())),
    "application/jsonl": lambda table: b"".join(encode_lines(table.to_batches())),
    "application/msgpack": lambda table: b"".join(pack_columns(table, {}, {})),
    "application/vnd.msgpack": lambda table: b"".join(pack_columns(table, {}, {})),
    "application/x-msgpack": lambda table: b"".join(pack_columns(table, {}, {})),
}
TICKS = {
    Kind.TRADES: {"price": [185.25, 185.5], "size": [100.0, 200.0], "id": ["7", None]},
    Kind.QUOTES: {"bid": [185.25, 185.5], "bid_size": [1.0, 2.0], "ask": [185.5, 185.75], "ask_size": [3.0, 4.0]},
}


@pytest.mark.parametrize("kind", TICKS)
@pytest.mark.parametrize("content_type", BODIES)
def test_trades_and_quotes_by_any_content_type(client: Client, kind: Kind, content_type: str) -> None:
    stamps = pa.array([JAN_2_NS + 123_456_789, JAN_2_NS + 223_456_789], TIMESTAMP)
    table = pa.table({"symbol": pa.array(["NEW"] * 2).dictionary_encode(), "timestamp": stamps, **TICKS[kind]})

    answer = client.post(f"/v1/{kind}", content=BODIES[content_type](table), headers={"content-type": content_type})

    assert answer.status_code == 200, answer.text
    back = client.get(f"/v1/{kind}", {"symbols": "NEW", "times": "ns", "columns": "all"}).json()["columns"]
    assert back["timestamp"] == [JAN_2_NS + 123_456_789, JAN_2_NS + 223_456_789]
    for name, values in TICKS[kind].items():
        assert back[name] == values, name


@pytest.mark.parametrize("content_type", BODIES)
def test_rows_by_any_content_type(client: Client, store: MemoryStore, content_type: str) -> None:
    body = BODIES[content_type](bars("TSLA", [248.5, 238.25]))

    headers = {"content-type": content_type}
    answer = client.post("/v1/bars", DAILY | {"source": "me", "batch": "b7"}, content=body, headers=headers)

    assert answer.status_code == 200, answer.text
    commit = answer.json()
    assert commit.pop("recorded").endswith("Z")
    assert commit == {
        "number": 3,
        "kind": "bars",
        "interval": "1d",
        "batch": "b7",
        "action": "write",
        "inserted": 2,
        "replaced": 0,
        "unchanged": 0,
        "rejected": 0,
        "deleted": 0,
        "start": "2024-01-02T00:00:00Z",
        "end": "2024-01-03T00:00:00.000000001Z",
    }
    assert stored(store, "TSLA") == [248.5, 238.25]
    again = client.post("/v1/bars", DAILY | {"source": "me"}, content=body, headers=headers).json()
    assert (again["number"], again["inserted"], again["unchanged"]) == (3, 0, 2)


def test_an_answer_can_be_posted_back(client: Client, store: MemoryStore) -> None:
    for layout in ("columns", "rows"):
        answer = client.get("/v1/bars", DAILY | {"symbols": "AAPL", "layout": layout, "columns": "all"})
        commit = client.post("/v1/bars", DAILY, content=answer.content, headers={"content-type": "application/json"})
        assert commit.json()["unchanged"] == 3, commit.text


def test_the_symbol_of_a_body_that_names_none(client: Client, store: MemoryStore) -> None:
    row = {name: value for name, value in ROW.items() if name != "symbol"}

    assert client.post("/v1/bars", DAILY | {"symbol": "BRK.B"}, json=[row, row | {"timestamp": 1704240000}]).is_error
    assert client.post("/v1/bars", DAILY | {"symbol": "BRK.B"}, json=[row]).json()["inserted"] == 1
    assert stored(store, "BRK.B") == [248.5]
    refused(client.post("/v1/bars", DAILY, json=[row]), 422, "invalid_table")
    refused(client.post("/v1/bars", DAILY | {"symbol": "X"}, json=[ROW]), 400, "invalid_request", "symbol")
    refused(client.post("/v1/bars", DAILY | {"symbol": "../x"}, json=[row]), 400, "invalid_symbol", "symbol")


def test_times_in_a_unit(client: Client) -> None:
    commit = client.post("/v1/bars", DAILY | {"times": "s"}, json=[ROW | {"timestamp": JAN_2_NS // 10**9}]).json()

    assert commit["start"] == JAN_2_NS // 10**9


def test_on_conflict(client: Client, store: MemoryStore) -> None:
    row = ROW | {"symbol": "AAPL", "open": 184, "high": 186, "close": 185.5, "low": 184}

    kept = client.post("/v1/bars", DAILY | {"on_conflict": "keep"}, json=[row]).json()
    refused(client.post("/v1/bars", DAILY | {"on_conflict": "error"}, json=[ROW, row]), 409, "conflict")
    preferred = client.post(
        "/v1/bars", DAILY | {"on_conflict": "prefer", "prefer": "vendor,me", "source": "me"}, json=[row]
    ).json()
    assert (kept["rejected"], preferred["rejected"]) == (1, 1)
    assert stored(store, "AAPL") == [185.0, 184.0, 181.5]
    assert client.post("/v1/bars", DAILY | {"source": "me"}, json=[row]).json()["replaced"] == 1
    assert stored(store, "AAPL") == [185.5, 184.0, 181.5]
    assert stored(store, "TSLA") == []


@pytest.mark.parametrize("path", ["/v1/bars", "/v1/trades", "/v1/quotes"])
@pytest.mark.parametrize("on_conflict", [{}, {"on_conflict": "keep"}])
def test_an_order_of_sources_without_prefer_is_refused(
    client: Client, store: MemoryStore, path: str, on_conflict: dict[str, str]
) -> None:
    rows: dict[str, Any] = {
        "/v1/bars": ROW | {"symbol": "A"},
        "/v1/trades": {"symbol": "A", "timestamp": JAN_2_NS, "price": 1.5, "size": 10},
        "/v1/quotes": {"symbol": "A", "timestamp": JAN_2_NS, "bid": 1, "bid_size": 1, "ask": 2, "ask_size": 3},
    }
    head = store.head()
    asked = (DAILY if path == "/v1/bars" else {}) | on_conflict | {"prefer": "vendor,me"}
    problem = refused(client.post(path, asked, json=[rows[path]]), 400, "invalid_request", "prefer")
    assert problem["detail"].startswith("prefer is for on_conflict=prefer: it means nothing with")
    assert store.head() == head


def test_trades_and_quotes(client: Client, store: MemoryStore) -> None:
    trade = {"symbol": "A", "timestamp": JAN_2_NS, "price": 1.5, "size": 10, "side": "buy", "id": "7"}
    quote = {"symbol": "A", "timestamp": JAN_2_NS, "bid": 1, "bid_size": 1, "ask": 2, "ask_size": 3}

    assert client.post("/v1/trades", json={"rows": [trade]}).json()["inserted"] == 1
    assert client.post("/v1/quotes", json={"rows": [quote]}).json()["inserted"] == 1
    assert store.latest(Kind.TRADES)["id"].to_pylist() == ["7"]
    refused(client.post("/v1/trades", DAILY, json=[trade]), 400, "invalid_request", "interval")
    assert client.request("DELETE", "/v1/trades", params={"symbols": "A"}).json()["deleted"] == 1
    assert client.request("DELETE", "/v1/quotes", params={"symbols": "A"}).json()["deleted"] == 1


@pytest.mark.parametrize(
    ("rows", "code", "where"),
    [
        ([ROW, ROW | {"high": 1}], "invalid_table", {"row": 1, "column": "high"}),
        ([ROW, ROW | {"close": None}], "invalid_table", {"row": 1, "column": "close"}),
        ([ROW, ROW | {"volume": -1}], "invalid_table", {"row": 1, "column": "volume"}),
        ([ROW, ROW | {"timestamp": "noon"}], "invalid_table", {"row": 1, "column": "timestamp"}),
        ([ROW, ROW | {"colour": "red"}], "invalid_table", {"row": 1, "column": "colour"}),
        ([ROW, ROW | {"symbol": "a b"}], "invalid_symbol", {"symbol": "a b"}),
        ([ROW, ROW | {"symbol": "A" * 300}], "invalid_symbol", {}),
        ([], None, {}),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_stored(
    client: Client, store: MemoryStore, rows: list[Any], code: str | None, where: dict[str, Any]
) -> None:
    answer = client.post("/v1/bars", DAILY, json=rows)

    if code is None:
        assert answer.json()["inserted"] == 0
    else:
        problem = refused(answer, 400 if code == "invalid_symbol" else 422, code)
        assert where.items() <= problem.items()
    assert store.head() == 2


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"", "application/json", 422, "unreadable_file"),
        (b"{", "application/json", 422, "unreadable_file"),
        (b"symbol;open\nA;1\n", "text/csv", 422, "invalid_table"),
        (b"ARROW1", ARROW, 422, "unreadable_file"),
        (b"[]", "application/xml", 415, "unsupported_media_type"),
        (b"[]", "", 415, "unsupported_media_type"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    ],
)
def test_bodies_that_are_none(client: Client, content: bytes, content_type: str, status: int, code: str) -> None:
    headers = {"content-type": content_type} if content_type else {}

    refused(client.post("/v1/bars", DAILY, content=content, headers=headers), status, code)


def zstd(body: bytes) -> bytes:
    return pa.compress(body, "zstd", asbytes=True)


@pytest.mark.parametrize("coding", ["br", "zstd, gzip", "deflate"])
def test_a_body_in_an_unknown_coding_is_refused_by_name(client: Client, store: MemoryStore, coding: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": coding}

    for method, path in (("POST", "/v1/bars?interval=1d"), ("PUT", "/v1/instruments")):
        answer = client.request(method, path, content=b"[]", headers=headers)
        problem = refused(answer, 415, "unsupported_media_type", "Content-Encoding")
        assert "gzip, zstd" in problem["detail"]
        assert answer.headers["accept-encoding"] == "gzip, zstd"
    typed = client.post("/v1/bars", DAILY, content=b"x", headers={"content-type": "text/x"})
    assert "accept-encoding" not in typed.headers
    assert store.head() == 2


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("zstd", zstd)])
@pytest.mark.parametrize("media_type", ["text/csv", ARROW])
def test_a_compressed_body(
    client: Client, store: MemoryStore, coding: str, compress: Callable[[bytes], bytes], media_type: str
) -> None:
    table = bars("NEW", [1.0, 2.0])
    encode = encode_csv if media_type == "text/csv" else encode_stream
    body = b"".join(encode(table.schema, table.to_batches()))
    headers = {"content-type": media_type, "content-encoding": coding}

    commit = client.post("/v1/bars", DAILY, content=compress(body), headers=headers).json()

    assert commit["inserted"] == 2
    assert client.get("/v1/bars", DAILY | {"symbols": "NEW"}).json()["columns"]["close"] == [1.0, 2.0]


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstd)])
def test_a_bomb_is_refused_as_soon_as_it_is_too_large(
    connect: Connect, coding: str, compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    class Counted(Expanding):
        def read(self, most: int) -> bytes:
            data = super().read(most)
            read.append(len(data))
            return data

    monkeypatch.setattr(bodies, "Expanding", Counted)
    client = connect(max_body_bytes=1_000_000)
    headers = {"content-type": "text/csv", "content-encoding": coding}

    answer = client.post("/v1/bars", DAILY, content=compress(bytes(50_000_000)), headers=headers)

    refused(answer, 413, "limit_exceeded")
    assert sum(read) < 10_000_000
    assert client.get("/metrics").text.splitlines().count("tapehouse_open_body_bytes 0.0") == 1


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstd)])
def test_a_body_that_expands_waits_for_memory_like_any_other(
    connect: Connect, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    client = connect(max_open_body_bytes=2_000_000)
    headers = {"content-type": "text/csv", "content-encoding": coding}

    refused(client.post("/v1/bars", DAILY, content=compress(bytes(5_000_000)), headers=headers), 503, "overloaded")
    assert "tapehouse_open_body_bytes 0.0" in client.get("/metrics").text


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["cut off", "nonsense", "garbage behind"])
def test_a_damaged_compressed_body(client: Client, store: MemoryStore, coding: str, damage: str) -> None:
    body = (gzip.compress if coding == "gzip" else zstd)(b"symbol,timestamp\n" * 1_000)
    content = {"cut off": body[:-5], "nonsense": b"nonsense" * 9, "garbage behind": body + b"garbage!!"}[damage]

    answer = client.post(
        "/v1/bars", DAILY, content=content, headers={"content-type": "text/csv", "content-encoding": coding}
    )

    assert f"the body is not {coding}" in refused(answer, 422, "unreadable_file")["detail"]
    assert store.head() == 2


def test_identity_is_no_coding(client: Client) -> None:
    headers = {"content-type": "application/json", "content-encoding": "identity"}
    assert client.post("/v1/bars", DAILY, content=b"[]", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("params", "code", "parameter"),
    [
        ({}, "invalid_request", "interval"),
        ({"interval": "2d"}, "unknown_interval", "interval"),
        (DAILY | {"on_conflict": "merge"}, "invalid_request", "on_conflict"),
        (DAILY | {"batch": "b" * 300}, "invalid_request", "batch"),
        (DAILY | {"symbols": "A"}, "invalid_request", "symbols"),
    ],
)
def test_parameters_that_make_no_sense(client: Client, params: dict[str, str], code: str, parameter: str) -> None:
    refused(client.post("/v1/bars", params, json=[ROW]), 400, code, parameter)


def test_a_body_may_have_a_charset(client: Client) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}

    assert client.post("/v1/bars", DAILY, content=json.dumps([ROW]), headers=headers).status_code == 200


def test_limits_of_a_body(connect: Connect, store: MemoryStore) -> None:
    client = connect(max_body_bytes=2_000, max_upload_rows=3)

    refused(client.post("/v1/bars", DAILY, json=[ROW] * 100), 413, "limit_exceeded")
    refused(client.post("/v1/bars", DAILY, json=[ROW] * 4), 413, "limit_exceeded")
    assert store.head() == 2


def test_a_body_without_a_length_is_measured_as_it_comes(connect: Connect) -> None:
    client = connect(max_body_bytes=2_000)
    taken = 0

    async def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1_000
            yield b" " * 1_000

    answer = client.post("/v1/bars", DAILY, content=endless(), headers={"content-type": "application/json"})

    refused(answer, 413, "limit_exceeded")
    assert taken <= 4_000


def test_delete_hides_a_span(client: Client, store: MemoryStore) -> None:
    params = DAILY | {"symbols": "AAPL,MSFT", "start": "2024-01-03", "end": "2024-01-04"}

    commit = client.request("DELETE", "/v1/bars", params=params).json()

    assert (commit["action"], commit["deleted"]) == ("delete", 2)
    assert stored(store, "AAPL") == [185.0, 181.5]
    assert stored(store, "MSFT") == [370.0]
    assert client.get("/v1/bars", DAILY | {"as_of": 2, "symbols": "MSFT"}).json()["columns"]["close"] == [370.0, 371.0]


def test_a_date_is_midnight_in_the_instruments_zone(client: Client, store: MemoryStore) -> None:
    store.put_instruments([Instrument(pattern="NYC", timezone="America/New_York")])
    rows = bars("NYC", [185.0, 184.0, 183.0])
    times = pa.array(rows["timestamp"].cast(pa.int64()).to_numpy() + 5 * 3_600 * 10**9).view(TIMESTAMP)
    store.write(Kind.BARS, rows.set_column(1, "timestamp", times), interval=Interval.D1)
    start = {"start": "2024-01-03", "end": "2024-01-04"}

    alone = client.request("DELETE", "/v1/bars", params=DAILY | {"symbols": "NYC"} | start)
    both = client.request("DELETE", "/v1/bars", params=DAILY | {"symbols": "NYC,MSFT"} | start)

    assert alone.json()["deleted"] == 1
    assert stored(store, "NYC") == [185.0, 183.0]
    assert "America/New_York, UTC" in refused(both, 400, "invalid_request", "start")["detail"]


@pytest.mark.parametrize(
    ("params", "status", "code", "parameter"),
    [
        ({"symbols": "AAPL"}, 400, "invalid_request", "interval"),
        (DAILY, 400, "invalid_request", "symbols"),
        (DAILY | {"symbols": "AAPL", "start": "2025", "end": "2024"}, 400, "invalid_request", "start"),
        (DAILY | {"symbols": "../x"}, 400, "invalid_symbol", "symbols"),
        (DAILY | {"symbols": ",".join(["A"] * 1001)}, 413, "limit_exceeded", "symbols"),
    ],
)
def test_deletes_that_make_no_sense(
    client: Client, store: MemoryStore, params: dict[str, str], status: int, code: str, parameter: str
) -> None:
    refused(client.request("DELETE", "/v1/bars", params=params), status, code, parameter)
    assert store.head() == 2


def test_instruments_are_put_by_pattern(client: Client, store: MemoryStore) -> None:
    first = {"pattern": "AAPL", "calendar": "XNYS", "timezone": "UTC", "tick_size": 0.01}
    second = {"pattern": "*", "currency": "USD"}

    assert client.request("PUT", "/v1/instruments", json={"instruments": [first]}).status_code == 200
    answer = client.request("PUT", "/v1/instruments", json=[second, first | {"currency": "USD"}]).json()

    assert [each["pattern"] for each in answer["instruments"]] == ["*", "AAPL"]
    assert store.instruments()[1].currency == "USD"
    moved = client.request("PUT", "/v1/instruments", json=[first | {"timezone": "America/New_York"}])
    assert "AAPL has bars of 1d, stamped with midnight in UTC" in refused(moved, 409, "conflict")["detail"]
    assert store.instruments()[1].timezone == "UTC"


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"instruments": [{"calendar": "24/7"}]}, 422),
        ([{"pattern": "A", "calendar": "XNYX"}], 400),
        ([{"pattern": "A", "timezone": "Mars/Olympus"}], 400),
        ([{"pattern": 3}], 422),
        ([{"pattern": "A", "tick_size": 0}], 422),
        ([{"pattern": "A", "tick_size": "0.01"}], 422),
        ("AAPL", 422),
    ],
)
def test_instruments_that_are_none(client: Client, store: MemoryStore, document: Any, status: int) -> None:
    answer = client.request("PUT", "/v1/instruments", json=document)

    refused(answer, status, "invalid_data" if status == 422 else "invalid_request")
    assert store.instruments() == []
    refused(client.request("PUT", "/v1/instruments", content=b"x"), 415, "unsupported_media_type", "Content-Type")


def test_a_store_that_keeps_no_instruments(connect: Connect, store: MemoryStore) -> None:
    class Forgetful:
        """The store, less one capability."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(store, name)
            return found - {"instruments"} if name == "capabilities" else found

    client = connect(of=Forgetful())

    refused(client.get("/v1/instruments"), 501, "not_supported")
    refused(client.request("PUT", "/v1/instruments", json=[{"pattern": "A"}]), 501, "not_supported")


def test_nanoseconds_survive(client: Client) -> None:
    times = pa.array([JAN_2_NS + 1, JAN_2_NS + DAY_NS - 1], TIMESTAMP)
    trades = pa.table({"symbol": ["X", "X"], "timestamp": times, "price": [1.0, 2.0], "size": [1.0, 1.0]})
    client.post("/v1/trades", {}, content=BODIES[ARROW](trades), headers={"content-type": ARROW})

    text = client.get("/v1/trades", {"symbols": "X"}).json()["columns"]["timestamp"]

    assert text == ["2024-01-02T00:00:00.000000001Z", "2024-01-02T23:59:59.999999999Z"]
