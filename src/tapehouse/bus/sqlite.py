"""`sqlite:///folder`: the durable log of one process, in segments of SQLite.

    log/meta.db                         the epoch, and how far each consumer group came
    log/00000000000000000000.db         a segment: entries from that offset on
    log/00000000000000041237.db         the newest, which grows

An append is on disk when it returns (WAL, `synchronous=FULL`). Those that wait while one is written are written
together by the next one whose turn it is. A full segment is closed and a new one begun; trimming removes whole
segments, since deleting rows kept appends waiting for 0.2 s. The newest entries stay in memory, where all who follow
the log find them. The folder belongs to one process, which holds its lock. See docs/design/log.md.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from tapehouse.bus.base import All, Began, Committed, Ends, Logged, Membership, Piece, Retention, Survives
from tapehouse.bus.recent import Recent, within
from tapehouse.codec.live.entries import Entry, decode_entry, encode_entry
from tapehouse.errors import InvalidData, LogDamaged, LogFull, LogLocked, Unavailable
from tapehouse.failpoints import failpoint
from tapehouse.model import Position

SEGMENT_BYTES = 256 << 20
RECENT_BYTES = 64 << 20
READERS_KEPT = 4
"""Connections to segments that a thread keeps."""
_META = "meta.db"
_LOCK = "owner.lock"


class _Append:
    """What one caller wants appended."""

    __slots__ = ("data", "done", "entries", "error", "first")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.data = [encode_entry(entry) for entry in entries]
        self.done = False
        self.error: BaseException | None = None
        self.first = 0


class SQLiteBus:
    """A log of one partition in a folder.

    `max_bytes` is how much it may take; `LogFull` beyond, as on a full disk. Raises `LogLocked` when another process
    has the folder, `LogDamaged` when it cannot be read.
    """

    survives = Survives.MACHINE
    partitions = 1

    def __init__(
        self,
        folder: Path | str,
        *,
        max_bytes: int | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        recent_bytes: int = RECENT_BYTES,
    ) -> None:
        self._folder = Path(folder)
        self._max_bytes, self._segment_bytes, self._recent_bytes = max_bytes, segment_bytes, recent_bytes
        with _faults(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._lock_fd = _lock(self._folder)
        try:
            with _faults(self._folder):
                self._open_all()
        except BaseException:
            os.close(self._lock_fd)
            raise

    def _open_all(self) -> None:
        self._meta = _connect(self._folder / _META)
        self._meta.execute("CREATE TABLE IF NOT EXISTS epoch (number INTEGER NOT NULL)")
        self._meta.execute("CREATE TABLE IF NOT EXISTS states (name TEXT PRIMARY KEY, state BLOB)")
        self._meta.execute(
            "CREATE TABLE IF NOT EXISTS positions (name TEXT, partition INTEGER, epoch INTEGER, offset INTEGER, "
            "PRIMARY KEY (name, partition)) WITHOUT ROWID"
        )
        self._epoch = self._read_epoch()
        self._segments = sorted(int(path.stem) for path in self._folder.glob("[0-9]*.db")) or [0]
        self._waiting: deque[_Append] = deque()
        self._writing, self._meta_lock = threading.Lock(), threading.Lock()
        self._changed = threading.Condition()
        self._readers = threading.local()
        self._held: list[sqlite3.Connection] = []
        self._closed = False
        self._writer = self._open(self._segments[-1])
        self._recent = Recent(self._segments[-1] + self._written_in(self._writer))
        self._sizes = {first: _size_of(self._path(first)) for first in self._segments}
        self._since: tuple[int, int | None] = (-1, None)

    def _read_epoch(self) -> int:
        found = self._meta.execute("SELECT number FROM epoch").fetchall()
        if found:
            return int(found[0][0])
        # A log that is new, or that is empty where there was one, has a number that no other had: the clock's.
        epoch = time.time_ns() // 1_000_000
        self._meta.execute("INSERT INTO epoch VALUES (?)", [epoch])
        return epoch

    def _written_in(self, segment: sqlite3.Connection) -> int:
        newest = segment.execute("SELECT max(offset) FROM entries").fetchall()[0][0]
        return 0 if newest is None else int(newest) - self._segments[-1] + 1

    def append(self, partition: int, entries: Sequence[Entry]) -> list[Position]:
        """See `Bus.append`."""
        wanted = _Append(entries)
        self._waiting.append(wanted)
        with self._writing:
            if not wanted.done:  # else somebody whose turn it was took it along
                self._write([self._waiting.popleft() for _ in range(len(self._waiting))])
        if wanted.error is not None:
            raise wanted.error
        return [Position(self._epoch, wanted.first + number) for number in range(len(entries))]

    def _write(self, together: list[_Append]) -> None:
        """Under `_writing`: all of them in one transaction."""
        try:
            self._check_room(sum(len(data) for each in together for data in each.data))
            following = self._recent.next
            for each in together:
                each.first, following = following, following + len(each.data)
            rows = ((each.first + n, data) for each in together for n, data in enumerate(each.data))
            with _faults(self._folder), _transaction(self._writer):
                self._writer.executemany("INSERT INTO entries VALUES (?, ?)", rows)
                failpoint("log.append.inserted")
            failpoint("log.append.committed")
        except (LogFull, LogDamaged, Unavailable, OSError) as exc:
            for each in together:
                each.error = exc
        else:
            self._announce(together)
        finally:
            for each in together:
                each.done = True

    def _announce(self, together: list[_Append]) -> None:
        logged = [
            Logged(Position(self._epoch, each.first + number), entry)
            for each in together
            for number, entry in enumerate(each.entries)
        ]
        with self._changed:
            self._recent.add(logged)
            self._recent.shrink(self._recent_bytes)
            self._changed.notify_all()
        try:
            self._rotate()
        except LogFull:
            # The entries are there; the segment grows on, and the next append tries again, or finds no room itself.
            return

    def _check_room(self, size: int) -> None:
        held = sum(self._sizes.values())
        if self._closed:
            raise Unavailable(f"the log in {self._folder} is closed")
        if self._max_bytes is not None and held + size > self._max_bytes:
            raise LogFull(f"the log in {self._folder} has {held:,} bytes, and {self._max_bytes:,} is the most")

    def _rotate(self) -> None:
        first = self._segments[-1]
        self._sizes[first] = _size_of(self._path(first))
        if self._sizes[first] < self._segment_bytes:
            return
        following = self._recent.next
        with _faults(self._folder):
            new = self._begin(following)
            failpoint("log.rotate.opened")
            full, self._writer = self._writer, new
            with self._changed:
                self._segments = [*self._segments, following]
            self._sizes[following] = 0
            try:
                full.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                full.close()
            failpoint("log.rotate.closed")

    def read(
        self,
        partition: int,
        after: Position | None,
        *,
        limit: int = 1_000,
        max_bytes: int = 1 << 24,
        wait_s: float = 0.0,
    ) -> Piece:
        """See `Bus.read`."""
        with self._changed:
            start, lost = self._ends_now().start(after)
            if lost is None and wait_s:
                self._changed.wait_for(lambda: self._recent.next > start or self._closed, wait_s)
                start, lost = self._ends_now().start(after)  # some may have been trimmed meanwhile
            if start >= self._recent.first:
                return Piece(self._recent.read(start, limit, max_bytes), lost)
            segments, following = self._segments, self._recent.next
        bounds = zip(segments, [*segments[1:], following], strict=True)
        low, high = next((low, high) for low, high in bounds if start < high)
        return Piece(self._read_segment(low, start, min(high, start + limit), max_bytes), lost)

    def _read_segment(self, segment: int, start: int, end: int, max_bytes: int) -> list[Logged]:
        query = "SELECT offset, data FROM entries WHERE offset >= ? AND offset < ? ORDER BY offset"
        with _faults(self._folder):
            rows = self._reader(segment).execute(query, [start, end])
            return within((self._decoded(number, data) for number, data in rows), max_bytes)

    def _decoded(self, number: int, data: bytes) -> Logged:
        try:
            return Logged(Position(self._epoch, number), decode_entry(data))
        except InvalidData as exc:
            raise LogDamaged(f"entry {number} of the log in {self._folder}: {exc}", offset=number) from exc

    def ends(self, partition: int) -> Ends:
        """See `Bus.ends`."""
        with self._changed:
            ends = self._ends_now()
        return Ends(ends.first, ends.next, ends.epochs, sum(self._sizes.values()), self._since_of(ends.first))

    def _ends_now(self) -> Ends:
        return Ends(self._segments[0], self._recent.next, (Began(self._epoch, 0),))

    def _since_of(self, first: int) -> int | None:
        known, since = self._since
        if known != first or since is None:
            oldest = self.read(0, None, limit=1).entries
            since = oldest[0].entry.ingested if oldest else None
            self._since = first, since
        return since

    def commit(self, group: str, positions: Mapping[int, Position], state: bytes | None = None) -> None:
        """See `Bus.commit`."""
        rows = [(group, partition, at.epoch, at.offset) for partition, at in positions.items()]
        with self._meta_lock, _faults(self._folder), _transaction(self._meta):
            self._meta.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)", rows)
            if state is not None:
                self._meta.execute("INSERT OR REPLACE INTO states VALUES (?, ?)", [group, state])
            failpoint("log.commit.inserted")

    def committed(self, group: str) -> Committed:
        """See `Bus.committed`."""
        with self._meta_lock, _faults(self._folder):
            query = "SELECT partition, epoch, offset FROM positions WHERE name = ?"
            rows = self._meta.execute(query, [group]).fetchall()
            states = self._meta.execute("SELECT state FROM states WHERE name = ?", [group]).fetchall()
        positions = {partition: Position(epoch, offset) for partition, epoch, offset in rows}
        return Committed(positions, states[0][0] if states else None)

    def groups(self) -> list[str]:
        """See `Bus.groups`."""
        with self._meta_lock, _faults(self._folder):
            query = "SELECT name FROM positions UNION SELECT name FROM states ORDER BY name"
            return [name for (name,) in self._meta.execute(query).fetchall()]

    def join(self, group: str) -> Membership:
        """See `Bus.join`."""
        return All(self.partitions)

    def trim(self, keep: Retention, protected: Mapping[int, Position]) -> int:
        """See `Bus.trim`; whole segments, never the newest."""
        oldest = None if keep.age_s is None else time.time_ns() - int(keep.age_s * 1e9)
        until, freed = protected.get(0), 0
        segments = self._segments
        for first, following in pairwise(segments):
            if until is not None and (until.epoch != self._epoch or until.offset < following - 1):
                break
            too_many = keep.bytes is not None and sum(self._sizes.values()) > keep.bytes
            newest = self.read(0, Position(self._epoch, following - 2), limit=1).entries
            too_old = oldest is not None and bool(newest) and newest[0].entry.ingested < oldest
            if not (too_many or too_old):
                break
            with self._changed:
                self._segments = [each for each in self._segments if each != first]
                self._recent.drop(max(0, following - self._recent.first))
            failpoint("log.trim.forgotten")
            freed += self._sizes.pop(first)
            self._remove(first)
        return freed

    def close(self) -> None:
        """See `Closes.close`; the log stays as it is."""
        with self._writing, self._meta_lock, self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            for connection in (self._writer, self._meta, *self._held):
                connection.close()
            os.close(self._lock_fd)

    def _path(self, first: int) -> Path:
        return self._folder / f"{first:020}.db"

    def _open(self, first: int) -> sqlite3.Connection:
        connection = _connect(self._path(first))
        try:
            connection.execute("CREATE TABLE IF NOT EXISTS entries (offset INTEGER PRIMARY KEY, data BLOB NOT NULL)")
            _sync(self._folder)  # SQLite does that for journals, but not for a new database in WAL mode
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin(self, first: int) -> sqlite3.Connection:
        """A new segment; none when there is no room for it, since entries would be looked for in an empty one."""
        try:
            return self._open(first)
        except BaseException:
            self._remove(first)
            raise

    def _remove(self, first: int) -> None:
        for end in ("", "-wal", "-shm"):
            Path(f"{self._path(first)}{end}").unlink(missing_ok=True)

    def _reader(self, first: int) -> sqlite3.Connection:
        """This thread's connection to a segment; one that is trimmed meanwhile can still be read."""
        held: OrderedDict[int, sqlite3.Connection] = self._readers.__dict__.setdefault("held", OrderedDict())
        if first not in held:
            uri = f"file:{self._path(first)}?mode=ro"
            held[first] = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            self._held.append(held[first])
        held.move_to_end(first)
        while len(held) > READERS_KEPT:
            _, oldest = held.popitem(last=False)
            self._held.remove(oldest)
            oldest.close()
        return held[first]


def _lock(folder: Path) -> int:
    fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(fd)
        raise LogLocked(f"another process has the log in {folder}", folder=str(folder)) from exc
    return fd


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


@contextmanager
def _faults(folder: Path) -> Iterator[None]:
    """SQLite's and the system's errors as ours."""
    try:
        yield
    except OSError as exc:
        raise LogFull(f"the log in {folder} cannot be written: {exc.strerror}") from exc
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode & 0xFF in _NO_ROOM:
            raise LogFull(f"there is no room for the log in {folder}, or its disk fails: {exc}") from exc
        raise LogDamaged(f"the log in {folder} cannot be used: {exc}", folder=str(folder)) from exc
    except sqlite3.ProgrammingError as exc:
        raise Unavailable(f"the log in {folder} is closed") from exc
    except sqlite3.DatabaseError as exc:
        raise LogDamaged(f"the log in {folder} is damaged: {exc}", folder=str(folder)) from exc


def _size_of(path: Path) -> int:
    return sum(each.stat().st_size for each in (path, Path(f"{path}-wal")) if each.exists())


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
