"""Aggregates: what they are computed from, where buckets begin, what is refused."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import pytest
from tests.unit.query.tables import Written, at, rows

from tapehouse.errors import InvalidRequest, InvalidTime, LimitExceeded, NotFound, TapehouseError
from tapehouse.model import DAY_NS, HOUR_NS, MINUTE_NS, Instrument, Interval, Kind
from tapehouse.query.base import Request

MINUTES = [i * MINUTE_NS for i in range(120)]


def measured(written: Written, bucket: Interval, *measures: str, groups: Any = None, **request: Any) -> list[Any]:
    return rows(written.history.aggregate(Request(**request), bucket, measures, groups))


def test_measures_are_of_the_finest_bars_that_fit(written: Written) -> None:
    written.bars("A", "1m", MINUTES)
    written.bars("A", "1h", [0, HOUR_NS], volume=1.0)
    written.trades("A", [0], size=5.0)
    assert measured(written, Interval.H1, "volume", "count", "return") == [
        {"symbol": "A", "timestamp": 0, "volume": 600, "count": 60, "return": None},
        {"symbol": "A", "timestamp": HOUR_NS, "volume": 600, "count": 60, "return": pytest.approx(220 / 160 - 1)},
    ]
    assert [row["volume"] for row in measured(written, Interval.H1, "volume", interval=Interval.H1)] == [1, 1]
    assert [row["volume"] for row in measured(written, Interval.H1, "volume", kind=Kind.TRADES)] == [5]


def test_symbols_without_bars_are_measured_by_their_trades(written: Written) -> None:
    written.bars("A", "1m", MINUTES)
    written.trades("B", [0, 1, HOUR_NS], price=[1.0, 3.0, 9.0])
    found = measured(written, Interval.H1, "vwap", "trades")
    assert [(row["symbol"], row["timestamp"], row["vwap"], row["trades"]) for row in found][2:] == [
        ("B", 0, 2, 2),
        ("B", HOUR_NS, 9, 1),
    ]
    assert [row["symbol"] for row in found] == ["A", "A", "B", "B"]


def test_days_are_those_of_each_symbol_and_stamped_with_midnight(written: Written) -> None:
    written.store.put_instruments(
        [
            Instrument(pattern="ES", calendar="CMES", timezone="America/Chicago"),
            Instrument(pattern="US", calendar="XNYS", timezone="America/New_York"),
        ]
    )
    stamps = [at("2024-01-08T22:30:00Z"), at("2024-01-08T23:30:00Z"), at("2024-01-09T15:00:00Z")]
    for symbol in ("ES", "US", "X"):
        written.bars(symbol, "1m", stamps)
    found = [(row["symbol"], row["timestamp"], row["count"]) for row in measured(written, Interval.D1, "count")]
    assert found == [
        ("ES", at("2024-01-08T06:00:00Z"), 1),
        ("ES", at("2024-01-09T06:00:00Z"), 2),
        ("US", at("2024-01-08T05:00:00Z"), 2),
        ("US", at("2024-01-09T05:00:00Z"), 1),
        ("X", at("2024-01-08T00:00:00Z"), 2),
        ("X", at("2024-01-09T00:00:00Z"), 1),
    ]
    one = measured(written, Interval.D1, "count", symbols=("ES",), start=date(2024, 1, 9), end=date(2024, 1, 10))
    assert [(row["timestamp"], row["count"]) for row in one] == [(at("2024-01-09T06:00:00Z"), 2)]


def test_weeks_of_daily_bars(written: Written) -> None:
    written.store.put_instruments([Instrument(pattern="*", calendar="XNYS", timezone="America/New_York")])
    written.bars("A", "1d", [at(f"2024-01-{day:02}T05:00:00Z") for day in (8, 12, 16)])
    found = measured(written, Interval.W1, "volume")
    assert [(row["timestamp"], row["volume"]) for row in found] == [
        (at("2024-01-08T05:00:00Z"), 20),
        (at("2024-01-15T05:00:00Z"), 10),
    ]


def test_groups(written: Written) -> None:
    written.bars("A", "1m", MINUTES, close=101.0, open=101.0, high=300.0, low=1.0)
    written.bars("B", "1m", MINUTES, close=201.0, open=201.0, high=300.0, low=1.0)
    written.bars("B", "1s", [0])
    groups = {"both": ["B", "A", "B"], "one": ["A"]}
    found = measured(written, Interval.H1, "volume", "vwap", "count", "return", groups=groups)
    assert [(row["group"], row["timestamp"], row["volume"], row["vwap"], row["count"]) for row in found] == [
        ("both", 0, 1_200, 151, 120),
        ("both", HOUR_NS, 1_200, 151, 120),
        ("one", 0, 600, 101, 60),
        ("one", HOUR_NS, 600, 101, 60),
    ]
    assert [row["return"] for row in found] == [None, 0, None, 0]


def test_realised_volatility(written: Written) -> None:
    written.trades("A", [0, 1, 2], price=[100.0, 110.0, 99.0])
    (row,) = measured(written, Interval.D1, "volatility")
    assert row["volatility"] == pytest.approx(math.hypot(math.log(1.1), math.log(0.9)))


def test_as_of_and_source(written: Written) -> None:
    written.bars("A", "1m", MINUTES[:60], source="x")
    written.bars("A", "1m", MINUTES[:30], source="y", volume=1.0)
    assert [row["volume"] for row in measured(written, Interval.H1, "volume")] == [330]
    assert [row["volume"] for row in measured(written, Interval.H1, "volume", as_of=1)] == [600]
    assert [row["volume"] for row in measured(written, Interval.H1, "volume", source="y")] == [30]


def test_a_span_without_rows_is_an_empty_table_of_the_same_columns(written: Written) -> None:
    written.bars("A", "1m", MINUTES)
    for start in (1 * DAY_NS, 10_000 * DAY_NS):
        table = written.history.aggregate(Request(start=start), Interval.H1, ["volume", "count"])
        assert table.num_rows == 0
        assert table.column_names == ["symbol", "timestamp", "volume", "count"]


@pytest.mark.parametrize(
    ("bucket", "measures", "request_", "groups", "error", "message"),
    [
        (Interval.H1, ["sharpe"], {}, None, InvalidRequest, "unknown measure 'sharpe'"),
        (Interval.H1, [], {}, None, InvalidRequest, "no measures"),
        (Interval.H1, ["open"], {}, {"g": ["A"]}, InvalidRequest, "a group has no open"),
        (Interval.H1, ["count"], {"kind": Kind.QUOTES}, None, InvalidRequest, "quotes cannot be aggregated"),
        (Interval.M1, ["count"], {"interval": Interval.M5}, None, InvalidRequest, "5m bars do not make up .* of 1m"),
        (Interval.H1, ["count"], {"interval": Interval.M5}, None, NotFound, "nothing to compute 1h measures from"),
        (Interval.S1, ["count"], {}, None, NotFound, "stored are A: 1m; B: 1m; C: 1d"),
        (Interval.H1, ["count"], {"symbols": ("Z",)}, None, NotFound, "no data for Z"),
        (Interval.H1, ["count"], {}, {"g": ["A", "Z"]}, NotFound, "no data for Z"),
        (Interval.H1, ["count"], {"symbols": ("A",)}, {"g": ["A"]}, InvalidRequest, "not for both"),
        (Interval.H1, ["count"], {}, {"g": []}, InvalidRequest, "needs at least one symbol"),
        (Interval.H1, ["count"], {}, {}, InvalidRequest, "needs at least one symbol"),
        (Interval.D1, ["count"], {}, {"g": ["A", "B"]}, InvalidRequest, "members of group 'g' have different days"),
        (Interval.W1, ["count"], {}, {"g": ["A", "C"]}, InvalidRequest, "no bars or trades in common"),
        (Interval.H1, ["count"], {"start": 5, "end": 1}, None, InvalidTime, "is not before end"),
        (
            Interval.M1,
            ["count"],
            {"symbols": ("LONG",)},
            None,
            LimitExceeded,
            r"buckets asked for \(1 symbols\); at most 1000",
        ),
    ],
)
def test_what_is_refused(
    bucket: Interval, measures: list[str], request_: Any, groups: Any, error: type[TapehouseError], message: str
) -> None:
    written = Written(buckets=1_000)
    written.store.put_instruments([Instrument(pattern="B", timezone="Asia/Tokyo")])
    written.bars("A", "1m", MINUTES)
    written.bars("B", "1m", MINUTES)
    written.bars("C", "1d", [0])
    if "LONG" in request_.get("symbols", ()):
        written.bars("LONG", "1m", [0, 1_000 * MINUTE_NS])
    with pytest.raises(error, match=message):
        written.history.aggregate(Request(**request_), bucket, measures, groups)


def test_groups_of_other_zones_share_the_hours_of_the_clock(written: Written) -> None:
    written.store.put_instruments([Instrument(pattern="B", timezone="Asia/Tokyo")])
    written.bars("A", "1m", MINUTES)
    written.bars("B", "1m", MINUTES)
    found = measured(written, Interval.H1, "volume", groups={"g": ["A", "B"]})
    assert [row["volume"] for row in found] == [1_200, 1_200]
