"""What files of many vendors are taken for."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tapehouse import bulk
from tapehouse.bulk.base import TimeStyle
from tapehouse.errors import InvalidRequest, InvalidSymbol, InvalidTime, NotFound, UnknownInterval
from tapehouse.model import Instrument, Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.memory import MemoryStore
from tapehouse.times import format_time

NEW_YORK = [Instrument(pattern="*", timezone="America/New_York")]


def minutes(form: str, count: int = 5, hour: int = 14) -> list[str]:
    return [form.format(h=hour, m=30 + n) for n in range(count)]


VENDORS: dict[str, tuple[str, str, dict[str, Any], tuple[Any, ...]]] = {
    "binance klines, no header, ms": (
        "BTCUSDT-1m-2024-01.csv",
        "\n".join(
            f"{1704205800000 + n * 60000},1,3,0.5,2,10,{1704205859999 + n * 60000},20,7,5,10,0" for n in range(5)
        ),
        {},
        (Kind.BARS, Interval.M1, "BTCUSDT", "2024-01-02T14:30:00Z"),
    ),
    "binance klines, no header, us": (
        "BTCUSDT-1m-2025-01.csv",
        "\n".join(f"{1735741800000000 + n * 60000000},1,3,0.5,2,10,0,20,7,5,10,0" for n in range(5)),
        {},
        (Kind.BARS, Interval.M1, "BTCUSDT", "2025-01-01T14:30:00Z"),
    ),
    "kraken, no header, s": (
        "XBTUSD_1.csv",
        "\n".join(f"{1704205800 + n * 60},1,3,0.5,2,10,7" for n in range(5)),
        {},
        (Kind.BARS, Interval.M1, "XBTUSD", "2024-01-02T14:30:00Z"),
    ),
    "histdata, no header, compact times, Eastern": (
        "EURUSD.csv",
        "\n".join(f"20240102 093{n}00;1,1;1,3;1,05;1,2;0".replace(",", ".") for n in range(5)),
        {"timezone": "America/New_York"},
        (Kind.BARS, Interval.M1, "EURUSD", "2024-01-02T14:30:00Z"),
    ),
    "stooq": (
        "aapl.us.txt",
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
        + "\n".join(f"AAPL.US,5,20240102,9{n:02}00,1,3,0.5,2,10,0" for n in (30, 35, 40, 45)),
        {"timezone": "America/New_York"},
        (Kind.BARS, Interval.M5, None, "2024-01-02T14:30:00Z"),
    ),
    "metatrader": (
        "EURUSD_M1.csv",
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        + "\n".join(f"2024.01.02\t14:3{n}:00\t1\t3\t0.5\t2\t10\t0\t1" for n in range(5)),
        {},
        (Kind.BARS, Interval.M1, "EURUSD", "2024-01-02T14:30:00Z"),
    ),
    "metatrader 4, no header, two time columns": (
        "GBPUSD60.csv",
        "\n".join(f"2024.01.02,{14 + n}:00,1,3,0.5,2,10" for n in range(5)),
        {},
        (Kind.BARS, Interval.H1, "GBPUSD", "2024-01-02T14:00:00Z"),
    ),
    "dukascopy": (
        "EURUSD_Candlestick_1_m.csv",
        "Gmt time,Open,High,Low,Close,Volume\n"
        + "\n".join(f"02.01.2024 14:3{n}:00.000,1,3,0.5,2,10" for n in range(5))
        + "\n"
        + "\n".join(f"13.01.2024 14:3{n}:00.000,1,3,0.5,2,10" for n in range(5)),
        {"symbol": "EURUSD"},
        (Kind.BARS, Interval.M1, "EURUSD", "2024-01-02T14:30:00Z"),
    ),
    "yahoo daily": (
        "AAPL.csv",
        "Date,Open,High,Low,Close,Adj Close,Volume\n" + "\n".join(f"2024-01-0{n},1,3,0.5,2,2,10" for n in range(2, 7)),
        {},
        (Kind.BARS, Interval.D1, "AAPL", "2024-01-02T05:00:00Z"),
    ),
    "yfinance daily with offsets": (
        "AAPL.csv",
        "Date,Open,High,Low,Close,Volume,Dividends,Stock Splits\n"
        + "\n".join(
            f"2024-0{m}-0{n} 00:00:00-0{5 if m == 1 else 4}:00,1,3,0.5,2,10,0,0" for m in (1, 7) for n in (2, 3, 4)
        ),
        {},
        (Kind.BARS, Interval.D1, "AAPL", "2024-01-02T05:00:00Z"),
    ),
    "american dates, am and pm": (
        "MSFT.csv",
        "Date,Open,High,Low,Close,Volume\n"
        + "\n".join(f"01/{n}/2024 9:3{n % 10} AM,1,3,0.5,2,10" for n in range(12, 18)),
        {"timezone": "America/New_York", "interval": Interval.M1},
        (Kind.BARS, Interval.M1, "MSFT", "2024-01-12T14:32:00Z"),
    ),
    "european, decimal comma": (
        "SAP.csv",
        "Datum;Zeit;open;high;low;close;volume\n"
        + "\n".join(f"02.01.2024;14:3{n};1,0;3,0;0,5;2,0;10" for n in range(5))
        + "\n"
        + "\n".join(f"15.01.2024;14:3{n};1,0;3,0;0,5;2,0;10" for n in range(5)),
        {"mapping": {"date": "Datum", "time": "Zeit"}, "timezone": "Europe/Berlin"},
        (Kind.BARS, Interval.M1, "SAP", "2024-01-02T13:30:00Z"),
    ),
    "polygon, short names, epoch ms": (
        "TSLA.csv",
        "v,vw,o,c,h,l,t,n\n" + "\n".join(f"10,1.5,1,2,3,0.5,{1704205800000 + n * 60000},7" for n in range(5)),
        {},
        (Kind.BARS, Interval.M1, "TSLA", "2024-01-02T14:30:00Z"),
    ),
    "tradingview, iso with offset": (
        "NASDAQ_AAPL.csv",
        "time,open,high,low,close,Volume\n" + "\n".join(f"2024-01-02T09:3{n}:00-05:00,1,3,0.5,2,10" for n in range(5)),
        {"symbol_from": r"_(\w+)\.csv"},
        (Kind.BARS, Interval.M1, "AAPL", "2024-01-02T14:30:00Z"),
    ),
    "title lines before the header": (
        "btc.csv",
        "https://www.example.com\nunix,date,symbol,open,high,low,close,Volume BTC,Volume USD\n"
        + "\n".join(f"{1704205800 + n * 3600},2024-01-02 14:30,BTC/USD,1,3,0.5,2,10,20" for n in range(5)),
        {"mapping": {"volume": "Volume BTC"}},
        (Kind.BARS, Interval.H1, None, "2024-01-02T14:30:00Z"),
    ),
    "trades, ns": (
        "ticks/ESZ4.csv",
        "ts_event,price,size,side,trade_id\n"
        + "\n".join(f"{1704205800000000001 + n},4700.25,{n + 1},B,{n}" for n in range(5)),
        {},
        (Kind.TRADES, None, "ESZ4", "2024-01-02T14:30:00.000000001Z"),
    ),
    "trades, fractional seconds": (
        "XBTUSD.csv",
        "time,price,qty\n" + "\n".join(f"{1704205800 + n}.123456789,4700.25,{n + 1}" for n in range(5)),
        {},
        (Kind.TRADES, None, "XBTUSD", "2024-01-02T14:30:00.123456789Z"),
    ),
    "quotes, pipe": (
        "quotes.psv.txt",
        "Symbol|Time|Bid|Bid Size|Ask|Ask Size\n"
        + "\n".join(f"AAPL|2024-01-02 14:30:0{n}.5|1|2|3|4" for n in range(5)),
        {},
        (Kind.QUOTES, None, None, "2024-01-02T14:30:00.500Z"),
    ),
    "no header, columns by number": (
        "t.csv",
        "\n".join(f"x,1.5,{n + 1},2024-01-02T14:30:0{n}Z,KO" for n in range(5)),
        {"mapping": {"price": "2", "size": "3", "timestamp": "4", "symbol": "5"}},
        (Kind.TRADES, None, None, "2024-01-02T14:30:00Z"),
    ),
}


@pytest.mark.parametrize("vendor", VENDORS)
def test_files_of_vendors(vendor: str, tmp_path: Path) -> None:
    name, content, said, (kind, interval, symbol, first) = VENDORS[vendor]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    options = bulk.LoadOptions(**said)
    (file,) = bulk.plan([path], options)
    assert file.problem is None
    assert (file.kind, file.interval, file.symbol) == (kind, interval, symbol)
    store = MemoryStore()
    store.put_instruments(NEW_YORK)
    report = bulk.load([path], store, options, instruments=NEW_YORK, quarantine_dir=tmp_path / "q")
    assert report.totals.quarantined == 0, report.files[0].rejections
    assert report.totals.inserted == len(
        [line for line in content.splitlines() if line[:1].isdigit() or line[:1] in "xA"]
    )
    assert format_time(min(series.first for series in store.coverage())) == first


def plan_one(folder: Path, content: str, name: str = "AAPL.csv", **options: Any) -> bulk.RecognisedFile:
    (folder / name).write_text(content, encoding="utf-8")
    (file,) = bulk.plan([folder / name], bulk.LoadOptions(**options))
    return file


def daily(dates: Sequence[str], header: str = "date,open,high,low,close,volume") -> str:
    return "\n".join([header, *(f"{date},1,3,0.5,2,10" for date in dates)])


def test_day_and_month_that_can_be_taken_for_each_other_are_refused(tmp_path: Path) -> None:
    file = plan_one(tmp_path, daily([f"0{n}/02/2024" for n in range(1, 6)]))
    assert file.problem is not None
    assert "--time-format '%m/%d/%Y'" in file.problem.message
    assert "--time-format '%d/%m/%Y'" in file.problem.message
    said = plan_one(tmp_path, daily([f"0{n}/02/2024" for n in range(1, 6)]), time_format="%d/%m/%Y")
    assert said.problem is None
    assert said.interval is Interval.D1


def test_the_end_of_a_file_tells_day_from_month(tmp_path: Path) -> None:
    dates = [f"0{1 + n % 9}/0{1 + n % 9}/2024 10:{n % 60:02}" for n in range(3_000)]
    rows = [f"{date},{n}.5,100" for n, date in enumerate([*dates, "25/09/2024 10:00"])]
    file = plan_one(tmp_path, "\n".join(["time,price,size", *rows]))
    assert file.problem is None
    assert file.times is not None
    assert file.times.format == "%d/%m/%Y %H:%M"


def test_epochs_say_their_unit(tmp_path: Path) -> None:
    file = plan_one(tmp_path, daily([str(1704205800 + n * 60) for n in range(4)], "t,open,high,low,close,volume"))
    assert file.times is not None
    assert (file.times.style, file.times.unit) == (TimeStyle.EPOCH, "s")
    assert file.times.seen == "by their magnitude: 1704205800 is 2024-01-02T14:30:00Z"


@pytest.mark.parametrize(
    ("dates", "interval"),
    [
        ([f"2024-01-{n:02}" for n in (2, 3, 4, 5, 8, 9)], Interval.D1),
        (["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22"], Interval.W1),
        (["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01"], Interval.MO1),
        (["20240102", "20240103", "20240104"], Interval.D1),
    ],
)
def test_days_weeks_and_months(tmp_path: Path, dates: list[str], interval: Interval) -> None:
    file = plan_one(tmp_path, daily(dates))
    assert file.interval is interval
    assert file.times is not None
    assert file.times.dates


def test_the_interval_by_the_name_when_the_rows_do_not_tell(tmp_path: Path) -> None:
    rows = daily(["2024-01-02T14:30:00Z"], "time,open,high,low,close,volume")
    assert plan_one(tmp_path, rows, "AAPL_5m.csv").interval is Interval.M5
    assert plan_one(tmp_path, rows, "AAPL_5m.csv").symbol == "AAPL"
    assert plan_one(tmp_path, rows, "AAPL.csv").problem is not None
    assert plan_one(tmp_path, rows, "AAPL.csv", interval=Interval.H1).problem is None


def test_a_name_that_contradicts_the_rows_is_refused(tmp_path: Path) -> None:
    times = [f"2024-01-02T14:{m:02}:00Z" for m in (0, 5, 10, 15, 20)]
    file = plan_one(tmp_path, daily(times, "time,open,high,low,close,volume"), "AAPL_1m.csv")
    assert file.problem is not None
    assert "the name says 1m" in file.problem.message


def test_dates_cannot_be_bars_of_minutes(tmp_path: Path) -> None:
    file = plan_one(tmp_path, daily(["2024-01-02", "2024-01-03"]), interval=Interval.M1)
    assert file.problem is not None
    assert "time of day" in file.problem.message


@pytest.mark.parametrize("name", ["data.csv", "ohlcv.csv", "daily_bars.csv"])
def test_a_name_that_is_no_symbol(tmp_path: Path, name: str) -> None:
    file = plan_one(tmp_path, daily([f"2024-01-0{n}" for n in range(2, 6)]), name)
    assert file.problem is not None
    assert "--symbol-from" in file.problem.message


def test_the_symbol_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "GOOG").mkdir()
    file = plan_one(tmp_path / "GOOG", daily([f"2024-01-0{n}" for n in range(2, 6)]), "2024.csv", symbol_from="folder")
    assert (file.symbol, file.source) == ("GOOG", "file:2024.csv")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timezone": "Mars/Olympus"}, InvalidTime),
        ({"symbol": "a b"}, InvalidSymbol),
        ({"symbol_from": "("}, InvalidRequest),
        ({"encoding": "klingon"}, InvalidRequest),
        ({"interval": "7m"}, UnknownInterval),
        ({"kind": "candles"}, InvalidRequest),
        ({"on_conflict": "fight"}, InvalidRequest),
        ({"max_bad_share": 1.5}, InvalidRequest),
        ({"delimiter": "||"}, InvalidRequest),
        ({"decimal": "x"}, InvalidRequest),
        ({"threads": 0}, InvalidRequest),
        ({"prefer": ("a", "b")}, InvalidRequest),
        ({"prefer": ("a", "b"), "on_conflict": "keep"}, InvalidRequest),
    ],
)
def test_options_that_make_no_sense_are_errors_of_the_call(
    tmp_path: Path, options: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        plan_one(tmp_path, daily([f"2024-01-0{n}" for n in range(2, 6)]), **options)


def test_a_path_that_is_not_there() -> None:
    with pytest.raises(NotFound):
        bulk.plan(["nowhere"], bulk.LoadOptions())


def test_mapping_of_what_is_not_there(tmp_path: Path) -> None:
    rows = daily([f"2024-01-0{n}" for n in range(2, 6)])
    for mapping, says in (({"volume": "Menge"}, "'Menge' is not there"), ({"colour": "open"}, "no field 'colour'")):
        file = plan_one(tmp_path, rows, mapping=mapping)
        assert file.problem is not None
        assert says in file.problem.message


def test_the_user_decides_between_twins(tmp_path: Path) -> None:
    rows = "date,open,high,low,close,close,volume\n" + "\n".join(f"2024-01-0{n},1,3,0.5,2,2.5,10" for n in range(2, 6))
    assert plan_one(tmp_path, rows).problem is not None
    file = plan_one(tmp_path, rows, mapping={"close": "6"})
    assert file.problem is None
    assert file.places["close"] == 5


def test_instruments_say_whose_midnight(tmp_path: Path) -> None:
    rows = "symbol,date,open,high,low,close,volume\n" + "\n".join(
        f"{symbol},2024-07-0{n},1,3,0.5,2,10" for n in range(1, 5) for symbol in ("AAPL", "7203.T", "BTC")
    )
    (tmp_path / "mixed.csv").write_text(rows)
    known = [
        Instrument(pattern="*.T", timezone="Asia/Tokyo"),
        Instrument(pattern="AA*", timezone="Europe/Paris"),
        Instrument(pattern="AAPL", timezone="America/New_York"),
    ]
    store = MemoryStore()
    store.put_instruments(known)
    bulk.load([tmp_path / "mixed.csv"], store, instruments=known, quarantine_dir=tmp_path)
    firsts = {series.symbol: pa.scalar(series.first, pa.timestamp("ns")).as_py().hour for series in store.coverage()}
    assert firsts == {"AAPL": 4, "7203.T": 15, "BTC": 0}


def test_daily_bars_that_are_not_at_midnight_are_quarantined(tmp_path: Path) -> None:
    times = ["2024-01-02T05:00:00Z", "2024-01-03T05:00:00Z", "2024-01-04T05:00:00Z", "2024-01-05T06:00:00Z"]
    (tmp_path / "AAPL.csv").write_text(daily(times))
    store = MemoryStore()
    store.put_instruments(NEW_YORK)
    report = bulk.load([tmp_path / "AAPL.csv"], store, instruments=NEW_YORK, quarantine_dir=tmp_path)
    assert [(each.reason, each.rows) for each in report.files[0].rejections] == [
        ("timestamp is not midnight in America/New_York, where a bar of 1d opens", 1)
    ]


def test_hours_that_the_clocks_skip_or_repeat(tmp_path: Path) -> None:
    times = [f"2024-03-10 0{h}:30:00" for h in (0, 1, 2, 3)] + [f"2024-11-03 0{h}:30:00" for h in (0, 1, 2)]
    (tmp_path / "AAPL_1h.csv").write_text(daily(times, "time,open,high,low,close,volume"))
    store = MemoryStore()
    options = bulk.LoadOptions(timezone="America/New_York", interval=Interval.H1)
    report = bulk.load([tmp_path / "AAPL_1h.csv"], store, options, quarantine_dir=tmp_path)
    (rejection,) = report.files[0].rejections
    assert rejection.reason == "timestamp never was: the clocks of America/New_York skipped it"
    assert rejection.examples[0].line == 4
    assert report.files[0].notes == ["rows with a time that the clocks showed twice were taken as the first (1)"]
    table = store.read(Selection(interval=Interval.H1, columns=("timestamp",))).table()
    hours = [time.as_py().strftime("%m-%d %H:%M") for time in table["timestamp"].cast(pa.timestamp("us", "UTC"))]
    assert hours == ["03-10 05:30", "03-10 06:30", "03-10 07:30", "11-03 04:30", "11-03 05:30", "11-03 07:30"]


@pytest.mark.parametrize(
    ("times", "style", "dates"),
    [
        (pa.array([19724, 19725, 19726], pa.date32()), TimeStyle.NATIVE, True),
        (pa.array([1704153600000, 1704240000000, 1704326400000]), TimeStyle.EPOCH, True),
        (pa.array(["2024-01-02", "2024-01-03", "2024-01-04"]), TimeStyle.ISO, True),
        (pa.array([1704171600, 1704258000, 1704344400], pa.timestamp("s", "America/New_York")), TimeStyle.NATIVE, True),
        (pa.array([1704153600, 1704240000, 1704326400], pa.timestamp("s")), TimeStyle.NATIVE, True),
    ],
)
def test_daily_parquet_of_any_time_type(tmp_path: Path, times: pa.Array, style: TimeStyle, dates: bool) -> None:
    columns = {name: [1.0] * 3 for name in ("open", "high", "low", "close", "volume")}
    pq.write_table(pa.table({"date": times, **columns}), tmp_path / "AAPL.parquet")
    (file,) = bulk.plan([tmp_path / "AAPL.parquet"], bulk.LoadOptions())
    assert file.problem is None
    assert file.times is not None
    assert (file.times.style, file.times.dates, file.interval) == (style, dates, Interval.D1)
    store = MemoryStore()
    store.put_instruments(NEW_YORK)
    report = bulk.load([tmp_path / "AAPL.parquet"], store, instruments=NEW_YORK, quarantine_dir=tmp_path)
    assert report.totals.inserted == 3
    assert store.coverage()[0].first == 1_704_171_600_000_000_000


def test_a_file_with_only_the_header_or_no_file_at_all_has_a_problem(tmp_path: Path) -> None:
    assert plan_one(tmp_path, "date,open,high,low,close,volume\n").problem is not None
    assert plan_one(tmp_path, "").problem is not None


TOKYO, PARIS = "Asia/Tokyo", "Europe/Paris"


@pytest.mark.parametrize(
    ("zones", "said"),
    [
        ({}, "UTC"),
        ({"MSFT": TOKYO}, "UTC"),
        ({"*": TOKYO}, TOKYO),
        ({"*": PARIS, "A*": TOKYO}, TOKYO),
        ({"*": PARIS, "AAPL": "UTC"}, "UTC"),
    ],
)
def test_the_zone_of_the_dates_of_one_symbol_is_said(tmp_path: Path, zones: dict[str, str], said: str) -> None:
    file = plan_one(tmp_path, daily(["2024-01-02", "2024-01-03", "2024-01-04"]))
    instruments = [Instrument(pattern=pattern, timezone=zone) for pattern, zone in zones.items()]
    assert f"stamped with midnight in {said};" in "\n".join(bulk.describe(file, instruments))


@pytest.mark.parametrize(
    ("zones", "said"),
    [
        (None, "the zone of each instrument, or UTC where none is known"),
        ({}, "UTC, as no instrument is known"),
        ({"AAPL": "UTC"}, "UTC"),
        ({"*": TOKYO}, TOKYO),
        ({"A*": TOKYO}, f"the zone of each instrument: {TOKYO}, UTC"),
        ({"*": TOKYO, "^FCHI": PARIS}, f"the zone of each instrument: {TOKYO}, {PARIS}"),
    ],
)
def test_the_zones_of_the_dates_of_many_symbols_are_said(
    tmp_path: Path, zones: dict[str, str] | None, said: str
) -> None:
    rows = [f"2024-01-0{day},{symbol}" for symbol in ("AAPL", "MSFT") for day in (2, 3, 4)]
    file = plan_one(tmp_path, daily(rows, "date,symbol,open,high,low,close,volume"))
    known = None if zones is None else [Instrument(pattern=name, timezone=zone) for name, zone in zones.items()]
    assert f"stamped with midnight in {said};" in "\n".join(bulk.describe(file, known))


def test_what_is_said_names_what_is_not_taken(tmp_path: Path) -> None:
    file = plan_one(tmp_path, daily([f"2024-01-0{n},x" for n in range(2, 6)], "date,rating,open,high,low,close,volume"))
    said = "\n".join(bulk.describe(file))
    assert "not taken: 'rating'" in said
    assert "bars of 1d (the most common step" in said
    assert "symbol AAPL (the file's name)" in said


HISTDATA_BARS = "".join(f"20120201 00{minute:02d}00;1.306;1.3061;1.3059;1.30605;0\n" for minute in range(6))
HISTDATA_STATUS = "HistData.com (c) 2012\nGap of 121s found between 20120201000200 and 20120201000401.\n"


def test_the_status_report_in_a_zip_of_histdata_is_named_and_no_problem(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "HISTDATA_COM_ASCII_EURUSD_M1201202.zip", "w") as packed:
        packed.writestr("DAT_ASCII_EURUSD_M1_201202.txt", HISTDATA_STATUS)
        packed.writestr("DAT_ASCII_EURUSD_M1_201202.csv", HISTDATA_BARS)
    report = bulk.load([tmp_path], MemoryStore(), quarantine_dir=tmp_path / "q")
    assert report.complete
    assert report.totals.inserted == 6
    assert report.files[0].file.notes == ("not taken from the zip: DAT_ASCII_EURUSD_M1_201202.txt",)


@pytest.mark.parametrize("pattern", ["", "*"])
def test_so_it_is_when_the_zip_was_unpacked(pattern: str, tmp_path: Path) -> None:
    status = tmp_path / "in" / "DAT_ASCII_EURUSD_M1_201202.txt"
    status.parent.mkdir()
    status.write_text(HISTDATA_STATUS)
    status.with_suffix(".csv").write_text(HISTDATA_BARS)
    (file,) = bulk.plan([status.parent / pattern], bulk.LoadOptions())
    assert file.problem is None
    assert file.notes == (f"status reports of histdata.com were not taken: {status}",)


def test_a_text_of_that_name_without_the_file_it_tells_of_is_a_file_like_others(tmp_path: Path) -> None:
    path = tmp_path / "DAT_ASCII_EURUSD_M1_201202.txt"
    path.write_text(HISTDATA_BARS)
    assert bulk.plan([path], bulk.LoadOptions())[0].recognised == "histdata.com bars"
    path.write_text(HISTDATA_STATUS)
    assert bulk.plan([path], bulk.LoadOptions())[0].problem is not None
