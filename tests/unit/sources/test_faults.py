"""Faults: what is done is what is said, and nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import InvalidRequest
from tapehouse.model import SECOND_NS
from tapehouse.sources.sim import Done, Faults, SimMarket, spoil

START = 1_704_067_200 * SECOND_NS
MADE = SimMarket(10, seed=3, trades_per_s=500.0, start_ns=START).step(START + 2 * SECOND_NS)

chances = st.sampled_from([0.0, 0.01, 0.3, 1.0])
all_faults = st.builds(
    Faults,
    late=chances,
    late_ns=st.integers(1, SECOND_NS),
    repeated=chances,
    gap=chances,
    gap_rows=st.integers(1, 2_000),
    bad=chances,
    clock=chances,
    clock_ns=st.integers(-SECOND_NS, SECOND_NS),
)


def times(batch: pa.RecordBatch) -> np.ndarray:
    return batch.column("timestamp").cast(pa.int64()).to_numpy()


@given(faults=all_faults, seed=st.integers(0, 1_000), rows=st.sampled_from([MADE.trades, MADE.quotes]))
def test_the_account_is_true(faults: Faults, seed: int, rows: pa.RecordBatch) -> None:
    spoiled = spoil(rows, faults, seed)
    numbers, done = spoiled.numbers, spoiled.done
    assert spoiled.rows.schema == rows.schema
    assert (np.diff(numbers) >= 0).all()
    counts = Counter(numbers.tolist())
    assert done.lost == rows.num_rows - len(counts)
    assert done.repeated == sum(count == 2 for count in counts.values())
    assert set(counts.values()) <= {1, 2}
    _, first = np.unique(numbers, return_index=True)
    price = "price" if "price" in rows.schema.names else "bid"
    once, original = spoiled.rows.take(pa.array(first)), rows.take(pa.array(numbers[first]))
    assert done.bad == np.isnan(once.column(price).to_numpy()).sum()
    back = times(original) + faults.clock_ns * (done.off > 0) - times(once)
    assert done.late == (back != 0).sum()
    assert ((back >= 0) & (back <= faults.late_ns)).all()
    assert done.off in (0, once.num_rows)
    for name in set(rows.schema.names) - {"timestamp", price}:
        assert once.column(name).equals(original.column(name))


@given(faults=all_faults, seed=st.integers(0, 1_000))
def test_one_seed_does_the_same(faults: Faults, seed: int) -> None:
    one, other = spoil(MADE.trades, faults, seed), spoil(MADE.trades, faults, seed)
    assert one.rows.serialize().equals(other.rows.serialize())
    assert one.done == other.done


def test_no_faults_change_nothing() -> None:
    spoiled = spoil(MADE.quotes, Faults(), 1)
    assert spoiled.rows.equals(MADE.quotes)
    assert spoiled.done == Done()


def test_chances_are_kept() -> None:
    rows = SimMarket(10, seed=3, trades_per_s=50_000.0, start_ns=START).step(START + SECOND_NS).trades
    assert rows is not None
    done = spoil(rows, Faults(late=0.1, repeated=0.2, gap=0.01, gap_rows=3, bad=0.05, clock=1.0), 5).done
    assert done.late / done.off == pytest.approx(0.1, rel=0.1)
    assert done.repeated / done.off == pytest.approx(0.2, rel=0.1)
    assert done.bad / done.off == pytest.approx(0.05, rel=0.1)
    assert done.lost / rows.num_rows == pytest.approx(1 - 0.99**3, rel=0.2)


@pytest.mark.parametrize(
    "wrong", [{"late": 1.1}, {"bad": -0.1}, {"gap": float("nan")}, {"gap_rows": 0}, {"late_ns": 0}]
)
def test_chances_that_are_none_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest):
        spoil(MADE.trades, Faults(**wrong), 1)  # type: ignore[arg-type]
