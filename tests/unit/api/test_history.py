"""Reads over HTTP: what is asked, what is answered, and what a question that makes no sense gets."""

from __future__ import annotations

import io
import threading
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import feather
from tests.unit.api.conftest import Connect
from tests.unit.api.parts import ARROW, ARROW_FILE, DAY_NS, JAN_2_NS, Client, bars, refused

from tapehouse.codec import documents, encode_document
from tapehouse.model import TIMESTAMP, Instrument, Interval, Kind
from tapehouse.store.memory import MemoryStore

DAILY = {"interval": "1d"}
HOUR_NS = DAY_NS // 24


def closes(client: Client, path: str = "/v1/bars", **params: Any) -> list[float]:
    answer = client.get(path, DAILY | params)
    assert answer.status_code == 200, answer.text
    found: list[float] = answer.json()["columns"]["close"]
    return found


def test_json_columns_are_the_default(client: Client) -> None:
    answer = client.get("/v1/bars", DAILY | {"symbols": "MSFT"})

    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert answer.headers["tapehouse-commit"] == "2"
    assert "tapehouse-made-from" not in answer.headers
    assert answer.json() == {
        "commit": 2,
        "made_from": {},
        "columns": {
            "symbol": ["MSFT", "MSFT"],
            "timestamp": ["2024-01-02T00:00:00Z", "2024-01-03T00:00:00Z"],
            "open": [370.0, 371.0],
            "high": [371.0, 372.0],
            "low": [369.0, 370.0],
            "close": [370.0, 371.0],
            "volume": [100.0, 100.0],
        },
        "next_page": None,
    }


def test_json_rows_and_times_as_integers(client: Client) -> None:
    params = DAILY | {"symbols": "MSFT", "layout": "rows", "times": "ms", "columns": "timestamp,close,source"}

    assert client.get("/v1/bars", params).json() == {
        "commit": 2,
        "made_from": {},
        "rows": [
            {"timestamp": JAN_2_NS // 10**6, "close": 370.0, "source": "vendor"},
            {"timestamp": (JAN_2_NS + DAY_NS) // 10**6, "close": 371.0, "source": "vendor"},
        ],
        "next_page": None,
    }


def test_all_columns(client: Client) -> None:
    columns = client.get("/v1/bars", DAILY | {"columns": "all"}).json()["columns"]

    assert list(columns)[-4:] == ["vwap", "trades", "adj_close", "source"]
    assert columns["vwap"] == [None] * 5


@pytest.mark.parametrize("how", [{"params": {"format": "csv"}}, {"headers": {"accept": "text/csv"}}])
def test_csv(client: Client, how: dict[str, dict[str, str]]) -> None:
    params = DAILY | {"symbols": "MSFT", "columns": "symbol,timestamp,close"} | how.get("params", {})
    answer = client.get("/v1/bars", params, **how.get("headers", {}))

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text == "symbol,timestamp,close\nMSFT,2024-01-02T00:00:00Z,370\nMSFT,2024-01-03T00:00:00Z,371\n"


def test_arrow_stream(client: Client) -> None:
    answer = client.get("/v1/bars", DAILY, accept=ARROW)

    assert answer.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.schema.field("timestamp").type == TIMESTAMP
    assert pa.types.is_dictionary(table.schema.field("symbol").type)
    assert table["close"].to_pylist() == [185.0, 184.0, 181.5, 370.0, 371.0]
    assert pl.read_ipc_stream(answer.content).height == 5


def test_arrow_file(client: Client) -> None:
    answer = client.get("/v1/bars", DAILY | {"format": "file"})

    assert answer.headers["content-type"] == ARROW_FILE
    assert pl.read_ipc(answer.content, use_pyarrow=False).height == 5
    assert feather.read_table(io.BytesIO(answer.content)).num_rows == 5


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("text/*", "text/csv; charset=utf-8"),
        ("application/*", "application/json"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        (f"application/json;q=0.5, {ARROW}", ARROW),
        (f"{ARROW};q=0, text/csv;q=0.1", "text/csv; charset=utf-8"),
        ("TEXT/CSV", "text/csv; charset=utf-8"),
    ],
)
def test_accept(client: Client, accept: str, expected: str) -> None:
    assert client.get("/v1/bars", DAILY, accept=accept).headers["content-type"] == expected


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "text/csv;q=high", "nonsense"])
def test_accept_of_what_there_is_not(client: Client, accept: str) -> None:
    refused(client.get("/v1/bars", DAILY, accept=accept), 406, "not_acceptable", "Accept")


def test_format_goes_before_accept(client: Client) -> None:
    assert client.get("/v1/bars", DAILY | {"format": "json"}, accept="image/png").status_code == 200


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"symbols": "AAPL"}, [185.0, 184.0, 181.5]),
        ({"symbols": "MSFT, AAPL"}, [185.0, 184.0, 181.5, 370.0, 371.0]),
        ({"symbols": ["MSFT", "AAPL"]}, [185.0, 184.0, 181.5, 370.0, 371.0]),
        ({"symbols": "AAPL", "order": "desc"}, [181.5, 184.0, 185.0]),
        ({"symbols": "AAPL", "start": "2024-01-03"}, [184.0, 181.5]),
        ({"symbols": "AAPL", "end": "2024-01-03"}, [185.0]),
        ({"symbols": "AAPL", "start": "2024-01-03T00:00:00Z", "end": "1704326400"}, [184.0]),
        ({"symbols": "AAPL", "start": "2023", "end": "2024-02"}, [185.0, 184.0, 181.5]),
        ({"source": "vendor", "symbols": "AAPL"}, [185.0, 184.0, 181.5]),
        ({"source": "other"}, []),
        ({"as_of": "1"}, [185.0, 184.0, 181.5]),
        ({"as_of": "0"}, []),
        ({"as_of": "2"}, [185.0, 184.0, 181.5, 370.0, 371.0]),
        ({"as_of": "7258118400000"}, [185.0, 184.0, 181.5, 370.0, 371.0]),
        ({"as_of": "2200-01-01"}, [185.0, 184.0, 181.5, 370.0, 371.0]),
        ({"as_of": "2200-01-01T00:00:00Z"}, [185.0, 184.0, 181.5, 370.0, 371.0]),
        ({"as_of": "1970-01-02"}, []),
    ],
)
def test_what_is_asked_for_is_answered(client: Client, params: dict[str, Any], expected: list[float]) -> None:
    assert closes(client, **params) == expected


def test_pages_go_on_in_the_same_commit(client: Client, store: MemoryStore) -> None:
    params: dict[str, Any] = DAILY | {"limit": 2}
    first = client.get("/v1/bars", params)
    store.write(Kind.BARS, bars("AAAA", [1.0]), interval=Interval.D1)
    pages = [first]
    while (token := pages[-1].json()["next_page"]) is not None:
        assert pages[-1].headers["tapehouse-next-page"] == token
        pages.append(client.get("/v1/bars", params | {"page": token}))

    assert [page.json()["columns"]["close"] for page in pages] == [[185.0, 184.0], [181.5, 370.0], [371.0]]
    assert {page.headers["tapehouse-commit"] for page in pages} == {"2"}
    assert "link" not in pages[-1].headers
    assert "tapehouse-next-page" not in pages[-1].headers


def test_the_link_of_a_page_is_the_next_one(client: Client) -> None:
    first = client.get("/v1/bars", DAILY | {"limit": "4", "symbols": "AAPL,MSFT", "format": "csv"})

    assert first.links["next"]["url"].startswith("/v1/bars?")
    second = client.get(first.links["next"]["url"])
    assert second.text.splitlines()[1:] == ["MSFT,2024-01-03T00:00:00Z,371,372,370,371,100"]


def test_a_token_of_another_question(client: Client) -> None:
    token = client.get("/v1/bars", DAILY | {"limit": 2}).json()["next_page"]

    refused(
        client.get("/v1/bars", DAILY | {"limit": 2, "symbols": "MSFT", "page": token}), 400, "invalid_token", "page"
    )
    refused(client.get("/v1/bars", DAILY | {"limit": 2, "page": "x"}), 400, "invalid_token", "page")


def test_an_interval_that_is_not_stored_says_what_it_was_made_from(client: Client, store: MemoryStore) -> None:
    hours = bars("BTC/USD", [float(i) for i in range(10, 58)], step=HOUR_NS)
    store.write(Kind.BARS, hours, interval=Interval.H1)

    answer = client.get("/v1/bars", DAILY | {"symbols": "BTC/USD,MSFT"})

    assert answer.headers["tapehouse-made-from"] == "BTC%2FUSD=1h"
    assert answer.json()["made_from"] == {"BTC/USD": ["1h"]}
    columns = answer.json()["columns"]
    assert columns["close"] == [33.0, 57.0, 370.0, 371.0]
    assert columns["made_from"] == ["1h", "1h", "stored", "stored"]
    assert columns["complete"] == [True, True, True, True]


def test_nothing_is_made_when_only_stored_bars_are_asked_for(client: Client) -> None:
    answer = client.get("/v1/bars?symbols=MSFT&interval=1w&stored=true")
    assert answer.status_code == 404
    assert "stored are MSFT: 1d" in answer.json()["detail"]


def test_a_header_of_many_symbols_stays_short(connect: Connect, store: MemoryStore) -> None:
    for number in range(450):
        store.write(Kind.BARS, bars(f"SYMBOL{number}", [2.0] * 2, step=HOUR_NS), interval=Interval.H1)

    answer = connect().get("/v1/bars", DAILY)

    assert answer.headers["tapehouse-made-from"] == "*=1h"
    assert len(answer.json()["made_from"]) == 450


def test_trades_and_quotes(client: Client, store: MemoryStore) -> None:
    at = {"symbol": ["A", "A"], "timestamp": pa.array([JAN_2_NS + 1, JAN_2_NS + 2], TIMESTAMP)}
    store.write(Kind.TRADES, pa.table(at | {"price": [1.5, 1.6], "size": [10.0, 20.0]}))
    store.write(Kind.QUOTES, pa.table(at | {n: [1.0, 2.0] for n in ("bid", "bid_size", "ask", "ask_size")}))

    trades = client.get("/v1/trades", {"symbols": "A", "order": "desc"}).json()["columns"]
    quotes = client.get("/v1/quotes", {"symbols": "A", "columns": "timestamp,ask"}).json()["columns"]

    assert trades["price"] == [1.6, 1.5]
    assert trades["timestamp"] == ["2024-01-02T00:00:00.000000002Z", "2024-01-02T00:00:00.000000001Z"]
    assert quotes == {"timestamp": trades["timestamp"][::-1], "ask": [1.0, 2.0]}
    refused(client.get("/v1/trades", DAILY), 400, "invalid_request", "interval")


def test_latest(client: Client, store: MemoryStore) -> None:
    store.write(Kind.BARS, bars("AAA", [180.0], first=JAN_2_NS + 5 * DAY_NS, step=HOUR_NS), interval=Interval.H1)

    daily = client.get("/v1/latest", DAILY | {"symbols": "AAPL", "layout": "rows"}).json()
    newest = client.get("/v1/latest", {"format": "csv"}).text

    assert [(row["timestamp"], row["close"]) for row in daily["rows"]] == [("2024-01-04T00:00:00Z", 181.5)]
    assert newest.splitlines()[0].endswith(",interval")
    assert newest.splitlines()[1].startswith("AAA,2024-01-07T00:00:00Z,180,")
    assert newest.splitlines()[1].endswith(",1h")


def test_aggregate(client: Client) -> None:
    params = {"bucket": "1mo", "symbols": "AAPL,MSFT", "measures": "close,volume,count,return"}
    rows = client.get("/v1/aggregate", params | {"layout": "rows"}).json()["rows"]

    assert [(row["symbol"], row["close"], row["count"]) for row in rows] == [("AAPL", 181.5, 3), ("MSFT", 371.0, 2)]
    assert rows[0]["timestamp"] == "2024-01-01T00:00:00Z"
    assert rows[0]["return"] is None


def test_aggregate_by_group(client: Client) -> None:
    params = {"bucket": "1mo", "measures": "volume", "group": ["tech:AAPL,MSFT", "fruit:AAPL"]}
    columns = client.get("/v1/aggregate", params).json()["columns"]

    assert dict(zip(columns.get("group", columns.get("symbol")), columns["volume"], strict=True)) == {
        "fruit": 300.0,
        "tech": 500.0,
    }


def test_aggregate_by_group_without_measures_has_those_of_a_group(client: Client) -> None:
    query = {"bucket": "1mo", "layout": "rows"}
    by_group = client.get("/v1/aggregate", query | {"group": "tech:AAPL,MSFT"}).json()["rows"]
    posted = client.post("/v1/aggregate", json=query | {"groups": {"tech": ["AAPL", "MSFT"]}}).json()["rows"]
    by_class = client.get("/v1/aggregate", query | {"group_by": "asset_class"}).json()["rows"]
    by_symbol = client.get("/v1/aggregate", query).json()["rows"]

    assert {"volume": 500.0, "count": 5}.items() <= by_group[0].items()
    assert by_group == posted
    assert set(by_class[0]) == {"group", "timestamp", "volume", "count"}
    assert set(by_symbol[0]) == {"symbol", "timestamp", "open", "high", "low", "close", "volume", "count"}


@pytest.mark.parametrize("group", ["", "tech", ":AAPL", "tech:", "tech:AAPL,,MSFT"])
def test_groups_that_are_none(client: Client, group: str) -> None:
    refused(client.get("/v1/aggregate", {"bucket": "1mo", "group": group}), 400, "invalid_request", "group")


def test_symbols(client: Client) -> None:
    everything = client.get("/v1/symbols").json()["symbols"]
    some = client.get("/v1/symbols", {"match": "M*", "times": "s"}).json()["symbols"]

    assert [each["symbol"] for each in everything] == ["AAPL", "MSFT"]
    assert some == [
        {
            "symbol": "MSFT",
            "series": [
                {
                    "kind": "bars",
                    "interval": "1d",
                    "first": JAN_2_NS // 10**9,
                    "last": (JAN_2_NS + DAY_NS) // 10**9,
                    "rows": 2,
                }
            ],
        }
    ]
    assert client.get("/v1/symbols", {"match": "Z*"}).json() == {"symbols": []}


def test_coverage(client: Client, store: MemoryStore) -> None:
    store.write(Kind.BARS, bars("AAPL", [180.0], first=JAN_2_NS + 6 * DAY_NS), interval=Interval.D1)

    (found,) = client.get("/v1/coverage", {"symbols": "AAPL"}).json()["coverage"]

    assert found == {
        "symbol": "AAPL",
        "kind": "bars",
        "interval": "1d",
        "first": "2024-01-02T00:00:00Z",
        "last": "2024-01-08T00:00:00Z",
        "rows": 4,
        "calendar": "24/7",
        "expected": 7,
        "missing_bars": 3,
        "missing_spans": 1,
        "missing": [{"start": "2024-01-05T00:00:00Z", "end": "2024-01-08T00:00:00Z", "bars": 3}],
    }
    (bare,) = client.get("/v1/coverage", {"symbols": "AAPL", "spans": 0, "times": "ns"}).json()["coverage"]
    assert (bare["first"], bare["missing_spans"], bare["missing"]) == (JAN_2_NS, 1, [])


def test_instruments_and_commits(client: Client, store: MemoryStore) -> None:
    store.put_instruments([Instrument(pattern="AAPL", currency="USD")])

    assert client.get("/v1/instruments").json()["instruments"][0]["currency"] == "USD"
    commits = client.get("/v1/commits", {"after": 1}).json()["commits"]
    assert [(commit["number"], commit["inserted"], commit["action"]) for commit in commits] == [(2, 2, "write")]
    assert client.get("/v1/commits", {"limit": 1}).json()["commits"][0]["start"] == "2024-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("params", "status", "code", "parameter"),
    [
        ({}, 400, "invalid_request", "interval"),
        ({"interval": "7m"}, 400, "unknown_interval", "interval"),
        ({"interval": ""}, 400, "unknown_interval", "interval"),
        (DAILY | {"start": "2025", "end": "2024"}, 400, "invalid_time", None),
        (DAILY | {"start": "2024-01-01", "end": "2024-01-01"}, 400, "invalid_time", None),
        (DAILY | {"start": "yesterday"}, 400, "invalid_time", "start"),
        (DAILY | {"end": "2024-02-30"}, 400, "invalid_time", "end"),
        (DAILY | {"end": "1600"}, 400, "invalid_time", "end"),
        (DAILY | {"end": "x" * 5000}, 400, "invalid_time", "end"),
        (DAILY | {"as_of": "lately"}, 400, "invalid_time", "as_of"),
        (DAILY | {"as_of": "-1"}, 404, "not_found", "as_of"),
        (DAILY | {"as_of": "999999999999"}, 404, "not_found", "as_of"),
        (DAILY | {"as_of": "1.5"}, 400, "invalid_time", "as_of"),
        (DAILY | {"as_of": "3"}, 404, "not_found", "as_of"),
        (DAILY | {"as_of": "9" * 100}, 400, "invalid_time", "as_of"),
        (DAILY | {"limit": "0"}, 400, "invalid_request", "limit"),
        (DAILY | {"limit": "-3"}, 400, "invalid_request", "limit"),
        (DAILY | {"limit": "many"}, 400, "invalid_request", "limit"),
        (DAILY | {"limit": "1000000000000"}, 413, "limit_exceeded", "limit"),
        (DAILY | {"limit": "9" * 400}, 413, "limit_exceeded", "limit"),
        (DAILY | {"order": "up"}, 400, "invalid_request", "order"),
        (DAILY | {"format": "xml"}, 400, "invalid_request", "format"),
        (DAILY | {"layout": "cube"}, 400, "invalid_request", "layout"),
        (DAILY | {"columns": "close,clsoe"}, 400, "unknown_column", "columns"),
        (DAILY | {"columns": "close,close"}, 400, "unknown_column", "columns"),
        (DAILY | {"symbols": ""}, 400, "invalid_request", "symbols"),
        (DAILY | {"symbols": "AAPL,,MSFT"}, 400, "invalid_request", "symbols"),
        (DAILY | {"symbols": "../etc/passwd"}, 400, "invalid_symbol", "symbols"),
        (DAILY | {"symbols": "A" * 300}, 400, "invalid_symbol", "symbols"),
        (DAILY | {"symbols": "a b"}, 400, "invalid_symbol", "symbols"),
        (DAILY | {"symbols": "A\0B"}, 400, "invalid_symbol", "symbols"),
        (DAILY | {"symbols": "AAPL;DROP TABLE bars"}, 400, "invalid_symbol", "symbols"),
        (DAILY | {"symbols": ",".join("A" * 10_000)}, 413, "limit_exceeded", "symbols"),
        (DAILY | {"symbols": "AAPM"}, 404, "not_found", "symbols"),
    ],
)
def test_a_question_that_makes_no_sense(
    client: Client, params: dict[str, str], status: int, code: str, parameter: str | None
) -> None:
    problem = refused(client.get("/v1/bars", params), status, code, parameter)

    assert len(problem["detail"]) < 600


def test_a_symbol_that_is_not_there_names_close_ones(client: Client) -> None:
    assert refused(client.get("/v1/bars", DAILY | {"symbols": "AAPM"}), 404, "not_found")["near"] == ["AAPL"]


@pytest.mark.parametrize(
    ("path", "name", "near"),
    [
        ("/v1/bars?intervall=1d", "intervall", "'interval'"),
        ("/v1/bars?interval=1d&symbol=AAPL", "symbol", "'symbols'"),
        ("/v1/coverage?symbol=AAPL", "symbol", "'symbols'"),
        ("/v1/symbols?matches=A", "matches", "'match'"),
    ],
)
def test_an_unknown_parameter_names_the_nearest(client: Client, path: str, name: str, near: str) -> None:
    problem = refused(client.get(path), 400, "invalid_request", name)

    assert problem["detail"] == f"there is no parameter '{name}' here; did you mean {near}?"


@pytest.mark.parametrize(
    ("path", "params", "status", "code", "parameter"),
    [
        ("/v1/coverage", {"spans": "-1"}, 400, "invalid_request", "spans"),
        ("/v1/coverage", {"spans": "99999999"}, 413, "limit_exceeded", "spans"),
        ("/v1/coverage", {"kind": "candles"}, 400, "invalid_request", "kind"),
        ("/v1/coverage", {"symbols": "ZZZ"}, 404, "not_found", "symbols"),
        ("/v1/latest", {"symbols": "ZZZ"}, 404, "not_found", "symbols"),
        ("/v1/latest", {"symbols": ",".join(["A"] * 1001)}, 413, "limit_exceeded", "symbols"),
        ("/v1/aggregate", {}, 400, "invalid_request", "bucket"),
        ("/v1/aggregate", {"bucket": "1mo", "measures": "colse"}, 400, "invalid_request", "measures"),
        ("/v1/aggregate", {"bucket": "1s", "symbols": "AAPL"}, 404, "not_found", None),
        ("/v1/aggregate", {"bucket": "1mo", "symbols": ",".join(["A"] * 1001)}, 413, "limit_exceeded", "symbols"),
        ("/v1/commits", {"limit": "0"}, 400, "invalid_request", "limit"),
        ("/v1/commits", {"after": "x"}, 400, "invalid_request", "after"),
        ("/v1/symbols", {"match": "x" * 200}, 400, "invalid_request", "match"),
        ("/v1/stats", {"verbose": "1"}, 400, "invalid_request", "verbose"),
    ],
)
def test_other_questions_that_make_no_sense(
    client: Client, path: str, params: dict[str, str], status: int, code: str | None, parameter: str | None
) -> None:
    answer = client.get(path, params)

    refused(answer, status, code or answer.json()["code"], parameter)


def test_a_whole_answer_that_is_too_large_says_what_to_ask_for(connect: Connect) -> None:
    client = connect(max_page_rows=3)

    problem = refused(client.get("/v1/bars", DAILY), 413, "limit_exceeded", "limit")
    assert "layout=rows" in problem["detail"]
    refused(client.get("/v1/bars", DAILY | {"format": "file"}), 413, "limit_exceeded", "limit")
    for params in ({"layout": "rows"}, {"format": "csv"}, {"format": "arrow"}, {"limit": "3"}, {"symbols": "AAPL"}):
        assert client.get("/v1/bars", DAILY | params).status_code == 200


def test_what_is_not_there_or_not_done_there(client: Client) -> None:
    refused(client.get("/v1/candles"), 404, "no_such_route")
    refused(client.get("/v1/bars/"), 404, "no_such_route")
    refused(client.get("/v1/../../etc/passwd"), 404, "no_such_route")
    answer = client.request("PATCH", "/v1/stats")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


def test_coverage_lists_no_more_spans_than_allowed_over_all_series(connect: Connect, store: MemoryStore) -> None:
    for symbol in ("AAPL", "MSFT"):
        table = bars(symbol, [1.0] * 6, first=JAN_2_NS + 100 * DAY_NS, step=2 * DAY_NS)
        store.write(Kind.BARS, table, interval=Interval.D1)
    client = connect(max_spans=5)

    found = client.get("/v1/coverage", {"spans": 5}).json()["coverage"]

    assert [len(series["missing"]) for series in found] == [2, 2]
    assert [series["missing_spans"] for series in found] == [6, 6]
    assert len(client.get("/v1/coverage", {"spans": 5, "symbols": "AAPL"}).json()["coverage"][0]["missing"]) == 5
    refused(client.get("/v1/coverage", {"spans": 6}), 413, "limit_exceeded", "spans")


@pytest.mark.parametrize("route", ["symbols", "coverage"])
def test_lists_of_many_symbols_are_made_in_parts_off_the_loop(
    connect: Connect, store: MemoryStore, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"S{number:05}" for number in range(2_500)]
    table = pa.concat_tables([bars("S", [1.0])] * len(names)).set_column(0, "symbol", pa.array(names))
    store.write(Kind.BARS, table, interval=Interval.D1)
    encoded: list[tuple[str, int]] = []

    def encode(part: Any, times: Any) -> bytes:
        encoded.append((threading.current_thread().name, len(part)))
        return encode_document(part, times)

    monkeypatch.setattr(documents, "encode_document", encode)
    client = connect()

    found = client.get(f"/v1/{route}").json()[route]

    assert [each["symbol"] for each in found] == ["AAPL", "MSFT", *names]
    assert max(size for _, size in encoded) <= 1_000
    assert {name.partition("_")[0] for name, _ in encoded} == {"tapehouse-scan"}


def test_aggregate_takes_long_lists_in_a_body(client: Client) -> None:
    groups = {"one": ["AAPL"], "both": ["AAPL", "MSFT"]}
    body = {"bucket": "1d", "measures": ["volume"], "groups": groups, "layout": "rows", "end": "2024-01-03"}

    query = "bucket=1d&measures=volume&group=one:AAPL&group=both:AAPL,MSFT&layout=rows&end=2024-01-03"
    posted = client.post("/v1/aggregate", json=body).json()["rows"]
    assert posted == client.get(f"/v1/aggregate?{query}").json()["rows"]
    assert {row["group"]: row["volume"] for row in posted} == {"one": 100.0, "both": 200.0}


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ([], None),
        ({"groups": {"g": "AAPL"}}, None),
        ({"bucket": "1d", "nope": 1}, "nope"),
        ({"measures": ["close"]}, "bucket"),
        ({"bucket": "1d", "groups": {"g": ["AAPL"]}, "group_by": "calendar"}, "groups"),
        ({"bucket": "1d", "group": ["g:AAPL"], "group_by": "calendar"}, "group_by"),
        ({"bucket": "1d", "group_by": "sector"}, "group_by"),
    ],
)
def test_a_body_of_aggregate_that_is_none(client: Client, body: Any, parameter: str | None) -> None:
    refused(client.post("/v1/aggregate", json=body), 400, "invalid_request", parameter)


def test_groups_by_what_instruments_are(client: Client, store: MemoryStore) -> None:
    store.put_instruments([Instrument(pattern="AAPL", asset_class="equity")])
    query = "/v1/aggregate?bucket=1mo&measures=volume&layout=rows"
    rows = client.get(f"{query}&group_by=asset_class").json()["rows"]
    assert [(row["group"], row["volume"]) for row in rows] == [("equity", 300.0), ("none", 200.0)]
    rows = client.get(f"{query}&group_by=asset_class&symbols=AAPL").json()["rows"]
    assert [row["group"] for row in rows] == ["equity"]


def test_correlation_in_every_format(client: Client) -> None:
    path = "/v1/aggregate?bucket=1d&measures=correlation"
    assert client.get(f"{path}&layout=rows").json() == {
        "rows": [{"symbol": "AAPL", "other": "MSFT", "correlation": None, "returns": 1}]
    }
    assert client.get(f"{path}&format=csv").text == "symbol,other,correlation,returns\nAAPL,MSFT,,1\n"
    refused(client.get(f"{path},close"), 400, "invalid_request")
