"""An open folder: its lock, its database, and what is known of both in memory.

Start: take the lock, check the folder's format, open the database, finish what a killed process left (hot rows that the
archive holds, files that were never registered), then load the indexes. Stop is the reverse.

After an I/O error DuckDB may refuse all work until the file is opened again. Memory is right then, as it learns of a
commit when that has succeeded: the database is opened again and made to agree with it, beside readers and compactions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from tapehouse.errors import StoreDamaged, StoreError
from tapehouse.failpoints import failpoint
from tapehouse.model import Instrument
from tapehouse.store.archive.files import ArchiveFile, FileReader, check_footer, newest_commit
from tapehouse.store.archive.pins import Pins
from tapehouse.store.duckdb import catalog, hot, series
from tapehouse.store.duckdb.catalog import Snapshot
from tapehouse.store.faults import faults, translate
from tapehouse.store.folder import ARCHIVE_FOLDERS, DATABASE, note_database, prepare_folder, sync
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
COPIED_BLOCKS = 16
"""More than this in use, some 60 ms of work, is copied when the store is closed: a writer waits for the copy."""
PATIENCE_S = 0.05
"""What can wait gives up when queries keep it waiting for this long: writers and new queries wait behind it."""


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
            self._unsettled = False
            self.documents_before: catalog.Documents | None = None
            """What documents were before a transaction that is under way or failed: what they must be after that."""
            self._open()
        except BaseException:
            self.ownership.release()
            raise

    def _open(self) -> None:
        if not (self.folder / DATABASE).exists():
            self._refuse_archive_alone()
        with faults(f"open the database {self.folder / DATABASE}"):
            self._connect()
            catalog.create_tables(self.connection)
            self.symbols = catalog.load_names(self.connection, "symbol")
            self.sources = catalog.load_names(self.connection, "source")
            self.instruments = catalog.load_instruments(self.connection)
            self.snapshot: Snapshot = catalog.load_snapshot(self.connection)
            note_database(self.folder)
        self.reader = FileReader(self.folder, lambda name: self.sources.ids[name])
        self.next_file_id = 1 + max((file.id for file in self.files()), default=0)
        self._check_files()
        self._check_orphans()
        self._finish_purges()
        self.sweep()
        self._drop_copy()
        self.load_indexes()

    def _connect(self) -> None:
        self.connection = duckdb.connect(self.folder / DATABASE, config=self._settings)  # type: ignore[arg-type]
        self._generation = object()
        self._cursors: list[duckdb.DuckDBPyConnection] = []

    def _finish_purges(self) -> None:
        """Delete what the archive holds. At the start only: later, readers of those rows may be there."""
        for dataset, shelf in self.snapshot.shelves.items():
            with faults("clear archived rows"):
                condition = hot.hidden(dataset, shelf.floors)
                for low in hot.row_range(self.connection, dataset, condition):
                    hot.delete_slice(self.connection, dataset, condition, low)

    def sweep(self, first_id: int = 0) -> None:
        """Delete files from that number on which are not registered: a compaction failed or was killed before it
        swapped them in, or after it swapped them out. All of them go at the start only: later, a reader may be in one
        that was swapped out, and a compaction may be writing one."""
        if self._unsettled:
            return  # the swap that failed may be in the database all the same: the next start knows
        for path in self._orphans():
            if int(path.stem) >= first_id:
                log.info("swept the unregistered file %s", path)
                path.unlink()

    def _orphans(self) -> list[Path]:
        registered = {file.path for file in self.files()}
        found = (path for root in ARCHIVE_FOLDERS for path in (self.folder / root).rglob("*.parquet"))
        return [path for path in found if path.relative_to(self.folder).as_posix() not in registered]

    def _refuse_archive_alone(self) -> None:
        """Without its database every file of an archive would be an orphan, and be swept."""
        if orphans := self._count_archive():
            raise StoreDamaged(
                f"{self.folder} has {orphans} archive files but no {DATABASE}, which says what they are: "
                "bring it back from a backup. Nothing was changed; other tools can read the files",
                folder=str(self.folder),
            )

    def _count_archive(self) -> int:
        return sum(1 for root in ARCHIVE_FOLDERS for _ in (self.folder / root).rglob("*.parquet"))

    def _check_orphans(self) -> None:
        """What a killed compaction leaves is of commits that the database knows. Newer ones show that the database is
        older than its archive, say brought back from a backup by itself, and must not be swept."""
        for path in self._orphans():
            newest = newest_commit(path)
            if newest is not None and newest > self.snapshot.head:
                raise StoreDamaged(
                    f"{path} holds rows of commit {newest}, but the newest that {DATABASE} knows is "
                    f"{self.snapshot.head}: it is older than its archive. Bring both back from the same backup; "
                    "nothing was changed",
                    file=str(path),
                )

    def _check_files(self) -> None:
        for file in self.files():
            check_size(self.folder, file)

    def load_indexes(self) -> None:
        """Read anew what memory knows of the hot rows and of each series."""
        rows, extents = hot.HotIndex(), series.SeriesIndex()
        with faults("read the indexes"):
            for dataset in catalog.DATASETS:
                hot.load_index(self.connection, dataset, rows)
                series.load_extents(self.connection, dataset, self.snapshot.shelf(dataset), extents)
        self.hot, self.series = rows, extents

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
        """All or nothing, durable when it ends, without effect when it fails; the caller holds `writing`.

        When the database cannot be opened after an I/O error in the commit, the error says that it is not known yet
        whether the commit is in there. The next transaction or upkeep opens it and takes such a commit back first.
        """
        if self._unsettled:
            with faults(what):
                self._reopen()
        try:
            self.connection.execute("BEGIN")
            yield self.connection
            failpoint("store.transaction.before_commit")
            self._name_wal()
            self.connection.execute("COMMIT")
        except BaseException as exc:
            self._roll_back(what)
            error = translate(exc, what) if isinstance(exc, Exception) else None
            if error is None:
                raise
            raise error from exc
        self._written = time.monotonic()
        failpoint("store.transaction.committed")

    @contextmanager
    def upkeep(self, what: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """The database for work that no commit depends on, under the writer's lock."""
        with self.writing, faults(what):
            if self._unsettled:
                self._reopen()
            try:
                yield self.connection
            except duckdb.FatalException:
                self._reopen()
                raise

    def _roll_back(self, what: str) -> None:
        try:
            self.connection.execute("ROLLBACK")
        except duckdb.TransactionException:
            return  # the failed COMMIT has rolled back already
        except duckdb.FatalException as exc:
            log.warning("opening the database again after: %s", exc)
            try:
                self._reopen()
            except (StoreError, duckdb.Error, OSError) as failed:
                raise StoreError(
                    f"could not {what}, nor open the database again: {failed}; nothing can be written until that "
                    "works, and what failed is taken back then, but may be there if the process ends before. "
                    "Repeating it is safe",
                    reason=str(exc),
                ) from failed

    def _reopen(self) -> None:
        """Open the database again, beside readers and compactions, and make it agree with memory."""
        self._unsettled = True
        with self._queries.none():
            self._disconnect()
            self._connect()
            self._restore()
        self._unsettled = False

    def _restore(self) -> None:
        self.connection.execute("BEGIN")
        taken_back = catalog.restore(
            self.connection, self.snapshot, (self.symbols, self.sources), self.instruments, self.documents_before
        )
        self.connection.execute("COMMIT")
        if taken_back:
            # The log has bytes whose fsync failed: the kernel takes them for written, though they may not be.
            log.warning("took back what a failed commit had left in the database")
            self.connection.execute("CHECKPOINT")
        elif self.wal_bytes():
            sync(self._wal)  # DuckDB cut the failed commit off, and that must survive a power cut

    def _disconnect(self) -> None:
        for cursor in self._cursors:  # the database stays open while any of them is
            cursor.close()
        self.connection.close()

    @property
    def _wal(self) -> Path:
        return self.folder / f"{DATABASE}.wal"

    def _name_wal(self) -> None:
        """DuckDB fsyncs its write-ahead log, but not the folder when it makes a new one. So that a commit can fail for
        that before it has happened, and not after, the log is there before."""
        self._wal.touch()
        inode = self._wal.stat().st_ino
        if inode != self._wal_inode:
            sync(self.folder)
            self._wal_inode = inode

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the database, and have it give back the space of deleted rows."""
        with self.upkeep("checkpoint the database") as connection:
            connection.execute("CHECKPOINT")
            self._rows_since_checkpoint = 0
            self._wal_inode = 0  # the next log is another file, perhaps with the same inode

    def note_rows(self, rows: int) -> None:
        """Count written rows: whoever loads many checkpoints on the way, so that nobody waits for all of it later."""
        self._rows_since_checkpoint += rows
        if self._rows_since_checkpoint >= CHECKPOINT_ROWS:
            self._rows_since_checkpoint = 0
            try:
                self.checkpoint()
            except StoreError as exc:  # the rows are committed, and whoever wrote them must not take them for failed
                log.warning("the write-ahead log grows on: %s", exc)

    def shrink(self) -> None:
        """Make the file smaller when most of it is free and nobody has written for a while, who would have to wait.

        Not when that would take long, nor when queries leave no gap: a later call does it, or `close`.
        """
        with self.upkeep("shrink the database") as connection:
            if (
                time.monotonic() - self._written < IDLE_S
                or not self._mostly_free()
                or self._blocks()[0] > COPIED_BLOCKS
            ):
                return
            connection.execute("CHECKPOINT")
            try:
                self._copy()
                with self._queries.none(PATIENCE_S) as idle:
                    if idle:
                        self._change_over()
            finally:
                self._drop_copy()

    def wal_bytes(self) -> int:
        """The size of the write-ahead log."""
        return self._wal.stat().st_size if self._wal.exists() else 0

    def _mostly_free(self) -> bool:
        # DuckDB cuts free blocks off its file's end only, and one block in use there keeps all before it.
        used, free = self._blocks()
        return free >= SHRINK_BLOCKS and used <= free

    def _blocks(self) -> tuple[int, int]:
        query = "SELECT used_blocks, free_blocks FROM pragma_database_size() WHERE database_name = ?"
        used, free = self.connection.execute(query, [Path(DATABASE).stem]).fetchall()[0]
        return used, free

    @property
    def _fresh(self) -> Path:
        return self.folder / f".{DATABASE}"

    def _copy(self) -> None:
        """Copy what is in use to a new, durable file."""
        self._drop_copy()
        self.connection.execute(f"ATTACH '{sql_text(self._fresh)}' AS fresh")
        try:
            self.connection.execute(f"COPY FROM DATABASE {Path(DATABASE).stem} TO fresh")
        finally:
            self.connection.execute("DETACH fresh")
        sync(self._fresh)
        failpoint("store.shrink.copied")

    def _drop_copy(self) -> None:
        for path in (self._fresh, self._fresh.with_name(f"{self._fresh.name}.wal")):
            path.unlink(missing_ok=True)

    def _change_over(self) -> None:
        """Put the copy in the place of the file, and open it."""
        self._unsettled = True
        self._disconnect()
        try:
            self._replace()
        finally:
            self._connect()
        self._unsettled = False

    def _replace(self) -> None:
        if self.wal_bytes():
            return  # it belongs to the old file
        self._fresh.replace(self.folder / DATABASE)
        sync(self.folder)
        failpoint("store.shrink.replaced")

    def pinned(self) -> tuple[Snapshot, Callable[[], None]]:
        """The newest snapshot, and the function that lets go of it."""
        release = self.pins.hold()  # before the snapshot is taken, so that nothing of it is disposed of in between
        return self.snapshot, release

    def _tighten(self) -> None:
        """Leave a small file behind; what is on disk is whole without it."""
        try:
            if self._unsettled:
                self._reopen()
            self.pins.tidy()
            self.connection.execute("CHECKPOINT")
            if self._mostly_free():
                self._copy()
                self._disconnect()
                self._replace()
        except (StoreError, duckdb.Error, OSError) as exc:
            log.warning("closed %s without making it smaller: %s", self.folder, exc)
        finally:
            self._drop_copy()

    def close(self) -> None:
        """Dispose of what is left, close the database, give the folder up; idempotent."""
        with self.writing:
            if self.closed:
                return
            self.closed = True
            try:
                self._tighten()
                self._disconnect()
            except duckdb.Error as exc:
                raise StoreError(f"could not close the database in {self.folder}: {exc}") from exc
            finally:
                self.ownership.release()


def check_size(folder: Path, file: ArchiveFile) -> None:
    """Raise `StoreDamaged` when a registered file is not there, or longer or shorter than it was written."""
    path = folder / file.path
    if not path.exists() or path.stat().st_size != file.bytes:
        found = f"{path.stat().st_size} bytes" if path.exists() else "nothing"
        raise StoreDamaged(
            f"the archive file {path} should have {file.bytes} bytes, but there is {found}; "
            "bring it back from a backup, or see docs/guides/operations.md",
            file=str(path),
        )


class Look(NamedTuple):
    """What a folder holds, as far as that can be told without owning it. `rows` counts those that deletes hide, when
    there are `deletes`; `orphans` are unregistered files; `recorded` is when the newest commit was, in nanoseconds."""

    symbols: int
    series: int
    rows: int
    deletes: bool
    orphans: int
    recorded: int
    instruments: list[Instrument]


def look(folder: Path) -> Look:
    """Look into a folder of the newest format that nobody owns, and change nothing: its log is replayed in memory only.

    Checks each registered file's size and footer. Raises `StoreDamaged`, or `StoreError` when it cannot be opened.
    """
    with (
        faults(f"look into the database {folder / DATABASE}"),
        duckdb.connect(folder / DATABASE, read_only=True, config={"autoload_known_extensions": False}) as connection,
    ):
        snapshot, extents = catalog.load_snapshot(connection), series.SeriesIndex()
        for dataset in catalog.DATASETS:
            series.load_extents(connection, dataset, snapshot.shelf(dataset), extents)
        instruments = catalog.load_instruments(connection)
        files = [file for shelf in snapshot.shelves.values() for held in shelf.files.values() for file in held]
        for file in files:
            check_size(folder, file)
            with pa.OSFile(str(folder / file.path)) as opened:
                check_footer(file, opened)
    found = extents.all()
    lying = sum(1 for root in ARCHIVE_FOLDERS for _ in (folder / root).rglob("*.parquet"))
    return Look(
        symbols=len({symbol for _, symbol, _ in found}),
        series=len(found),
        rows=sum(extent.rows for _, _, extent in found),
        deletes=bool(snapshot.deletes),
        orphans=lying - len(files),
        recorded=snapshot.recorded,
        instruments=instruments,
    )


class Queries:
    """Lets queries run side by side, and something else run while there is none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._closed = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take part as a query."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def none(self, patience_s: float | None = None) -> Iterator[bool]:
        """Keep new queries waiting and wait for those that run, at most so long; gives whether there is none now.

        One caller at a time, under the writer's lock; a query must not start another one.
        """
        with self._changed:
            self._closed = True
            idle = self._changed.wait_for(lambda: not self._running, patience_s)
            if not idle:
                self._open()
        try:
            yield idle
        finally:
            with self._changed:
                self._open()

    def _open(self) -> None:
        self._closed = False
        self._changed.notify_all()


def sql_text(path: Path) -> str:
    """A path inside the quotes of an SQL string."""
    return str(path).replace("'", "''")
