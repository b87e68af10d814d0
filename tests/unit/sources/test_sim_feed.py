"""A simulated market as a feed: all of it, once, whenever it is asked."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.model import DAY_NS, HOUR_NS, SECOND_NS, Kind
from tapehouse.sources.base import Batch, Feed
from tapehouse.sources.sim import Faults, SimFeed, SimInstrument, SimMarket

START = 1_704_067_200 * SECOND_NS


def market(**changed: object) -> SimMarket:
    arguments: dict[str, object] = {"seed": 3, "trades_per_s": 400.0, "start_ns": START}
    return SimMarket(5, **(arguments | changed))  # type: ignore[arg-type]


def ids(batches: list[Batch]) -> list[int]:
    return [int(text) for batch in batches if batch.kind is Kind.TRADES for text in batch.rows.column("id").to_pylist()]


def caught_up(feed: SimFeed, now: int) -> list[Batch]:
    """What a runner gets that asks until nothing is due by then."""
    batches = []
    while (due := feed.next_due_ns()) is not None and due <= now:
        batches += feed.next(now)
    return batches


@given(waits=st.lists(st.integers(1, 3 * SECOND_NS), max_size=8))
def test_everything_comes_once_whenever_it_is_asked_for(waits: list[int]) -> None:
    feed: Feed = SimFeed(market(), most_s=0.7)
    batches, now = [], START - SECOND_NS
    for wait in waits:
        now += wait
        batches += feed.next(now)
        assert all(batch.rows.column("timestamp").cast(pa.int64()).to_numpy()[-1] <= now for batch in batches)
    batches += caught_up(feed, max(now, START) + SECOND_NS)  # type: ignore[arg-type]
    found = ids(batches)
    assert found == list(range(1, len(found) + 1))
    assert len(found) > 200
    assert feed.next(now - 1) == []


def test_it_is_due_again_soon_and_at_once_when_it_is_behind() -> None:
    feed = SimFeed(market(), every_s=0.05, most_s=1.0)
    assert feed.next_due_ns() == START + SECOND_NS // 20 - 1
    feed.next(START + SECOND_NS // 2)
    assert feed.next_due_ns() == START + SECOND_NS // 2 + SECOND_NS // 20
    now = START + 10 * SECOND_NS
    feed.next(now)
    due = feed.next_due_ns()
    assert due is not None
    assert due < now


def test_it_waits_for_the_next_session_and_is_over_after_the_last() -> None:
    spans = np.array([[START, START + 2 * SECOND_NS], [START + DAY_NS, START + DAY_NS + SECOND_NS]])
    symbols = [SimInstrument(symbol="A", price=20.0)]
    feed = SimFeed(SimMarket(symbols, seed=1, trades_per_s=99.0, start_ns=START, sessions=lambda *_: spans))
    assert ids(caught_up(feed, START + HOUR_NS))
    assert feed.next_due_ns() == START + DAY_NS
    assert feed.next(START + DAY_NS - 1) == []
    assert ids(caught_up(feed, START + 2 * DAY_NS))
    assert feed.next_due_ns() is None
    assert feed.next(START + 3 * DAY_NS) == []


@given(gap=st.sampled_from([0.0, 0.02, 0.5, 1.0]), gap_rows=st.integers(1, 30), repeated=st.sampled_from([0.0, 0.2]))
def test_what_a_gap_took_is_skipped(gap: float, gap_rows: int, repeated: float) -> None:
    feed = SimFeed(market(quotes_per_trade=0.0), faults=Faults(gap=gap, gap_rows=gap_rows, repeated=repeated), seed=4)
    batches = caught_up(feed, START + 3 * SECOND_NS)
    number = 0
    for batch in batches:
        number += batch.skipped
        for found in ids([batch]):
            number += found != number
            assert found == number
    known = sum(batch.skipped for batch in batches)
    assert known <= feed.done.lost
    assert feed.done.repeated == len(ids(batches)) - len(set(ids(batches)))
    if gap < 1:
        assert feed.done.lost - known <= 2_000 * gap
    else:
        assert batches == []
