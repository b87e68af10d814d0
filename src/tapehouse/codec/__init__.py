"""Records and tables <-> JSON, JSON lines, msgpack, CSV and Arrow IPC; tables -> Parquet.

Encoders yield bytes piece by piece, so that an answer of any size needs little memory; NaN and infinity become null.
Decoders say which row and column is wrong.
"""

from __future__ import annotations

from tapehouse.codec.decode import MEDIA_TYPES, decode_table
from tapehouse.codec.documents import encode_document, encode_list, with_times
from tapehouse.codec.encode import (
    PIECE_ROWS,
    Times,
    encode_columns,
    encode_csv,
    encode_file,
    encode_lines,
    encode_parquet,
    encode_rows,
    encode_stream,
    time_text,
)
from tapehouse.codec.instruments import check_instrument, decode_instruments, read_instruments
from tapehouse.codec.packed import pack_columns, pack_rows
from tapehouse.codec.records import decode_records, encode_records, records_of, table_of

__all__ = [
    "MEDIA_TYPES",
    "PIECE_ROWS",
    "Times",
    "check_instrument",
    "decode_instruments",
    "decode_records",
    "decode_table",
    "encode_columns",
    "encode_csv",
    "encode_document",
    "encode_file",
    "encode_lines",
    "encode_list",
    "encode_parquet",
    "encode_records",
    "encode_rows",
    "encode_stream",
    "pack_columns",
    "pack_rows",
    "read_instruments",
    "records_of",
    "table_of",
    "time_text",
    "with_times",
]
