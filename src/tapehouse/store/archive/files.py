"""The archive's Parquet files: written once, fsynced, read by row group.

A file holds a few symbols of one span, a row group (or several, for very busy symbols) per symbol, sorted by symbol and
time. Any Parquet reader opens it: `symbol`, `timestamp` (nanoseconds, UTC), the values (DECIMAL where that is exact,
float64 where not), `source` and `commit`. Files of `history/` hold versions that are no longer current, or never were.
"""

from __future__ import annotations

import threading
import zlib
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tapehouse.errors import StoreDamaged
from tapehouse.failpoints import failpoint
from tapehouse.model import SCHEMAS, TIMESTAMP, Kind
from tapehouse.store.archive.columns import one_chunk, rows_within, to_decimal, to_float
from tapehouse.store.archive.spans import Dataset
from tapehouse.store.folder import make_folders, sync

SYMBOLS_PER_FILE = 32
ROWS_PER_GROUP = 500_000
FOOTERS_KEPT = 512

_DELTA, _SPLIT = "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"
_ENCODINGS = {"timestamp": _DELTA, "ordinal": _DELTA, "trades": _DELTA, "id": "DELTA_BYTE_ARRAY"}
PLACE = "nth"
"""Where a trade or quote stood among those of its symbol, time and commit, as written; bars have no such column."""
_DICTIONARIES = ["symbol", "side", "exchange", "conditions", "source", "commit", "lost"]


_MAGIC_BYTES = 8
"""What ends a Parquet file: the footer's length in four bytes, and `PAR1`."""


class Footer(NamedTuple):
    """The end of a file, from its footer on: its length in bytes and its CRC-32. Parquet has a checksum for pages only,
    and a bit that changes in a footer can have other rows read."""

    bytes: int
    crc: int


@dataclass(frozen=True, slots=True, eq=False)
class ArchiveFile:
    """One registered file. Its row groups are arrays sorted by symbol id, then time: group i holds `rows[i]` rows of
    symbol `symbols[i]`, from time `first[i]` to `last[i]`, and is the row group `groups[i]` of the file.
    A program of format 1 or 2 (store/folder.py) left no `footer`."""

    id: int
    dataset: Dataset
    span: int
    history: bool
    path: str
    bytes: int
    min_version: int
    max_version: int
    footer: Footer | None
    symbols: np.ndarray
    groups: np.ndarray
    rows: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def groups_of(self, symbol: int, start: int, end: int) -> list[int]:
        """Indices into the arrays of that symbol's groups that touch `[start, end)`."""
        low = bisect_left(self.symbols, symbol)  # NumPy's own search would let go of the interpreter's lock each time
        high = bisect_right(self.symbols, symbol, low)
        return [i for i in range(low, high) if self.first[i] < end and self.last[i] >= start]

    @property
    def row_count(self) -> int:
        """All rows of the file."""
        return int(self.rows.sum())


def value_fields(kind: Kind) -> list[Any]:
    """The fields of a record beside its symbol, time and source."""
    return [f for f in SCHEMAS[kind] if f.name not in ("symbol", "timestamp", "source")]


def internal_schema(kind: Kind, names: Sequence[str]) -> pa.Schema:
    """The types in which rows are handled between the database, the files and the answer."""
    types = {"timestamp": pa.int64(), "source": pa.int32(), "commit": pa.int64(), "lost": pa.bool_(), PLACE: pa.int32()}
    types |= {field.name: field.type for field in value_fields(kind)}
    return pa.schema([(name, types[name]) for name in names])


class FileWriter:
    """Writes one file; its symbols must come in the order of their names. Not registered until the caller does so."""

    def __init__(
        self,
        root: Path,
        file_id: int,
        dataset: Dataset,
        span: int,
        scales: dict[str, int | None],
        columns: set[str],
        *,
        history: bool,
        repeating: frozenset[str] | set[str] = frozenset(),
    ) -> None:
        self.path = "/".join(["history" if history else "archive", dataset.folder(span), f"{file_id:010d}.parquet"])
        self._root, self._id, self._dataset, self._span, self._history = root, file_id, dataset, span, history
        self._scales = scales
        self.schema = _file_schema(dataset.kind, scales, columns, history=history)
        self._groups: list[tuple[int, int, int, int]] = []
        self._versions: list[int] = []
        full = root / self.path
        self._new_folders = make_folders(full.parent)
        self._writer = pq.ParquetWriter(
            full,
            self.schema,
            compression="zstd",
            compression_level=3,
            version="2.6",
            data_page_version="2.0",
            # Without Arrow's own schema the decimals read as decimal128 in every version of every reader.
            store_schema=False,
            store_decimal_as_integer=True,
            use_dictionary=[name for name in (*_DICTIONARIES, *repeating) if name in self.schema.names],
            column_encoding=_encodings(self.schema, repeating),
            write_statistics=["symbol", "timestamp"],
            write_page_checksum=True,
            sorting_columns=[pq.SortingColumn(0), pq.SortingColumn(1)],
        )

    def add(self, symbol_id: int, symbol: str, rows: pa.Table, sources: Sequence[str]) -> None:
        """Append all rows of one symbol, which come as internal rows sorted by time."""
        for start in range(0, rows.num_rows, ROWS_PER_GROUP):
            part = rows.slice(start, ROWS_PER_GROUP)
            self._writer.write_table(self._encode(symbol, part, sources), row_group_size=ROWS_PER_GROUP)
            times, versions = one_chunk(part["timestamp"]).to_numpy(), one_chunk(part["commit"]).to_numpy()
            self._groups.append((symbol_id, part.num_rows, int(times[0]), int(times[-1])))
            self._versions += [int(versions.min()), int(versions.max())]

    def _encode(self, symbol: str, rows: pa.Table, sources: Sequence[str]) -> pa.Table:
        columns = []
        for field in self.schema:
            if field.name == "symbol":
                columns.append(pa.repeat(pa.scalar(symbol), rows.num_rows))
            elif field.name == "timestamp":
                columns.append(one_chunk(rows["timestamp"]).view(TIMESTAMP))
            elif field.name == "source":
                ids = one_chunk(rows["source"])
                columns.append(pa.DictionaryArray.from_arrays(ids, pa.array(sources, pa.string())).cast(pa.string()))
            elif pa.types.is_decimal(field.type):
                columns.append(_decimals(one_chunk(rows[field.name]), field.type.scale))
            else:
                columns.append(one_chunk(rows[field.name]))
        return pa.Table.from_arrays(columns, schema=self.schema)

    def close(self) -> ArchiveFile:
        """Finish the file and make it, and every folder made for it, durable."""
        self._writer.close()
        failpoint("archive.file.written")
        full = self._root / self.path
        sync(full)
        for folder in {full.parent, *(new.parent for new in self._new_folders)}:
            sync(folder)
        failpoint("archive.file.synced")
        table = np.array([(*g[:1], i, *g[1:]) for i, g in enumerate(self._groups)], "i8").T
        symbols, groups, rows, first, last = table[:, np.lexsort((table[1], table[0]))]
        return ArchiveFile(
            self._id, self._dataset, self._span, self._history, self.path, full.stat().st_size,
            min(self._versions), max(self._versions), _footer_of(full),
            symbols.astype("i4"), groups.astype("i4"), rows.astype("i4"), first, last,
        )  # fmt: skip

    def abandon(self) -> None:
        """Give up: nothing of the file stays."""
        with suppress(OSError):  # on a full disk the footer does not fit either; what made us give up is raised already
            self._writer.close()
        (self._root / self.path).unlink(missing_ok=True)


def _decimals(column: Any, scale: int) -> Any:
    if column.null_count == 0:
        return to_decimal(column.to_numpy(), scale)
    return to_decimal(column.fill_null(0.0).to_numpy(), scale, column.is_valid().to_numpy(zero_copy_only=False))


def _file_schema(kind: Kind, scales: dict[str, int | None], columns: set[str], *, history: bool) -> pa.Schema:
    fields = [pa.field("symbol", pa.string(), nullable=False), pa.field("timestamp", TIMESTAMP, nullable=False)]
    for field in value_fields(kind):
        if field.name not in columns:
            continue
        scale = scales.get(field.name)
        decimal = field.type == pa.float64() and scale is not None
        fields.append(pa.field(field.name, pa.decimal64(18, scale) if decimal else field.type, field.nullable))
    if kind is not Kind.BARS:
        fields.append(pa.field(PLACE, pa.int32(), nullable=False))
    fields += [pa.field("source", pa.string()), pa.field("commit", pa.int64(), nullable=False)]
    return pa.schema(fields + ([pa.field("lost", pa.bool_(), nullable=False)] if history else []))


def _encodings(schema: pa.Schema, repeating: frozenset[str] | set[str]) -> dict[str, str]:
    encodings = {}
    for field in schema:
        if field.name in _DICTIONARIES or field.name in repeating:
            continue
        default = _SPLIT if field.type == pa.float64() else _DELTA
        encodings[field.name] = _ENCODINGS.get(field.name, default)
    return encodings


def _footer_of(path: Path) -> Footer:
    with pa.OSFile(str(path)) as file:
        size = file.size()
        length = int.from_bytes(file.read_at(4, size - _MAGIC_BYTES), "little") + _MAGIC_BYTES
        return Footer(length, zlib.crc32(file.read_at(length, size - length)))


def check_footer(file: ArchiveFile, opened: Any) -> None:
    """Raise `StoreDamaged` when the open file does not end as it was written."""
    if file.footer is None:
        return
    if zlib.crc32(opened.read_at(file.footer.bytes, file.bytes - file.footer.bytes)) != file.footer.crc:
        raise StoreDamaged(
            f"the footer of the archive file {file.path} has other bytes than were written: bring the file back from a "
            "backup",
            file=file.path,
        )


def newest_commit(path: Path) -> int | None:
    """The newest commit that rows of the file are of; None when it is no whole file."""
    try:
        with pq.ParquetFile(path) as file:
            groups = (file.read_row_group(i, columns=["commit"])["commit"] for i in range(file.num_row_groups))
            return max((pc.max(group).as_py() for group in groups), default=None)
    except pa.ArrowException:
        return None


class FileReader:
    """Reads row groups of registered files. Footers are shared between threads, open files are not: a `ParquetFile`
    used by two threads at once crashes."""

    def __init__(self, root: Path, source_id: Callable[[str], int]) -> None:
        self._root = root
        self._source_id = source_id
        self._footers: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def read(
        self,
        file: ArchiveFile,
        groups: Sequence[int],
        columns: Sequence[str],
        within: tuple[int, int] | None = None,
        *,
        whole: bool = False,
    ) -> pa.Table:
        """Those columns of row groups as internal rows: times as int64, decimals as float64, sources as ids.

        A column that the file does not have comes as nulls. Of a single group, `within` are the times `[start, end)`
        of the rows that are wanted; the others are not converted. `whole` groups are read with all their columns, so
        that every page of them is held against its checksum.
        """
        try:
            opened = self._open(file, with_source="source" in columns)
            present = set(opened.schema_arrow.names)
            table = opened.read_row_groups(
                file.groups[groups].tolist(),
                columns=None if whole else [c for c in columns if c in present],
                use_threads=False,
            )
        except (OSError, pa.ArrowException) as exc:
            raise StoreDamaged(f"cannot read the archive file {file.path}: {exc}", file=file.path) from exc
        if within is not None:
            table = rows_within(table, *within)
        types = {f.name: f.type for f in value_fields(file.dataset.kind)}
        absent = {name: pa.nulls(table.num_rows, types[name]) for name in columns if name not in present}
        return pa.table({n: absent[n] if n in absent else self._decode(n, table[n]) for n in columns})

    def _decode(self, name: str, column: Any) -> Any:
        if pa.types.is_decimal(column.type):
            return pa.chunked_array([to_float(chunk) for chunk in column.chunks], pa.float64())
        if name == "source":
            column = one_chunk(column.unify_dictionaries())
            ids = np.array([self._source_id(text) for text in column.dictionary.to_pylist()], "i4")
            return pa.array(ids[column.indices.to_numpy()])
        return one_chunk(column).view(pa.int64()) if name == "timestamp" else column

    def _open(self, file: ArchiveFile, *, with_source: bool) -> Any:
        with self._lock:
            footer = self._footers.get(file.id)
            if footer is not None:
                self._footers.move_to_end(file.id)
        source = pa.OSFile(str(self._root / file.path))
        if footer is None:
            check_footer(file, source)
        opened = pq.ParquetFile(
            source,
            metadata=footer,
            read_dictionary=["source"] if with_source else None,
            # Reading ahead into buffers costs more than it saves for a few row groups of a local file.
            pre_buffer=False,
            page_checksum_verification=True,
        )
        if footer is None:
            self._keep(file, opened.metadata)
        return opened

    def _keep(self, file: ArchiveFile, footer: Any) -> None:
        with self._lock:
            self._footers[file.id] = footer
            while len(self._footers) > FOOTERS_KEPT:
                self._footers.popitem(last=False)

    def forget(self, file: ArchiveFile | None = None) -> None:
        """Drop the footer of a file that goes away, or all of them."""
        with self._lock:
            if file is None:
                self._footers.clear()
            else:
                self._footers.pop(file.id, None)
