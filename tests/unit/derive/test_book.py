"""A bar that is built as trades come is, to the last bit, the bar of the sorted trades."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.derive.book import UNPUBLISHED, Bars, Book, Trades
from tapehouse.resample import Rows, resample

WIDTH = 10


def trades(rows: list[tuple[int, int, float, float]]) -> Trades:
    """Trades of (symbol, time, price, size)."""
    symbols, times, prices, sizes = (np.array(column) for column in zip(*rows, strict=True))
    stamps = times // WIDTH * WIDTH
    return Trades(symbols, times, prices.astype(float), sizes.astype(float), stamps, stamps, stamps + WIDTH)


def rows(bars: Bars) -> list[tuple[Any, ...]]:
    """(symbol, stamp, open, high, low, close, volume, vwap, trades) of each."""
    return [tuple(column[n].item() for column in bars[:-1]) for n in range(len(bars.symbols))]


def expected(given_: list[tuple[int, int, float, float]]) -> dict[tuple[int, int], tuple[Any, ...]]:
    """The bar of each symbol and stamp by `resample`, of the trades sorted by time."""
    found = {}
    for symbol in {row[0] for row in given_}:
        own = sorted((row for row in given_ if row[0] == symbol), key=lambda row: row[1])
        times, prices, sizes = (np.array([row[n] for row in own]) for n in (1, 2, 3))
        bars = resample(Rows.of_trades(times, prices, sizes), np.arange(0, 201, WIDTH)).rows
        assert bars.vwap is not None
        assert bars.trades is not None
        columns = (bars.open, bars.high, bars.low, bars.close, bars.volume, bars.vwap, bars.trades)
        for place, stamp in enumerate(bars.times.tolist()):
            found[symbol, stamp] = (symbol, stamp, *(column[place].item() for column in columns))
    return found


PRICE = st.decimals(1, 1_000, places=2).map(float)
SIZE = st.one_of(st.integers(0, 1_000).map(float), st.decimals(0, 10, places=8).map(float))
ROW = st.tuples(st.integers(0, 3), st.integers(0, 199), PRICE, SIZE)


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(a == b or (a != a and b != b) for a, b in zip(one, other, strict=True))


@given(batches=st.lists(st.lists(ROW, min_size=1, max_size=15), min_size=1, max_size=8))
def test_in_whatever_order_they_come_the_bar_is_that_of_the_sorted_trades(batches: list[list[Any]]) -> None:
    book, placed = Book(20), []
    for batch in batches:
        late, left = book.add(trades(batch))
        assert not len(late)
        assert not len(left.symbols)
        placed += batch
    found = rows(book.over(1_000))
    wanted = expected(placed)
    assert {row[:2] for row in found} == set(wanted)
    assert all(same(row, wanted[row[:2]]) for row in found)
    assert rows(book.over(1_000)) == []


@given(batches=st.lists(st.lists(ROW, min_size=1, max_size=15), min_size=1, max_size=8), slots=st.integers(1, 4))
def test_with_few_slots_nothing_is_lost_in_silence(batches: list[list[Any]], slots: int) -> None:
    """Each bar is published as the bar of the trades that found room; the others are named as late."""
    book, taken, published, missed = Book(slots), [], {}, set()
    for batch in batches:
        late, left = book.add(trades(batch))
        taken += [row for place, row in enumerate(batch) if place not in set(late.tolist())]
        missed |= {(batch[place][0], batch[place][1] // WIDTH * WIDTH) for place in late.tolist()}
        published.update({row[:2]: row for row in rows(left)})
    published.update({row[:2]: row for row in rows(book.over(1_000))})
    wanted = expected(taken) if taken else {}
    assert set(wanted) <= set(published)
    for key, row in published.items():
        assert same(row, wanted[key]) or key in missed


def test_a_late_trade_is_a_revision() -> None:
    book = Book(2)
    book.add(trades([(0, 1, 5.0, 1.0), (0, 3, 6.0, 1.0)]))
    first = book.over(WIDTH)
    assert (first.close.tolist(), first.revisions.tolist()) == ([6.0], [0])
    book.add(trades([(0, 2, 9.0, 1.0)]))
    second = book.over(WIDTH)
    assert (second.high.tolist(), second.close.tolist(), second.revisions.tolist()) == ([9.0], [6.0], [1])
    assert not len(book.over(WIDTH).symbols)


def test_a_bar_forms_and_is_then_over() -> None:
    book = Book(2)
    book.add(trades([(7, 1, 5.0, 1.0)]))
    assert not len(book.over(9).symbols)
    forming = book.forming()
    assert (forming.symbols.tolist(), forming.close.tolist(), forming.revisions.tolist()) == ([7], [5.0], [UNPUBLISHED])
    assert not len(book.forming().symbols)
    book.add(trades([(7, 2, 6.0, 1.0)]))
    assert book.forming().close.tolist() == [6.0]
    assert book.over(10).close.tolist() == [6.0]
    assert not len(book.forming().symbols)


def test_what_was_published_before_is_not_published_again() -> None:
    said = Book(2)
    said.add(trades([(0, 1, 5.0, 1.0), (5_000, 1, 7.0, 1.0)]))
    published = said.over(WIDTH)
    again = Book(2)
    again.add(trades([(0, 1, 5.0, 1.0), (5_000, 1, 7.0, 1.0), (5_000, 2, 8.0, 1.0)]))
    again.note(published)
    more = again.over(WIDTH)
    assert (more.symbols.tolist(), more.revisions.tolist()) == ([5_000], [1])


def test_equal_times_go_by_the_order_in_which_they_came() -> None:
    book = Book(1)
    book.add(trades([(0, 1, 1.0, 1.0), (0, 1, 2.0, 1.0)]))
    book.add(trades([(0, 1, 3.0, 1.0)]))
    bar = book.over(WIDTH)
    assert (bar.open.tolist(), bar.close.tolist()) == ([1.0], [3.0])
