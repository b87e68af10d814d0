"""What files are called: names that every file system takes, and that `tapehouse load` reads the interval from.

    AAPL_1d.parquet                  by symbol
    AAPL/AAPL_1d_2024-01.parquet     by symbol and month
    bars_1d_2024-01.parquet          by month
    bars_1d.parquet                  one for all

The symbol itself is a column of every file; in the name it is for people. What is not a letter, a digit or one of
`. _ - ^ + @` is percent-encoded, as is whatever Windows, a shell or a tool would take for something else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import date

from tapehouse.export.base import Partition
from tapehouse.model import Interval, Kind

LONGEST = 120
"""Characters of a symbol in a name; one that is longer is cut, and told apart by a hash."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._^+@-]")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin|conout|clock)(?=$|[.])", re.IGNORECASE)
_INTERVAL_WORD = re.compile(
    r"(\d*(s|sec|seconds?|m|min|minutes?|h|hour|hourly|d|day|daily|w|wk|week|weekly|mo|mn|months?|monthly)|[a-z]{1,2}\d+|eod)",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"[-_.]")


def safe(symbol: str) -> str:
    """The symbol as part of a name; symbols that differ by more than case have different names."""
    name = _UNSAFE.sub(lambda found: _encoded(found.group()), symbol)
    if any(_INTERVAL_WORD.fullmatch(part) for part in _SEPARATOR.split(symbol)[1:]):
        name = _SEPARATOR.sub(lambda found: _encoded(found.group()), name)
    if _RESERVED.match(name) or name[0] in "-_.":
        name = _encoded(name[0]) + name[1:]
    if name.endswith("."):
        name = name[:-1] + _encoded(".")
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}~{_hash(symbol)}"


def distinct(symbols: Iterable[str]) -> dict[str, str]:
    """Symbol -> name for those whose name another one has as well where case does not count: told apart by a hash."""
    taken: set[str] = set()
    told_apart = {}
    for symbol in sorted(symbols):
        name = safe(symbol)
        if name.lower() in taken:
            told_apart[symbol] = name = f"{name}~{_hash(symbol)}"
        taken.add(name.lower())
    return told_apart


def _encoded(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _hash(symbol: str) -> str:
    return hashlib.sha256(symbol.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def table_of(kind: Kind, interval: Interval | None) -> str:
    """The series as files, folders and tables are called by it: `bars_1m`, `trades`."""
    return str(kind) if interval is None else f"{kind}_{interval}"


def path_of(
    kind: Kind, interval: Interval | None, symbol: str | None, first: date | None, period: Partition | None, ending: str
) -> str:
    """The path of a file below the folder; `symbol` is its name (`safe`), `first` the date that its period begins."""
    table = table_of(kind, interval)
    stem = table if symbol is None else f"{symbol}_{interval or kind}"
    if first is not None:
        stem += f"_{_period_text(first, period)}"
    folders = (
        [] if symbol is None and first is None else [table] if symbol is None or first is None else [table, symbol]
    )
    return "/".join([*folders, f"{stem}.{ending}"])


def _period_text(first: date, period: Partition | None) -> str:
    text = first.isoformat()
    return {Partition.YEAR: text[:4], Partition.MONTH: text[:7]}.get(period or Partition.DAY, text)
