"""Files that change, deceive or are beyond all measure while they are read; the corpus has those that lie still."""

from __future__ import annotations

import lzma
import os
import sqlite3
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tapehouse import bulk
from tapehouse.bulk.formats.blocks import GREW
from tapehouse.bulk.formats.text import CUT
from tapehouse.errors import InvalidData
from tapehouse.store.memory import MemoryStore

DAYS = [f"2024-01-{day:02},1,3,0.5,2,10" for day in range(1, 29)]
HEAD = "Date,Open,High,Low,Close,Volume\n"


def load(path: Path, files: list[bulk.RecognisedFile] | None = None) -> bulk.LoadReport:
    return bulk.load([path], MemoryStore(), quarantine_dir=path.parent / "q", files=files)


@pytest.mark.parametrize("seen", [9 * len(DAYS[0]) + 9, 9 * len(DAYS[0])])
def test_a_file_that_grows_is_read_up_to_the_size_that_it_had(tmp_path: Path, seen: int) -> None:
    path = tmp_path / "KO.csv"
    text = HEAD + "\n".join(DAYS) + "\n"
    path.write_text(text[: len(HEAD) + seen])
    files = bulk.plan([path], bulk.LoadOptions())
    path.write_text(text)
    (report,) = load(path, files).files
    whole = 9 if seen > 9 * len(DAYS[0]) else 8
    assert report.counts.inserted == whole
    assert {each.reason: each.rows for each in report.rejections} == ({} if whole == 9 else {CUT: 1})
    assert report.notes == [f"{GREW} ({len(text) - len(HEAD) - seen:,})"]
    assert load(path).totals.inserted == len(DAYS)


def test_a_file_that_shrinks_has_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "KO.csv"
    path.write_text(HEAD + "\n".join(DAYS) + "\n")
    files = bulk.plan([path], bulk.LoadOptions())
    path.write_text(HEAD + "\n".join(DAYS[:5]) + "\n")
    (report,) = load(path, files).files
    assert report.counts.inserted == 5
    assert report.problem is not None
    assert "when it was looked at, and now has" in report.problem.message


def test_a_fingerprint_tells_contents_apart(tmp_path: Path) -> None:
    path = tmp_path / "KO.csv"
    path.write_text(HEAD + "\n".join(DAYS))
    (first,) = bulk.plan([path], bulk.LoadOptions())
    assert first.fingerprint is not None
    assert first.fingerprint.size == path.stat().st_size
    assert bulk.plan([path], bulk.LoadOptions())[0].fingerprint == first.fingerprint
    os.utime(path, ns=(0, 0))
    (touched,) = bulk.plan([path], bulk.LoadOptions())
    assert touched.fingerprint is not None
    assert touched.fingerprint == msgspec.structs.replace(first.fingerprint, mtime_ns=0)
    path.write_text((HEAD + "\n".join(DAYS)).replace("0.5,2,10", "0.5,2,11"))
    os.utime(path, ns=(0, 0))
    (changed,) = bulk.plan([path], bulk.LoadOptions())
    assert changed.fingerprint is not None
    assert changed.fingerprint.digest != first.fingerprint.digest


def test_members_of_a_zip_have_fingerprints_of_their_own(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("KO.csv", HEAD + "\n".join(DAYS))
        archive.writestr("PEP.csv", HEAD + "\n".join(DAYS[1:]))
    one, other = bulk.plan([tmp_path / "two.zip"], bulk.LoadOptions())
    assert one.fingerprint is not None
    assert other.fingerprint is not None
    assert (one.fingerprint.digest, one.fingerprint.size) == (other.fingerprint.digest, other.fingerprint.size)
    assert one.fingerprint.crc != other.fingerprint.crc


def test_a_zip_that_was_replaced_meanwhile_is_read_anew(tmp_path: Path) -> None:
    for count in (10, 20):
        with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
            archive.writestr("KO.csv", HEAD + "\n".join(DAYS[:count]))
        assert load(tmp_path / "one.zip").totals.inserted == count


def test_what_comes_after_the_last_column_further_down_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "KO.csv"
    days = [
        f"{year}-{month:02}-{day:02}" for year in range(1900, 1920) for month in range(1, 13) for day in range(1, 29)
    ]
    rows = [f"{day},1,3,0.5,2,10," for day in days]
    rows[4_000] += "7"
    rows[4_100] = rows[4_100].removesuffix(",")
    path.write_text(HEAD + "\n".join(rows))
    (report,) = load(path).files
    assert report.counts.inserted == len(days) - 2
    (rejection,) = report.rejections
    assert rejection.reason == "the number of fields is not 6, nor 7 of which the last is empty"
    assert [each.row for each in rejection.examples] == [rows[4_000], rows[4_100]]


def test_rows_of_which_none_fits_say_how_many_fields_they_have(tmp_path: Path) -> None:
    path = tmp_path / "KO.csv"
    path.write_text(HEAD + "\n" + "\n".join(f"{row},,\r" for row in DAYS))
    with pytest.raises(InvalidData, match=r"28 rows have 8 fields, the header has 6 \(line 3\)"):
        load(path)
    path.write_text(HEAD + DAYS[0][:-3])
    with pytest.raises(InvalidData, match=r"1 row has 5 fields, the header has 6 \(line 2\)"):
        load(path)


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A database that is being written: six rows are there, and more are in a transaction that is open."""
    connection = sqlite3.connect(tmp_path / "market.sqlite", isolation_level=None)
    connection.execute("CREATE TABLE bars (symbol TEXT, date TEXT, open, high, low, close, volume)")
    insert = "INSERT INTO bars VALUES ('KO', ?, 1, 3, 0.5, 2, 10)"
    connection.executemany(insert, [(row[:10],) for row in DAYS[:6]])
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN")
    connection.executemany(insert, [(row[:10],) for row in DAYS[6:]])
    yield connection
    connection.close()


def test_a_database_that_is_being_written_is_read_as_of_one_moment(writing: sqlite3.Connection, tmp_path: Path) -> None:
    path = tmp_path / "market.sqlite"
    assert load(path).totals.inserted == 6
    writing.execute("COMMIT")
    assert load(path).totals.inserted == len(DAYS)


def test_a_database_whose_writer_lets_nobody_read_has_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tapehouse.bulk.formats.tables.BUSY_TIMEOUT_S", 0.05)
    connection = sqlite3.connect(tmp_path / "market.sqlite", isolation_level=None)
    connection.execute("CREATE TABLE bars (symbol TEXT, date TEXT, open, high, low, close, volume)")
    connection.execute("BEGIN EXCLUSIVE")
    (file,) = bulk.plan([tmp_path / "market.sqlite"], bulk.LoadOptions())
    connection.close()
    assert file.problem is not None
    assert "another process writes to it" in file.problem.message


def test_a_value_of_megabytes_in_a_database_ends_the_reading_and_rows_of_other_types_do_not(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "market.sqlite", isolation_level=None)
    connection.execute("CREATE TABLE bars (symbol TEXT, date TEXT, open, high, low, close, volume)")
    insert = "INSERT INTO bars VALUES (?, ?, ?, 3, 0.5, 2, 10)"
    days = [
        f"{year}-{month:02}-{day:02}" for year in range(2000, 2016) for month in range(1, 13) for day in range(1, 29)
    ]
    rows = [("KO", day, 1 if number < 3_000 else "1.5" if number < 4_000 else 1.5) for number, day in enumerate(days)]
    connection.executemany(insert, rows)
    report = load(tmp_path / "market.sqlite")
    assert (report.totals.inserted, report.totals.quarantined) == (len(days), 0)
    connection.execute(insert, ("PEP", "2016-01-01", "1" * (5 << 20)))
    connection.close()
    (found,) = load(tmp_path / "market.sqlite").files
    assert found.problem is not None
    assert "too big" in found.problem.message


def test_one_wrong_file_among_a_thousand_is_named_and_the_others_are_loaded(tmp_path: Path) -> None:
    for number in range(1_000):
        (tmp_path / f"S{number:04}.csv").write_text(HEAD + "\n".join(DAYS))
    (tmp_path / "S0500.csv").write_bytes(bytes(range(256)) * 8)
    files = bulk.plan([tmp_path], bulk.LoadOptions())
    assert [file.name for file in files if file.problem] == ["S0500.csv"]
    assert all(file.interval == "1d" for file in files if not file.problem)
    report = load(tmp_path, files[495:505])
    assert (report.totals.inserted, report.complete) == (9 * len(DAYS), False)


@pytest.mark.parametrize("packed", ["zip", "xz"])
def test_what_expands_beyond_all_measure_is_not_held_in_memory(tmp_path: Path, packed: str) -> None:
    good = (HEAD + "\n".join(DAYS) + "\n").encode()
    path = tmp_path / f"KO.csv.{packed}"
    if packed == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("KO.csv", "w") as member:
            member.write(good)
            for _ in range(100):
                member.write(b"\n" * (1 << 20))
    else:
        path.write_bytes(lzma.compress(good + b"\n" * (100 << 20), preset=0))
    tracemalloc.start()
    try:
        (file,) = bulk.plan([path], bulk.LoadOptions())
        if file.problem is None:
            (report,) = load(path, [file]).files
            assert report.counts.inserted == len(DAYS)
            problem = report.problem
        else:
            problem = file.problem
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert problem is not None
    assert "expands to more than 200 times its size" in problem.message
    assert peak < 50 << 20


def test_a_parquet_file_that_lies_about_its_number_of_rows_is_read_as_it_is(tmp_path: Path) -> None:
    """Damage to the footer is a problem of the file, and never rows that are not there."""
    columns = {name: [2.0] * 6 for name in ("open", "high", "low", "close", "volume")}
    times = pa.array(range(1_704_205_800, 1_704_206_160, 60), pa.timestamp("s", "UTC"))
    path = tmp_path / "KO_1m.parquet"
    pq.write_table(pa.table({"timestamp": times, **columns}), path)
    good = path.read_bytes()
    footer = int.from_bytes(good[-8:-4], "little")
    for place in range(len(good) - 8 - footer, len(good) - 8, 7):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x5A]) + good[place + 1 :])
        try:
            report = load(path)
        except InvalidData:
            continue
        except Exception as exc:  # noqa: BLE001 - whatever else comes is what this test looks for
            pytest.fail(f"byte {place}: {exc!r}")
        assert report.totals.inserted <= 6
