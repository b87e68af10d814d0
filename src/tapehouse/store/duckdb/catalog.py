"""The database's tables, and the immutable snapshots that readers hold.

Everything that must survive is in DuckDB: names, commits, deletes, instruments, hot rows, and the archive's registered
files. A `Snapshot` is the same knowledge in memory, as of one commit and one state of the archive; it is replaced as a
whole and never changed, so a reader that has one needs no lock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from tapehouse.errors import StoreDamaged
from tapehouse.failpoints import failpoint
from tapehouse.model import Commit, Instrument, Interval, Kind
from tapehouse.store.archive.files import ArchiveFile, Footer, value_fields
from tapehouse.store.archive.spans import Dataset
from tapehouse.store.hiding import Delete, Entry, Runs, Undo

_SQL_TYPES = {pa.float64(): "DOUBLE", pa.int64(): "BIGINT", pa.int32(): "INTEGER", pa.string(): "VARCHAR"}

_TABLES = """
CREATE TABLE IF NOT EXISTS names (kind VARCHAR NOT NULL, id INTEGER NOT NULL, name VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS commits (
    number BIGINT NOT NULL, recorded BIGINT NOT NULL, kind VARCHAR NOT NULL, code UTINYINT NOT NULL, batch VARCHAR,
    action VARCHAR NOT NULL, inserted BIGINT NOT NULL, replaced BIGINT NOT NULL, unchanged BIGINT NOT NULL,
    rejected BIGINT NOT NULL, deleted BIGINT NOT NULL, start BIGINT NOT NULL, "end" BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS deletes (
    version BIGINT NOT NULL, kind VARCHAR NOT NULL, code UTINYINT NOT NULL, symbol INTEGER NOT NULL,
    start BIGINT NOT NULL, "end" BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS undos (version BIGINT NOT NULL, since BIGINT NOT NULL, until BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS instruments (
    pattern VARCHAR NOT NULL, calendar VARCHAR NOT NULL, timezone VARCHAR NOT NULL, tick_size DOUBLE,
    currency VARCHAR, asset_class VARCHAR);
CREATE TABLE IF NOT EXISTS documents (collection VARCHAR NOT NULL, key VARCHAR NOT NULL, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    id BIGINT NOT NULL, kind VARCHAR NOT NULL, code UTINYINT NOT NULL, span BIGINT NOT NULL, history BOOLEAN NOT NULL,
    path VARCHAR NOT NULL, bytes BIGINT NOT NULL, min_version BIGINT NOT NULL, max_version BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS groups (
    file BIGINT NOT NULL, symbol INTEGER NOT NULL, "group" INTEGER NOT NULL, rows INTEGER NOT NULL,
    first BIGINT NOT NULL, last BIGINT NOT NULL);
ALTER TABLE files ADD COLUMN IF NOT EXISTS footer_bytes INTEGER;
ALTER TABLE files ADD COLUMN IF NOT EXISTS footer_crc UINTEGER;
CREATE TABLE IF NOT EXISTS floors (
    kind VARCHAR NOT NULL, code UTINYINT NOT NULL, span BIGINT NOT NULL, version BIGINT NOT NULL);
"""


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Make what is not there yet. No index: a write finds what it overlaps by the time ranges of its symbols."""
    connection.execute(_TABLES)
    for dataset in DATASETS:
        columns = ", ".join(f'"{f.name}" {_SQL_TYPES[f.type]}' for f in value_fields(dataset.kind))
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {dataset.table} (symbol INTEGER NOT NULL, timestamp BIGINT NOT NULL, "
            f"{columns}, source INTEGER NOT NULL, commit BIGINT NOT NULL, verdict UTINYINT NOT NULL)"
        )


DATASETS = (*(Dataset(Kind.BARS, interval) for interval in Interval), Dataset(Kind.TRADES), Dataset(Kind.QUOTES))
"""Every data set there can be."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """The archive of one data set: per span its files and its floor, the version up to which hot rows are in them."""

    files: Mapping[int, tuple[ArchiveFile, ...]] = field(default_factory=dict)
    floors: Mapping[int, int] = field(default_factory=dict)
    spans: tuple[int, ...] = ()
    _owners: dict[int, _Owners] = field(default_factory=dict)
    """Of the spans that were asked for: made when they are, by whoever asks first."""

    def between(self, first: int, last: int) -> tuple[int, ...]:
        """Spans with files, from `first` to `last`."""
        return self.spans[bisect_left(self.spans, first) : bisect_left(self.spans, last + 1)]

    def replaced(self, span: int, files: Iterable[ArchiveFile], floor: int) -> Shelf:
        """The same with other files in one span."""
        changed = {**self.files, span: tuple(files)}
        owners = {other: held for other, held in list(self._owners.items()) if other != span}
        return Shelf(changed, {**self.floors, span: floor}, tuple(sorted(changed)), owners)

    def groups_of(self, span: int, symbol: int, start: int, end: int) -> list[tuple[ArchiveFile, list[int]]]:
        """The files of a span that have rows of the symbol in `[start, end)`, and which of their groups do."""
        owners = self._owners.get(span)
        if owners is None:
            owners = self._owners[span] = _Owners(self.files.get(span, ()))
        return [(file, groups) for file in owners.of(symbol) if (groups := file.groups_of(symbol, start, end))]

    def floors_of(self, spans: np.ndarray) -> np.ndarray:
        """The floor of each span, 0 where nothing was archived."""
        known, index = np.unique(spans, return_inverse=True)
        return np.array([self.floors.get(int(span), 0) for span in known], "i8")[index]


class _Owners:
    """Which of a span's files hold a symbol: with thousands of symbols there are hundreds of files."""

    __slots__ = ("_files", "_places", "_symbols")

    def __init__(self, files: Sequence[ArchiveFile]) -> None:
        held = [np.unique(file.symbols) for file in files]
        symbols = np.concatenate([np.empty(0, "i4"), *held])
        places = np.repeat(np.arange(len(files), dtype="i4"), [len(each) for each in held])
        order = np.argsort(symbols, kind="stable")
        self._files, self._symbols, self._places = tuple(files), symbols[order], places[order]

    def of(self, symbol: int) -> list[ArchiveFile]:
        """In the order of the files."""
        low = bisect_left(self._symbols, symbol)
        return [self._files[place] for place in self._places[low : bisect_right(self._symbols, symbol, low)].tolist()]


EMPTY_SHELF = Shelf()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a reader goes by: the newest commit it may see, the archive's files, the deletes."""

    head: int = 0
    recorded: int = 0
    shelves: Mapping[Dataset, Shelf] = field(default_factory=dict)
    deletes: Mapping[tuple[Dataset, int], tuple[Entry, ...]] = field(default_factory=dict)

    def shelf(self, dataset: Dataset) -> Shelf:
        """The archive of that data set."""
        return self.shelves.get(dataset, EMPTY_SHELF)

    def deletes_of(self, dataset: Dataset, symbol: int) -> tuple[Entry, ...]:
        """The deletes and undos of that symbol, oldest first."""
        return self.deletes.get((dataset, symbol), ())


class Names:
    """Symbols or sources as small numbers, never reused; a new name is stored with the rows that use it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.ids: dict[str, int] = {}
        self.names: list[str] = []

    def number(self, names: Iterable[str], fresh: dict[str, int]) -> np.ndarray:
        """The number of each name; new ones go to `fresh`, and `add` makes them known once they are stored."""
        numbers = []
        for name in names:
            known = self.ids.get(name)
            numbers.append(fresh.setdefault(name, len(self.names) + len(fresh)) if known is None else known)
        return np.array(numbers, "i4")

    def add(self, fresh: Iterable[tuple[int, str]]) -> None:
        """Make stored names known."""
        for number, name in fresh:
            self.names.append(name)
            self.ids[name] = number


def load_names(connection: duckdb.DuckDBPyConnection, kind: str) -> Names:
    """The stored names of that kind."""
    names = Names(kind)
    names.add(connection.execute("SELECT id, name FROM names WHERE kind = ? ORDER BY id", [kind]).fetchall())
    return names


def load_snapshot(connection: duckdb.DuckDBPyConnection) -> Snapshot:
    """What is committed, as a snapshot."""
    head, recorded = connection.execute(
        "SELECT coalesce(max(number), 0), coalesce(max(recorded), 0) FROM commits"
    ).fetchall()[0]
    files: dict[Dataset, dict[int, list[ArchiveFile]]] = {}
    for file in _load_files(connection):
        files.setdefault(file.dataset, {}).setdefault(file.span, []).append(file)
    floors: dict[Dataset, dict[int, int]] = {}
    for kind, code, span, version in connection.execute("SELECT kind, code, span, version FROM floors").fetchall():
        floors.setdefault(Dataset.decode(kind, code), {})[span] = version
    shelves = {
        dataset: Shelf(
            {span: tuple(held) for span, held in files.get(dataset, {}).items()},
            floors.get(dataset, {}),
            tuple(sorted(files.get(dataset, {}))),
        )
        for dataset in files.keys() | floors.keys()
    }
    return Snapshot(head, recorded, shelves, _load_deletes(connection))


def _load_deletes(connection: duckdb.DuckDBPyConnection) -> dict[tuple[Dataset, int], tuple[Entry, ...]]:
    undos, deletes = load_undos(connection), dict[tuple[Dataset, int], list[Entry]]()
    rows = connection.execute(
        'SELECT kind, code, symbol, version, start, "end" FROM deletes ORDER BY version'
    ).fetchall()
    for kind, code, symbol, version, start, end in rows:
        held = deletes.setdefault((Dataset.decode(kind, code), symbol), [])
        undo = undos.get(version)
        held.append(Delete(version, start, end) if undo is None else Undo(version, start, end, undo))
    return {key: tuple(held) for key, held in deletes.items()}


def load_undos(connection: duckdb.DuckDBPyConnection) -> dict[int, Runs]:
    """The commits that each undo hides, by its version."""
    found: dict[int, list[tuple[int, int]]] = {}
    for version, *run in connection.execute("SELECT version, since, until FROM undos ORDER BY since").fetchall():
        found.setdefault(version, []).append((run[0], run[1]))
    return {version: Runs(*np.array(runs, "i8").T) for version, runs in found.items()}


def _load_files(connection: duckdb.DuckDBPyConnection) -> Iterable[ArchiveFile]:
    columns = connection.execute(
        'SELECT file, symbol, "group", rows, first, last FROM groups ORDER BY file, symbol, "group"'
    ).fetchnumpy()
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    for row in connection.execute(
        "SELECT id, kind, code, span, history, path, bytes, min_version, max_version, footer_bytes, footer_crc "
        "FROM files ORDER BY id"
    ).fetchall():
        number, kind, code, span, history, path, size, oldest, newest, length, crc = row
        footer = None if crc is None else Footer(length, crc)
        low, high = np.searchsorted(arrays["file"], [number, number + 1])
        groups = [arrays[name][low:high] for name in ("symbol", "group", "rows", "first", "last")]
        dataset = Dataset.decode(kind, code)
        yield ArchiveFile(number, dataset, span, history, path, size, oldest, newest, footer, *groups)


def restore(
    connection: duckdb.DuckDBPyConnection,
    snapshot: Snapshot,
    known: Iterable[Names],
    instruments: list[Instrument],
    documents: Documents | None,
) -> bool:
    """Take back what the database has and memory does not know, inside the caller's transaction: a commit whose fsync
    failed. Returns whether there was anything. `StoreDamaged` when the database lacks a commit that memory knows."""
    (held,) = connection.execute("SELECT coalesce(max(number), 0) FROM commits").fetchall()[0]
    if held < snapshot.head:
        raise StoreDamaged(f"the database ends at commit {held}, but commit {snapshot.head} was made")
    newer = [f"{dataset.table} WHERE commit > {snapshot.head}" for dataset in DATASETS]
    newer += [f"commits WHERE number > {snapshot.head}", f"deletes WHERE version > {snapshot.head}"]
    newer += [f"undos WHERE version > {snapshot.head}"]
    newer += [f"names WHERE kind = '{names.kind}' AND id >= {len(names.names)}" for names in known]
    gone = sum(connection.execute(f"DELETE FROM {rows}").fetchall()[0][0] for rows in newer)
    swapped = _restore_files(connection, snapshot)
    changed = load_instruments(connection) != sorted(instruments, key=lambda held: held.pattern)
    if changed:
        connection.execute("DELETE FROM instruments")
        for instrument in instruments:
            put_instrument(connection, instrument)
    put_back = documents is not None and _restore_documents(connection, *documents)
    return bool(gone or swapped or changed or put_back)


def _restore_documents(
    connection: duckdb.DuckDBPyConnection, collection: str, documents: Mapping[str, bytes | None]
) -> bool:
    held = load_documents(connection, collection, list(documents))
    changed = held != {key: content for key, content in documents.items() if content is not None}
    if changed:
        put_documents(connection, collection, documents)
    return changed


def _restore_files(connection: duckdb.DuckDBPyConnection, snapshot: Snapshot) -> bool:
    files = {file.id: file for shelf in snapshot.shelves.values() for held in shelf.files.values() for file in held}
    registered = {number for (number,) in connection.execute("SELECT id FROM files").fetchall()}
    unregister_files(connection, registered - files.keys())
    for number in files.keys() - registered:
        register_file(connection, files[number])
    floors = {(d.kind, d.code, *floor) for d, shelf in snapshot.shelves.items() for floor in shelf.floors.items()}
    stored = set(connection.execute("SELECT kind, code, span, version FROM floors").fetchall())
    for floor in stored - floors:
        connection.execute("DELETE FROM floors WHERE kind = ? AND code = ? AND span = ? AND version = ?", floor)
    for floor in floors - stored:
        connection.execute("INSERT INTO floors VALUES (?, ?, ?, ?)", floor)
    return registered != files.keys() or stored != floors


def load_instruments(connection: duckdb.DuckDBPyConnection) -> list[Instrument]:
    """The stored instruments, by pattern."""
    names = Instrument.__struct_fields__
    rows = connection.execute(f"SELECT {', '.join(names)} FROM instruments ORDER BY pattern").fetchall()
    return [Instrument(**dict(zip(names, row, strict=True))) for row in rows]


def put_instrument(connection: duckdb.DuckDBPyConnection, instrument: Instrument) -> None:
    """Add an instrument or replace the one of its pattern, inside the caller's transaction."""
    names = Instrument.__struct_fields__
    connection.execute("DELETE FROM instruments WHERE pattern = ?", [instrument.pattern])
    statement = f"INSERT INTO instruments ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    connection.execute(statement, [getattr(instrument, name) for name in names])


Documents = tuple[str, Mapping[str, bytes | None]]
"""Some documents of a collection by key; None where there is none."""


def load_documents(
    connection: duckdb.DuckDBPyConnection, collection: str, keys: Sequence[str] | None
) -> dict[str, bytes]:
    """See `KeepsDocuments.documents`."""
    query = "SELECT key, content FROM documents WHERE collection = ?"
    parameters: list[Any] = [collection]
    if keys is not None:
        query, parameters = f"{query} AND key IN (SELECT unnest(?::VARCHAR[]))", [collection, list(keys)]
    return dict(sorted(connection.execute(query, parameters).fetchall()))


def put_documents(
    connection: duckdb.DuckDBPyConnection, collection: str, documents: Mapping[str, bytes | None]
) -> None:
    """See `KeepsDocuments.put_documents`; inside the caller's transaction."""
    connection.execute(
        "DELETE FROM documents WHERE collection = ? AND key IN (SELECT unnest(?::VARCHAR[]))",
        [collection, list(documents)],
    )
    failpoint("documents.removed")
    kept = {key: content for key, content in documents.items() if content is not None}
    incoming = pa.table(
        {"key": pa.array(list(kept), pa.string()), "content": pa.array(list(kept.values()), pa.binary())}
    )
    insert(connection, "INSERT INTO documents SELECT ?, key, content FROM incoming", incoming, [collection])


def register_file(connection: duckdb.DuckDBPyConnection, file: ArchiveFile) -> None:
    """Store a finished file's entry, inside the caller's transaction."""
    dataset = file.dataset
    connection.execute(
        f"INSERT INTO files VALUES ({', '.join('?' * 11)})",
        [
            file.id,
            dataset.kind,
            dataset.code,
            file.span,
            file.history,
            file.path,
            file.bytes,
            file.min_version,
            file.max_version,
            *(file.footer or (None, None)),
        ],
    )
    groups = pa.table(
        {"symbol": file.symbols, "group": file.groups, "rows": file.rows, "first": file.first, "last": file.last}
    )
    insert(connection, f'INSERT INTO groups SELECT {file.id}, symbol, "group", rows, first, last FROM incoming', groups)


def unregister_files(connection: duckdb.DuckDBPyConnection, numbers: Iterable[int]) -> None:
    """Remove the entries of files, inside the caller's transaction."""
    gone = ", ".join(map(str, numbers))
    if gone:
        connection.execute(f"DELETE FROM files WHERE id IN ({gone})")
        connection.execute(f"DELETE FROM groups WHERE file IN ({gone})")


def insert_commit(connection: duckdb.DuckDBPyConnection, dataset: Dataset, commit: Commit) -> None:
    """Store a commit, inside the caller's transaction."""
    values = [commit.number, commit.recorded, dataset.kind, dataset.code, commit.batch, commit.action]
    values += [commit.inserted, commit.replaced, commit.unchanged, commit.rejected, commit.deleted]
    values += [commit.start, commit.end]
    connection.execute(f"INSERT INTO commits VALUES ({', '.join('?' * len(values))})", values)


def insert_undo(connection: duckdb.DuckDBPyConnection, dataset: Dataset, entries: Mapping[int, Undo]) -> None:
    """Store the entries of one undo commit, by symbol, inside the caller's transaction."""
    first = next(iter(entries.values()))
    runs = pa.table({"since": first.commits.since, "until": first.commits.until})
    insert(connection, "INSERT INTO undos SELECT ?, since, until FROM incoming", runs, [first.version])
    failpoint("undo.commits.inserted")
    symbols = pa.table(
        {
            "symbol": pa.array(list(entries), pa.int32()),
            "start": pa.array([entry.start for entry in entries.values()], pa.int64()),
            "end": pa.array([entry.end for entry in entries.values()], pa.int64()),
        }
    )
    statement = 'INSERT INTO deletes SELECT ?, ?, ?, symbol, start, "end" FROM incoming'
    insert(connection, statement, symbols, [first.version, dataset.kind, dataset.code])


def insert(
    connection: duckdb.DuckDBPyConnection, statement: str, incoming: pa.Table, parameters: list[Any] | None = None
) -> None:
    """Run an INSERT that selects from the Arrow table as `incoming`."""
    connection.register("incoming", incoming)
    try:
        connection.execute(statement, parameters)
    finally:
        connection.unregister("incoming")
