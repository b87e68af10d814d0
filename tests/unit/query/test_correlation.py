"""Correlation of returns, beside numpy's and by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.query.tables import Written, at, rows

from tapehouse.errors import InvalidRequest
from tapehouse.model import DAY_NS, Instrument, Interval
from tapehouse.query import correlation
from tapehouse.query.base import Request
from tapehouse.query.correlation import correlations

Series = tuple[np.ndarray, np.ndarray]


def series(closes: dict[int, float]) -> Series:
    return np.array(list(closes), np.int64), np.array(list(closes.values()), np.float64)


def pairs(**closes: dict[int, float]) -> dict[tuple[str, str], tuple[float | None, int]]:
    table = correlations({name: series(values) for name, values in closes.items()})
    return {(row["symbol"], row["other"]): (row["correlation"], row["returns"]) for row in rows(table)}


def expected(first: dict[int, float], second: dict[int, float]) -> tuple[float | None, int]:
    """Straight from the definition."""

    def returns(closes: dict[int, float]) -> dict[tuple[int, int], float]:
        times = sorted(closes)
        return {(a, b): math.log(closes[b] / closes[a]) for a, b in pairwise(times)}

    x, y = returns(first), returns(second)
    common = sorted(x.keys() & y.keys())
    if len(common) < 2:
        return None, len(common)
    return float(np.corrcoef([x[span] for span in common], [y[span] for span in common])[0, 1]), len(common)


prices = st.dictionaries(st.integers(0, 12), st.floats(1.0, 1e4).map(lambda price: round(price, 2)), max_size=13)


@given(st.tuples(prices, prices, prices))
def test_it_is_pearson_s_of_the_returns_in_common(closes: tuple[dict[int, float], ...]) -> None:
    named = {name: dict(sorted(values.items())) for name, values in zip("ABC", closes, strict=True)}
    for (first, second), (found, common) in pairs(**named).items():
        with np.errstate(all="ignore"):
            wanted, number = expected(named[first], named[second])
        assert common == number
        if found is None or wanted is None or math.isnan(wanted):
            continue  # what never moves is told apart from rounding below
        if min(np.std(list(named[first].values())), np.std(list(named[second].values()))) > 1e-3 and number > 2:
            assert found == pytest.approx(wanted, abs=1e-6)


def test_a_gap_is_not_compared_with_shorter_spans() -> None:
    found = pairs(A={0: 1, 1: 2, 2: 1, 3: 2, 4: 3}, B={0: 1, 1: 2, 3: 2, 4: 3})
    assert found[("A", "B")] == (pytest.approx(1.0), 2)  # 0 to 1 and 3 to 4; B has no 1 to 2, and A no 1 to 3


def test_what_has_no_correlation() -> None:
    still = dict.fromkeys(range(5), 7.0)
    steady = {i: 1.1**i for i in range(5)}
    moving = {0: 1.0, 1: 2.0, 2: 1.5, 3: 4.0, 4: 1.0}
    found = pairs(A=still, B=moving, C={7: 1.0}, D=steady, E={})
    assert found[("A", "B")] == (None, 4)
    assert found[("B", "D")] == (None, 4)
    assert found[("B", "C")] == found[("C", "E")] == (None, 0)
    assert list(found) == sorted(found)


def test_a_close_without_a_logarithm_is_none() -> None:
    assert pairs(A={0: 1, 1: 0, 2: 1, 3: math.nan, 4: 2}, B={0: 1, 2: 1, 4: 2, 5: 3})[("A", "B")][1] == 2


def test_blocks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    closes: dict[str, Any] = {
        name: series({i: float(price) for i, price in enumerate(random.uniform(1, 2, 100)) if random.random() > 0.2})
        for name in "ABCD"
    }
    whole = rows(correlations(closes))
    monkeypatch.setattr(correlation, "_MOST_CELLS", 12)
    for one, other in zip(rows(correlations(closes)), whole, strict=True):
        assert one == other | {"correlation": pytest.approx(other["correlation"])}


def asked(written: Written, bucket: Interval = Interval.D1, **request: Any) -> list[Any]:
    return rows(written.history.aggregate(Request(**request), bucket, ["correlation"]))


def test_days_are_the_same_by_their_date(written: Written) -> None:
    written.store.put_instruments([Instrument(pattern="US", calendar="XNYS", timezone="America/New_York")])
    closes = [1.0, 2.0, 1.0, 3.0]
    values: dict[str, Any] = {"open": closes, "close": closes, "high": [9.0] * 4, "low": [0.5] * 4}
    for symbol in ("US", "X"):
        written.bars(symbol, "1h", [at(f"2024-01-{day:02}T16:00:00Z") for day in (8, 9, 10, 11)], **values)
    assert asked(written) == [{"symbol": "US", "other": "X", "correlation": pytest.approx(1.0), "returns": 3}]


def test_it_stands_alone(written: Written) -> None:
    written.bars("A", "1d", [0, DAY_NS])
    with pytest.raises(InvalidRequest, match="at least two symbols with rows, not A"):
        asked(written)
    written.bars("B", "1d", [0, DAY_NS])
    with pytest.raises(InvalidRequest, match="asked for alone"):
        written.history.aggregate(Request(), Interval.D1, ["correlation", "close"])
    with pytest.raises(InvalidRequest, match="without groups"):
        written.history.aggregate(Request(), Interval.D1, ["correlation"], {"g": ["A", "B"]})


def test_groups_of_instruments_that_are_alike(written: Written) -> None:
    written.store.put_instruments(
        [Instrument(pattern="B*", asset_class="crypto"), Instrument(pattern="A", asset_class="equity", currency="USD")]
    )
    for symbol in ("A", "B1", "B2", "C"):
        written.bars(symbol, "1d", [0])
    assert written.history.groups("asset_class") == {"crypto": ["B1", "B2"], "equity": ["A"], "none": ["C"]}
    assert written.history.groups("currency", ["A", "B1"]) == {"USD": ["A"], "none": ["B1"]}
    with pytest.raises(InvalidRequest, match="asset_class, currency, calendar"):
        written.history.groups("sector")
