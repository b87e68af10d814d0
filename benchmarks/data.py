"""The data that is measured: seeded, so that every run and every machine has the same rows.

Stocks are the reference: 200 symbols, 250 weekdays of 390 one-minute bars in New York's session, prices in cents, whole
volumes. A random walk with 0.05 % volatility a minute (times a factor per symbol, 0.3 log-normal), 1 % overnight gaps,
wicks of half a minute's volatility, log-normal volumes in the U shape of a day. Prices are rounded, never filtered.

Beside them are the variants that compress worse: crypto (a tick of six significant digits, volumes with eight
decimals), adjusted prices (cents times a factor, so floats with all their digits) and trades (irregular nanoseconds,
ids, odd lots).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

MINUTES_A_SESSION = 390
MINUTE_NS = 60_000_000_000
WEEK_NS = 7 * 1_440 * MINUTE_NS
FIRST_DAY = date(2023, 1, 3)
SESSION_OPENS = time(9, 30, tzinfo=ZoneInfo("America/New_York"))
MINUTE_VOLATILITY = 0.0005
OVERNIGHT_VOLATILITY = 0.01
SEED = 20_230_103
DAILY_BARS = 2_500
DAILY_FILES_A_SYMBOL = 50
LARGE_BYTES = 5 * 10**9

TIMESTAMP = pa.timestamp("ns", "UTC")
SYMBOL = pa.dictionary(pa.int32(), pa.string())
BARS = pa.schema(
    [
        ("symbol", SYMBOL),
        ("timestamp", TIMESTAMP),
        ("open", pa.float64()),
        ("high", pa.float64()),
        ("low", pa.float64()),
        ("close", pa.float64()),
        ("volume", pa.float64()),
    ]
)
TRADES = pa.schema(
    [
        ("symbol", SYMBOL),
        ("timestamp", TIMESTAMP),
        ("price", pa.float64()),
        ("size", pa.float64()),
        ("side", pa.string()),
        ("exchange", pa.string()),
        ("id", pa.string()),
    ]
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Scale(NamedTuple):
    """How much of it; the reference is 200 symbols and 250 days."""

    symbols: int = 200
    days: int = 250

    @property
    def rows(self) -> int:
        return self.symbols * self.days * MINUTES_A_SESSION

    @property
    def name(self) -> str:
        return f"{self.symbols}x{self.days}"


def symbol_names(count: int) -> list[str]:
    """`AAA`, `AAB`, ... in order."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [letters[i // 676 % 26] + letters[i // 26 % 26] + letters[i % 26] for i in range(count)]


def session_days(count: int) -> list[date]:
    """Weekdays from the first one on."""
    days, day = [], FIRST_DAY
    while len(days) < count:
        if day.weekday() < 5:
            days.append(day)
        day += timedelta(days=1)
    return days


def session_start(day: date) -> int:
    """UTC nanoseconds at which New York opens that day."""
    return int(datetime.combine(day, SESSION_OPENS).astimezone(UTC).timestamp()) * 1_000_000_000


def session_times(days: list[date]) -> Ints:
    """The opening times of all minute bars, UTC nanoseconds, days after one another."""
    minutes = np.arange(MINUTES_A_SESSION, dtype=np.int64) * MINUTE_NS
    return np.concatenate([session_start(day) + minutes for day in days])


def _u_shape(points: int) -> Floats:
    """Activity through a day relative to its mean: three times as much at the open and two at the close as at noon."""
    x = np.linspace(-1, 1, points)
    shape = 0.6 + 1.2 * np.maximum(-x, 0) ** 2 + 0.6 * np.maximum(x, 0) ** 2
    return np.asarray(shape / shape.mean())


def _rng(kind: str, symbol: int) -> np.random.Generator:
    return np.random.default_rng([SEED, *kind.encode(), symbol])


class Ohlc(NamedTuple):
    """The four prices of a walk's bars, not rounded."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats


def _walk(rng: np.random.Generator, start: float, bars: int, session: int, volatility: float) -> Ohlc:
    """A geometric random walk; every `session` bars the next one opens with a gap (none when it trades on)."""
    steps = rng.normal(0, volatility, bars)
    gaps = rng.normal(0, volatility / 10, bars)
    gaps[::session] = rng.normal(0, OVERNIGHT_VOLATILITY, len(gaps[::session]))
    close = start * np.exp(np.cumsum(steps + gaps))
    opened = close * np.exp(-steps)
    wick = np.abs(rng.normal(0, volatility / 2, (2, bars)))
    high = np.maximum(opened, close) * (1 + wick[0])
    low = np.minimum(opened, close) * (1 - wick[1])
    return Ohlc(opened, high, low, close)


def _table(symbol: str, times: Ints, prices: Ohlc, volume: Floats) -> pa.Table:
    columns = [_names(symbol, len(times)), pa.array(times).cast(TIMESTAMP), *map(pa.array, prices), pa.array(volume)]
    return pa.table(columns, schema=BARS)


def _names(symbol: str, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([symbol]))


def stock(symbol: int, days: list[date]) -> pa.Table:
    """All bars of one stock, by time."""
    rng = _rng("stocks", symbol)
    bars = len(days) * MINUTES_A_SESSION
    start = float(np.clip(rng.lognormal(4.2, 0.8), 5, 2_000))
    volatility = MINUTE_VOLATILITY * float(rng.lognormal(0, 0.3))
    prices = _walk(rng, start, bars, MINUTES_A_SESSION, volatility)
    cents = Ohlc(*(np.round(price, 2) for price in prices))
    usual = float(rng.lognormal(8.5, 1.2))
    busy = np.tile(_u_shape(MINUTES_A_SESSION), len(days))
    volume = np.ceil(usual * busy * rng.lognormal(-0.3, 0.8, bars))
    return _table(symbol_names(symbol + 1)[-1], session_times(days), cents, volume)


def daily(symbol: int) -> pa.Table:
    """Ten years of daily bars of one stock as vendors write them: dates, and no column for the symbol."""
    rng = _rng("daily", symbol)
    prices = _walk(rng, float(np.clip(rng.lognormal(4.2, 0.8), 5, 2_000)), DAILY_BARS, DAILY_BARS, 0.015)
    cents = [pa.array(np.round(price, 2)) for price in prices]
    volume = pa.array(np.ceil(rng.lognormal(13, 1.2, DAILY_BARS)).astype(np.int64))
    dates = pa.array(np.busday_offset(np.datetime64("2014-01-02"), np.arange(DAILY_BARS)).astype(str))
    return pa.table([dates, *cents, volume], names=["Date", "Open", "High", "Low", "Close", "Volume"])


def adjusted(symbol: int, days: list[date]) -> pa.Table:
    """The same stock as a vendor adjusts it for dividends: a factor per quarter, and nothing rounded after it."""
    table = stock(symbol, days)
    rng = _rng("adjusted", symbol)
    quarters = np.arange(len(days)) // 62
    factors = np.cumprod(1 - rng.uniform(0.002, 0.008, quarters[-1] + 1))[::-1][quarters]
    factor = np.repeat(factors, MINUTES_A_SESSION)
    prices = Ohlc(*(table[name].to_numpy() * factor for name in Ohlc._fields))
    return _table(
        table["symbol"][0].as_py(), table["timestamp"].cast(pa.int64()).to_numpy(), prices, table["volume"].to_numpy()
    )


def crypto(symbol: int, days: int) -> pa.Table:
    """All minutes of one pair around the clock: a tick of six significant digits, volumes with eight decimals."""
    rng = _rng("crypto", symbol)
    bars = days * 1_440
    start = float(10 ** rng.uniform(-3, 4.8))
    decimals = int(np.clip(5 - np.floor(np.log10(start)), 1, 8))
    prices = _walk(rng, start, bars, bars, MINUTE_VOLATILITY * 1.6)
    ticks = Ohlc(*(np.round(price, decimals) for price in prices))
    usual = float(rng.lognormal(12, 1)) / start
    volume = np.round(usual * rng.lognormal(-0.7, 1.2, bars), 8)
    first = int(datetime.combine(FIRST_DAY, time(), UTC).timestamp()) * 1_000_000_000
    return _table(
        f"{symbol_names(symbol + 1)[-1]}-USDT", first + np.arange(bars, dtype=np.int64) * MINUTE_NS, ticks, volume
    )


def trades(symbol: int, days: list[date], per_day: int = 50_000) -> pa.Table:
    """All trades of one stock: bursts in the U shape of a day, prices that bounce a tick, sizes with odd lots."""
    rng = _rng("trades", symbol)
    rows = len(days) * per_day
    times = np.concatenate([session_start(day) + _arrivals(rng, per_day) for day in days])
    steps = rng.choice([-1, 0, 1], rows, p=[0.2, 0.6, 0.2])
    ticks = np.maximum(int(rng.lognormal(4.2, 0.8) * 100) + np.cumsum(steps), 100)
    size = np.where(rng.random(rows) < 0.4, 100.0, np.ceil(rng.lognormal(3.5, 1.3, rows)))
    columns = [
        _names(symbol_names(symbol + 1)[-1], rows),
        pa.array(times).cast(TIMESTAMP),
        pa.array(ticks / 100),
        pa.array(size),
        pa.array(np.array(["buy", "sell"])[(rng.random(rows) < 0.5).astype(int)]),
        pa.array(np.array(["Q", "N", "P", "Z", "D"])[rng.choice(5, rows, p=[0.3, 0.2, 0.15, 0.15, 0.2])]),
        pa.array(np.arange(1, rows + 1) * 3 + symbol).cast(pa.string()),
    ]
    return pa.table(columns, schema=TRADES)


def _arrivals(rng: np.random.Generator, count: int) -> Ints:
    """Ascending nanoseconds after the open, denser where the day is busier."""
    minute = rng.choice(MINUTES_A_SESSION, count, p=_u_shape(MINUTES_A_SESSION) / MINUTES_A_SESSION)
    return np.sort(minute * MINUTE_NS + rng.integers(0, MINUTE_NS, count))


class Files:
    """The files of one scale below a folder, made when they are first asked for."""

    def __init__(self, scale: Scale, folder: Path) -> None:
        self.scale = scale
        self.folder = folder / scale.name
        self.symbols = symbol_names(scale.symbols)
        self.days = session_days(scale.days)

    def stocks(self) -> Path:
        """Parquet (zstd), by symbol and time, a row group per symbol."""
        return self._parquet("stocks", (stock(i, self.days) for i in range(self.scale.symbols)))

    def stocks_csv(self) -> Path:
        """The same rows as CSV, times as ISO 8601."""
        path = self.folder / "stocks.csv"
        if not path.exists():
            with _unfinished(path) as part, pa_csv.CSVWriter(part, _csv_schema()) as writer:
                for table in _row_groups(self.stocks()):
                    writer.write(table.cast(_csv_schema()))
        return path

    def stocks_csv_large(self) -> Path:
        """The same rows as CSV again and again, each time a year later, until the file has 5 GB."""
        path = self.folder / "stocks-large.csv"
        if not path.exists():
            with _unfinished(path) as part, pa_csv.CSVWriter(part, _csv_schema()) as writer:
                for table in self._years(part):
                    writer.write(table)
        return path

    def _years(self, part: Path) -> Iterator[pa.Table]:
        year = 0
        while part.stat().st_size < LARGE_BYTES:
            for table in _row_groups(self.stocks()):
                later = pc.add(table["timestamp"].cast(pa.int64()), year * 52 * WEEK_NS).cast(TIMESTAMP)
                yield table.set_column(1, "timestamp", later).cast(_csv_schema())
            year += 1

    def stocks_csv_files(self) -> Path:
        """A folder with the same rows as CSV, a file per symbol."""
        return self._csv_folder("stocks-csv", self.symbols, _row_groups(self.stocks()))

    def daily_csv_files(self) -> Path:
        """A folder with ten years of daily bars of fifty times as many symbols, a file per symbol."""
        count = self.scale.symbols * DAILY_FILES_A_SYMBOL
        return self._csv_folder("daily-csv", (f"S{number:05}" for number in range(count)), map(daily, range(count)))

    def _csv_folder(self, name: str, names: Iterable[str], tables: Iterator[pa.Table]) -> Path:
        path = self.folder / name
        if not path.exists():
            part = path.with_name(f"{name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for symbol, table in zip(names, tables, strict=True):
                written = table.cast(_csv_schema()) if "symbol" in table.column_names else table
                pa_csv.write_csv(written, part / f"{symbol}.csv", pa_csv.WriteOptions(quoting_style="none"))
            part.rename(path)
        return path

    def stocks_by_day(self) -> Path:
        """The same rows by day, symbol and time, a row group per day: what a daily append brings."""
        path = self.folder / "stocks-by-day.parquet"
        if not path.exists():
            everything = pq.read_table(self.stocks(), columns=BARS.names)
            grid = np.arange(everything.num_rows).reshape(self.scale.symbols, self.scale.days, MINUTES_A_SESSION)
            with _unfinished(path) as part, pq.ParquetWriter(part, BARS, compression="zstd") as writer:
                for day in range(self.scale.days):
                    rows = everything.take(pa.array(grid[:, day].ravel()))
                    writer.write_table(rows, row_group_size=rows.num_rows)
        return path

    def adjusted(self) -> Path:
        """A fifth of the stocks, with adjusted prices."""
        return self._parquet("adjusted", (adjusted(i, self.days) for i in range(max(1, self.scale.symbols // 5))))

    def crypto(self) -> Path:
        """A tenth as many pairs as stocks, a third as many days, around the clock."""
        days = max(2, self.scale.days // 3)
        return self._parquet("crypto", (crypto(i, days) for i in range(max(1, self.scale.symbols // 10))))

    def trades(self) -> Path:
        """A tenth as many stocks; every fiftieth day."""
        days = self.days[::50]
        return self._parquet("trades", (trades(i, days) for i in range(max(1, self.scale.symbols // 10))))

    def _parquet(self, name: str, tables: Iterator[pa.Table]) -> Path:
        path = self.folder / f"{name}.parquet"
        if not path.exists():
            with _unfinished(path) as part:
                _write_parquet(part, tables)
        return path


def _write_parquet(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first, row_group_size=first.num_rows)
        for table in tables:
            writer.write_table(table, row_group_size=table.num_rows)


def _row_groups(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def _csv_schema() -> pa.Schema:
    whole = BARS.set(BARS.get_field_index("symbol"), pa.field("symbol", pa.string()))
    whole = whole.set(whole.get_field_index("timestamp"), pa.field("timestamp", pa.timestamp("s", "UTC")))
    return whole.set(whole.get_field_index("volume"), pa.field("volume", pa.int64()))


class _unfinished:
    """A file that has its name only once it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.part

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            os.replace(self.part, self.path)
        else:
            self.part.unlink(missing_ok=True)
