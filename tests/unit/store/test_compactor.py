"""When spans are compacted, into which files, and who has to wait for whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tapehouse.errors import StoreDamaged
from tapehouse.model import DAY_NS, MIN_TIME_NS, MINUTE_NS, TIMESTAMP, Change, Interval, Kind
from tapehouse.store.archive import files
from tapehouse.store.archive.pins import Pins
from tapehouse.store.base import Selection
from tapehouse.store.duckdb import DuckDBStore, compactor, engine, reads
from tapehouse.store.duckdb.compactor import LARGE_ROWS, QUIET_S, SETTLE_S, WORTHWHILE_ROWS, is_due
from tapehouse.store.duckdb.hot import HotSpan

START = 1_704_067_200 * 10**9
MINUTES = Interval.M1


def bars(symbols: list[str], first: int, rows: int, price: float = 10.0, step: int = MINUTE_NS) -> pa.Table:
    count = rows * len(symbols)
    close = np.full(count, price)
    return pa.table(
        {
            "symbol": np.repeat(symbols, rows),
            "timestamp": pa.array(np.tile(START + (first + np.arange(rows)) * step, len(symbols))).view(TIMESTAMP),
            **dict.fromkeys(("open", "high", "low", "close"), close),
            "volume": np.ones(count),
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    store = DuckDBStore(tmp_path / "data")
    yield store
    store.close()


def write(store: DuckDBStore, table: pa.Table) -> None:
    store.write(Kind.BARS, table, interval=MINUTES, source="s")


def archived(store: DuckDBStore) -> list[str]:
    folder = store.folder
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("rows", "age", "quiet", "settled", "due"),
    [
        (LARGE_ROWS, 0.0, 0.0, False, True),
        (LARGE_ROWS - 1, 1e6, 1e6, False, False),
        (WORTHWHILE_ROWS, QUIET_S, QUIET_S, True, True),
        (WORTHWHILE_ROWS, QUIET_S, QUIET_S - 1, True, False),
        (1, SETTLE_S - 1, QUIET_S, True, False),
        (1, SETTLE_S, QUIET_S, True, True),
    ],
)
def test_when_a_span_is_due(rows: int, age: float, quiet: float, settled: bool, due: bool) -> None:
    now = 1e7
    assert is_due(HotSpan(rows, now - age, now - quiet), now, settled=settled) is due


def test_what_is_still_written_to_stays_hot_unless_all_is_asked_for(store: DuckDBStore) -> None:
    write(store, bars(["A"], 0, 2_000))
    assert store.compact().spans == 0
    assert store.compact(everything=True).rows == 2_000
    assert store.compact(everything=True).spans == 0
    assert store.stats()["hot_rows"] == 0


def test_appended_rows_get_files_beside_until_there_are_enough(store: DuckDBStore) -> None:
    for number in range(6):
        write(store, bars(["A", "B"], number * 10, 10))
        report = store.compact(everything=True)
        beside = number % compactor.FILES_BESIDE != 0 or number == 0
        assert report.files_replaced == (0 if beside else compactor.FILES_BESIDE)
        assert store.read(Selection(interval=MINUTES)).table().num_rows == 20 * (number + 1)
    assert len(archived(store)) == 2


def test_a_correction_rewrites_the_files_of_its_symbols_only(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compactor, "SYMBOLS_PER_FILE", 2)
    write(store, bars(["A", "B", "C", "D"], 0, 10))
    store.compact(everything=True)
    before = archived(store)
    write(store, bars(["C"], 5, 1, price=99))
    report = store.compact(everything=True)
    after = archived(store)
    assert (report.files_written, report.files_replaced) == (2, 1)
    assert len(set(before) & set(after)) == 1
    assert [name.split("/")[0] for name in after] == ["archive", "archive", "history"]


def test_files_hold_symbols_of_one_scale(store: DuckDBStore) -> None:
    write(store, bars(["A"], 0, 10, price=1.25))
    write(store, bars(["B"], 0, 10, price=1.2512))
    write(store, bars(["C"], 0, 10, price=1.75))
    assert store.compact(everything=True).files_written == 2


def test_large_numbers_stay_exact_beside_small_ones_of_many_digits(store: DuckDBStore) -> None:
    volumes = {"ABC": 123.12345678, "SHIB": 4.1e13, "XYZ": 912_345_678.1234}
    for symbol, volume in volumes.items():
        rows = bars([symbol], 0, 10)
        write(store, rows.set_column(rows.column_names.index("volume"), "volume", pa.array([volume] * 10)))
    store.compact(everything=True)
    read = store.read(Selection(interval=MINUTES)).table()
    assert {(r["symbol"], r["volume"]) for r in read.to_pylist()} == set(volumes.items())


def test_rows_that_were_known_already_rewrite_nothing(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compactor, "SYMBOLS_PER_FILE", 2)
    write(store, bars(["A", "B", "C", "D"], 0, 10))
    store.compact(everything=True)
    write(store, pa.concat_tables([bars(["A", "B", "C", "D"], 0, 10), bars(["D"], 10, 1)]))
    report = store.compact(everything=True)
    assert (report.rows, report.files_replaced) == (1, 0)


def test_a_delete_is_compacted_once(store: DuckDBStore) -> None:
    write(store, bars(["A"], 0, 2_000))
    store.compact(everything=True)
    store.delete(Kind.BARS, ["A"], interval=MINUTES)
    assert store.stats()["hot_rows"] == 0
    assert store.compact(everything=True).spans == 1
    assert store.compact(everything=True).spans == 0


def test_a_reading_goes_on_when_a_later_symbol_is_corrected(store: DuckDBStore) -> None:
    def trades(symbol: str, price: float) -> pa.Table:
        times = pa.array([START]).view(TIMESTAMP)
        return pa.table({"symbol": [symbol], "timestamp": times, "price": [price], "size": [1.0], "id": ["1"]})

    store.write(Kind.TRADES, pa.concat_tables([trades("A", 1.0), trades("B", 2.0)]))
    with store.read(Selection(kind=Kind.TRADES)) as reading:
        batches = iter(reading)
        found = next(batches).to_pylist()
        store.write(Kind.TRADES, trades("B", 9.0))
        found += [row for batch in batches for row in batch.to_pylist()]
    assert [row["price"] for row in found] == [1.0, 2.0]


def test_busy_symbols_are_read_span_by_span(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(5):
        write(store, bars(["A", "B", "C"], day * 40 * 1_440, 100))
    sizes: list[int] = []
    read_hot = reads.read_hot

    def counted(*arguments: object) -> pa.Table:
        rows = read_hot(*arguments)
        sizes.append(rows.num_rows)
        return rows

    monkeypatch.setattr(reads, "read_hot", counted)
    for limit, largest in ((1_000_000, 1_500), (1_000, 1_000), (200, 100)):
        sizes.clear()
        monkeypatch.setattr(reads, "ROWS_PER_HOT_QUERY", limit)
        read = store.read(Selection(interval=MINUTES)).table()
        assert read.num_rows == 1_500
        assert read["symbol"].to_pylist() == [s for s in "ABC" for _ in range(500)]
        assert max(sizes) == largest


def test_the_first_day_that_nanoseconds_hold_is_found_and_archived(store: DuckDBStore) -> None:
    first = -(-MIN_TIME_NS // MINUTE_NS) * MINUTE_NS
    times = [first, first + DAY_NS, 0, START]
    rows = bars(["A"], 0, 4)
    write(store, rows.set_column(1, "timestamp", pa.array(times).view(TIMESTAMP)))
    assert store.read(Selection(interval=MINUTES, limit=4)).table().num_rows == 4
    assert store.compact(everything=True).rows == 4
    assert store.stats()["hot_rows"] == 0
    read = store.read(Selection(interval=MINUTES, limit=4)).table()
    assert read["timestamp"].cast(pa.int64()).to_pylist() == times


def test_a_busy_symbol_has_several_row_groups(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROWS_PER_GROUP", 7)
    write(store, bars(["A", "B"], 0, 30))
    store.compact(everything=True)
    (file,) = store._engine.files()
    assert file.rows.tolist() == [7, 7, 7, 7, 2] * 2
    window = Selection(interval=MINUTES, symbols=("B",), start=START + 5 * MINUTE_NS, end=START + 16 * MINUTE_NS)
    times = store.read(window).table()["timestamp"].cast(pa.int64()).to_numpy()
    assert ((times - START) // MINUTE_NS).tolist() == list(range(5, 16))


def test_what_a_reader_holds_stays_until_it_lets_go(store: DuckDBStore) -> None:
    write(store, bars(["A"], 0, 100))
    store.compact(everything=True)
    reading = store.read(Selection(interval=MINUTES, columns=("timestamp", "close")))
    write(store, bars(["A"], 50, 10, price=99))
    store.compact(everything=True)
    (old, new) = sorted(name for name in archived(store) if name.startswith("archive"))
    assert set(reading.table()["close"].to_pylist()) == {10.0}
    store.compact(everything=True)
    assert old not in archived(store)
    assert new in archived(store)


def test_a_reader_of_hot_rows_keeps_them(store: DuckDBStore) -> None:
    write(store, bars(["A"], 0, 100))
    reading = store.read(Selection(interval=MINUTES))
    store.compact(everything=True)
    assert store._engine.connection.execute("SELECT count(*) FROM bars_1m").fetchall() == [(100,)]
    assert reading.table().num_rows == 100
    store.compact(everything=True)
    assert store._engine.connection.execute("SELECT count(*) FROM bars_1m").fetchall() == [(0,)]


def test_a_forgotten_reading_does_not_pin_for_ever(store: DuckDBStore) -> None:
    write(store, bars(["A"], 0, 100))
    store.read(Selection(interval=MINUTES))
    assert store.stats()["open_readings"] == 0


def test_corrections_while_it_compacts_are_not_lost(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The case that lost rows when rows were updated in place: a correction arrives between the read and the swap."""
    write(store, bars(["A", "B"], 0, 1_000))
    split = compactor.Compactor._split

    def correct_after_reading(self: compactor.Compactor, *args: object, **options: object) -> int:
        moved = split(self, *args, **options)  # type: ignore[arg-type]
        write(store, bars(["A"], 10, 1, price=99))
        store.delete(Kind.BARS, ["B"], interval=MINUTES, start=START, end=START + 5 * MINUTE_NS)
        return moved

    monkeypatch.setattr(compactor.Compactor, "_split", correct_after_reading)
    store.compact(everything=True)
    monkeypatch.undo()
    for _ in range(2):
        closes = store.read(Selection(interval=MINUTES, symbols=("A",))).table()["close"].to_pylist()
        assert closes == [10.0] * 10 + [99.0] + [10.0] * 989
        assert store.read(Selection(interval=MINUTES, symbols=("B",))).table().num_rows == 995
        assert [series.rows for series in store.coverage()] == [1_000, 995]
        store.compact(everything=True)


@pytest.mark.parametrize("when_idle", [0.0, 60.0])
def test_the_database_file_shrinks_when_most_of_it_is_free(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch, when_idle: float
) -> None:
    table = bars(["A"], 0, 300_000)
    noise = np.random.default_rng(0).uniform(1, 1_000, 300_000)
    for name in ("open", "high", "low", "close", "volume"):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(noise))
    write(store, table)
    path = store.folder / engine.DATABASE
    store._engine.checkpoint()
    before = path.stat().st_size
    monkeypatch.setattr(engine, "IDLE_S", when_idle)
    store.compact(everything=True)
    if when_idle:  # somebody has just written, so it waits for the next compaction, or for the end
        assert path.stat().st_size >= before
        store.close()
    assert path.stat().st_size < before / 3
    again = DuckDBStore(store.folder) if when_idle else store
    assert again.read(Selection(interval=MINUTES)).table().num_rows == 300_000
    write(again, bars(["B"], 0, 10))
    assert len(again.commits()) == 2
    again.close()


def test_readers_and_writers_and_the_compactor_at_once(store: DuckDBStore) -> None:
    """Every read sees whole commits: each commit writes the same price to all rows of both symbols."""
    write(store, bars(["A", "B"], 0, 200, price=0.0))
    stop, failures = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            table = store.read(Selection(interval=MINUTES, columns=("symbol", "close"))).table()
            if table.num_rows != 400 or len(set(table["close"].to_pylist())) != 1:
                failures.append(table)

    def compact() -> None:
        while not stop.is_set():
            store.compact(everything=True)

    threads = [threading.Thread(target=target) for target in (read, read, compact)]
    for thread in threads:
        thread.start()
    try:
        for price in range(1, 25):
            write(store, bars(["A", "B"], 0, 200, price=float(price)))
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    for commit in range(1, 26):
        table = store.read(Selection(interval=MINUTES, as_of=commit)).table()
        assert set(table["close"].to_pylist()) == {float(commit - 1)}


def test_a_failing_listener_keeps_no_other_from_hearing(store: DuckDBStore, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Change] = []

    def fail(change: Change) -> None:
        raise ValueError(change)

    store.subscribe(fail)
    unsubscribe = store.subscribe(heard.append)
    write(store, bars(["A"], 0, 1))
    unsubscribe()
    write(store, bars(["A"], 1, 1))
    assert [change.commit for change in heard] == [1]
    assert "a listener failed on commit 1" in caplog.text


def test_pins_dispose_in_order_and_only_when_free() -> None:
    pins, done = Pins(), []
    early = pins.hold()
    pins.retire(lambda: done.append("first"))
    late = pins.hold()
    pins.retire(lambda: done.append("second"))
    assert (pins.tidy(), done) == (2, [])
    late()
    assert (pins.tidy(), done) == (2, [])
    early()
    assert (pins.tidy(), done) == (0, ["first", "second"])


def test_a_restored_folder_without_a_file_says_which(store: DuckDBStore) -> None:
    write(store, bars(["A"], 0, 40, step=DAY_NS))
    store.compact(everything=True)
    store.close()
    lost = next(store.folder.rglob("*.parquet"))
    lost.unlink()
    with pytest.raises(StoreDamaged, match=lost.name):
        DuckDBStore(store.folder)
