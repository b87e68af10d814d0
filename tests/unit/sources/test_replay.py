"""A replay: nothing lost, nothing doubled, order kept, at any speed and whenever it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import InvalidData, InvalidRequest
from tapehouse.model import HOUR_NS, MINUTE_NS, NAME, SECOND_NS, TIMESTAMP, Interval, Kind
from tapehouse.sources.base import Batch, Feed
from tapehouse.sources.replay import Merged, ReplayFeed, Stream

START = 1_704_067_200 * SECOND_NS
LATER = START + 1_000 * HOUR_NS


def trades(symbol: str, times: list[int], ids: Iterator[int]) -> pa.RecordBatch:
    names = pa.DictionaryArray.from_arrays(pa.array([0] * len(times), pa.int32()), pa.array([symbol], pa.string()))
    texts = [f"{symbol}-{next(ids)}" for _ in times]
    stamps = pa.array([START + time for time in times], pa.int64()).view(TIMESTAMP)
    schema = pa.schema([("symbol", NAME), ("timestamp", TIMESTAMP), ("id", pa.string())])
    return pa.RecordBatch.from_arrays([names, stamps, pa.array(texts, pa.string())], schema=schema)


def stream(symbol: str, pieces: list[list[int]], interval: Interval | None = None) -> Stream:
    ids = count()
    made = [trades(symbol, times, ids) for times in pieces]
    tables = [pa.Table.from_batches([piece]) if number % 2 else piece for number, piece in enumerate(made)]
    return Stream(Kind.TRADES if interval is None else Kind.BARS, interval, iter(tables))


@st.composite
def written(draw: st.DrawFn) -> list[list[list[int]]]:
    """The times of some streams in pieces, some empty; few distinct times, so that many are equal."""
    step = draw(st.sampled_from([1, 7, SECOND_NS]))
    streams = []
    for times in draw(st.lists(st.lists(st.integers(0, 30), max_size=25), min_size=1, max_size=5)):
        ordered = [time * step for time in sorted(times)]
        cuts = sorted(draw(st.lists(st.integers(0, len(ordered)), max_size=4)))
        bounds = [0, *cuts, len(ordered)]
        streams.append([ordered[a:b] for a, b in pairwise(bounds)])
    return streams


def streams_of(written: list[list[list[int]]]) -> list[Stream]:
    return [stream(f"S{number}", pieces) for number, pieces in enumerate(written)]


def expected(written: list[list[list[int]]]) -> list[tuple[int, str]]:
    flat = [
        (START + time, number, nth)
        for number, pieces in enumerate(written)
        for nth, time in enumerate(time for piece in pieces for time in piece)
    ]
    return [(time, f"S{number}-{nth}") for time, number, nth in sorted(flat)]


def given_out(batches: list[Batch]) -> list[tuple[int, str]]:
    return [
        (time, text)
        for batch in batches
        for time, text in zip(
            batch.rows.column("timestamp").cast(pa.int64()).to_pylist(),
            batch.rows.column("id").to_pylist(),
            strict=True,
        )
    ]


@given(written=written(), max_rows=st.integers(1, 40), limits=st.lists(st.integers(0, 30 * SECOND_NS), max_size=6))
def test_streams_merge_into_one_order(written: list[list[list[int]]], max_rows: int, limits: list[int]) -> None:
    merged = Merged(streams_of(written))
    batches = [batch for limit in sorted(limits) for batch in merged.take(START + limit, max_rows)]
    while merged.first_ns() is not None:
        taken = merged.take(LATER, max_rows)
        assert taken, "no progress"
        batches += taken
    assert given_out(batches) == expected(written)


@given(
    written=written(),
    speed=st.sampled_from([None, 0.1, 1.0, 1.7, 10.0, 1e9]),
    max_rows=st.integers(1, 40),
    waits=st.lists(st.integers(0, 20 * SECOND_NS) | st.integers(0, 20), max_size=12),
)
def test_at_any_speed_and_whenever_it_is_asked(
    written: list[list[list[int]]], speed: float | None, max_rows: int, waits: list[int]
) -> None:
    feed: Feed = ReplayFeed(streams_of(written), start_ns=LATER, speed=speed, max_rows=max_rows)
    now, batches = LATER - SECOND_NS, []
    for wait in waits:
        now += wait
        due = feed.next_due_ns()
        taken = feed.next(now)
        assert bool(taken) == (due is not None and due <= now)
        batches += taken
    while (due := feed.next_due_ns()) is not None:
        now = max(now, due)
        assert feed.next(due - 1) == []
        batches += feed.next(now)
    assert given_out(batches) == expected(written)
    assert feed.next(now + HOUR_NS) == []


@given(written=written(), speed=st.sampled_from([0.1, 1.0, 3.0, 10.0]))
def test_shifted_records_bear_the_time_at_which_they_are_given(written: list[list[list[int]]], speed: float) -> None:
    feed = ReplayFeed(streams_of(written), start_ns=LATER, speed=speed, shift=True)
    found = []
    while (due := feed.next_due_ns()) is not None:
        batches = feed.next(due)
        assert {time for time, _ in given_out(batches)} == {due}
        found += [text for _, text in given_out(batches)]
    assert found == [text for _, text in expected(written)]


def test_each_record_comes_when_it_is_due() -> None:
    feed = ReplayFeed([stream("S", [[0, SECOND_NS], [3 * SECOND_NS]])], start_ns=LATER, speed=2.0)
    dues = []
    while (due := feed.next_due_ns()) is not None:
        dues.append(due - LATER)
        assert len(given_out(feed.next(due))) == 1
    assert dues == [0, SECOND_NS // 2, 3 * SECOND_NS // 2]


def test_a_bar_is_due_when_it_ends() -> None:
    minute = stream("BAR", [[0, MINUTE_NS, 2 * MINUTE_NS]], Interval.M1)
    tick = stream("TICK", [[MINUTE_NS, 2 * MINUTE_NS - 1]])
    feed = ReplayFeed([minute, tick], start_ns=LATER)
    first = feed.next(LATER)
    assert [(batch.kind, batch.interval, batch.rows.num_rows) for batch in first] == [
        (Kind.BARS, Interval.M1, 1),
        (Kind.TRADES, None, 1),
    ]
    assert given_out(feed.next(LATER + MINUTE_NS)) == [
        (START + MINUTE_NS, "BAR-1"),
        (START + 2 * MINUTE_NS - 1, "TICK-1"),
    ]


def test_shifted_bars_still_open_where_bars_do() -> None:
    hours = stream("H", [[0, HOUR_NS]], Interval.H1)
    minutes = stream("M", [[30 * MINUTE_NS, 90 * MINUTE_NS]], Interval.M1)
    now = LATER + 17 * MINUTE_NS + 5
    feed = ReplayFeed([hours, minutes], start_ns=now, shift=True)
    found = {text: time for time, text in given_out(feed.next(now + 10 * HOUR_NS))}
    assert found["M-0"] - found["H-0"] == 30 * MINUTE_NS
    assert found["H-0"] % HOUR_NS == 0
    assert now - 2 * HOUR_NS < found["M-0"] <= now


def test_a_little_of_each_stream_is_held() -> None:
    """Two streams of a thousand pieces each: only what is needed next is taken from them."""
    taken = [0, 0]

    def pieces(number: int) -> Iterator[pa.RecordBatch]:
        ids = count()
        for piece in range(1_000):
            taken[number] += 1
            yield trades(f"S{number}", [piece * 10 + nth for nth in range(10)], ids)

    feed = ReplayFeed([Stream(Kind.TRADES, None, pieces(n)) for n in (0, 1)], start_ns=LATER, speed=None, max_rows=100)
    rows = 0
    while feed.next_due_ns() is not None:
        rows += (given := sum(batch.rows.num_rows for batch in feed.next(LATER)))
        assert given <= 200
        assert max(taken) <= rows // 20 + 3
    assert rows == 20_000


def test_a_symbol_with_few_records_does_not_slow_the_others() -> None:
    streams = [stream("FEW", [[0]]), stream("MANY", [list(range(10_000))])]
    feed = ReplayFeed(streams, start_ns=LATER, speed=None, max_rows=1_000)
    calls = 0
    while feed.next_due_ns() is not None:
        calls += 1
        assert len(feed.next(LATER)) < 5
    assert calls < 12


def test_many_streams_share_a_batch() -> None:
    streams = [stream(f"S{number:04d}", [[number % 7, 50]]) for number in range(2_000)]
    (batch,) = ReplayFeed(streams, start_ns=LATER, speed=None).next(LATER)
    batch.rows.validate(full=True)
    assert batch.rows.num_rows == 4_000
    assert len(set(batch.rows.column("symbol").to_pylist())) == 2_000
    assert (np.diff(batch.rows.column("timestamp").cast(pa.int64()).to_numpy()) >= 0).all()


def test_many_streams_are_given_in_few_batches_of_about_the_size_asked_for() -> None:
    """Also where a symbol's pieces end at other times than those of others, and after a quiet time."""
    night = 12 * HOUR_NS
    times = [*range(20), *(night + nth for nth in range(20))]
    streams = [
        stream(f"S{n:03d}", [[t * 1_000 + n for t in times[: 20 + n % 20]], [night * 2_000]]) for n in range(500)
    ]
    feed = ReplayFeed(streams, start_ns=LATER, speed=None, max_rows=1_000)
    sizes = []
    while feed.next_due_ns() is not None:
        sizes += [batch.rows.num_rows for batch in feed.next(LATER)]
    assert sum(sizes) == sum(21 + n % 20 for n in range(500))
    assert max(sizes) <= 1_000
    assert len(sizes) < 100


def test_equal_times_keep_the_order_of_streams_when_pieces_of_others_are_not_there_yet() -> None:
    written = [[[0], [100] * 5], [[0], [0, 5], [5]], [[5]]]
    merged, batches = Merged(streams_of(written)), []
    while merged.first_ns() is not None:
        batches += (taken := merged.take(LATER, 5))
        assert taken, "no progress"
    assert given_out(batches) == expected(written)


def test_nothing_to_replay_is_over_at_once() -> None:
    for streams in ([], [stream("S", [])], [stream("S", [[], []])]):
        feed = ReplayFeed(streams, start_ns=LATER)
        assert feed.next_due_ns() is None
        assert feed.next(LATER) == []


@pytest.mark.parametrize("pieces", [[[5, 3]], [[3, 5], [4]]])
def test_a_stream_that_goes_back_is_refused(pieces: list[list[int]]) -> None:
    with pytest.raises(InvalidData, match="not ordered"):  # noqa: PT012
        feed = ReplayFeed([stream("S", pieces)], start_ns=LATER, speed=None)
        while feed.next_due_ns() is not None:
            feed.next(LATER)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_speeds_that_are_none_are_refused(speed: float) -> None:
    with pytest.raises(InvalidRequest, match="speed"):
        ReplayFeed([], start_ns=0, speed=speed)


@pytest.mark.parametrize(("interval", "speed"), [(None, None), (Interval.M1, 2.0), (Interval.D1, 1.0)])
def test_shifts_that_cannot_be_are_refused(interval: Interval | None, speed: float | None) -> None:
    with pytest.raises(InvalidRequest, match="shifted"):
        ReplayFeed([stream("S", [[0]], interval)], start_ns=0, speed=speed, shift=True)
