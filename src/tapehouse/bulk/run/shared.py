"""Values handed from process to process through files in memory: written once, mapped by whoever gets the descriptor.

The files have no name, so that nothing is left behind however a process ends. Layout: an Arrow IPC stream (maybe
none), a pickle, and the length of the stream as eight bytes.
"""

from __future__ import annotations

import io
import os
import pickle
import tempfile
from typing import Any

import pyarrow as pa

_LENGTH_BYTES = 8


def put(value: object, table: pa.Table | None = None) -> int:
    """The descriptor of a new file with them; whoever has it closes it."""
    descriptor = _unnamed()
    try:
        with io.FileIO(descriptor, "wb", closefd=False) as file:
            if table is not None:
                # Not closed, since that would close the file; it holds nothing back.
                with pa.ipc.new_stream(pa.PythonFile(file, "w"), table.schema) as writer:
                    writer.write_table(table)
            length = file.tell()
            # A pickle writes large bytes straight from where they are.
            pickle.dump(value, file, 5)
            file.write(length.to_bytes(_LENGTH_BYTES, "little"))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def take(descriptor: int) -> tuple[Any, pa.Table | None]:
    """What `put` wrote; the table is not copied, and keeps the memory but no descriptor. Closes the descriptor."""
    try:
        end = os.fstat(descriptor).st_size - _LENGTH_BYTES
        length = int.from_bytes(os.pread(descriptor, _LENGTH_BYTES, end), "little")
        with io.FileIO(descriptor, closefd=False) as file:
            file.seek(length)
            value = pickle.load(io.BufferedReader(file))
        if length == 0:
            return value, None
        # Python's own map would keep a descriptor for each table.
        with pa.memory_map(f"/dev/fd/{descriptor}") as source:
            return value, pa.ipc.open_stream(source).read_all()
    finally:
        os.close(descriptor)


def _unnamed() -> int:
    """A new file in memory or, where the system has none, a temporary one whose name is gone already."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("tapehouse")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
