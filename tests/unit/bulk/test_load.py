"""Whole loads, from files to the store in memory: what bad input gets, and that nothing is lost."""

from __future__ import annotations

import csv
import gzip
import io
import threading
import zipfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tapehouse import bulk
from tapehouse.bulk.base import Counts, FileReport
from tapehouse.errors import InvalidData, NotFound, StoreFull, UnreadableFile, UnrecognisedFile
from tapehouse.model import Commit, Interval, Kind, OnConflict
from tapehouse.store.base import Selection
from tapehouse.store.memory import MemoryStore

HEADER = "symbol,timestamp,open,high,low,close,volume"
MINUTE_NS = 60_000_000_000
FIRST = 1_704_205_800_000_000_000  # 2024-01-02T14:30:00Z


def bar(minute: int, symbol: str = "AAPL", values: str = "10,12,9,11,100") -> str:
    time = datetime(2024, 1, 2, 14, 30) + timedelta(minutes=minute)
    return f"{symbol},{time.isoformat()}Z,{values}"


def text(rows: Sequence[str], header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


def good_rows(count: int) -> list[str]:
    return [bar(minute) for minute in range(count)]


class Loaded:
    """A load into a store in memory, and what can be asked of it."""

    def __init__(self, folder: Path, paths: Sequence[str | Path], **options: Any) -> None:
        self.store = MemoryStore()
        self.options = bulk.LoadOptions(**options)
        self.folder = folder / "quarantine"
        self.report = bulk.load(paths, self.store, self.options, quarantine_dir=self.folder)

    @property
    def file(self) -> FileReport:
        assert len(self.report.files) == 1
        return self.report.files[0]

    @property
    def reasons(self) -> dict[str, int]:
        return {each.reason: each.rows for each in self.file.rejections}

    def quarantined(self) -> list[dict[str, str]]:
        if self.file.quarantine is None:
            return []
        with Path(self.file.quarantine).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def rows(self, kind: Kind = Kind.BARS, interval: Interval | None = Interval.M1) -> list[dict[str, Any]]:
        columns = tuple(name for name in ("symbol", "timestamp", "close", "price", "source") if _has(kind, name))
        table = self.store.read(Selection(kind=kind, interval=interval, columns=columns)).table()
        return [dict(row, timestamp=time) for row, time in zip(table.to_pylist(), _times(table), strict=True)]


def _has(kind: Kind, name: str) -> bool:
    return name in ({"symbol", "timestamp", "source"} | ({"close"} if kind is Kind.BARS else {"price"}))


def _times(table: pa.Table) -> list[int]:
    return [int(value) for value in table["timestamp"].cast(pa.int64()).to_pylist()]


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def write_and_load(content: str | bytes, name: str = "bars.csv", **options: Any) -> Loaded:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Loaded(tmp_path, [path], **options)

    return write_and_load


def test_good_rows_are_in_the_store(load: Any) -> None:
    loaded = load(text(good_rows(5)))
    assert loaded.file.counts == Counts(read=5, inserted=5, commits=1)
    assert [row["timestamp"] for row in loaded.rows()] == [FIRST + n * MINUTE_NS for n in range(5)]
    assert loaded.rows()[0] == {"symbol": "AAPL", "timestamp": FIRST, "close": 11.0, "source": "file:bars.csv"}
    assert loaded.report.complete
    assert loaded.report.head == 1
    assert loaded.file.quarantine is None
    assert not loaded.folder.exists()


def test_the_same_file_twice_changes_nothing(load: Any, tmp_path: Path) -> None:
    loaded = load(text(good_rows(5)))
    again = bulk.load([tmp_path / "bars.csv"], loaded.store, quarantine_dir=loaded.folder)
    assert again.totals == Counts(read=5, unchanged=5, duplicates_in_store=5)
    assert again.head == 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (bar(3, values="10,9,8,9.5,100"), "high is below open"),
        (bar(3, values="10,10.5,9,11,100"), "high is below close"),
        (bar(3, values="10,12,10.5,11,100"), "low is above open"),
        (bar(3, values="10.6,12,10.5,10.4,100"), "low is above close"),
        (bar(3, values="10,12,9,11,-1"), "volume is negative"),
        (bar(3, values="10,12,9,,100"), "close is missing"),
        (bar(3, values="10,12,9,null,100"), "close is missing"),
        (bar(3, values="10,NaN,9,11,100"), "high is not a finite number"),
        (bar(3, values="10,inf,9,11,100"), "high is not a finite number"),
        (bar(3, values="10,12,-Infinity,11,100"), "low is not a finite number"),
        (bar(3, values="ten,12,9,11,100"), "open is not a number"),
        (bar(3, values="10,12,9,11,0x10"), "volume is not a number"),
        (bar(3, values="10,12,9,11"), "the number of fields is not 7"),
        (bar(3, values="10,12,9,11,100,7"), "the number of fields is not 7"),
        (bar(3, symbol=""), "symbol is missing"),
        (bar(3, symbol="A APL"), "symbol is not one that can be"),
        (bar(3, symbol="../AAPL"), "symbol is not one that can be"),
        (bar(3, symbol="A" * 300), "symbol is not one that can be"),
        ("AAPL,,10,12,9,11,100", "timestamp is missing"),
        ("AAPL,yesterday,10,12,9,11,100", "timestamp is not a date or time written as ISO 8601"),
        ("AAPL,2024-02-30T14:30:00Z,10,12,9,11,100", "timestamp is not a date or time written as ISO 8601"),
        ("AAPL,1600-01-02T14:30:00Z,10,12,9,11,100", "timestamp is not a time that int64 nanoseconds hold"),
        ("AAPL,2024-01-02T14:33:30Z,10,12,9,11,100", "timestamp is not a multiple of 1m, where a bar of 1m opens"),
        ('AAPL,"2024-01-02T14:33:00Z,10,12,9,11,100', "a quote is never closed"),
        ('AAPL,2024-01-02T14:33:00Z,10,12,9,11,"100', "a quote is never closed"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_line_and_reason(load: Any, row: str, reason: str) -> None:
    rows = good_rows(6)
    rows[3] = row
    loaded = load(text(rows))
    assert loaded.reasons == {reason: 1}
    assert loaded.quarantined() == [{"file": "bars.csv", "line": "5", "reason": reason, "row": row}]
    assert loaded.file.counts == Counts(read=6, quarantined=1, inserted=5, commits=1)
    assert FIRST + 3 * MINUTE_NS not in [row["timestamp"] for row in loaded.rows()]
    assert loaded.report.complete


def test_bytes_that_are_not_utf8_in_a_symbol(load: Any) -> None:
    rows = good_rows(2_000)
    rows[1_990] = bar(1_990, symbol="A\udcff")
    content = "\n".join([HEADER, *rows]).encode("utf-8", "surrogateescape")
    loaded = load(content)
    assert loaded.reasons == {"symbol is not UTF-8": 1}
    assert loaded.quarantined()[0]["line"] == "1992"
    assert loaded.quarantined()[0]["row"].startswith("A\\xff,")


def test_a_stray_quote_does_not_take_the_rows_after_it(load: Any) -> None:
    rows = good_rows(400)
    rows[100] = rows[100].replace("AAPL", '"AAPL')
    rows[300] = rows[300].replace("AAPL", 'AAPL"')
    loaded = load(text(rows), block_bytes=1_000)
    assert sum(loaded.reasons.values()) == 2
    assert [row["line"] for row in loaded.quarantined()] == ["102", "302"]
    assert loaded.file.counts.inserted == 398


def test_a_newline_inside_quotes_is_part_of_the_row(load: Any) -> None:
    rows = [f'"AAPL","line one\nline two",{bar(n).removeprefix("AAPL,")}' for n in range(4)]
    loaded = load(
        text([*rows, f'"AAPL","x",{bar(4, values="10,9,8,9,1").removeprefix("AAPL,")}'], f"symbol,note{HEADER[6:]}")
    )
    assert loaded.file.counts.inserted == 4
    assert [row["line"] for row in loaded.quarantined()] == ["10"]
    assert loaded.file.file.ignored == ("note",)


def test_blank_lines_and_crlf_keep_the_line_numbers(load: Any) -> None:
    rows = [*good_rows(3), "", "", bar(3, values="1,1,1,1,x"), "", bar(4)]
    loaded = load(text(rows).replace("\n", "\r\n"))
    assert loaded.file.counts == Counts(read=5, quarantined=1, inserted=4, commits=1)
    assert loaded.quarantined()[0]["line"] == "7"
    assert loaded.quarantined()[0]["row"] == bar(3, values="1,1,1,1,x")


def test_a_carriage_return_inside_a_row_is_bad(load: Any) -> None:
    rows = good_rows(6)
    rows[3] = rows[3].replace(",12,", ",1\r2,")
    loaded = load(text(rows))
    assert loaded.reasons == {"the row is no CSV: a line ends inside it": 1}
    assert loaded.quarantined()[0]["line"] == "5"
    assert loaded.file.counts.inserted == 5


def test_a_field_without_end_in_the_sample(load: Any) -> None:
    with pytest.raises(UnreadableFile, match="no rows of text"):
        load(f"{HEADER}\n{'x' * 200_000},1\n")


def test_lines_that_end_with_cr_alone(load: Any) -> None:
    loaded = load(text([*good_rows(3), bar(3, values="1,1,1,1,x")]).replace("\n", "\r"))
    assert loaded.file.counts == Counts(read=4, quarantined=1, inserted=3, commits=1)
    assert loaded.quarantined()[0]["line"] == "5"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_other_encodings(load: Any, encoding: str) -> None:
    said = {"encoding": encoding} if encoding == "utf-16-be" else {}
    loaded = load(text(good_rows(4)).encode(encoding), **said)
    assert loaded.file.counts.inserted == 4
    assert loaded.rows()[0]["symbol"] == "AAPL"


def test_a_name_in_latin_1_is_read_as_cp1252_and_said(load: Any) -> None:
    rows = [f"{row},Soci\xe9t\xe9" for row in good_rows(4)]
    loaded = load(text(rows, f"{HEADER},nom").encode("latin-1"))
    assert loaded.file.counts.inserted == 4
    assert any("cp1252" in note for note in loaded.file.file.notes)


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ("", UnreadableFile, "empty"),
        ("\n\n  \n", UnreadableFile, "blank"),
        (HEADER, UnreadableFile, "no rows"),
        (HEADER + "\n", UnreadableFile, "no rows"),
        (b"\x00\x01\x02" * 1000, UnreadableFile, "no text"),
        ("a^b^c\n1^2^3\n", UnrecognisedFile, "--delimiter"),
        ("a,b,c\n1,2,3\n", UnrecognisedFile, "'a', 'b', 'c'"),
        ("date,open,high,low,close\n2024-01-02,1,1,1,1\n", UnrecognisedFile, "--map volume="),
        ("symbol,open,high,low,close,volume\nA,1,1,1,1,1\n", UnrecognisedFile, "--map timestamp="),
        ("date,open,close,volume\n2024-01-02,1,1,1\n", UnrecognisedFile, "high, low"),
        (text([bar(0)]), UnrecognisedFile, "--interval"),
        ("date,open,high,low,close,close,volume,symbol\n", UnrecognisedFile, "5 ('close') and 6 ('close')"),
        (b"PAR1 and nothing else", UnreadableFile, "Parquet"),
        (b"\x1f\x8bbroken", UnreadableFile, "damaged"),
        (b"PK\x03\x04broken", UnreadableFile, "damaged"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_why(load: Any, content: Any, error: type[InvalidData], says: str) -> None:
    with pytest.raises(error) as caught:
        load(content)
    assert says in caught.value.message
    assert "bars.csv" in caught.value.message


def test_one_bad_file_among_others_does_not_stop_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text(good_rows(3)))
    (tmp_path / "b.csv").write_text("")
    (tmp_path / "c.csv").write_text(text([bar(n, symbol="MSFT") for n in range(3)]))
    loaded = Loaded(tmp_path, [tmp_path])
    assert [report.counts.inserted for report in loaded.report.files] == [3, 0, 3]
    assert loaded.report.files[1].problem is not None
    assert not loaded.report.complete
    assert loaded.report.totals.commits == 1  # small files share it
    assert [report.counts.commits for report in loaded.report.files] == [1, 0, 1]


def test_a_file_cut_in_mid_row(load: Any) -> None:
    loaded = load(text(good_rows(5))[:-20])
    assert loaded.reasons == {"the number of fields is not 7": 1}
    assert loaded.file.counts.inserted == 4


def test_a_gzip_cut_in_the_middle_loads_what_is_whole(load: Any) -> None:
    rows = [bar(n, values=f"10,12,9,11,{n * 7919 % 1000}") for n in range(500)]
    packed = gzip.compress(text(rows).encode())
    loaded = load(packed[: len(packed) * 2 // 3], "bars.csv.gz")
    assert loaded.file.problem is not None
    assert loaded.file.problem.code == "unreadable_file"
    assert "cut off" in loaded.file.problem.message
    counts = loaded.file.counts
    assert 0 < counts.inserted < 500
    assert counts.read == counts.inserted + counts.quarantined
    assert set(loaded.reasons) <= {"the file is cut off in this row"}
    assert [row["timestamp"] for row in loaded.rows()] == [FIRST + n * MINUTE_NS for n in range(counts.inserted)]


def test_a_damaged_gzip_is_said(load: Any) -> None:
    packed = bytearray(gzip.compress(text(good_rows(500)).encode()))
    packed[-6] ^= 0xFF
    with pytest.raises(UnreadableFile, match=r"bars\.csv\.gz is damaged: .*incorrect data check"):
        load(bytes(packed), "bars.csv.gz")


def test_a_zip_with_several_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("AAPL.csv", text(good_rows(3)))
        archive.writestr("sub/MSFT.csv", text([bar(n, symbol="MSFT") for n in range(4)]))
        archive.writestr("read.me", "nothing")
        archive.writestr("__MACOSX/._AAPL.csv", "junk")
    loaded = Loaded(tmp_path, [tmp_path / "many.zip"])
    assert [report.file.name for report in loaded.report.files] == ["many.zip/AAPL.csv", "many.zip/sub/MSFT.csv"]
    assert [report.counts.inserted for report in loaded.report.files] == [3, 4]
    assert "read.me" in loaded.report.files[0].file.notes[0]


def test_a_zip_that_is_encrypted(tmp_path: Path) -> None:
    path = tmp_path / "secret.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("AAPL.csv", text(good_rows(3)))
    packed = bytearray(path.read_bytes())
    packed[6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(packed)
    with pytest.raises(UnreadableFile, match="encrypted"):
        Loaded(tmp_path, [path])


def test_globs_folders_and_files_each_once(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for place, symbol in (("x.csv", "X"), ("deep/y.tsv", "Y"), ("deep/er/z.txt", "Z"), (".hidden.csv", "H")):
        delimiter = "\t" if place.endswith("tsv") else ","
        (tmp_path / place).write_text(text([bar(n, symbol=symbol) for n in range(3)]).replace(",", delimiter))
    (tmp_path / "notes.md").write_text("no data")
    loaded = Loaded(tmp_path, [tmp_path / "x.csv", tmp_path, str(tmp_path / "*.csv")])
    assert sorted(loaded.store.symbols()) == ["X", "Y", "Z"]
    assert len(loaded.report.files) == 3


def test_the_folder_of_a_store_is_not_loaded_by_the_way(tmp_path: Path) -> None:
    (tmp_path / "data" / "quarantine").mkdir(parents=True)
    (tmp_path / "data" / "owner.lock").touch()
    for path in (tmp_path / "X.csv", tmp_path / "data" / "Y.csv", tmp_path / "data" / "quarantine" / "Z.csv"):
        path.write_text(text([bar(n, symbol=path.stem) for n in range(3)]))
    assert Loaded(tmp_path, [tmp_path]).store.symbols() == ["X"]
    assert Loaded(tmp_path, [tmp_path / "data" / "Y.csv"]).store.symbols() == ["Y"]


@pytest.mark.parametrize("path", ["nothing.csv", "*.nothing", "."])
def test_paths_that_are_not_there(tmp_path: Path, path: str) -> None:
    with pytest.raises(NotFound):
        Loaded(tmp_path, [tmp_path / path])


def test_a_million_bad_rows_stop_the_file_with_its_reason(load: Any) -> None:
    rows = "AAPL,2024-01-02T14:30:00Z,10,9,8,9,1\n" * 1_000_000
    loaded = load(f"{HEADER}\n{bar(0)}\n{bar(1)}\n{bar(2)}\n{rows}")
    assert loaded.file.problem is not None
    assert "high is below open" in loaded.file.problem.message
    counts = loaded.file.counts
    assert 1_000 <= counts.quarantined < 1_000_000
    assert counts.read == counts.quarantined + counts.unwritten
    assert counts.inserted == 0


@pytest.mark.parametrize(("good", "bad", "given_up"), [(25, 225, True), (2, 2, False), (2, 3, True), (3, 2, False)])
def test_a_small_file_of_which_most_rows_are_bad_is_not_stored(load: Any, good: int, bad: int, given_up: bool) -> None:
    rows = [*good_rows(good), *(bar(good + n, values="10,9,8,9,1") for n in range(bad))]
    loaded = load(text(rows), block_bytes=1_000)
    counts = loaded.file.counts
    assert (counts.read, counts.quarantined) == (good + bad, bad)
    assert (counts.inserted, counts.unwritten) == ((0, good) if given_up else (good, 0))
    assert len(loaded.quarantined()) == bad
    assert (loaded.file.problem is not None) == given_up
    if loaded.file.problem is not None:
        said = f"{bad:,} of its {good + bad:,} rows are bad, mostly since high is below open"
        assert said in loaded.file.problem.message
        assert "none of it was stored" in loaded.file.problem.message


def test_bad_rows_can_be_allowed_all(load: Any) -> None:
    rows = "AAPL,2024-01-02T14:30:00Z,10,9,8,9,1\n" * 100_000
    loaded = load(f"{HEADER}\n{bar(0)}\n{bar(1)}\n{bar(2)}\n{rows}", max_bad_share=1.0, block_bytes=1 << 20)
    assert loaded.file.problem is None
    assert loaded.file.counts == Counts(read=100_003, quarantined=100_000, inserted=3, commits=1)
    assert len(loaded.quarantined()) == 100_000
    assert len(loaded.file.rejections[0].examples) == 3


def test_duplicates_are_left_to_the_store_and_reported(load: Any) -> None:
    loaded = load(text([*good_rows(3), bar(1), bar(2, values="10,12,9,10,100")]))
    counts = loaded.file.counts
    assert (counts.read, counts.unchanged, counts.rejected, counts.inserted) == (5, 1, 1, 3)
    assert loaded.rows()[2]["close"] == 10.0


def test_zero_and_negative_prices_are_taken_and_counted(load: Any) -> None:
    loaded = load(text([*good_rows(3), bar(3, values="-30,-20,-40,-37.63,100"), bar(4, values="0,0,0,0,0")]))
    assert loaded.file.counts.inserted == 5
    assert loaded.file.notes == ["rows with a zero or negative price were taken (2)"]


def test_parquet_with_its_own_types(tmp_path: Path) -> None:
    times = pa.array([FIRST // 1000 + n * 60_000_000 for n in range(4)], pa.timestamp("us", "America/New_York"))
    table = pa.table(
        {
            "Ticker": pa.array(["AAPL"] * 4).dictionary_encode(),
            "Time": times,
            "Open": pa.array([10, 10, 10, 10], pa.int32()),
            "High": pa.array([12.5, 12.5, 9.0, 12.5], pa.float32()),
            "Low": pa.array(["9.1", "9.2", "9.3", "x"]),
            "Close": pa.array([11, 11, 11, 11], pa.decimal128(10, 2)),
            "Volume": pa.array([2**53 + 1, 5, 5, 5], pa.int64()),
        }
    )
    pq.write_table(table, tmp_path / "bars.parquet")
    loaded = Loaded(tmp_path, [tmp_path / "bars.parquet"], max_bad_share=1)
    assert loaded.file.counts == Counts(read=4, quarantined=3, inserted=1, commits=1)
    assert [(row["line"], row["reason"]) for row in loaded.quarantined()] == [
        ("1", "volume is not a number that float64 holds"),
        ("3", "high is below open"),
        ("4", "low is not a number that float64 holds"),
    ]
    assert '"Ticker": "AAPL"' in loaded.quarantined()[0]["row"]
    assert loaded.rows() == [
        {"symbol": "AAPL", "timestamp": FIRST + MINUTE_NS, "close": 11.0, "source": "file:bars.parquet"}
    ]


def test_parquet_of_types_that_cannot_be(tmp_path: Path) -> None:
    table = pa.table({"symbol": ["A"], "timestamp": [True], "price": [1.0], "size": [1.0]})
    pq.write_table(table, tmp_path / "trades.parquet")
    with pytest.raises(UnrecognisedFile, match="'timestamp' is bool, and timestamp needs times"):
        Loaded(tmp_path, [tmp_path / "trades.parquet"])


def test_parquet_cut_off(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"price": list(range(1000))}), buffer)
    (tmp_path / "cut.parquet").write_bytes(buffer.getvalue()[:500])
    with pytest.raises(UnreadableFile, match=r"cut\.parquet"):
        Loaded(tmp_path, [tmp_path / "cut.parquet"])


def test_trades_without_ids_get_ordinals_across_blocks(load: Any) -> None:
    rows = [f"2024-01-02T14:30:00.{n // 10:09}Z,10.5,100" for n in range(3_000)]
    loaded = load(text(rows, "timestamp,price,size"), "AAPL.csv", block_bytes=1_000, batch_rows=100)
    assert loaded.file.counts.inserted == 3_000
    assert len(loaded.rows(Kind.TRADES, None)) == 3_000


def test_quotes_without_sizes(load: Any) -> None:
    rows = [f"2024-01-02T14:30:{n:02}Z,1.09,1.10" for n in range(5)]
    with pytest.raises(UnrecognisedFile, match="--map bid_size=COLUMN --map ask_size=COLUMN"):
        load(text(rows, "time,bid,ask"), "EURUSD.csv")
    loaded = load(text(rows, "time,bid,ask"), "EURUSD.csv", mapping={"bid_size": "0", "ask_size": "0"})
    assert loaded.file.counts.inserted == 5
    assert loaded.store.symbols() == ["EURUSD"]


class Failing:
    """A writer that takes some writes and then has no space left."""

    def __init__(self, writes: int) -> None:
        self._left, self._number = writes, 0

    def write(self, kind: Kind, table: pa.Table, **_: Any) -> Commit:
        if self._left == 0:
            raise StoreFull("no space left in the folder", folder="data")
        self._left -= 1
        self._number += 1
        return Commit(number=self._number, recorded=0, kind=kind, inserted=table.num_rows)


def test_an_error_of_the_writer_stops_the_load_and_says_how_far_it_came(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(text(good_rows(900)))
    options = bulk.LoadOptions(block_bytes=1_000, batch_rows=100, batch="my-batch")
    threads = threading.active_count()
    with pytest.raises(StoreFull, match=r"load my-batch stopped: \d+ rows in 2 commits are stored") as caught:
        bulk.load([path], Failing(2), options, quarantine_dir=tmp_path / "q")
    report = msgspec.convert(caught.value.details["report"], bulk.LoadReport)
    assert report.totals.commits == 2
    assert report.totals.inserted + report.totals.unwritten == report.totals.read
    assert caught.value.details["folder"] == "data"
    assert threading.active_count() == threads


def test_an_interrupt_finishes_the_write_and_returns_the_report(tmp_path: Path) -> None:
    import signal

    path = tmp_path / "bars.csv"
    path.write_text(text(good_rows(900)))
    store = MemoryStore()

    class Interrupting:
        def write(self, kind: Kind, table: pa.Table, **options: Any) -> Commit:
            signal.raise_signal(signal.SIGINT)
            return store.write(kind, table, **options)

    before = signal.getsignal(signal.SIGINT)
    options = bulk.LoadOptions(block_bytes=1_000, batch_rows=100)
    report = bulk.load([path], Interrupting(), options, quarantine_dir=tmp_path / "q")
    assert report.interrupted
    assert not report.complete
    assert report.totals.commits == 1
    assert 100 <= report.totals.inserted < 900
    assert signal.getsignal(signal.SIGINT) is before


def test_conflicts_follow_the_options(tmp_path: Path, load: Any) -> None:
    loaded = load(text(good_rows(3)))
    (tmp_path / "bars.csv").write_text(text([bar(n, values="10,12,9,10,100") for n in range(3)]))
    options = bulk.LoadOptions(on_conflict=OnConflict.KEEP, source="other")
    report = bulk.load([tmp_path / "bars.csv"], loaded.store, options, quarantine_dir=loaded.folder)
    assert (report.totals.rejected, report.totals.replaced) == (3, 0)
    assert loaded.rows()[0]["close"] == 11.0


def test_progress_runs_to_the_end(tmp_path: Path) -> None:
    seen: list[bulk.Progress] = []
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(text([bar(n, symbol=name[0].upper()) for n in range(200)]))
    options = bulk.LoadOptions(block_bytes=2_000)
    bulk.load([tmp_path], MemoryStore(), options, quarantine_dir=tmp_path / "q", progress=seen.append)
    assert [each.bytes_done for each in seen] == sorted(each.bytes_done for each in seen)
    assert seen[-1].bytes_done == seen[-1].bytes_total == sum(path.stat().st_size for path in tmp_path.glob("*.csv"))
    assert seen[-1].rows == 400
    assert {(each.file, each.file_number) for each in seen} == {("a.csv", 1), ("b.csv", 2)}


def test_the_report_is_json(load: Any) -> None:
    loaded = load(text([*good_rows(3), bar(3, values="1,1,1,1,x")]))
    again = msgspec.json.decode(msgspec.json.encode(loaded.report), type=bulk.LoadReport)
    assert again == loaded.report


def test_two_files_of_one_name_have_their_own_quarantine(tmp_path: Path) -> None:
    for folder, symbol in (("x", "X"), ("y", "Y")):
        (tmp_path / folder).mkdir()
        rows = [bar(n, symbol=symbol) for n in range(3)]
        (tmp_path / folder / "2024.csv").write_text(text([*rows, bar(3, symbol=symbol, values="a,b,c,d,e")]))
    loaded = Loaded(tmp_path, [tmp_path])
    files = {report.quarantine for report in loaded.report.files}
    assert len(files) == 2
    assert all(name is not None and Path(name).read_text().count("\n") == 2 for name in files)
