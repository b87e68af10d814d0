"""The simulated market: the same however it is asked for, and of the shape that its page promises."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import InvalidData, InvalidRequest, InvalidSymbol
from tapehouse.model import DAY_NS, HOUR_NS, MINUTE_NS, SCHEMAS, SECOND_NS, Kind
from tapehouse.sources.sim import Correlation, SimBatch, SimInstrument, SimMarket, calendar_sessions, default_symbols

MONDAY = 1_704_067_200 * SECOND_NS
"""2024-01-01, a holiday of the exchange; it opens the next day at 14:30 UTC."""
OPEN, CLOSE = MONDAY + DAY_NS + 14 * HOUR_NS + 30 * MINUTE_NS, MONDAY + DAY_NS + 21 * HOUR_NS


def market(symbols: Sequence[SimInstrument] | int = 12, **changed: object) -> SimMarket:
    arguments: dict[str, object] = {"seed": 7, "trades_per_s": 300.0, "start_ns": MONDAY + 123_456_789}
    return SimMarket(symbols, **(arguments | changed))  # type: ignore[arg-type]


def rows(batch: pa.RecordBatch | None) -> list[dict[str, object]]:
    return [] if batch is None else batch.to_pylist()


def times(batch: pa.RecordBatch) -> np.ndarray:
    return batch.column("timestamp").cast(pa.int64()).to_numpy()


def column(batch: pa.RecordBatch | None, name: str) -> np.ndarray:
    assert batch is not None
    values = batch.column(name)
    return (values.indices if name == "symbol" else values).to_numpy(zero_copy_only=False)


def glued(steps: Sequence[SimBatch], kind: int) -> pa.Table | None:
    found = [step[kind] for step in steps if step[kind] is not None]
    return pa.Table.from_batches(found).combine_chunks() if found else None


cuts = st.lists(st.integers(0, 4 * SECOND_NS), max_size=12)


def span_sets() -> st.SearchStrategy[np.ndarray]:
    """Spans within five seconds, which may touch or overlap, at any nanosecond."""
    bounds = st.tuples(st.integers(0, 5 * SECOND_NS), st.integers(1, SECOND_NS))
    made = st.lists(bounds.map(lambda pair: (MONDAY + pair[0], MONDAY + pair[0] + pair[1])), min_size=1, max_size=5)
    return made.map(lambda spans: np.array(spans, np.int64))


@given(cuts=cuts, spans=st.none() | span_sets(), rate=st.sampled_from([5.0, 300.0, 40_000.0]))
def test_how_time_is_cut_changes_nothing(cuts: list[int], spans: np.ndarray | None, rate: float) -> None:
    arguments: dict[str, object] = {"trades_per_s": rate, "sessions": None if spans is None else lambda *_: spans}
    end = MONDAY + 4 * SECOND_NS
    pieces = market(**arguments)
    steps = [pieces.step(max(pieces.until_ns, until)) for until in sorted(MONDAY + cut for cut in cuts)]
    steps.append(pieces.step(max(pieces.until_ns, end)))
    whole = market(**arguments).step(max(pieces.until_ns, end))
    for kind in (0, 1):
        expected = glued([whole], kind)
        found = glued(steps, kind)
        assert (found is None) == (expected is None)
        assert found is None or found.equals(expected)


@given(cuts=cuts)
def test_each_step_holds_its_own_times_in_order(cuts: list[int]) -> None:
    made = market()
    for cut in sorted(cuts):
        before, until = made.until_ns, max(made.until_ns, MONDAY + cut)
        for batch in made.step(until):
            if batch is not None:
                found = times(batch)
                assert before <= found[0]
                assert found[-1] < until
                assert (np.diff(found) >= 0).all()


@given(first=st.integers(0, 3 * SECOND_NS), second=st.integers(0, 3 * SECOND_NS), closed=st.booleans())
def test_a_restored_market_goes_on(first: int, second: int, closed: bool) -> None:
    spans = np.array([[MONDAY + SECOND_NS, MONDAY + 2 * SECOND_NS + 17], [MONDAY + 3 * SECOND_NS, MONDAY + DAY_NS]])
    sessions = (lambda *_: spans) if closed else None
    one, other = market(sessions=sessions), market(sessions=sessions)
    one.step(one.until_ns + first)
    other.restore(one.state())
    until = one.until_ns + second
    assert [rows(batch) for batch in other.step(until)] == [rows(batch) for batch in one.step(until)]
    assert other.state() == one.state()


def test_seeds_differ_and_one_seed_does_not() -> None:
    first, again, other = (market(seed=seed).step(MONDAY + SECOND_NS).trades for seed in (1, 1, 2))
    assert first is not None
    assert first.serialize().equals(again.serialize())
    assert not first.equals(other)


def test_a_market_may_begin_before_1970() -> None:
    made = market(start_ns=-DAY_NS - 5).step(-DAY_NS + 3 * SECOND_NS)
    assert made.trades is not None
    assert -DAY_NS - 5 <= times(made.trades)[0] < -DAY_NS + SECOND_NS


def test_columns_are_those_of_the_model() -> None:
    made = market().step(MONDAY + 10 * SECOND_NS)
    for kind, batch in ((Kind.TRADES, made.trades), (Kind.QUOTES, made.quotes)):
        assert batch is not None
        batch.validate(full=True)
        assert all(field.equals(SCHEMAS[kind].field(field.name)) for field in batch.schema)
        assert set(SCHEMAS[kind].names) >= set(batch.schema.names)
    assert set(column(made.trades, "side")) == {"buy", "sell"}
    assert column(made.trades, "id").tolist() == [str(number) for number in range(1, made.trades.num_rows + 1)]


@pytest.fixture(scope="module")
def hour() -> tuple[list[SimInstrument], SimBatch]:
    """An hour of the default market."""
    instruments = default_symbols(40)
    return instruments, market(instruments, trades_per_s=100.0, start_ns=MONDAY).step(MONDAY + HOUR_NS)


def test_rates_are_those_asked_for(hour: tuple[list[SimInstrument], SimBatch]) -> None:
    instruments, made = hour
    symbols = column(made.trades, "symbol")
    assert len(symbols) == pytest.approx(360_000, rel=0.02)
    assert len(column(made.quotes, "symbol")) == pytest.approx(720_000, rel=0.02)
    counts = np.bincount(symbols, minlength=len(instruments))
    shares = 1 / np.arange(1, 41)
    wanted = shares / shares.sum()
    np.testing.assert_allclose((counts / counts.sum())[:10], wanted[:10], rtol=0.05)
    np.testing.assert_allclose(counts / counts.sum(), wanted, rtol=0.15)


def test_orders_bring_clusters_of_trades(hour: tuple[list[SimInstrument], SimBatch]) -> None:
    made = hour[1].trades
    assert made is not None
    first = column(made, "symbol") == 0
    pauses = np.diff(times(made)[first])
    assert (pauses < MINUTE_NS).all()
    near = (pauses < 500_000).mean()
    assert near == pytest.approx(1 - 1 / 1.4, abs=0.03)


def on_grid(values: np.ndarray, symbols: np.ndarray, steps: list[float]) -> bool:
    """Whether each value is the float nearest to a whole number of the symbol's steps."""
    for number, step in enumerate(Fraction(str(step)) for step in steps):
        for value in np.unique(values[symbols == number])[:200].tolist():
            whole = round(Fraction(value) / step)
            if whole < 1 or float(whole * step) != value:
                return False
    return True


def test_prices_and_sizes_are_on_their_grids(hour: tuple[list[SimInstrument], SimBatch]) -> None:
    instruments, made = hour
    for batch, names in ((made.trades, ("price", "size")), (made.quotes, ("bid", "ask", "bid_size", "ask_size"))):
        for name in names:
            steps = [each.lot if "size" in name else each.tick for each in instruments]
            values = column(batch, name)
            assert np.isfinite(values).all()
            assert on_grid(values, column(batch, "symbol"), steps), name


def test_quotes_have_a_spread_and_trades_are_near_them(hour: tuple[list[SimInstrument], SimBatch]) -> None:
    made = hour[1]
    bid, ask = column(made.quotes, "bid"), column(made.quotes, "ask")
    assert (bid > 0).all()
    assert (ask > bid).all()
    assert made.trades is not None
    assert made.quotes is not None
    for number in (0, 4, 20):
        traded = column(made.trades, "symbol") == number
        quoted = column(made.quotes, "symbol") == number
        price, buys = column(made.trades, "price")[traded], column(made.trades, "side")[traded] == "buy"
        before = np.searchsorted(times(made.quotes)[quoted], times(made.trades)[traded]) - 1
        known = before >= 0
        mid = ((bid + ask) / 2)[quoted][before[known]]
        above = (price[known] - mid) / mid
        assert np.median(above[buys[known]]) > 0 > np.median(above[~buys[known]])
        assert np.abs(above).max() < 0.005


def test_half_of_stock_trades_are_round_lots(hour: tuple[list[SimInstrument], SimBatch]) -> None:
    made = hour[1].trades
    sizes = column(made, "size")[column(made, "symbol") == 0]
    assert (sizes % 100 == 0).mean() == pytest.approx(0.5, abs=0.03)
    assert (sizes % 1 == 0).all()


def test_a_worthless_symbol_keeps_a_positive_price_and_a_dear_one_a_finite_one() -> None:
    wild = [
        SimInstrument(symbol="LOW", price=0.02, volatility=9.0),
        SimInstrument(symbol="HIGH", price=1e300, tick=0.03, volatility=9.0),
    ]
    made = market(wild, trades_per_s=1.0, sessions=lambda *_: np.array([[MONDAY, MONDAY + 5 * HOUR_NS]]))
    quotes = made.step(MONDAY + DAY_NS).quotes
    assert column(quotes, "bid").min() == 0.01
    assert (column(quotes, "ask") > column(quotes, "bid")).all()
    assert np.isfinite(column(quotes, "ask")).all()


def returns(made: SimBatch, count: int, step_ns: int) -> np.ndarray:
    """Log returns of mids over that time, of shape (steps, symbols)."""
    assert made.quotes is not None
    stamps = times(made.quotes)
    edges = np.arange(stamps[0] + step_ns, stamps[-1], step_ns)
    logs = []
    for number in range(count):
        quoted = column(made.quotes, "symbol") == number
        mid = (column(made.quotes, "bid")[quoted] + column(made.quotes, "ask")[quoted]) / 2
        logs.append(np.log(mid[np.searchsorted(stamps[quoted], edges) - 1]))
    return np.diff(np.array(logs), axis=1).T


def test_returns_correlate_and_vary_as_asked() -> None:
    sectors = ["one", "one", "two", "two"]
    instruments = [
        SimInstrument(symbol=f"S{number}", price=900.0, volatility=0.4, spread=1e-5, sector=sector)
        for number, sector in enumerate(sectors)
    ]
    correlation = Correlation(market=0.3, sector=0.4)
    made = market(instruments, trades_per_s=8.0, zipf=0.0, correlation=correlation, start_ns=MONDAY).step(
        MONDAY + DAY_NS
    )
    moves = returns(made, 4, MINUTE_NS)
    yearly = moves.std(axis=0) * np.sqrt(365 * 24 * 60)
    np.testing.assert_allclose(yearly, 0.4, rtol=0.1)
    found = np.corrcoef(moves.T)
    same = [found[0, 1], found[2, 3]]
    apart = [found[0, 2], found[0, 3], found[1, 2], found[1, 3]]
    np.testing.assert_allclose(same, 0.7, atol=0.08)
    np.testing.assert_allclose(apart, 0.3, atol=0.1)


def test_nothing_trades_outside_sessions() -> None:
    instruments = default_symbols(6)
    round_the_clock = np.array([number for number, each in enumerate(instruments) if each.calendar == "24/7"])
    made = market(instruments, trades_per_s=2.0, sessions=calendar_sessions).step(MONDAY + 3 * DAY_NS)
    for batch in made:
        assert batch is not None
        found, of_exchange = times(batch), ~np.isin(column(batch, "symbol"), round_the_clock)
        inside = ((found >= OPEN) & (found < CLOSE)) | ((found >= OPEN + DAY_NS) & (found < CLOSE + DAY_NS))
        assert inside[of_exchange].all()
        assert inside[of_exchange].sum() > 1_000
        assert (~inside).sum() > 1_000


def test_sessions_are_exact_to_the_nanosecond() -> None:
    spans = np.array(
        [[MONDAY + SECOND_NS + 3, MONDAY + SECOND_NS + 900], [MONDAY + 2 * SECOND_NS, MONDAY + 3 * SECOND_NS]]
    )
    stocks = [SimInstrument(symbol="A", price=5.0), SimInstrument(symbol="B", price=50.0)]
    made = market(stocks, trades_per_s=3e6, quotes_per_trade=0.0, start_ns=MONDAY, sessions=lambda *_: spans)
    trades = made.step(MONDAY + SECOND_NS + 1_000_000).trades
    assert trades is None or ((times(trades) >= spans[0, 0]) & (times(trades) < spans[0, 1])).all()
    trades = made.step(MONDAY + DAY_NS).trades
    assert trades is not None
    assert times(trades)[0] - spans[1, 0] < 100_000
    assert spans[1, 1] - times(trades)[-1] < 100_000


def test_each_calendar_has_its_own_hours() -> None:
    spans = {
        "ONE": [[MONDAY + 1_003, MONDAY + SECOND_NS // 2 + 7]],
        "TWO": [[MONDAY + SECOND_NS // 4 + 1, MONDAY + SECOND_NS - 5]],
    }
    symbols = [SimInstrument(symbol=name, price=9.0, calendar=name) for name in spans]
    made = market(
        symbols, trades_per_s=5_000.0, zipf=0.0, start_ns=MONDAY, sessions=lambda name, *_: np.array(spans[name])
    )
    trades = made.step(MONDAY + 2 * SECOND_NS).trades
    assert trades is not None
    for number, ((opens, closes),) in enumerate(spans.values()):
        found = times(trades)[column(trades, "symbol") == number]
        assert opens <= found[0] < opens + SECOND_NS // 100
        assert closes - SECOND_NS // 100 < found[-1] < closes


def test_quotes_stand_evenly_around_the_price() -> None:
    steady = [
        SimInstrument(symbol=f"S{spread}", price=100.0, volatility=0.0, spread=spread * 1e-4) for spread in (1, 2, 3, 8)
    ]
    quotes = market(steady, trades_per_s=10.0, zipf=0.0).step(MONDAY + 2 * HOUR_NS).quotes
    mid = (column(quotes, "bid") + column(quotes, "ask")) / 2
    for number in range(len(steady)):
        assert mid[column(quotes, "symbol") == number].mean() == pytest.approx(100.0, abs=0.003)


def test_a_session_is_busier_and_moves_more_at_its_ends() -> None:
    stocks = [SimInstrument(symbol="A", price=500.0, spread=1e-5)]
    spans = np.array([[OPEN, CLOSE]])
    made = market(stocks, trades_per_s=20.0, start_ns=OPEN, sessions=lambda *_: spans).step(CLOSE)
    assert made.trades is not None
    counts, _ = np.histogram(times(made.trades), np.linspace(OPEN, CLOSE, 14))
    assert counts.sum() == pytest.approx(20 * 6.5 * 3600, rel=0.02)
    assert counts[0] > 2 * counts[6] < counts[-1]
    moves = np.array_split(returns(made, 1, 30 * SECOND_NS)[:, 0], 13)
    assert moves[0].std() > 1.5 * moves[6].std() < moves[-1].std() * 1.5


def test_prices_move_over_a_night_but_less_than_over_a_day() -> None:
    instruments = [SimInstrument(symbol=f"N{number}", price=100.0, spread=1e-5) for number in range(200)]
    spans = np.array([[OPEN, CLOSE], [OPEN + DAY_NS, CLOSE + DAY_NS]])
    apart = Correlation(0.0, 0.0)
    start = CLOSE - 600 * SECOND_NS
    made = market(
        instruments, trades_per_s=200.0, zipf=0.0, correlation=apart, start_ns=start, sessions=lambda *_: spans
    )
    before, after = made.step(CLOSE).quotes, made.step(OPEN + DAY_NS + 60 * SECOND_NS).quotes
    last = dict(zip(column(before, "symbol"), column(before, "bid"), strict=True))
    first = dict(zip(column(after, "symbol")[::-1], column(after, "bid")[::-1], strict=True))
    moves = [np.log(first[symbol] / last[symbol]) for symbol in last]
    assert 0.2 < np.std(moves) / (0.3 / np.sqrt(252)) < 0.7


def test_when_a_market_opens_and_when_it_is_over() -> None:
    assert market().opens_ns() == MONDAY + 123_456_789
    stocks = [SimInstrument(symbol="A", price=5.0)]
    made = market(stocks, trades_per_s=0.1, sessions=calendar_sessions)
    assert made.opens_ns() == OPEN
    made.step(CLOSE)
    assert made.opens_ns() == OPEN + DAY_NS
    once = market(stocks, trades_per_s=0.1, sessions=lambda *_: np.array([[MONDAY, MONDAY + DAY_NS]]))
    once.step(MONDAY + DAY_NS)
    assert once.opens_ns() is None
    assert once.step(MONDAY + 900 * DAY_NS) == (None, None)


def test_default_symbols_are_distinct_and_grow() -> None:
    many = default_symbols(12_000)
    assert len({each.symbol for each in many}) == 12_000
    assert many[:20] == default_symbols(20)
    assert {"AAPL", "MSFT", "NVDA", "AMZN", "BTC-USDT", "ETH-USDT"} <= {each.symbol for each in many[:8]}
    assert all(each.check() and on_grid(np.array([each.price]), np.zeros(1), [each.tick]) for each in many)


def test_what_makes_no_market_is_refused() -> None:
    one = SimInstrument(symbol="A", price=1.0)
    for symbols, changed in [
        ([], {}),
        (0, {}),
        ([one, one], {}),
        ([one], {"seed": -1}),
        ([one], {"trades_per_s": 0}),
        ([one], {"quotes_per_trade": -1}),
        ([one], {"zipf": float("nan")}),
        ([one], {"correlation": Correlation(0.8, 0.3)}),
        ([SimInstrument(symbol="A", price=0.0)], {}),
        ([SimInstrument(symbol="A", price=1.0, tick=-1.0)], {}),
        ([SimInstrument(symbol="A", price=1.0, volatility=-0.1)], {}),
        ([SimInstrument(symbol="A", price=1.0, round_lot=0)], {}),
    ]:
        with pytest.raises(InvalidRequest):
            market(symbols, **changed)  # type: ignore[arg-type]
    with pytest.raises(InvalidSymbol):
        market([SimInstrument(symbol="A B", price=1.0)])
    with pytest.raises(InvalidRequest, match="after they start"):
        market([one], sessions=lambda *_: np.array([[2, 1]])).step(MONDAY + SECOND_NS)


def test_a_market_does_not_go_back() -> None:
    made = market()
    made.step(MONDAY + SECOND_NS)
    with pytest.raises(InvalidRequest, match="go back"):
        made.step(MONDAY + SECOND_NS - 1)


def test_a_state_of_another_market_is_refused() -> None:
    with pytest.raises(InvalidData, match="other arguments"):
        market(seed=1).restore(market(seed=2).state())
    with pytest.raises(InvalidData, match="no state"):
        market().restore(b"what?")
