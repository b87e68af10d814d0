"""The same questions to every kind of place, sync and async, have the same answers."""

from __future__ import annotations

import datetime as dt
import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tests.unit.client.conftest import DAY_NS, JAN_2_NS, bars

from tapehouse import Client, Conflict, InvalidData, InvalidRequest, Kind, NotFound, TapehouseError
from tapehouse.client import embedded
from tapehouse.errors import InvalidTime, InvalidToken, UnknownColumn, UnknownInterval
from tapehouse.model import Instrument, Interval
from tapehouse.store.duckdb import DuckDBStore

JAN_3 = "2024-01-03"


def times(frame: pl.DataFrame) -> list[int]:
    return frame["timestamp"].cast(pl.Int64).to_list()


def test_what_goes_in_comes_out(client: Any) -> None:
    commit = client.upload(bars(), interval="1d", source="vendor")
    assert (commit.number, commit.kind, commit.interval, commit.inserted) == (1, Kind.BARS, Interval.D1, 3)
    assert (commit.start, commit.end) == (JAN_2_NS, JAN_2_NS + 2 * DAY_NS + 1)
    frame = client.bars("AAPL")
    assert frame.equals(bars())
    assert frame.schema["timestamp"] == pl.Datetime("ns", "UTC")


def test_the_same_again_changes_nothing(client: Any) -> None:
    client.upload(bars(), interval="1d")
    again = client.upload(bars(), interval="1d")
    assert (again.number, again.inserted, again.unchanged) == (1, 0, 3)


def test_frames_of_every_kind(client: Any) -> None:
    client.upload(bars(), interval="1d")
    frame = client.bars("AAPL", frame="pandas", capitalize=True)
    assert list(frame.columns) == ["Open", "High", "Low", "Close", "Volume"]
    assert frame.index.equals(pd.DatetimeIndex(["2024-01-02", "2024-01-03", "2024-01-04"], tz="UTC"))
    assert frame.attrs == {"commit": 1, "made_from": {}}
    table = client.bars(["AAPL"], frame="arrow")
    assert table.schema.metadata[b"tapehouse.commit"] == b"1"
    assert table.schema.field("timestamp").type == pa.timestamp("ns", "UTC")


JAN_3_SPELLED = [
    JAN_3,
    "2024-01-03T00:00:00Z",
    "2024-01-03T01:00:00+01:00",
    dt.date(2024, 1, 3),
    dt.datetime(2024, 1, 3, tzinfo=dt.UTC),
    pd.Timestamp(JAN_3, tz="UTC"),
    np.datetime64(JAN_3),
    JAN_2_NS + DAY_NS,
    str(JAN_2_NS + DAY_NS),
    "1704240000",
]


def test_times_in_every_spelling(client: Any) -> None:
    client.upload(bars(), interval="1d")
    for start in JAN_3_SPELLED:
        assert times(client.bars("AAPL", start=start)) == [JAN_2_NS + DAY_NS, JAN_2_NS + 2 * DAY_NS], start
        assert times(client.bars("AAPL", end=start)) == [JAN_2_NS], start


def test_one_nanosecond_decides(client: Any) -> None:
    client.upload(bars(), interval="1d")
    assert len(client.bars("AAPL", end=JAN_2_NS)) == 0
    assert len(client.bars("AAPL", end=JAN_2_NS + 1)) == 1
    assert len(client.bars("AAPL", end=pd.Timestamp(JAN_2_NS + 1, tz="UTC"))) == 1


def test_what_narrows_a_read(client: Any) -> None:
    client.upload(bars(), interval="1d", source="a")
    client.upload(bars("MSFT", [370.0, 371.0]), interval="1d", source="b")
    assert client.bars(None)["symbol"].unique(maintain_order=True).to_list() == ["AAPL", "MSFT"]
    assert client.bars(["MSFT", "AAPL"]).height == 5
    assert client.bars("AAPL", limit=2).height == 2
    assert times(client.bars("AAPL", limit=1, newest_first=True)) == [JAN_2_NS + 2 * DAY_NS]
    assert client.bars("AAPL", columns=["close"]).columns == ["symbol", "timestamp", "close"]
    assert client.bars("AAPL", columns="close", frame="pandas").columns.to_list() == ["close"]
    assert "adj_close" in client.bars("AAPL", columns="all").columns
    assert client.bars(None, source="b")["symbol"].unique().to_list() == ["MSFT"]


def test_no_rows_still_have_columns(client: Any) -> None:
    client.upload(bars(), interval="1d")
    frame = client.bars("AAPL", start="2030")
    assert frame.schema == bars().schema
    assert client.bars("AAPL", start="2030", frame="pandas").index.name == "timestamp"


def test_what_was_known_then(client: Any) -> None:
    first = client.upload(bars(), interval="1d")
    second = client.upload(bars(closes=[1.0]), interval="1d")
    assert client.bars("AAPL", limit=1)["close"].to_list() == [1.0]
    for then in (1, "1", first.recorded, pd.Timestamp(first.recorded, tz="UTC")):
        assert client.bars("AAPL", limit=1, as_of=then)["close"].to_list() == [185.0]
    assert client.bars("AAPL", limit=1, as_of=second.number)["close"].to_list() == [1.0]


def test_an_interval_that_is_not_stored_says_what_it_was_made_from(client: Any) -> None:
    client.upload(bars(), interval="1d")
    page = client.bars_page("AAPL", interval="1w")
    assert page.made_from == {"AAPL": ("1d",)}
    assert page.frame.select("made_from", "complete").to_dicts() == [{"made_from": "1d", "complete": False}]
    assert client.bars("AAPL", interval="1w", frame="pandas").attrs["made_from"] == {"AAPL": ("1d",)}


def test_pages_go_on_in_the_same_commit(client: Any) -> None:
    client.upload(bars(), interval="1d")
    page = client.bars_page("AAPL", limit=2)
    client.upload(bars(closes=[1.0, 2.0, 3.0]), interval="1d")
    assert (page.frame.height, page.commit) == (2, 1)
    last = client.bars_page("AAPL", limit=2, page=page.next_page)
    assert (last.frame["close"].to_list(), last.commit, last.next_page) == ([181.5], 1, None)


def test_a_stream_comes_in_pieces(client: Any) -> None:
    client.upload(bars(), interval="1d")
    client.upload(bars("MSFT"), interval="1d")
    with client.stream_bars(None) as stream:
        assert (stream.commit, stream.made_from) == (2, {})
        assert pl.concat(list(stream)).equals(pl.concat([bars(), bars("MSFT")]))


def test_a_stream_that_is_left_early_can_be_followed_by_another(client: Any) -> None:
    client.upload(bars(), interval="1d")
    with client.stream_bars("AAPL", frame="arrow") as stream:
        for table in stream:
            assert table.num_rows
            break
    assert sum(frame.height for frame in client.stream_bars("AAPL")) == 3


def test_latest(client: Any) -> None:
    client.upload(bars(), interval="1d")
    client.upload(bars("MSFT", [370.0]), interval="1d")
    frame = client.latest()
    assert frame.select("symbol", "close", "interval").rows() == [("AAPL", 181.5, "1d"), ("MSFT", 370.0, "1d")]
    assert client.latest("AAPL", interval="1d").height == 1
    assert client.latest("AAPL", frame="pandas").index.name == "timestamp"


def test_symbols(client: Any) -> None:
    assert client.symbols() == []
    for symbol in ("MSFT", "BTC-USD", "ES=F"):
        client.upload(bars(symbol), interval="1d")
    assert client.symbols() == ["BTC-USD", "ES=F", "MSFT"]
    assert client.symbols("*S*T") == ["MSFT"]


def test_coverage(client: Any) -> None:
    client.upload(pl.concat([bars(closes=[1.0]), bars(closes=[2.0], first=JAN_2_NS + 3 * DAY_NS)]), interval="1d")
    (found,) = client.coverage("AAPL", interval="1d")
    assert (found.symbol, found.interval, found.first, found.rows) == ("AAPL", Interval.D1, JAN_2_NS, 2)
    assert (found.expected, found.missing_bars, found.missing_spans) == (4, 2, 1)
    assert [(gap.start, gap.bars) for gap in found.missing] == [(JAN_2_NS + DAY_NS, 2)]
    assert client.coverage("AAPL", spans=0)[0].missing == []


def test_aggregate(client: Any) -> None:
    client.upload(bars(), interval="1d")
    client.upload(bars("MSFT"), interval="1d")
    frame = client.aggregate(["AAPL", "MSFT"], bucket="1mo", measures=["close", "volume", "count"])
    assert frame.select("symbol", "close", "volume", "count").rows() == [
        ("AAPL", 181.5, 300.0, 3),
        ("MSFT", 181.5, 300.0, 3),
    ]
    assert client.aggregate("AAPL", bucket="1mo").columns[2:] == ["open", "high", "low", "close", "volume", "count"]
    default = client.aggregate(None, bucket="1mo", groups={"both": ["AAPL", "MSFT"]})
    assert default.columns == ["group", "timestamp", "volume", "count"]
    groups = client.aggregate(None, bucket="1mo", measures=["volume"], groups={"both": ["AAPL", "MSFT"]})
    assert groups["volume"].to_list() == [600.0]


def test_trades_and_quotes(client: Any) -> None:
    stamp = pl.Series("time", [JAN_2_NS + 1]).cast(pl.Datetime("ns", "UTC"))
    trades = pl.DataFrame({"symbol": ["A"], "time": stamp, "price": [1.5], "size": [2.0], "id": ["x"]})
    assert client.upload(trades, kind="trades").inserted == 1
    assert client.trades("A").select("price", "size", "id").rows() == [(1.5, 2.0, "x")]
    assert times(client.trades("A")) == [JAN_2_NS + 1]
    quotes = pl.DataFrame({"time": stamp, "bid": [1.0], "bid_size": [1.0], "ask": [2.0], "ask_size": [3.0]})
    assert client.upload(quotes, kind="quotes", symbol="A").inserted == 1
    assert client.quotes("A", frame="pandas")["ask"].to_list() == [2.0]
    assert client.delete("A", kind="trades").deleted == 1
    with pytest.raises(NotFound):
        client.trades("A")


def test_dates_are_midnight_where_the_instrument_trades(client: Any) -> None:
    known = client.put_instruments([Instrument(pattern="AAPL", calendar="XNYS", timezone="America/New_York")])
    assert known == client.instruments()
    dated = bars().with_columns(pl.col("timestamp").dt.date()).rename({"timestamp": "date"})
    client.upload(pl.concat([dated, dated.with_columns(symbol=pl.lit("BTC"))]), interval="1d")
    new_york, utc = JAN_2_NS + 5 * DAY_NS // 24, JAN_2_NS
    assert times(client.bars("AAPL", limit=1)) == [new_york]
    assert times(client.bars("BTC", limit=1)) == [utc]
    assert client.bars(None, start="2024-01-03", end="2024-01-04").height == 2


def test_upload_in_parts(client: Any) -> None:
    commits = client.upload_parts(bars(), rows=2, interval="1d", batch="b")
    assert [(commit.number, commit.inserted, commit.batch) for commit in commits] == [(1, 2, "b"), (2, 1, "b")]
    (again, _) = client.upload_parts(bars(), rows=2, interval="1d")
    assert again.unchanged == 2
    with pytest.raises(InvalidRequest, match="at least one row"):
        client.upload_parts(bars(), rows=0, interval="1d")


def test_delete(client: Any) -> None:
    client.upload(bars(), interval="1d")
    commit = client.delete("AAPL", interval="1d", start=JAN_3)
    assert (commit.number, commit.action, commit.deleted) == (2, "delete", 2)
    assert client.bars("AAPL").height == 1
    assert client.bars("AAPL", as_of=1).height == 3


def test_a_date_in_several_zones_cannot_be_deleted_as_one(client: Any) -> None:
    client.put_instruments([Instrument(pattern="AAPL", timezone="America/New_York")])
    client.upload(bars(), interval="1h")
    client.upload(bars("MSFT"), interval="1h")
    with pytest.raises(InvalidRequest, match="another instant in each of the zones America/New_York, UTC"):
        client.delete(["AAPL", "MSFT"], interval="1h", start=JAN_3)
    assert client.delete(["AAPL", "MSFT"], interval="1h", start="2024-01-03T00:00:00Z").deleted == 4


def test_commits_and_stats(client: Any) -> None:
    client.upload(bars(), interval="1d", batch="first")
    client.upload(bars("MSFT"), interval="1d")
    assert [(commit.number, commit.batch) for commit in client.commits()] == [(1, "first"), (2, None)]
    assert [commit.number for commit in client.commits(after=1)] == [2]
    assert [commit.number for commit in client.commits(limit=1)] == [1]
    assert isinstance(client.stats(), dict)
    assert client.stats()


def test_conflicts(client: Any) -> None:
    client.upload(bars(closes=[1.0]), interval="1d", source="a")
    kept = client.upload(bars(closes=[2.0]), interval="1d", source="b", on_conflict="keep")
    assert kept.rejected == 1
    preferred = client.upload(bars(closes=[3.0]), interval="1d", source="c", on_conflict="prefer", prefer=["c", "a"])
    assert preferred.replaced == 1
    with pytest.raises(Conflict):
        client.upload(bars(closes=[4.0]), interval="1d", source="d", on_conflict="error")
    with pytest.raises(InvalidRequest, match="prefer is for on_conflict=prefer"):
        client.upload(bars(closes=[5.0]), interval="1d", source="c", prefer=["c", "a"])
    assert client.bars("AAPL")["close"].to_list() == [3.0]


REFUSED = [
    (lambda client: client.bars("AAPL", interval="7m"), UnknownInterval),
    (lambda client: client.bars("AAPL", columns=["colour"]), UnknownColumn),
    (lambda client: client.bars("AAPL", start="yesterday"), InvalidTime),
    (lambda client: client.bars("AAPL", start="2025", end="2024"), InvalidTime),
    (lambda client: client.bars("../etc"), InvalidRequest),
    (lambda client: client.bars("A" * 300), InvalidRequest),
    (lambda client: client.bars("NOBODY"), NotFound),
    (lambda client: client.bars([]), InvalidRequest),
    (lambda client: client.bars("AAPL", limit=0), InvalidRequest),
    (lambda client: client.bars("AAPL", limit=10**12), InvalidRequest),
    (lambda client: client.bars([f"S{n}" for n in range(10_000)]), InvalidRequest),
    (lambda client: client.bars("AAPL", as_of=99), NotFound),
    (lambda client: client.bars("AAPL", as_of=-1), NotFound),
    (lambda client: client.bars("AAPL", as_of="-1"), NotFound),
    (lambda client: client.bars("AAPL", as_of=10**14), InvalidTime),
    (lambda client: client.bars("AAPL", as_of=True), InvalidTime),
    (lambda client: client.bars("AAPL", frame="spark"), InvalidRequest),
    (lambda client: client.bars_page("AAPL", limit=1, page="forged"), InvalidToken),
    (lambda client: client.latest("AAPL", kind="candles"), InvalidRequest),
    (lambda client: client.aggregate("AAPL", bucket="1d", measures=["mood"]), InvalidRequest),
    (lambda client: client.upload(bars(), interval=None), InvalidRequest),
    (lambda client: client.upload(bars(), interval="7m"), UnknownInterval),
    (lambda client: client.upload(bars(), interval="1d", on_conflict="shrug"), InvalidRequest),
    (lambda client: client.upload(bars(closes=[float("nan")]), interval="1d"), InvalidData),
    (lambda client: client.upload(bars(symbol="A B"), interval="1d"), TapehouseError),
    (lambda client: client.delete(None), InvalidRequest),
    (lambda client: client.delete("AAPL", interval="1d", start="2025", end="2024"), InvalidRequest),
    (lambda client: client.put_instruments([Instrument(pattern="X", calendar="NOWHERE")]), InvalidRequest),
    (lambda client: client.put_instruments([Instrument(pattern="X", tick_size=float("nan"))]), InvalidData),
]


def test_errors_are_the_same_everywhere(client: Any) -> None:
    client.upload(bars(), interval="1d")
    for number, (ask, kind) in enumerate(REFUSED):
        with pytest.raises(kind) as caught:
            ask(client)
        assert isinstance(caught.value, TapehouseError), number
    assert client.bars("AAPL").height == 3  # and nothing else happened
    assert [commit.number for commit in client.commits()] == [1]


@pytest.mark.parametrize("wrong", [5, [5], ["AAPL", None], True, [b"AAPL"]])
def test_symbols_that_are_no_names_are_refused(client: Any, wrong: Any) -> None:
    with pytest.raises(
        InvalidRequest, match=r"symbols are a name or a list of names, as text, not .*None asks for all"
    ):
        client.bars(wrong)


def test_a_client_that_is_collected_while_another_opens_does_not_keep_it_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector runs where it likes: here in the midst of an opening, which has the lock that a close wants."""
    left = [Client(tmp_path / "left", create=True)]
    opens = embedded._open

    def collected_meanwhile(url: str) -> Any:
        left.clear()
        gc.collect()
        return opens(url)

    monkeypatch.setattr(embedded, "_open", collected_meanwhile)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(Client, tmp_path / "other", create=True).result(timeout=20)
    other.close()
    assert not [name for name in embedded._opened if str(tmp_path) in name]
    DuckDBStore(tmp_path / "left").close()
