"""The symbol of a file that has no column for it."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import NamedTuple

from tapehouse.bulk.recognise.steps import BY_WORD
from tapehouse.errors import InvalidRequest, InvalidSymbol, UnrecognisedFile
from tapehouse.model import check_symbol

_GENERIC = {
    *("bars", "bar", "trades", "trade", "ticks", "tick", "quotes", "quote", "ohlcv", "ohlc", "candles", "klines"),
    *("kline", "prices", "price", "data", "history", "hist", "historical", "adjusted", "adj", "raw", "export"),
    *("historicaldata", "historicalprices", "historicalquotes"),
    *("download", "all", "us", "sample", "test", "values", "market", "table"),
}
_SUFFIXES = {
    *(".csv", ".txt", ".tsv", ".jsonl", ".ndjson", ".json", ".gz", ".zst", ".xz", ".zip", ".parquet", ".arrow"),
    *(".arrows", ".feather", ".ipc", ".sqlite", ".sqlite3", ".db", ".duckdb"),
}
_DATE = re.compile(r"\d{4}$|\d{6}$|\d{8}$|\d{1,2}$|\d{10}$|\d{13}$|\(\d+\)$")
"""What a name says of when its file was made: a date or an epoch, and the number that a browser adds."""
_SEPARATOR = re.compile(r"([-_ ])")
_TICKER = re.compile(r"[A-Z]{1,5}$")
"""A word in capitals may be a ticker: ALL, ADJ and DAY are, and all.csv, adj.csv and Daily.csv rather hold that."""
_OPTIONS = "say it with --symbol, --symbol-from name|folder|REGEX, or --map symbol=COLUMN"


class Named(NamedTuple):
    """A symbol, and where it is from."""

    symbol: str
    why: str


def symbol_of(path: str, member: str | None, said: str | None, said_from: str | None) -> Named:
    """The symbol by the user's word or else the file's name; `UnrecognisedFile` when that is none."""
    if said is not None:
        return Named(check_symbol(said), "--symbol")
    if said_from == "folder":
        return symbol_said(PurePath(path).parent.name, "the folder's name")
    if said_from not in (None, "name"):
        return _searched(f"{path}/{member}" if member else path, str(said_from))
    stems = [stem_of(each) for each in (member, path) if each is not None]
    if name := next(filter(None, (_of_name(stem, said=said_from == "name") for stem in stems)), None):
        return symbol_said(name, "the file's name")
    word = next((_first(stem) for stem in stems if _TICKER.match(_first(stem))), "")
    return symbol_said(word, "the file's name, although that is also a word for what files hold")


def stem_of(path: str) -> str:
    """A file's name without the endings that say its format."""
    name = PurePath(path).name
    while (suffix := PurePath(name).suffix.lower()) in _SUFFIXES:
        name = name[: -len(suffix)]
    return name


def _of_name(stem: str, *, said: bool) -> str:
    """`AAPL_1m` and `AAPL-2024-01-02` are AAPL, `BTC-USDT_1h` is BTC-USDT; words for what is inside are no symbols.

    Where it is `said` that names are symbols, the first word is one whatever it means.
    """
    parts = _SEPARATOR.split(stem)
    while len(parts) > said and _says_no_symbol(parts[-1], only=len(parts) == 1):
        parts = parts[:-2]
    return "".join(parts)


def _first(stem: str) -> str:
    return str(_SEPARATOR.split(stem)[0])


def _says_no_symbol(part: str, only: bool) -> bool:
    word = part.lower()
    if word in BY_WORD:
        return not only or len(word) > 1  # D and W are also symbols
    return not word or word in _GENERIC or (not only and bool(_DATE.match(word)))


def _searched(path: str, pattern: str) -> Named:
    try:
        found = re.search(pattern, path)
    except re.error as exc:
        raise InvalidRequest(f"--symbol-from {pattern!r} is no regular expression: {exc}") from exc
    if found is None:
        raise UnrecognisedFile(f"--symbol-from {pattern!r} finds nothing in {path!r}")
    return symbol_said(found.group(1 if found.re.groups else 0) or "", "--symbol-from")


def symbol_said(symbol: str, why: str) -> Named:
    """A symbol that a name gives; `UnrecognisedFile` when it cannot be one."""
    if not symbol:
        raise UnrecognisedFile(f"no column is the symbol, and the file's name says none: {_OPTIONS}")
    try:
        return Named(check_symbol(symbol), why)
    except InvalidSymbol as exc:
        raise UnrecognisedFile(f"no column is the symbol, and {why} gives none ({exc}): {_OPTIONS}") from exc
