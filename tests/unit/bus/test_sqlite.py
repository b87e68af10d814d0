"""The log in SQLite: its segments, its folder, and what happens when it is killed or has no room."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.buses import entry, fill, prices

from tapehouse.bus.base import Lost, Retention
from tapehouse.bus.sqlite import SQLiteBus
from tapehouse.codec.live.entries import table_of
from tapehouse.errors import LogDamaged, LogFull, LogLocked, Unavailable
from tapehouse.failpoints import ENVIRONMENT
from tapehouse.model import Position

SMALL = {"segment_bytes": 40_000, "recent_bytes": 20_000}


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[SQLiteBus]:
    """A log of 200 entries in a few segments, of which memory has the last."""
    bus = SQLiteBus(tmp_path / "log", **SMALL)
    for number in range(200):
        bus.append(0, [entry(*[number] * 20)])
    yield bus
    bus.close()


def segments(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / "log").glob("[0-9]*.db"))


def everything(bus: SQLiteBus) -> list[float]:
    """The first price of each entry, read piece by piece as a reader would."""
    found: list[float] = []
    after = None
    while piece := bus.read(0, after, limit=7).entries:
        found += [table_of(logged.entry)["price"][0].as_py() for logged in piece]
        after = piece[-1].position
    return found


def test_it_is_read_through_segments_and_memory_alike(filled: SQLiteBus, tmp_path: Path) -> None:
    assert len(segments(tmp_path)) > 3
    assert everything(filled) == list(range(200))
    filled.close()
    again = SQLiteBus(tmp_path / "log", **SMALL)
    assert everything(again) == list(range(200))
    again.close()


def test_trimming_removes_whole_segments_up_to_what_is_protected(filled: SQLiteBus, tmp_path: Path) -> None:
    before, epoch = segments(tmp_path), filled.ends(0).last.epoch
    assert filled.trim(Retention(bytes=0), {0: Position(epoch, before[2] - 2)}) > 0
    assert segments(tmp_path) == before[1:]
    assert filled.trim(Retention(bytes=0), {0: Position(epoch, before[2] - 1)}) > 0
    assert segments(tmp_path) == before[2:]
    piece = filled.read(0, Position(epoch, 0))
    assert piece.lost == Lost(after=Position(epoch, 0), first=Position(epoch, before[2]))
    assert piece.entries[0].position.offset == before[2]
    assert filled.trim(Retention(bytes=0), {0: Position(epoch - 1, 500)}) == 0  # a group of another epoch needs all
    assert filled.trim(Retention(age_s=0), {}) > 0
    assert segments(tmp_path) == before[-1:]
    assert everything(filled) == list(range(before[-1], 200))


def test_a_reader_of_a_segment_that_is_trimmed_reads_on(filled: SQLiteBus) -> None:
    assert prices(filled, limit=1)[0] == 0
    filled.trim(Retention(bytes=0), {})
    assert filled.ends(0).bytes < 100_000


def test_nothing_is_trimmed_within_the_limits(filled: SQLiteBus) -> None:
    assert filled.trim(Retention(), {}) == 0
    assert filled.trim(Retention(bytes=1 << 30, age_s=1e10), {}) == 0


def test_one_process_has_it(filled: SQLiteBus, tmp_path: Path) -> None:
    with pytest.raises(LogLocked, match=str(tmp_path / "log")):
        SQLiteBus(tmp_path / "log")
    filled.close()
    SQLiteBus(tmp_path / "log").close()


def test_what_is_no_log_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "meta.db").write_bytes(b"something else" * 100)
    with pytest.raises(LogDamaged, match="not a database"):
        SQLiteBus(folder)
    assert (folder / "meta.db").read_bytes() == b"something else" * 100


def test_a_damaged_entry_is_told(filled: SQLiteBus, tmp_path: Path) -> None:
    filled.close()
    first = sqlite3.connect(tmp_path / "log" / f"{0:020}.db")
    first.execute("UPDATE entries SET data = x'00' WHERE offset = 3")
    first.commit()
    first.close()
    bus = SQLiteBus(tmp_path / "log", **SMALL)
    with pytest.raises(LogDamaged, match="entry 3"):
        bus.read(0, None)
    bus.close()


def test_a_log_that_was_removed_comes_back_in_a_new_epoch(filled: SQLiteBus, tmp_path: Path) -> None:
    last = filled.ends(0).last
    filled.close()
    for path in (tmp_path / "log").glob("*.db*"):
        path.unlink()
    bus = SQLiteBus(tmp_path / "log")
    (at,) = bus.append(0, [entry(1)])
    assert at.epoch > last.epoch
    assert bus.read(0, last).lost == Lost(after=last, first=at)
    bus.close()


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    bus = SQLiteBus(tmp_path / "log")
    bus.close()
    bus.close()
    with pytest.raises(Unavailable):
        bus.append(0, [entry(1)])
    with pytest.raises(Unavailable):
        bus.commit("record", {0: Position(1, 1)})


@pytest.mark.mount
def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=True)
    try:
        bus = SQLiteBus(disk / "log", segment_bytes=400_000)
        taken = list(fill(bus, 50))
        with pytest.raises(LogFull):
            bus.append(0, [entry(*[-1] * 50)])
        assert bus.ends(0).next == len(taken) > 100
        assert everything(bus) == taken
        assert bus.trim(Retention(bytes=0), {}) > 0
        bus.append(0, [entry(7)])  # and it goes on
        held = everything(bus)
        bus.close()
        again = SQLiteBus(disk / "log", segment_bytes=400_000)
        assert everything(again) == held
        assert held[-1] == 7
        again.close()
    finally:
        subprocess.run(["umount", disk], check=True)


LIFE = """
import sys
from pathlib import Path
from tests.contract.buses import entry
from tapehouse.bus.base import Retention
from tapehouse.bus.sqlite import SQLiteBus

bus = SQLiteBus(Path(sys.argv[1]), segment_bytes=40_000, recent_bytes=20_000)
for number in range(bus.ends(0).next, 300):
    (at,) = bus.append(0, [entry(*[number] * 20)])
    print(f"entry {at.offset}", flush=True)
    if number % 10 == 9:
        bus.commit("record", {0: at}, b"%d" % number)
        print(f"group {at.offset}", flush=True)
    if number % 100 == 99:
        bus.trim(Retention(bytes=60_000), bus.committed("record").positions)
bus.close()
"""

FAILPOINTS = (
    "log.append.inserted",
    "log.append.committed",
    "log.commit.inserted",
    "log.rotate.opened",
    "log.rotate.closed",
    "log.trim.forgotten",
)


def live(folder: Path, armed: str) -> tuple[int, list[str]]:
    run = subprocess.run(
        [sys.executable, "-c", LIFE, str(folder)],
        env={**os.environ, ENVIRONMENT: armed},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode in (0, -9), run.stderr
    return run.returncode, run.stdout.splitlines()


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("name", FAILPOINTS)
def test_a_killed_log_has_what_it_acknowledged_once(name: str, nth: int, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    code, said = live(folder, f"{name}=kill@{nth}")
    assert code == -9, f"the life of a log passes {name} fewer than {nth} times"
    acknowledged = max((int(line.split()[1]) for line in said if line.startswith("entry")), default=-1)
    committed = max((int(line.split()[1]) for line in said if line.startswith("group")), default=-1)
    bus = SQLiteBus(folder, **SMALL)
    held = everything(bus)
    assert held == list(range(bus.ends(0).first, len(held) + bus.ends(0).first))
    assert bus.ends(0).next - 1 in (acknowledged, acknowledged + 1)
    group = bus.committed("record")
    assert group.positions.get(0, Position(0, -1)).offset in (committed, bus.ends(0).next - 1)
    bus.close()
    code, _ = live(folder, "")
    assert code == 0
    bus = SQLiteBus(folder, **SMALL)
    assert everything(bus)[-1] == 299
    bus.close()
