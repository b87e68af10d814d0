"""An open folder: its lock, its database, and what is known of both in memory.

Start: take the lock, check the folder's format, open the database, finish what a killed process left (hot rows that the
archive holds, files that were never registered), then load the indexes. Stop is the reverse.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from tapehouse.errors import StoreDamaged, StoreError
from tapehouse.store.archive.files import ArchiveFile, FileReader
from tapehouse.store.archive.pins import Pins
from tapehouse.store.duckdb import catalog, hot, series
from tapehouse.store.duckdb.catalog import Snapshot
from tapehouse.store.failpoints import failpoint
from tapehouse.store.faults import faults, translate
from tapehouse.store.folder import DATABASE, prepare_folder, sync
from tapehouse.store.owner import Ownership

log = logging.getLogger("tapehouse.store")


CHECKPOINT_MB = 256
"""The write-ahead log grows to this at most: the next start replays it."""
CHECKPOINT_ROWS = 1_000_000
"""Rows that are written between two checkpoints, each of which takes time with their number."""
IDLE_S = 2.0
"""Without a write for this long, the writer may be kept out for some 100 ms."""
SHRINK_BLOCKS = 16
"""Free blocks (of 256 kB) of the database file that are worth a copy of what is in use."""


class Engine:
    """What the parts of the embedded store share. Whoever changes anything holds `writing`."""

    def __init__(self, folder: Path, *, memory_limit_mb: int, threads: int, command: str | None = None) -> None:
        self.folder = folder
        self.closed = False
        self.ownership = Ownership(folder, command)
        try:
            prepare_folder(folder)
            self.writing = threading.RLock()
            self.pins = Pins()
            self._settings = {
                "memory_limit": f"{memory_limit_mb}MB",
                "threads": threads,
                "temp_directory": str(folder / "tmp"),
                # Nothing may be downloaded behind the owner's back.
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                # The compactor checkpoints. By default a commit of 100 kB would, and keep other writers waiting.
                "checkpoint_threshold": f"{CHECKPOINT_MB}MB",
                "auto_checkpoint_skip_wal_threshold": 2**40,
            }
            self._local = threading.local()
            self._queries = Queries()
            self._wal_inode = 0
            self._written = 0.0
            self._rows_since_checkpoint = 0
            self._open()
        except BaseException:
            self.ownership.release()
            raise

    def _open(self) -> None:
        with faults(f"open the database {self.folder / DATABASE}"):
            self._connect()
            catalog.create_tables(self.connection)
            self.symbols = catalog.load_names(self.connection, "symbol")
            self.sources = catalog.load_names(self.connection, "source")
            self.instruments = catalog.load_instruments(self.connection)
            self.snapshot: Snapshot = catalog.load_snapshot(self.connection)
        self.reader = FileReader(self.folder, lambda name: self.sources.ids[name])
        self.next_file_id = 1 + max((file.id for file in self.files()), default=0)
        self._finish_purges()
        self.sweep()
        self._check_files()
        self.load_indexes()

    def _connect(self) -> None:
        self.connection = duckdb.connect(self.folder / DATABASE, config=self._settings)  # type: ignore[arg-type]
        self._generation = object()
        self._cursors: list[duckdb.DuckDBPyConnection] = []

    def _finish_purges(self) -> None:
        for dataset, shelf in self.snapshot.shelves.items():
            with faults("clear archived rows"):
                condition = hot.hidden(dataset, shelf.floors)
                for low in hot.row_range(self.connection, dataset, condition):
                    hot.delete_slice(self.connection, dataset, condition, low)

    def sweep(self, first_id: int = 0) -> None:
        """Delete files from that number on which are not registered: a compaction failed or was killed before it
        swapped them in, or after it swapped them out."""
        registered = {file.path for file in self.files()}
        for root in ("archive", "history"):
            for path in (self.folder / root).rglob("*.parquet"):
                if path.relative_to(self.folder).as_posix() not in registered and int(path.stem) >= first_id:
                    log.info("swept the unregistered file %s", path)
                    path.unlink()

    def _check_files(self) -> None:
        for file in self.files():
            path = self.folder / file.path
            if not path.exists() or path.stat().st_size != file.bytes:
                found = f"{path.stat().st_size} bytes" if path.exists() else "nothing"
                raise StoreDamaged(
                    f"the archive file {path} should have {file.bytes} bytes, but there is {found}; "
                    "bring it back from a backup, or see docs/guides/operations.md",
                    file=str(path),
                )

    def load_indexes(self) -> None:
        """Read anew what memory knows of the hot rows and of each series."""
        self.hot, self.series = hot.HotIndex(), series.SeriesIndex()
        with faults("read the indexes"):
            for dataset in catalog.DATASETS:
                hot.load_index(self.connection, dataset, self.hot)
                series.load_extents(self.connection, dataset, self.snapshot.shelf(dataset), self.series)

    def files(self) -> Iterator[ArchiveFile]:
        """Every registered file."""
        for shelf in self.snapshot.shelves.values():
            for held in shelf.files.values():
                yield from held

    @contextmanager
    def query(self, what: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """This thread's own cursor, for as long as one query takes."""
        with self._queries.running(), faults(what):
            yield self._cursor()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        if getattr(self._local, "generation", None) is not self._generation:
            self._local.cursor = self.connection.cursor()
            self._local.generation = self._generation
            self._cursors.append(self._local.cursor)
        cursor: duckdb.DuckDBPyConnection = self._local.cursor
        return cursor

    @contextmanager
    def transaction(self, what: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """All or nothing, durable when it ends; the caller holds `writing`."""
        try:
            self.connection.execute("BEGIN")
            yield self.connection
            failpoint("store.transaction.before_commit")
            self.connection.execute("COMMIT")
        except BaseException as exc:
            self._roll_back()
            error = translate(exc, what) if isinstance(exc, Exception) else None
            if error is None:
                raise
            raise error from exc
        self._written = time.monotonic()
        with faults(what):
            self._sync_wal()
        failpoint("store.transaction.committed")

    def _roll_back(self) -> None:
        try:
            self.connection.execute("ROLLBACK")
        except duckdb.TransactionException:
            return  # the failed COMMIT has rolled back already
        except duckdb.FatalException as exc:
            # After an I/O error in a commit DuckDB refuses all further work until the file is opened again.
            log.warning("opening the database again after: %s", exc)
            self._reopen()

    def _reopen(self) -> None:
        with self._queries.none():
            self._disconnect()
            self._open()

    def _disconnect(self) -> None:
        for cursor in self._cursors:  # the database stays open while any of them is
            cursor.close()
        self.connection.close()

    def _sync_wal(self) -> None:
        """DuckDB fsyncs its write-ahead log, but not the folder when it makes a new one."""
        wal = self.folder / f"{DATABASE}.wal"
        inode = wal.stat().st_ino if wal.exists() else 0
        if inode == self._wal_inode:
            return
        try:
            sync(self.folder)
            self._wal_inode = inode
        except OSError:
            self._reopen()  # it is committed, though perhaps not durable: know what is really there
            raise

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the database, and have it give back the space of deleted rows."""
        with self.writing, faults("checkpoint the database"):
            self.connection.execute("CHECKPOINT")
            self._rows_since_checkpoint = 0

    def note_rows(self, rows: int) -> None:
        """Count written rows: whoever loads many checkpoints on the way, so that nobody waits for all of it later."""
        self._rows_since_checkpoint += rows
        if self._rows_since_checkpoint >= CHECKPOINT_ROWS:
            self.checkpoint()

    def shrink(self) -> None:
        """Make the file smaller when most of it is free and nobody has written for a while, who would have to wait."""
        with self.writing, faults("shrink the database"):
            if time.monotonic() - self._written >= IDLE_S and self._mostly_free():
                with self._queries.none():
                    self._shrink()
                    self._connect()

    def wal_bytes(self) -> int:
        """The size of the write-ahead log."""
        wal = self.folder / f"{DATABASE}.wal"
        return wal.stat().st_size if wal.exists() else 0

    def _mostly_free(self) -> bool:
        # DuckDB cuts free blocks off its file's end only, and one block in use there keeps all before it.
        used, free = self.connection.execute("SELECT used_blocks, free_blocks FROM pragma_database_size()").fetchall()[
            0
        ]
        return bool(free >= SHRINK_BLOCKS and used * 4 <= free)

    def _shrink(self) -> None:
        """Copy what is in use to a new file and put that in the place of the old one."""
        fresh = self.folder / f".{DATABASE}"
        fresh.unlink(missing_ok=True)
        self.connection.execute(f"ATTACH '{sql_text(fresh)}' AS fresh")
        self.connection.execute(f"COPY FROM DATABASE {Path(DATABASE).stem} TO fresh")
        self.connection.execute("DETACH fresh")
        self._disconnect()
        sync(fresh)
        failpoint("store.shrink.copied")
        fresh.replace(self.folder / DATABASE)
        sync(self.folder)
        failpoint("store.shrink.replaced")

    def pinned(self) -> tuple[Snapshot, Callable[[], None]]:
        """The newest snapshot, and the function that lets go of it."""
        release = self.pins.hold()  # before the snapshot is taken, so that nothing of it is disposed of in between
        return self.snapshot, release

    def _tighten(self) -> None:
        """Leave a small file behind; what is on disk is whole without it."""
        try:
            self.connection.execute("CHECKPOINT")
            if self._mostly_free():
                self._shrink()
        except (duckdb.Error, OSError) as exc:
            log.warning("closed %s without making it smaller: %s", self.folder, exc)

    def close(self) -> None:
        """Dispose of what is left, close the database, give the folder up; idempotent."""
        with self.writing:
            if self.closed:
                return
            self.closed = True
            try:
                self.pins.tidy()
                self._tighten()
                self._disconnect()
            except duckdb.Error as exc:
                raise StoreError(f"could not close the database in {self.folder}: {exc}") from exc
            finally:
                self.ownership.release()


class Queries:
    """Lets queries run side by side, and something else run while there is none."""

    def __init__(self) -> None:
        self._idle = threading.Condition()
        self._running = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take part as a query."""
        with self._idle:
            self._running += 1
        try:
            yield
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    @contextmanager
    def none(self) -> Iterator[None]:
        """Wait for those that run, and keep new ones waiting."""
        with self._idle:
            self._idle.wait_for(lambda: not self._running)
            yield


def sql_text(path: Path) -> str:
    """A path inside the quotes of an SQL string."""
    return str(path).replace("'", "''")
