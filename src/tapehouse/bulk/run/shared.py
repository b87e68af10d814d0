"""Values handed from process to process through files in memory: written once, mapped by whoever gets the descriptor.

The files have no name, so that nothing is left behind however a process ends. Layout: an Arrow IPC stream (maybe
none), a pickle, and the length of the stream as eight bytes.
"""

from __future__ import annotations

import io
import mmap
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
    """What `put` wrote; the table is not copied, and keeps the file alive. Closes the descriptor."""
    try:
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    end = len(mapped) - _LENGTH_BYTES
    length = int.from_bytes(mapped[end:], "little")
    value = pickle.loads(memoryview(mapped)[length:end])  # our own process wrote it
    return value, pa.ipc.open_stream(pa.py_buffer(mapped)).read_all() if length else None


def _unnamed() -> int:
    """A new file in memory or, where the system has none, a temporary one whose name is gone already."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("tapehouse")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
