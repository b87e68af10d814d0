"""What may be asked, what is refused and how clearly; latest rows, symbols, instruments, commits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pytest
from tests.unit.query.tables import Written, at, bars, rows

from tapehouse import query
from tapehouse.errors import (
    InvalidRequest,
    InvalidSymbol,
    InvalidTime,
    LimitExceeded,
    NotFound,
    NotSupported,
    TapehouseError,
    UnknownColumn,
)
from tapehouse.model import (
    DAY_NS,
    DEFAULT_COLUMNS,
    HOUR_NS,
    MAX_TIME_NS,
    MIN_TIME_NS,
    MINUTE_NS,
    Instrument,
    Interval,
    Kind,
    read_schema,
)
from tapehouse.query import StoredHistory
from tapehouse.query.base import History, Request
from tapehouse.query.holdings import COMMIT_NUMBERS_END
from tapehouse.store.base import Reading, Selection
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore


@pytest.fixture
def written() -> Written:
    written = Written(symbols=3, page_rows=100)
    for symbol in ("AAPL", "MSFT"):
        written.bars(symbol, "1d", [i * DAY_NS for i in range(3)])
    written.bars("AAPL", "1m", [i * MINUTE_NS for i in range(10)])
    written.trades("BTC-USDT", [0, 0, 1])
    return written


def test_it_is_a_history(written: Written) -> None:
    history: History = written.history
    assert history.symbols() == ["AAPL", "BTC-USDT", "MSFT"]


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({}, InvalidRequest, r"bars need an interval; stored are AAPL: 1m, 1d; BTC-USDT: trades; MSFT: 1d"),
        ({"symbols": ("MSFT",)}, InvalidRequest, "bars need an interval; stored are MSFT: 1d"),
        ({"kind": Kind.TRADES, "interval": Interval.M1}, InvalidRequest, "trades have no interval"),
        ({"interval": Interval.D1, "symbols": ()}, InvalidRequest, "no symbols asked for"),
        ({"interval": Interval.D1, "symbols": ("A",) * 4}, LimitExceeded, "4 symbols asked for; at most 3"),
        ({"interval": Interval.D1, "symbols": ("../etc",)}, InvalidSymbol, "which no symbol may have"),
        ({"interval": Interval.D1, "symbols": ("x" * 300,)}, InvalidSymbol, "this one 300"),
        ({"interval": Interval.D1, "symbols": ("AAPLE",)}, NotFound, "no data for AAPLE; there is AAPL"),
        ({"interval": Interval.D1, "symbols": ("aapl", "X", "Y")}, NotFound, "no data for X, Y, aapl; there is AAPL"),
        ({"interval": Interval.S1, "symbols": ("AAPL",)}, NotFound, "no 1s bars or anything finer .* AAPL: 1m, 1d"),
        ({"kind": Kind.QUOTES, "symbols": ("AAPL",)}, NotFound, "no quotes; stored are AAPL"),
        ({"interval": Interval.D1, "limit": 0}, InvalidRequest, "limit 0 is too small"),
        ({"interval": Interval.D1, "limit": -1}, InvalidRequest, "limit -1 is too small"),
        ({"interval": Interval.D1, "limit": 10**12}, LimitExceeded, "limit 1000000000000 is too large; .* at most 100"),
        (
            {"interval": Interval.D1, "start": DAY_NS, "end": 0},
            InvalidTime,
            "start 1970-01-02T00:00:00Z is not before end 1970-01-01T00:00:00Z",
        ),
        ({"interval": Interval.D1, "start": 5, "end": 5}, InvalidTime, "is not before end"),
        (
            {"interval": Interval.D1, "start": date(2024, 1, 2), "end": date(2024, 1, 2)},
            InvalidTime,
            "start 2024-01-02 is not before end 2024-01-02",
        ),
        ({"interval": Interval.D1, "columns": ("close", "nope")}, UnknownColumn, "no column 'nope'"),
        ({"interval": Interval.D1, "columns": ("close", "close")}, UnknownColumn, "named twice"),
        ({"interval": Interval.D1, "as_of": 99}, NotFound, "no commit 99; the newest is 4"),
    ],
)
def test_what_makes_no_sense_is_refused(
    written: Written, request_: dict[str, Any], error: type[TapehouseError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        written.history.read(Request(**request_))
    assert type(caught.value) is error


def test_many_unknown_symbols_are_counted() -> None:
    written = Written()
    written.bars("A", "1d", [0])
    with pytest.raises(NotFound, match=r"no data for S0, S1, S2, S3, S4 and 5 more$") as caught:
        written.rows("1d", symbols=tuple(f"S{i}" for i in range(10)))
    assert caught.value.details["count"] == 10


def test_nothing_stored_is_an_empty_answer_and_a_clear_refusal() -> None:
    written = Written()
    assert written.rows("1d") == []
    assert written.history.coverage() == []
    assert written.history.latest(Kind.BARS, None, None).num_rows == 0
    with pytest.raises(InvalidRequest, match="bars need an interval; stored is nothing yet"):
        written.rows()
    with pytest.raises(InvalidTime):
        written.rows("1d", start=1, end=1)


def test_a_known_symbol_without_rows_in_the_span_is_an_empty_answer(written: Written) -> None:
    answer = written.history.read(Request(interval=Interval.D1, symbols=("MSFT",), start=100 * DAY_NS))
    assert answer.table().num_rows == 0
    assert answer.schema == read_schema(Kind.BARS, None)


def test_a_symbol_that_cannot_have_such_bars_is_left_out_beside_one_that_can(written: Written) -> None:
    assert {bar["symbol"] for bar in written.rows("5m", symbols=("AAPL", "MSFT"))} == {"AAPL"}


def test_only_what_is_stored_when_that_is_asked_for() -> None:
    written = Written()
    written.bars("A", "1d", [at("2024-01-02T00:00Z")])
    written.bars("A", "1h", [at("2024-01-02T10:00Z"), at("2024-01-03T10:00Z")])
    written.bars("B", "1h", [at("2024-01-02T10:00Z")])
    assert len(written.rows("1d")) == 3
    (only,) = written.rows("1d", stored=True)
    assert (only["symbol"], only["timestamp"], "made_from" in only) == ("A", at("2024-01-02T00:00Z"), False)
    with pytest.raises(NotFound, match=r"no 1d bars; stored are B: 1h"):
        written.rows("1d", symbols=("B",), stored=True)


def test_plain_reads_have_the_schema_of_the_store(written: Written) -> None:
    answer = written.history.read(Request(interval=Interval.D1, symbols=("MSFT",)))
    assert answer.schema.names == list(DEFAULT_COLUMNS[Kind.BARS])
    assert answer.made_from == {}
    assert answer.commit == written.store.head()
    columns = ("close", "source", "commit")
    table = written.history.read(Request(interval=Interval.D1, symbols=("MSFT",), columns=columns)).table()
    assert table.schema == read_schema(Kind.BARS, columns)
    assert table.to_pylist()[0] == {"close": 101, "source": "test", "commit": 2}


def test_symbols_of_the_same_span_are_one_read_of_the_store(written: Written) -> None:
    asked: list[Selection] = []

    class Listening:
        capabilities = written.store.capabilities

        def __getattr__(self, name: str) -> Any:
            return getattr(written.store, name)

        def read(self, selection: Selection) -> Any:
            asked.append(selection)
            return written.store.read(selection)

    history = StoredHistory(Listening())  # type: ignore[arg-type]
    history.read(Request(kind=Kind.TRADES, start=date(1970, 1, 1))).table()
    assert [found.symbols for found in asked] == [None]
    written.store.delete(Kind.BARS, ["AAPL"], interval=Interval.M1)
    written.store.delete(Kind.TRADES, ["BTC-USDT"])
    asked.clear()
    history.read(Request(interval=Interval.D1, symbols=("MSFT", "AAPL", "MSFT"), start=date(1970, 1, 2))).table()
    assert [(found.symbols, found.start) for found in asked] == [(("AAPL", "MSFT"), DAY_NS)]


def test_as_of_a_time(written: Written) -> None:
    commits = written.history.commits()
    assert [commit.number for commit in commits] == [1, 2, 3, 4]
    second = commits[1].recorded
    assert written.rows("1m", as_of=second) == []
    assert len(written.rows("1m", as_of=commits[2].recorded)) == 10
    assert written.rows("1d", as_of=-5) == []
    assert len(written.rows("1d", symbols=("MSFT",), as_of=MAX_TIME_NS)) == 3
    assert second > COMMIT_NUMBERS_END


def test_a_store_without_a_memory_says_so(written: Written) -> None:
    class Forgetful:
        capabilities = frozenset[Any]()

        def __getattr__(self, name: str) -> Any:
            if name in ("head", "commits", "commit_at", "instruments"):
                raise AssertionError(f"{name} is not declared")
            return getattr(written.store, name)

    history = StoredHistory(Forgetful())  # type: ignore[arg-type]
    assert history.read(Request(interval=Interval.D1)).table().num_rows == 6 + 1
    page = history.read(Request(interval=Interval.D1, limit=2))
    page.table()
    assert history.read(Request(interval=Interval.D1, page=page.next_page)).table().num_rows == 5
    assert history.instrument("A") == Instrument(pattern="A")
    with pytest.raises(NotSupported, match="does not remember"):
        history.read(Request(interval=Interval.D1, as_of=1))
    with pytest.raises(NotSupported, match="does not remember"):
        history.commits()


def test_the_longest_pattern_is_the_instrument(written: Written) -> None:
    patterns = ["*", "BTC*", "BTC-*", "BTC-USDT", "*-USDT", "A.B*"]
    written.store.put_instruments([Instrument(pattern=pattern, currency=pattern) for pattern in patterns])
    found = {symbol: written.history.instrument(symbol).currency for symbol in ("BTC-USDT", "BTC-X", "ETH-USDT", "Z")}
    assert found == {"BTC-USDT": "BTC-USDT", "BTC-X": "BTC-*", "ETH-USDT": "*-USDT", "Z": "*"}
    assert written.history.instrument("A.BC").currency == "A.B*"
    assert written.history.instrument("AxBC").currency == "*"


def test_an_unknown_symbol_has_the_defaults(written: Written) -> None:
    assert written.history.instrument("NEW") == Instrument(pattern="NEW", calendar="24/7", timezone="UTC")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("*", 3), ("A*", 1), ("?APL", 1), ("*S*T", 2), ("a*", 0), ("MSFT", 1), ("[A]*", 0), (".*", 0)],
)
def test_symbols_by_pattern(written: Written, pattern: str, expected: int) -> None:
    assert len(written.history.symbols(pattern)) == expected


def test_latest_of_one_interval_and_of_any(written: Written) -> None:
    written.bars("AAPL", "1m", [2 * DAY_NS])
    daily = rows(written.history.latest(Kind.BARS, None, Interval.D1))
    assert [(bar["symbol"], bar["timestamp"]) for bar in daily] == [
        ("AAPL", 2 * DAY_NS),
        ("BTC-USDT", 0),  # made from its trades
        ("MSFT", 2 * DAY_NS),
    ]
    newest = rows(written.history.latest(Kind.BARS, None, None))
    assert [(bar["symbol"], bar["timestamp"], bar["interval"]) for bar in newest] == [
        ("AAPL", 2 * DAY_NS, "1m"),  # of equal times the finest
        ("MSFT", 2 * DAY_NS, "1d"),
    ]
    assert [row["timestamp"] for row in rows(written.history.latest(Kind.TRADES, None, None))] == [1]
    assert written.history.latest(Kind.QUOTES, None, None).num_rows == 0


def test_latest_refuses_what_a_read_refuses(written: Written) -> None:
    with pytest.raises(NotFound, match="no data for NOPE"):
        written.history.latest(Kind.BARS, ["NOPE"], None)
    with pytest.raises(InvalidRequest, match="trades have no interval"):
        written.history.latest(Kind.TRADES, None, Interval.M1)


def test_the_latest_bar_of_an_interval_that_is_not_stored_is_made(written: Written) -> None:
    (bar,) = rows(written.history.latest(Kind.BARS, ["AAPL"], Interval.H1))
    assert (bar["timestamp"], bar["volume"]) == (0, 100)
    assert "made_from" not in bar


@pytest.mark.parametrize("options", [{}, {"limit": 3}, {"as_of": 2}, {"symbols": ("AAPL", "MSFT")}])
def test_an_answer_that_is_closed_lets_go_at_once(tmp_path: Path, options: dict[str, Any]) -> None:
    with closing(DuckDBStore(tmp_path)) as store:
        for symbol in ("AAPL", "MSFT"):
            store.write(Kind.BARS, bars(symbol, [0, DAY_NS]), interval=Interval.D1)
        answer = StoredHistory(store).read(Request(interval=Interval.D1, **options))
        batches = iter(answer)
        next(batches)
        assert store.stats()["open_readings"] == 1

        answer.close()
        assert store.stats()["open_readings"] == 0
        answer.close()
        with pytest.raises(TapehouseError, match="this answer is closed"):
            next(batches)


def test_an_answer_that_is_closed_before_it_was_begun_lets_go(tmp_path: Path) -> None:
    with closing(DuckDBStore(tmp_path)) as store:
        store.write(Kind.BARS, bars("AAPL", [0, DAY_NS]), interval=Interval.D1)
        answer = StoredHistory(store).read(Request(interval=Interval.D1))
        assert store.stats()["open_readings"] == 1
        answer.close()
        assert store.stats()["open_readings"] == 0


class Halting(MemoryStore):
    """Stops in the middle of a batch until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.go_on = Event(), Event()

    def read(self, selection: Selection) -> Reading:
        found = super().read(selection)

        def batches() -> Iterator[pa.RecordBatch]:
            self.inside.set()
            assert self.go_on.wait(10)
            yield from found

        return Reading(found.schema, found.commit, batches(), found.close)


def test_closing_waits_for_the_batch_that_another_thread_is_reading() -> None:
    store = Halting()
    store.write(Kind.BARS, bars("AAPL", [0, DAY_NS]), interval=Interval.D1)
    answer = StoredHistory(store).read(Request(interval=Interval.D1))
    with ThreadPoolExecutor(2) as threads:
        batch = threads.submit(next, iter(answer))
        assert store.inside.wait(10)
        closed = threads.submit(answer.close)
        store.go_on.set()
        assert batch.result(10).num_rows == 2
        closed.result(10)


def test_importing_the_contract_does_not_import_what_answers() -> None:
    program = "import sys, tapehouse.client, tapehouse.query.base; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "tapehouse.query.base" in loaded
    assert not {"tapehouse.query.history", "tapehouse.resample", "duckdb"} & set(loaded)


def test_the_stage_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'History'"):
        query.History  # noqa: B018


def test_the_whole_range_of_time_can_be_asked_for(written: Written) -> None:
    assert len(written.rows("1w", start=MIN_TIME_NS, end=MAX_TIME_NS)) == 3
    written.bars("OLD", "1d", [at("1677-09-23T00:00:00Z"), at("2262-04-10T00:00:00Z")])
    assert [bar["volume"] for bar in written.rows("1mo", symbols=("OLD",))] == [10, 10]
    written.bars("OLD", "1h", [at("2262-04-11T22:00:00Z")])
    assert len(written.rows("4h", symbols=("OLD",), start=at("2262-04-11T00:00:00Z"))) == 1
    assert HOUR_NS > 0


def test_batches_agree_with_the_schema_that_was_announced(written: Written) -> None:
    for request in (
        Request(interval=Interval.H1, columns=("close", "symbol")),
        Request(interval=Interval.D1, symbols=("MSFT",)),
        Request(kind=Kind.TRADES),
    ):
        answer = written.history.read(request)
        assert all(batch.schema.equals(answer.schema) for batch in answer)
        assert pa.Schema is type(answer.schema)
