"""Bars made from finer bars and trades: the choice of source, and that a bar is the same however it is asked for."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.query.tables import Written, at, rows

from tapehouse.errors import NotFound
from tapehouse.model import HOUR_NS, MINUTE_NS, SECOND_NS, Instrument, Interval, Kind
from tapehouse.query import StoredHistory, resampled
from tapehouse.query import holdings as holdings_module
from tapehouse.query.base import Request
from tapehouse.query.resampled import whole_buckets
from tapehouse.resample import Rows

MINUTES = [i * MINUTE_NS for i in range(180)]
NEW_YORK = Instrument(pattern="*", calendar="XNYS", timezone="America/New_York")
CHICAGO = Instrument(pattern="*", calendar="CMES", timezone="America/Chicago")


def test_a_bar_is_made_of_its_parts(written: Written) -> None:
    written.bars("A", "1m", MINUTES[:60], vwap=2.0, trades=3, adj_close=1.0)
    answer = written.history.read(
        Request(interval=Interval.H1, columns=("timestamp", "open", "high", "low", "close", "volume", "vwap", "trades"))
    )
    assert answer.made_from == {"A": ("1m",)}
    assert answer.schema.names[-2:] == ["made_from", "complete"]
    (bar,) = rows(answer.table())
    assert bar == {
        "timestamp": 0,
        "open": 100,
        "high": 161,
        "low": 98,
        "close": 160,
        "volume": 600,
        "vwap": 2,
        "trades": 180,
        "made_from": "1m",
        "complete": True,
    }


def test_a_bar_of_trades_and_its_columns_without_a_value(written: Written) -> None:
    written.trades("A", [0, 1, 2], price=[3.0, 5.0, 4.0], size=[1.0, 2.0, 1.0])
    columns = ("vwap", "trades", "adj_close", "source", "commit", "close")
    table = written.history.read(Request(interval=Interval.M1, columns=("timestamp", *columns))).table()
    assert rows(table) == [
        {
            "timestamp": 0,
            "vwap": 4.25,
            "trades": 3,
            "adj_close": None,
            "source": None,
            "commit": None,
            "close": 4,
            "made_from": "trades",
            "complete": True,
        }
    ]


def test_a_stored_bar_always_wins(written: Written) -> None:
    written.bars("A", "1m", MINUTES)
    written.bars("A", "1h", [HOUR_NS], open=7.0, high=7.0, low=7.0, close=7.0)
    found = written.rows("1h")
    assert [(bar["timestamp"], bar["made_from"], bar["open"]) for bar in found] == [
        (0, "1m", 100),
        (HOUR_NS, "stored", 7),
        (2 * HOUR_NS, "1m", 220),
    ]


def test_the_better_covered_source_wins_and_a_tie_goes_to_the_coarser(written: Written) -> None:
    fives = [i * 5 * MINUTE_NS for i in range(36)]
    written.bars("A", "5m", [*fives[:12], *fives[12:18], *fives[24:30]])
    written.bars("A", "1m", [*MINUTES[:60], *MINUTES[60:120], *MINUTES[120:150]])
    assert [(bar["made_from"], bar["complete"]) for bar in written.rows("1h")] == [
        ("5m", True),
        ("1m", True),
        ("5m", False),
    ]


def test_trades_fill_what_bars_lack(written: Written) -> None:
    written.bars("A", "1m", [*MINUTES[:60], *MINUTES[60:90]])
    written.trades("A", [time + 1 for time in MINUTES])
    answer = written.history.read(Request(interval=Interval.H1))
    assert answer.made_from == {"A": ("1m", "trades")}
    assert [bar["made_from"] for bar in rows(answer.table())] == ["1m", "trades", "trades"]


def test_a_bar_whose_parts_are_missing_says_so(written: Written) -> None:
    written.bars("A", "1m", MINUTES[:59])
    assert [bar["complete"] for bar in written.rows("1h")] == [False]


def test_buckets_without_parts_are_absent(written: Written) -> None:
    written.bars("A", "1m", [0, 5 * HOUR_NS])
    assert [bar["timestamp"] for bar in written.rows("1h")] == [0, 5 * HOUR_NS]


def test_where_the_interval_is_stored_only_expected_holes_are_filled(written: Written) -> None:
    written.store.put_instruments([NEW_YORK])
    evening, session = at("2024-01-02T22:00:00Z"), at("2024-01-03T15:00:00Z")
    written.bars("A", "1h", [at("2024-01-02T20:00:00Z")])
    written.trades("A", [evening, session])
    assert [bar["timestamp"] for bar in written.rows("1h")] == [at("2024-01-02T20:00:00Z"), session]
    # Without stored hours the trades of the evening are all that there is.
    written.trades("B", [evening, session])
    assert [bar["timestamp"] for bar in written.rows("1h", symbols=("B",))] == [evening, session]


def test_days_follow_the_session_and_weeks_the_days(written: Written) -> None:
    written.store.put_instruments([CHICAGO])
    sunday = at("2024-01-07T23:00:00Z")  # Monday's session opens
    written.bars("ES", "1m", [sunday - MINUTE_NS, sunday, at("2024-01-08T22:59:00Z"), at("2024-01-08T23:00:00Z")])
    stamps = [bar["timestamp"] for bar in written.rows("1d")]
    assert stamps == [at("2024-01-07T06:00:00Z"), at("2024-01-08T06:00:00Z"), at("2024-01-09T06:00:00Z")]
    assert [bar["volume"] for bar in written.rows("1d")] == [10, 20, 10]
    weeks = written.rows("1w")
    assert [(bar["timestamp"], bar["volume"]) for bar in weeks] == [
        (at("2024-01-01T06:00:00Z"), 10),
        (at("2024-01-08T06:00:00Z"), 30),
    ]


def test_a_vendors_day_stands(written: Written) -> None:
    stamp = "2024-01-09T05:00:00Z"
    written.store.put_instruments([NEW_YORK])
    written.bars("A", "1d", [at(stamp)], volume=5.0)
    written.bars("A", "1m", [at(f"2024-01-{day:02}T15:00:00Z") for day in (8, 9, 10)])
    found = written.rows("1d")
    assert [bar["made_from"] for bar in found] == ["1m", "stored", "1m"]
    assert found[1]["timestamp"] == at(stamp)
    # Ask for the bar by any span that holds its stamp, or for what lies around it.
    for start, end in ((at(stamp), at(stamp) + 1), (at(stamp) + 1, at("2024-01-10T05:00:00Z"))):
        inside = [bar for bar in found if start <= bar["timestamp"] < end]
        assert written.rows("1d", start=start, end=end) == inside


def test_a_week_of_days(written: Written) -> None:
    written.store.put_instruments([NEW_YORK])
    written.bars("A", "1d", [at(f"2024-01-{day:02}T05:00:00Z") for day in (8, 9, 10, 11, 12, 16)])
    weeks = written.rows("1w")
    assert [(bar["timestamp"], bar["volume"], bar["complete"]) for bar in weeks] == [
        (at("2024-01-08T05:00:00Z"), 50, True),
        (at("2024-01-15T05:00:00Z"), 10, False),
    ]


def test_a_bar_that_spans_midnight_makes_no_whole_day(written: Written) -> None:
    written.store.put_instruments([Instrument(pattern="*", timezone="Asia/Kolkata")])
    midnight = at("2024-01-08T18:30:00Z")
    written.bars("A", "1h", [midnight - MINUTE_NS * 30 + i * HOUR_NS for i in range(-24, 25)])
    assert [bar["complete"] for bar in written.rows("1d")] == [False, False, False]
    written.bars("A", "30m", [midnight + i * 30 * MINUTE_NS for i in range(48)])
    assert [(bar["made_from"], bar["complete"]) for bar in written.rows("1d")][2] == ("30m", True)


def test_dates_are_midnight_where_each_instrument_is(written: Written) -> None:
    written.store.put_instruments([Instrument(pattern="US", timezone="America/New_York")])
    hours = [at("2024-01-02T00:00:00Z") + i * HOUR_NS for i in range(48)]
    for symbol in ("US", "UTC"):
        written.bars(symbol, "1h", hours)
    found = written.rows("1h", start=date(2024, 1, 2), end=date(2024, 1, 3))
    spans = {s: [bar["timestamp"] for bar in found if bar["symbol"] == s] for s in ("US", "UTC")}
    assert (spans["UTC"][0], spans["UTC"][-1]) == (hours[0], hours[23])
    assert (spans["US"][0], spans["US"][-1]) == (hours[5], hours[28])


def test_corrections_and_deletions_of_parts_show_in_the_bar_and_not_as_of_before(written: Written) -> None:
    written.bars("A", "1m", MINUTES[:60])
    written.bars("A", "1m", [0], high=999.0)
    written.store.delete(Kind.BARS, ["A"], interval=Interval.M1, start=HOUR_NS // 2)
    assert [(bar["high"], bar["volume"]) for bar in written.rows("1h")] == [(999, 300)]
    assert [(bar["high"], bar["volume"]) for bar in written.rows("1h", as_of=2)] == [(999, 600)]
    assert [(bar["high"], bar["volume"]) for bar in written.rows("1h", as_of=1)] == [(161, 600)]
    assert written.rows("1h", as_of=0) == []


def test_all_deleted_is_still_there_as_of_before(written: Written) -> None:
    written.bars("A", "1m", MINUTES[:60])
    written.bars("B", "1m", MINUTES[:60])
    written.store.delete(Kind.BARS, ["A"], interval=Interval.M1)
    assert {bar["symbol"] for bar in written.rows("1h", as_of=2)} == {"A", "B"}
    assert [bar["volume"] for bar in written.rows("1h", as_of=2, symbols=("A",))] == [600]
    with pytest.raises(NotFound, match="no data for A"):
        written.rows("1h", symbols=("A",))


def test_an_old_commit_is_read_the_same_when_what_came_since_is_too_long_to_look_through(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    for symbol in ("A", "B"):
        written.bars(symbol, "1m", MINUTES[:90])
        written.bars(symbol, "1h", [HOUR_NS])
        written.trades(symbol, [5 * HOUR_NS])
    written.store.delete(Kind.BARS, ["A"], interval=Interval.H1)
    found = [written.rows(interval, as_of=as_of) for interval in ("1m", "1h", "1d") for as_of in range(7)]
    monkeypatch.setattr(holdings_module, "_MAX_COMMITS_TO_SCAN", 1)
    assert [written.rows(interval, as_of=as_of) for interval in ("1m", "1h", "1d") for as_of in range(7)] == found
    one = [written.rows("1d", symbols=("B",), as_of=as_of) for as_of in range(7)]
    assert one == [[bar for bar in rows_ if bar["symbol"] == "B"] for rows_ in found[14:]]


def test_parts_of_one_source(written: Written) -> None:
    written.bars("A", "1m", MINUTES[:60], source="x")
    written.bars("A", "1m", MINUTES[:30], source="y", volume=1.0)
    assert [bar["volume"] for bar in written.rows("1h")] == [330]
    assert [bar["volume"] for bar in written.rows("1h", source="x")] == [600]
    assert [bar["volume"] for bar in written.rows("1h", source="y")] == [30]


def test_symbols_that_are_stored_beside_one_that_is_made(written: Written) -> None:
    written.bars("A", "1h", [0, HOUR_NS])
    written.bars("B", "1m", MINUTES[:60])
    written.bars("C", "1h", [0])
    answer = written.history.read(Request(interval=Interval.H1))
    assert answer.made_from == {"B": ("1m",)}
    assert [(bar["symbol"], bar["made_from"]) for bar in rows(answer.table())] == [
        ("A", "stored"),
        ("A", "stored"),
        ("B", "1m"),
        ("C", "stored"),
    ]


@st.composite
def holdings(draw: st.DrawFn) -> Written:
    """Some hours of some bars and trades; prices and volumes whole, so that sums are exact."""
    written = Written()
    for interval, per_hour in (("1h", 1), ("30m", 2), ("5m", 12)):
        step = HOUR_NS // per_hour
        hours = draw(st.lists(st.tuples(st.integers(-3, 4), st.integers(0, 100)), max_size=4, unique_by=lambda x: x[0]))
        stamps = sorted(
            hour * HOUR_NS + i * step for hour, share in hours for i in range(per_hour) if i * 100 < share * per_hour
        )
        if stamps:
            written.bars("A", interval, stamps)
    ticks = draw(st.sets(st.integers(-3 * 720, 5 * 720), max_size=40))
    if ticks:
        written.trades("A", [tick * 5 * SECOND_NS for tick in sorted(ticks)])
    written.bars("A", "1s", [7 * HOUR_NS])
    return written


@given(written=holdings(), interval=st.sampled_from(["30m", "1h", "4h", "1d"]), data=st.data())
def test_a_bar_is_the_same_whatever_range_chunk_page_or_order_it_is_asked_with(
    written: Written, interval: str, data: st.DataObject
) -> None:
    whole = written.rows(interval)
    assert [bar["timestamp"] for bar in whole] == sorted({bar["timestamp"] for bar in whole})
    start = data.draw(st.integers(-4 * HOUR_NS, 8 * HOUR_NS))
    end = data.draw(st.integers(start + 1, start + 6 * HOUR_NS))
    newest_first = data.draw(st.booleans())
    expected = [bar for bar in whole if start <= bar["timestamp"] < end][:: -1 if newest_first else 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampled, "_CHUNK_BUCKETS", data.draw(st.integers(5, 50)))
        patch.setattr(resampled, "_READ_COSTS_ROWS", data.draw(st.integers(0, 100)))
        asked: dict[str, Any] = {"start": start, "end": end, "newest_first": newest_first}
        found = written.rows(interval, **asked)
        if found and "made_from" not in found[0]:  # nothing finer reaches the span: all are as stored
            found = [{**bar, "made_from": "stored", "complete": True} for bar in found]
        assert found == expected
        limit = data.draw(st.integers(1, 10))
        assert [bar["timestamp"] for bar in written.rows(interval, limit=limit, **asked)] == [
            bar["timestamp"] for bar in expected[:limit]
        ]


@given(written=holdings())
def test_the_choice_of_source_agrees_with_a_plain_loop(written: Written) -> None:
    parts = {
        name: {bar["timestamp"] for bar in written.rows(name) if bar.get("made_from", "stored") == "stored"}
        for name in ("1h", "30m", "5m", "1s")
        if any((s.interval or s.kind) == name for s in written.store.coverage())
    }
    series = {str(s.interval or s.kind) for s in written.store.coverage()}
    ticks = {row["timestamp"] for row in written.rows(kind=Kind.TRADES)} if "trades" in series else set()
    for bar in written.rows("1h"):
        hour = range(bar["timestamp"], bar["timestamp"] + HOUR_NS)
        shares = {
            name: len([time for time in parts.get(name, ()) if time in hour]) / (HOUR_NS // Interval(name).nanos)
            for name in ("30m", "5m", "1s")
        }
        shares["trades"] = len({time // SECOND_NS for time in ticks if time in hour}) / 3_600
        best = "stored" if bar["timestamp"] in parts.get("1h", ()) else max(shares, key=lambda name: shares[name])
        if bar.get("made_from", "stored") != "stored":
            assert bar["made_from"] == best
            assert bar["complete"] == (shares[best] == 1)


@given(
    minutes=st.sets(st.integers(0, 40 * 1_440), min_size=1, max_size=40),
    place=st.sampled_from([("XNYS", "America/New_York"), ("XLON", "Europe/London"), ("CMES", "America/Chicago")]),
    season=st.sampled_from(["2024-02-20T00:00:00Z", "2024-10-10T00:00:00Z"]),
    coarse=st.sampled_from(["1w", "1mo"]),
)
def test_weeks_and_months_of_days_are_those_of_minutes_where_clocks_change(
    minutes: set[int], place: tuple[str, str], season: str, coarse: str
) -> None:
    instrument = Instrument(pattern="*", calendar=place[0], timezone=place[1])
    fine, daily = Written(), Written()
    for written in (fine, daily):
        written.store.put_instruments([instrument])
    fine.bars("A", "1m", [at(season) + minute * MINUTE_NS for minute in sorted(minutes)])
    days = fine.rows("1d")
    columns = {name: [bar[name] for bar in days] for name in ("open", "high", "low", "close", "volume")}
    daily.bars("A", "1d", [bar["timestamp"] for bar in days], **columns)
    unlike = {"made_from", "complete"}
    assert [{k: v for k, v in bar.items() if k not in unlike} for bar in daily.rows(coarse)] == [
        {k: v for k, v in bar.items() if k not in unlike} for bar in fine.rows(coarse)
    ]
    assert sum(bar["volume"] for bar in days) == 10 * len(minutes)


@given(
    stamps=st.lists(st.integers(0, 60), unique=True).map(sorted),
    cuts=st.lists(st.integers(0, 60), max_size=8).map(sorted),
    edges=st.sets(st.integers(1, 60), max_size=8),
)
def test_rows_are_cut_only_where_buckets_are(stamps: list[int], cuts: list[int], edges: set[int]) -> None:
    bounds = np.array([0, *sorted(edges), 61], np.int64)
    every = np.array(stamps, np.int64)
    ones = np.ones(len(every))
    whole = Rows.of_trades(every, ones, ones)
    places = np.searchsorted(every, cuts).tolist()
    pieces = [whole.take(slice(a, b)) for a, b in zip([0, *places], [*places, len(every)], strict=True) if a < b]
    groups = list(whole_buckets(pieces, bounds))
    assert [time for group in groups for time in group.times.tolist()] == stamps
    seen = [set(np.searchsorted(bounds, group.times, side="right").tolist()) for group in groups]
    assert sum(len(buckets) for buckets in seen) == len(set().union(*seen)) if seen else True


def test_a_limit_reads_only_what_it_needs(written: Written) -> None:
    minutes = [i * MINUTE_NS for i in range(10 * 1_440)]
    written.bars("A", "1m", minutes)
    asked: list[tuple[int, int]] = []
    read = written.store.read

    class Listening:
        capabilities = written.store.capabilities

        def __getattr__(self, name: str) -> Any:
            return getattr(written.store, name)

        def read(self, selection: Any) -> Any:
            asked.append((selection.start, selection.end))
            return read(selection)

    answer = StoredHistory(Listening()).read(Request(interval=Interval.H1, limit=5, newest_first=True))  # type: ignore[arg-type]
    assert [bar["timestamp"] // HOUR_NS for bar in rows(answer.table())] == [239, 238, 237, 236, 235]
    # It reaches from beyond the last row to a few hours before it, not through ten days.
    assert min(start for start, _ in asked) > 9 * 24 * HOUR_NS
