"""What the engine does when the disk fails, and who waits for its upkeep.

Failures are real where a process can cause them: a limit on the size of files stands for a full disk.
tests/system/test_durability.py has fsyncs that fail.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from tapehouse import failpoints
from tapehouse.errors import StoreDamaged, StoreError, StoreFull
from tapehouse.model import MINUTE_NS, TIMESTAMP, Instrument, Interval, Kind
from tapehouse.store.archive.pins import Pins
from tapehouse.store.base import Selection
from tapehouse.store.duckdb import DuckDBStore, compactor, engine
from tapehouse.store.duckdb.engine import Queries
from tapehouse.store.folder import FORMAT, write_format

START = 1_704_067_200 * 10**9
MINUTES = Interval.M1


def bars(symbols: list[str], rows: int, *, first: int = 0, seed: int | None = None) -> pa.Table:
    count = rows * len(symbols)
    noise = np.ones(count) if seed is None else np.random.default_rng(seed).uniform(1, 1_000, count)
    return pa.table(
        {
            "symbol": np.repeat(symbols, rows),
            "timestamp": pa.array(np.tile(START + (first + np.arange(rows)) * MINUTE_NS, len(symbols))).view(TIMESTAMP),
            **dict.fromkeys(("open", "high", "low", "close", "volume"), noise),
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    store = DuckDBStore(tmp_path / "data")
    yield store
    store.close()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """What grows a file beyond that many bytes fails like on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(store: DuckDBStore, table: pa.Table) -> int:
    return store.write(Kind.BARS, table, interval=MINUTES, source="s").number


def rows(store: DuckDBStore) -> int:
    return store.read(Selection(interval=MINUTES)).table().num_rows


def reopened(store: DuckDBStore) -> DuckDBStore:
    """The folder as the next process finds it."""
    store.close()
    return DuckDBStore(store.folder)


def count(store: DuckDBStore, table: str) -> int:
    found: int = store._engine.connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    return found


def compact_with(store: DuckDBStore, action: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compact everything, and do that when the files are written and not registered."""

    def at(name: str) -> None:
        if name == "compact.files.synced":
            action()  # type: ignore[operator]

    with monkeypatch.context() as patch:
        patch.setattr(compactor, "failpoint", at)
        store.compact(everything=True)


def test_a_compaction_goes_on_when_the_database_is_opened_again(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, bars(["A"], 3_000))
    compact_with(store, store._engine._reopen, monkeypatch)
    assert rows(store) == 3_000
    assert store.stats()["archive_files"] == 1
    write(store, bars(["B"], 10))
    compact_with(store, store._engine._reopen, monkeypatch)
    store = reopened(store)
    assert rows(store) == 3_010
    store.close()


def test_files_that_are_gone_are_not_registered(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, bars(["A"], 100))
    with pytest.raises(StoreError, match=r"\.parquet is gone before it was registered"):
        compact_with(store, lambda: next(store.folder.rglob("*.parquet")).unlink(), monkeypatch)
    assert rows(store) == 100
    store.compact(everything=True)
    assert rows(store) == 100
    store = reopened(store)
    assert rows(store) == 100
    store.close()


def test_a_reading_goes_on_when_the_database_is_opened_again(store: DuckDBStore) -> None:
    write(store, bars(["A", "B", "C"], 1_000))
    hot = iter(store.read(Selection(interval=MINUTES, limit=10**9)))
    read = next(hot).num_rows
    store.compact(everything=True)
    store._engine._reopen()
    assert read + sum(batch.num_rows for batch in hot) == 3_000

    archived = iter(store.read(Selection(interval=MINUTES, limit=10**9)))
    read = next(archived).num_rows
    write(store, bars(["A", "B", "C"], 1_000, seed=0))
    store.compact(everything=True)
    store._engine._reopen()
    assert read + sum(batch.num_rows for batch in archived) == 3_000


def test_coverage_is_the_same_when_the_database_is_opened_again(store: DuckDBStore) -> None:
    write(store, bars(["A", "B"], 1_000))
    store.delete(Kind.BARS, ["A"], interval=MINUTES, start=START, end=START + 400 * MINUTE_NS)
    reading = store.read(Selection(interval=MINUTES))  # keeps the hot rows beside the archived ones
    store.compact(everything=True)
    before = store.coverage()
    assert [series.rows for series in before] == [600, 1_000]
    store._engine._reopen()
    assert store.coverage() == before
    assert reading.table().num_rows == 1_600


def test_a_failed_write_that_is_in_the_database_is_taken_back(store: DuckDBStore) -> None:
    """When neither the fsync of the log nor its cut succeeds, the failed commit comes back with the log."""
    write(store, bars(["A"], 100))
    store.put_instruments([Instrument(pattern="A", timezone="UTC")])
    tables = ("bars_1m", "commits", "names", "deletes", "files", "groups", "floors", "instruments")
    store.compact(everything=True)
    before = {table: store._engine.connection.execute(f"FROM {table}").fetchall() for table in tables}
    path = next(store._engine.files()).path
    store._engine.connection.execute(
        """
        BEGIN;
        INSERT INTO names VALUES ('symbol', 1, 'B');
        INSERT INTO bars_1m (symbol, timestamp, open, high, low, close, volume, source, commit, verdict)
            VALUES (1, 0, 1, 1, 1, 1, 1, 0, 2, 1);
        INSERT INTO commits SELECT * REPLACE (2 AS number) FROM commits;
        INSERT INTO deletes VALUES (2, 'bars', 6, 0, 0, 1);
        UPDATE files SET id = 99;
        UPDATE groups SET file = 99;
        UPDATE floors SET version = 2;
        UPDATE instruments SET timezone = 'Asia/Tokyo';
        COMMIT
        """
    )
    store._engine._reopen()
    assert {table: store._engine.connection.execute(f"FROM {table}").fetchall() for table in tables} == before
    assert rows(store) == 100
    assert write(store, bars(["B"], 10)) == 2
    store = reopened(store)
    assert rows(store) == 110
    assert [file.path for file in store._engine.files()] == [path]
    store.close()


@pytest.mark.parametrize("failpoint", ["documents.removed", "store.transaction.committed"])
def test_documents_whose_commit_failed_are_as_before(
    store: DuckDBStore, failpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when they are in the database, and the next start would find them."""
    store.put_documents("loads", {"a": b"1", "b": b"1"})
    monkeypatch.setitem(failpoints._ARMED, failpoint, ("error", 1))
    with pytest.raises((StoreError, OSError), match=failpoint):
        store.put_documents("loads", {"a": b"2", "b": None, "c": b"2"})
    store._engine._reopen()
    assert store.documents("loads") == {"a": b"1", "b": b"1"}
    store.put_documents("loads", {"c": b"3"})
    store._engine._reopen()
    store = reopened(store)
    assert store.documents("loads") == {"a": b"1", "b": b"1", "c": b"3"}
    store.close()


def test_a_database_that_lost_a_commit_is_damaged(store: DuckDBStore) -> None:
    write(store, bars(["A"], 1))
    store._engine.connection.execute("DELETE FROM commits")
    with pytest.raises(StoreDamaged, match="ends at commit 0, but commit 1 was made"):
        store._engine._reopen()


def test_nothing_is_written_until_the_database_can_be_opened_again(store: DuckDBStore) -> None:
    """Nor are files swept: the registration that failed may be there at the next start."""
    write(store, bars(["A"], 10))
    folder, hidden = store.folder, store.folder.with_name("hidden")
    stray = folder / "archive" / "bars" / "0000000099.parquet"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"")
    database = folder / engine.DATABASE
    store._engine.checkpoint()
    database.rename(hidden)
    database.mkdir()
    for _ in range(2):
        with pytest.raises(duckdb.Error, match="Is a directory"):
            store._engine._reopen()
        with pytest.raises(StoreError, match="could not write bars"):
            write(store, bars(["B"], 10))
    store._engine.sweep()
    assert stray.exists()
    database.rmdir()
    hidden.rename(database)
    write(store, bars(["B"], 10))
    assert rows(store) == 20
    store._engine.sweep()
    assert not stray.exists()


def test_a_log_whose_name_cannot_be_synced_gets_no_commit(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, bars(["A"], 10))
    store._engine.checkpoint()

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(engine, "sync", fail)
        with pytest.raises(StoreError, match="Input/output error"):
            write(store, bars(["B"], 10))
    assert (store.head(), rows(store), count(store, "bars_1m")) == (1, 10, 10)
    assert write(store, bars(["B"], 10)) == 2
    assert rows(store) == 20


def test_a_checkpoint_that_fails_after_a_write_does_not_fail_the_write(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "CHECKPOINT_ROWS", 100)
    changes = []
    store.subscribe(changes.append)
    with largest_file(100_000):
        assert write(store, bars(["A"], 100)) == 1
    assert "the write-ahead log grows on" in caplog.text
    assert [change.commit for change in changes] == [1]
    assert rows(store) == 100
    write(store, bars(["B"], 100))
    store = reopened(store)
    assert rows(store) == 200
    store.close()


@pytest.fixture
def mostly_free(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> DuckDBStore:
    """A store whose database file is mostly free, with some hot rows."""
    monkeypatch.setattr(engine, "IDLE_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "SHRINK_BLOCKS", 10**6)
        write(store, bars(["A"], 300_000, seed=0))
        store._engine.checkpoint()
        store.compact(everything=True)
        write(store, bars(["B"], 10_000, seed=1))
        store._engine.checkpoint()
    assert store._engine._mostly_free()
    return store


def size(store: DuckDBStore) -> int:
    return (store.folder / engine.DATABASE).stat().st_size


def leftovers(store: DuckDBStore) -> list[Path]:
    return list(store.folder.glob(".tapehouse*"))


def test_the_file_shrinks_after_a_shrink_that_failed(mostly_free: DuckDBStore) -> None:
    before = size(mostly_free)
    with largest_file(100_000), pytest.raises(StoreFull, match="shrink the database"):
        mostly_free._engine.shrink()
    assert (size(mostly_free), leftovers(mostly_free)) == (before, [])
    assert rows(mostly_free) == 310_000
    mostly_free._engine.shrink()
    assert size(mostly_free) < before / 3
    assert (rows(mostly_free), leftovers(mostly_free)) == (310_000, [])


def test_a_shrink_gives_up_when_queries_leave_no_gap(mostly_free: DuckDBStore) -> None:
    before = size(mostly_free)
    with mostly_free._engine.query("read slowly") as cursor:
        mostly_free._engine.shrink()
        assert (size(mostly_free), leftovers(mostly_free)) == (before, [])
        assert cursor.execute("SELECT count(*) FROM bars_1m").fetchall() == [(10_000,)]
        write(mostly_free, bars(["C"], 10))
    mostly_free._engine.shrink()
    assert size(mostly_free) < before / 3


def test_what_would_take_long_to_copy_waits_for_the_end(
    mostly_free: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = size(mostly_free)
    monkeypatch.setattr(engine, "COPIED_BLOCKS", 1)
    mostly_free._engine.shrink()
    assert size(mostly_free) == before
    mostly_free.close()
    assert size(mostly_free) < before / 3


def test_a_copy_that_a_killed_process_left_goes_at_the_start(store: DuckDBStore) -> None:
    store.close()
    for name in (f".{engine.DATABASE}", f".{engine.DATABASE}.wal"):
        (store.folder / name).write_bytes(b"half a copy")
    again = DuckDBStore(store.folder)
    assert not leftovers(again)
    again.close()


def test_new_queries_wait_for_what_waits_for_the_old_ones() -> None:
    queries, order = Queries(), []
    started, late = threading.Event(), threading.Event()

    def alone() -> None:
        with queries.none() as idle:
            order.append(("alone", idle))

    def query() -> None:
        started.set()
        with queries.running():
            order.append(("late", True))
        late.set()

    with queries.running():
        waiting = threading.Thread(target=alone)
        waiting.start()
        while not queries._closed:
            started.wait(0.001)
        newer = threading.Thread(target=query)
        newer.start()
        started.wait()
        assert not late.wait(0.05)
        assert order == []
    waiting.join()
    newer.join()
    assert order == [("alone", True), ("late", True)]


def test_a_wait_that_gave_up_lets_new_queries_in() -> None:
    queries = Queries()
    with queries.running(), queries.none(0.01) as idle, queries.running():
        assert idle is False
    with queries.none(0.01) as idle:
        assert idle is True


def test_a_disposal_that_fails_keeps_no_other_from_its_turn_and_is_repeated() -> None:
    pins, done, full = Pins(), [], [OSError("full")]

    def dispose() -> None:
        if full:
            raise full.pop()
        done.append("first")

    pins.retire(dispose)
    pins.retire(lambda: done.append("second"))
    with pytest.raises(OSError, match="full"):
        pins.tidy()
    assert done == ["second"]
    assert pins.tidy() == 0
    assert done == ["second", "first"]


def test_a_store_closes_when_a_disposal_fails(store: DuckDBStore, caplog: pytest.LogCaptureFixture) -> None:
    write(store, bars(["A"], 10))

    def dispose() -> None:
        raise StoreFull("no space left to clear archived rows")

    store._engine.pins.retire(dispose)
    store = reopened(store)
    assert "no space left to clear archived rows" in caplog.text
    assert rows(store) == 10
    store.close()


def archive_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def test_an_archive_without_its_database_is_left_as_it_is(store: DuckDBStore) -> None:
    store.write(Kind.BARS, bars(["A"], 10), interval=MINUTES)
    store.compact(everything=True)
    store.close()
    (store.folder / "tapehouse.duckdb").unlink()
    files = archive_of(store.folder)
    assert files
    for says in (r"lost tapehouse\.duckdb", r"1 archive files but no tapehouse\.duckdb"):
        with pytest.raises(StoreDamaged, match=says):
            DuckDBStore(store.folder)
        assert archive_of(store.folder) == files
        assert not (store.folder / "tapehouse.duckdb").exists()
        write_format(store.folder, FORMAT)  # as an older program left it


def test_a_folder_whose_database_is_lost_is_no_new_one(store: DuckDBStore) -> None:
    store.write(Kind.BARS, bars(["A"], 10), interval=MINUTES)
    store.close()
    (store.folder / "tapehouse.duckdb").unlink()
    with pytest.raises(StoreDamaged, match=r"lost tapehouse\.duckdb.*Nothing was changed"):
        DuckDBStore(store.folder)
    assert not (store.folder / "tapehouse.duckdb").exists()


def test_a_new_store_among_other_files_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    DuckDBStore(tmp_path).close()
    assert caplog.messages == [f"a new store is made in {tmp_path}, beside notes.txt"]
    DuckDBStore(tmp_path).close()
    assert len(caplog.messages) == 1


def test_an_archive_newer_than_its_database_is_left_as_it_is(store: DuckDBStore) -> None:
    store.write(Kind.BARS, bars(["A"], 10), interval=MINUTES)
    store.close()
    database = store.folder / "tapehouse.duckdb"
    old = database.read_bytes()
    later = DuckDBStore(store.folder)
    later.write(Kind.BARS, bars(["A"], 10, first=10), interval=MINUTES)
    later.compact(everything=True)
    later.close()
    database.write_bytes(old)
    files = archive_of(store.folder)
    assert files
    with pytest.raises(StoreDamaged, match=r"holds rows of commit 2, but the newest that tapehouse\.duckdb knows is 1"):
        DuckDBStore(store.folder)
    assert archive_of(store.folder) == files


def test_what_a_killed_compaction_left_half_written_is_swept(store: DuckDBStore) -> None:
    store.write(Kind.BARS, bars(["A"], 10), interval=MINUTES)
    store.compact(everything=True)
    store.close()
    (file,) = archive_of(store.folder)
    orphans = [file.with_name("0000000007.parquet"), file.with_name("0000000008.parquet")]
    orphans[0].write_bytes(file.read_bytes())
    orphans[1].write_bytes(file.read_bytes()[:200])
    again = DuckDBStore(store.folder)
    assert archive_of(store.folder) == [file]
    assert again.read(Selection(interval=MINUTES)).table().num_rows == 10
    again.close()
