"""Record batches as files: what `base.FORMATS` names.

A stream is written from its beginning to its end, a database to a path. Both are given the schema of the batches, in
which names may be dictionary-encoded; the files have plain text, since that joins, filters and compares with anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from tapehouse.export.formats import columnar, databases, text

Batches = Iterable[pa.RecordBatch]
Stream = Callable[[BinaryIO, str, pa.Schema, Batches], None]
"""Writes the rows to the file, which will have that name."""
Database = Callable[[Path, str, pa.Schema, Batches], None]
"""Makes a database at the path, with the rows in the table of that name."""

STREAMS: dict[str, Stream] = {
    "parquet": columnar.write_parquet,
    "arrow": columnar.write_arrow,
    "feather": columnar.write_arrow,
    **text.FORMATS,
}
DATABASES: dict[str, Database] = {"sqlite": databases.write_sqlite, "duckdb": databases.write_duckdb}
