"""What is relied on was fsynced before, and a full disk is an error and nothing else.

`strace` shows the order of the system calls of a write and of a compaction; the disk is a small tmpfs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.system import history

from tapehouse.errors import StoreFull
from tapehouse.model import MINUTE_NS, TIMESTAMP, Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore

ROOT = Path(__file__).parents[2]
CALLS = "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,close"

LIFE = """
import os, sys
from pathlib import Path
from tests.system.history import STEPS
from tapehouse.store.duckdb import DuckDBStore
store = DuckDBStore(Path(sys.argv[1]))
def say(what):
    os.write(2, what.encode())
for number in (0, 1):
    STEPS[number](store)
    say(f"returned {number}")
STEPS[3](store)
say("compacted")
STEPS[4](store)
STEPS[3](store)
say("compacted again")
os._exit(0)
"""


class Trace:
    """The calls of a traced process, one a line, with paths for file descriptors (`strace -y`)."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()

    def index(self, pattern: str, start: int = 0) -> int:
        """The first line from `start` on that matches; fails when there is none."""
        for number, line in enumerate(self.lines[start:], start):
            if re.search(pattern, line):
                return number
        raise AssertionError(f"no {pattern!r} after line {start} of the trace")

    def all(self, pattern: str) -> list[int]:
        return [number for number, line in enumerate(self.lines) if re.search(pattern, line)]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, Path]:
    folder = tmp_path_factory.mktemp("traced") / "data"
    output = folder.parent / "trace"
    subprocess.run(
        [
            "strace",
            "-f",
            "-y",
            "-s",
            "64",
            "-e",
            f"trace={CALLS}",
            "-o",
            str(output),
            sys.executable,
            "-c",
            LIFE,
            str(folder),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=100,
    )
    return Trace(output.read_text(errors="replace")), folder


@pytest.mark.strace
def test_a_write_is_synced_before_it_returns(traced: tuple[Trace, Path]) -> None:
    trace, folder = traced
    wal = rf"<{folder}/tapehouse\.duckdb\.wal>"
    for step in (0, 1):
        returned = trace.index(f"returned {step}")
        written = max(n for n in trace.all(rf"write(64)?\(\d+{wal}") if n < returned)
        synced = trace.index(rf"f(data)?sync\(\d+{wal}", written)
        assert written < synced < returned


@pytest.mark.strace
def test_the_name_of_a_log_is_synced_before_a_commit_is_in_it(traced: tuple[Trace, Path]) -> None:
    trace, folder = traced
    made = trace.index(r"openat.*tapehouse\.duckdb\.wal.*O_CREAT")
    named = trace.index(rf"fsync\(\d+<{folder}>\)", made)
    assert named < max(
        n for n in trace.all(r"write(64)?\(\d+<.*tapehouse\.duckdb\.wal>") if n < trace.index("returned 0")
    )


@pytest.mark.strace
def test_archive_files_and_folders_are_synced_before_they_are_registered(traced: tuple[Trace, Path]) -> None:
    trace, folder = traced
    files = list(folder.rglob("*.parquet"))
    assert {p.relative_to(folder).parts[0] for p in files} == {"archive", "history"}
    for path in files:
        created = trace.index(rf"openat.*{path}.*O_CREAT")
        written = max(trace.all(rf"write\(\d+<{path}>"))
        synced = trace.index(rf"fsync\(\d+<{path}>\)", written)
        assert created < written < synced
        registered = trace.index(r"write(64)?\(\d+<.*tapehouse\.duckdb\.wal>", synced)
        for above in (path.parent, path.parent.parent, path.parent.parent.parent):
            if above != folder.parent:
                assert any(n < registered for n in trace.all(rf"fsync\(\d+<{above}>\)")), above


@pytest.mark.strace
def test_replaced_files_go_only_after_the_swap_is_synced(traced: tuple[Trace, Path]) -> None:
    trace, folder = traced
    wal = rf"<{folder}/tapehouse\.duckdb\.wal>"
    unlinked = trace.all(r"unlink.*\.parquet")
    assert unlinked
    for line in unlinked:
        path = re.search(r'"([^"]+\.parquet)"', trace.lines[line])
        assert path is not None
        new = max(n for n in trace.all(r"fsync\(\d+<.*\.parquet>\)") if n < line)
        assert new < trace.index(rf"f(data)?sync\(\d+{wal}", new) < line


WRITER = """
import sys
from pathlib import Path
from tapehouse.errors import StoreError
from tapehouse.model import Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.duckdb import DuckDBStore
from tests.system.test_durability import minutes
store = DuckDBStore(Path(sys.argv[1]), threads=1)
store.write(Kind.BARS, minutes(0, 10), interval=Interval.M1, source="s")
print("ready", flush=True)
for line in sys.stdin:
    try:
        said = store.write(Kind.BARS, minutes(int(line), 10), interval=Interval.M1, source="s").number
    except StoreError as exc:
        said = str(exc).replace(chr(10), " ")
    try:
        rows = store.read(Selection(interval=Interval.M1)).table().num_rows
    except StoreError:
        rows = -1
    print(store.head(), rows, said, sep="|", flush=True)
"""
FAILS_ONCE = ["-e", "inject=fdatasync:error=EIO:when=1"]
NO_CUT = ["-e", "inject=ftruncate:error=EIO"]


class Writer:
    """A process that writes ten rows at each word, in which system calls on the log can be made to fail."""

    def __init__(self, folder: Path) -> None:
        self._wal = folder / "tapehouse.duckdb.wal"
        command = [sys.executable, "-c", WRITER, str(folder)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    @contextmanager
    def failing(self, *calls: str) -> Iterator[None]:
        command = ["strace", "-f", "-P", str(self._wal), "-o", os.devnull, *calls, "-p", str(self.process.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            assert any("attached" in line for line in tracer.stderr)
            try:
                yield
            finally:
                tracer.terminate()

    def write(self, first: int) -> tuple[int, int, str]:
        """Returns the head, the number of rows (-1: could not be read), and the commit or the error."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{first}\n")
        self.process.stdin.flush()
        head, rows, said = self._line().split("|", 2)
        return int(head), int(rows), said

    def kill(self) -> None:
        with self.process:
            self.process.kill()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path / "data")
    yield writer
    writer.kill()


def _holds(folder: Path, rows: int, commits: int) -> None:
    store = DuckDBStore(folder)
    assert store.stats()["rows"] == store.read(Selection(interval=Interval.M1)).table().num_rows == rows
    assert [commit.number for commit in store.commits()] == list(range(1, commits + 1))
    store.close()


@pytest.mark.strace
@pytest.mark.parametrize("calls", [FAILS_ONCE, FAILS_ONCE + NO_CUT], ids=["cut off", "taken back"])
def test_a_write_whose_fsync_fails_changes_nothing(calls: list[str], writer: Writer, tmp_path: Path) -> None:
    with writer.failing(*calls):
        head, rows, said = writer.write(10)
        assert (head, rows) == (1, 10)
        assert "could not write bars: FATAL Error: fsync failed" in said
        assert writer.write(20) == (2, 20, "2")
    assert writer.write(10) == (3, 30, "3")
    writer.kill()
    _holds(tmp_path / "data", 30, 3)


@pytest.mark.strace
def test_a_write_is_in_doubt_as_long_as_the_log_cannot_be_synced(writer: Writer, tmp_path: Path) -> None:
    with writer.failing("-e", "inject=fdatasync,fsync,ftruncate:error=EIO"):
        for first in (10, 10, 20):
            head, rows, said = writer.write(first)
            assert head == 1
            assert rows in (10, -1)
            assert said.startswith("could not write bars")
    assert writer.write(10) == (2, 20, "2")
    assert writer.write(10) == (2, 20, "2")
    writer.kill()
    _holds(tmp_path / "data", 20, 2)


def minutes(first: int, rows: int, seed: int = 0) -> pa.Table:
    price = np.random.default_rng(seed).uniform(1, 1_000, rows)
    return pa.table(
        {
            "symbol": ["A"] * rows,
            "timestamp": pa.array(history.START + (first + np.arange(rows)) * MINUTE_NS).view(TIMESTAMP),
            **dict.fromkeys(("open", "high", "low", "close"), price),
            "volume": price,
        }
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 12 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(store: DuckDBStore) -> None:
    for number in range(200):
        store.write(Kind.BARS, minutes(number * 20_000, 20_000, number), interval=Interval.M1, source="s")


@pytest.mark.mount
def test_a_full_disk_stops_a_write_and_loses_nothing(small_disk: Path) -> None:
    reference, store = MemoryStore(), DuckDBStore(small_disk / "data")
    with pytest.raises(StoreFull, match="no space left to write bars"):
        _fill(store)
    held = store.stats()["rows"]
    assert held
    assert held % 20_000 == 0
    for number in range(held // 20_000):
        reference.write(Kind.BARS, minutes(number * 20_000, 20_000, number), interval=Interval.M1, source="s")
    assert history.contents(store) == history.contents(reference)
    store.close()

    assert not list((small_disk / "data").glob("tmp/*")), "a failed write leaves no files behind"
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    store = DuckDBStore(small_disk / "data")
    assert history.contents(store) == history.contents(reference)
    store.compact(everything=True)
    assert history.contents(store) == history.contents(reference)
    store.close()


@pytest.mark.mount
def test_a_write_larger_than_the_disk_says_that_it_is_full(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=3m", str(small_disk)], check=True)
    store = DuckDBStore(small_disk / "data")
    with pytest.raises(StoreFull, match="no space left to write bars; nothing was half-written"):
        store.write(Kind.BARS, minutes(0, 400_000), interval=Interval.M1, source="s")
    assert store.stats()["rows"] == 0
    store.close()


@pytest.mark.mount
def test_a_disk_that_fills_during_a_compaction_loses_nothing(small_disk: Path) -> None:
    reference, store = MemoryStore(), DuckDBStore(small_disk / "data")
    for target in (reference, store):
        target.write(Kind.BARS, minutes(0, 60_000), interval=Interval.M1, source="s")
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "ballast").write_bytes(b"\0" * (free - 300_000))
    with pytest.raises(StoreFull):
        store.compact(everything=True)
    assert history.contents(store) == history.contents(reference)
    assert not list((small_disk / "data").rglob("*.parquet"))
    (small_disk / "ballast").unlink()
    store.compact(everything=True)
    assert history.contents(store) == history.contents(reference)
    store.close()
