"""Parquet, and the Arrow IPC file, which is also Feather: float64 and nanoseconds as they are, zstd."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import pyarrow as pa

ROW_GROUP_ROWS = 131_072
ARROW_BATCH_ROWS = 65_536
_DISTINCT = {"timestamp", "id"}
"""Columns in which values rarely repeat, so that a dictionary of them would only be built to be thrown away."""


def write_parquet(file: BinaryIO, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Row groups of `ROW_GROUP_ROWS`; times as differences, which is what compresses them."""
    import pyarrow.parquet as pq

    options = {
        "compression": "zstd",
        # Without Arrow's own schema beside it, text is read back as plain text, and not as dictionaries.
        "store_schema": False,
        "use_dictionary": [field for field in schema.names if field not in _DISTINCT],
        "column_encoding": {"timestamp": "DELTA_BINARY_PACKED"} if "timestamp" in schema.names else None,
    }
    with pq.ParquetWriter(file, schema, **options) as writer:
        for table in gathered(schema, batches, ROW_GROUP_ROWS):
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)


def write_arrow(file: BinaryIO, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Record batches of `ARROW_BATCH_ROWS`, each compressed by itself."""
    plain = plain_schema(schema)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(file, plain, options=options) as writer:
        for table in gathered(schema, batches, ARROW_BATCH_ROWS):
            writer.write_table(table.cast(plain))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without dictionaries."""
    return pa.schema([field.with_type(_plain(field.type)) for field in schema])


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def gathered(schema: pa.Schema, batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The rows in tables of exactly that many but the last, each in one chunk with one dictionary a column."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        low = 0
        while held + batch.num_rows - low >= rows:
            high = low + rows - held
            yield _joined(schema, [*waiting, batch.slice(low, high - low)])
            waiting, held, low = [], 0, high
        if low < batch.num_rows:
            waiting.append(batch.slice(low))
            held += batch.num_rows - low
    if waiting:
        yield _joined(schema, waiting)


def _joined(schema: pa.Schema, batches: list[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(batches, schema).unify_dictionaries().combine_chunks()
