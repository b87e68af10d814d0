"""How many rows are written at once."""

from __future__ import annotations

from collections.abc import Callable

from tapehouse.bulk.run.batches import FIRST_SIZE, SIZES, BatchSize


def settle(rate: Callable[[int], float], row_bytes: int = 60, batches: int = 40) -> list[int]:
    """The sizes that are used while writing so many rows a second."""
    size, used = BatchSize(), []
    for _ in range(batches):
        used.append(size.rows)
        size.note(size.rows, size.rows * row_bytes, size.rows / rate(size.rows))
    return used


def test_the_fastest_size_is_found_and_kept() -> None:
    for best in SIZES:
        assert set(settle(_fastest(best))[-20:]) == {best}


def _fastest(best: int) -> Callable[[int], float]:
    return lambda rows: 1e6 / (1 + abs(SIZES.index(rows) - SIZES.index(best)))


def test_sizes_that_are_about_as_fast_are_not_changed() -> None:
    used = settle(lambda rows: 1e6 + rows % 7)
    assert set(used[-20:]) == {used[-1]}


def test_memory_bounds_it() -> None:
    used = settle(lambda rows: float(rows), row_bytes=200)
    assert max(used[5:]) * 200 <= 256 << 20
    assert min(settle(lambda rows: float(rows), row_bytes=100_000)) == SIZES[0]


def test_the_small_batch_at_the_end_of_a_file_does_not_count() -> None:
    size = BatchSize()
    size.note(10, 600, 100.0)
    assert size.rows == SIZES[FIRST_SIZE]


def test_a_size_that_is_given_stays() -> None:
    size = BatchSize(5_000)
    size.note(5_000, 300_000, 0.001)
    assert size.rows == 5_000
