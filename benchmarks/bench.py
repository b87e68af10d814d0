"""What every suite is given: the data, a folder to work in, and how often to repeat."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import msgspec

from benchmarks.data import MINUTES_A_SESSION, Files, Scale, session_start

FOLDER = Path(__file__).parent
DAY_NS = 86_400_000_000_000


class Bench(msgspec.Struct, kw_only=True):
    """One run of one suite; `large` is for what takes gigabytes and minutes."""

    symbols: int = 200
    days: int = 250
    repeats: int = 5
    large: bool = False
    data: str = str(FOLDER / ".data")
    work: str = str(FOLDER / ".work")

    @property
    def scale(self) -> Scale:
        return Scale(self.symbols, self.days)

    @property
    def files(self) -> Files:
        return Files(self.scale, Path(self.data))

    def empty(self, name: str) -> Path:
        """A path below the work folder at which nothing is."""
        path = Path(self.work) / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def one_day(self, seed: int, count: int) -> list[tuple[str, int, int]]:
        """Questions for one day of one symbol: both at random, seeded, each (symbol, start, end)."""
        chance = random.Random(seed)
        files = self.files
        days = [session_start(chance.choice(files.days)) for _ in range(count)]
        return [(chance.choice(files.symbols), day, day + MINUTES_A_SESSION * 60_000_000_000) for day in days]

    def all_time(self, seed: int, count: int) -> list[tuple[str, int, int]]:
        """Questions for the whole year of one symbol."""
        chance = random.Random(seed)
        files = self.files
        start, end = session_start(files.days[0]), session_start(files.days[-1]) + DAY_NS
        return [(chance.choice(files.symbols), start, end) for _ in range(count)]

    def one_month(self) -> tuple[int, int]:
        """The third month of the data, or all of it when there is less: `[start, end)`."""
        days = self.files.days
        third = [day for day in days if day.month == 3] or days
        return session_start(third[0]), session_start(third[-1]) + DAY_NS
