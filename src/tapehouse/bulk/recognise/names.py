"""Which columns are which, by their names: a small table of the spellings that vendors use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from unicodedata import normalize

import msgspec

from tapehouse.errors import UnrecognisedFile
from tapehouse.model import SCHEMAS, Kind

SPELLINGS: dict[str, tuple[str, ...]] = {
    "timestamp": (
        *("timestamp", "datetime", "ts", "opentime", "gmttime", "utctime", "localtime", "unix", "unixtime", "epoch"),
        *("tsevent", "participanttimestamp", "transacttime", "bartime", "t"),
    ),
    "date": ("date", "day", "tradedate", "dtyyyymmdd", "yyyymmdd", "datum"),
    "time": ("time", "hhmmss", "timeofday", "zeit", "uhrzeit"),
    "symbol": ("symbol", "ticker", "instrument", "instrumentid", "pair", "sym", "tic", "code"),
    "open": ("open", "o", "openprice", "firstprice", "eroeffnung", "eroeffnungskurs", "erster"),
    "high": ("high", "h", "highprice", "max", "hoch", "hoechst", "hoechstkurs", "tageshoch"),
    "low": ("low", "l", "lowprice", "min", "tief", "tiefst", "tiefstkurs", "tagestief"),
    "close": ("close", "c", "closeprice", "last", "lastprice", "closelast", "schluss", "schlusskurs"),
    "volume": (
        *("volume", "vol", "v", "totalvolume", "volumetraded", "basevolume", "tickvol", "tickvolume"),
        *("stuecke", "stueck", "volumen"),  # with pieces beside it, Volumen is the turnover in euros
    ),
    "vwap": ("vwap", "vw", "averageprice", "weightedaverage", "volumeweightedaverageprice"),
    "trades": ("trades", "count", "n", "tradecount", "numberoftrades", "transactions", "numtrades"),
    "adj_close": ("adjclose", "adjustedclose", "closeadj", "adjcloseprice"),
    "price": ("price", "p", "px", "tradeprice"),
    "size": ("size", "qty", "quantity", "amount", "s", "tradesize", "lastsize", "volume", "vol", "v"),
    "side": ("side", "takerside", "aggressor", "aggressorside", "tickdirection"),
    "exchange": ("exchange", "venue", "x", "exch", "ex"),
    "conditions": ("conditions", "condition", "cond", "salecondition", "flags"),
    "id": ("id", "tradeid", "tid", "aggid", "aggtradeid", "i"),
    "ordinal": ("ordinal",),
    "source": ("source",),
    "bid": ("bid", "bidprice", "bp", "b", "bidpx", "bestbid", "bidprice1"),
    "bid_size": ("bidsize", "bs", "bidqty", "bidvolume", "bidamount", "bestbidsize", "bidquantity", "bidsz"),
    "ask": ("ask", "askprice", "ap", "a", "offer", "offerprice", "askpx", "bestask", "askprice1"),
    "ask_size": (
        "asksize",
        "as",
        "askqty",
        "askvolume",
        "askamount",
        "bestasksize",
        "askquantity",
        "offersize",
        "asksz",
    ),
}
"""Per field, the spellings without case, spaces and signs; the earlier one counts when a file has two of them."""

DAY_FIRST = frozenset(("datum",))
"""Who calls a date that (in German, Dutch, Swedish ...) never writes the month before the day."""

UNNAMED = frozenset(("", "unnamed0", "index", "level0", "indexlevel0"))
"""What pandas and Polars call, in effect, the index of a data frame without a name."""

_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
_KNOWN = frozenset(spelling for each in SPELLINGS.values() for spelling in each)
_TELLING = {Kind.BARS: ("open", "high", "low", "close"), Kind.QUOTES: ("bid", "ask"), Kind.TRADES: ("price", "size")}
_TIMES = ("timestamp", "date", "time")


class Columns(msgspec.Struct, frozen=True):
    """Which column (by position) holds each field, and which fields are 0 in every row."""

    kind: Kind
    places: dict[str, int]
    zeros: tuple[str, ...]


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """A column's name without what spellings differ in: `<Adj Close>` and `adj_close` are both `adjclose`.

    So are umlauts and what stands for them: `Eröffnung` is `eroeffnung`.
    """
    return re.sub(r"[^0-9a-z]", "", normalize("NFC", name).lower().translate(_UMLAUTS))


def known_names(names: Sequence[str]) -> int:
    """How many of the names are in the table."""
    return sum(plain(name) in _KNOWN for name in names)


def match(names: Sequence[str], mapping: Mapping[str, str], kind: Kind | None = None) -> Columns:
    """The columns of a file by their names and the user's word; `UnrecognisedFile` says what is missing."""
    said, zeros = _said(names, mapping)
    taken = {field: places for field, places in _candidates(names, kind, said).items() if field not in zeros}
    kind = kind or _kind(names, {*taken, *zeros})
    wanted = {*fields_of(kind), *_TIMES}
    taken = _one_time({field: places for field, places in taken.items() if field in wanted}, said)
    unnamed = [place for place, name in enumerate(names) if plain(name) in UNNAMED]
    if unnamed and not any(field in taken for field in _TIMES):
        taken["timestamp"] = unnamed
    missing = [field for field in _required(kind) if field not in taken and field not in zeros]
    if missing:
        raise _missing(names, kind, missing)
    if not any(field in taken for field in _TIMES):
        raise _missing(names, kind, ["timestamp"])
    places = {field: _only(names, field, found) for field, found in taken.items()}
    _check_taken_once(names, places)
    return Columns(kind, places, zeros)


def fields_of(kind: Kind) -> tuple[str, ...]:
    """The fields that a file can give: all of the model."""
    return tuple(SCHEMAS[kind].names)


def _required(kind: Kind) -> list[str]:
    return [field.name for field in SCHEMAS[kind] if not field.nullable and field.name not in ("symbol", "timestamp")]


def _said(names: Sequence[str], mapping: Mapping[str, str]) -> tuple[dict[str, int], tuple[str, ...]]:
    places: dict[str, int] = {}
    zeros = []
    for field, column in mapping.items():
        if field not in SPELLINGS:
            raise UnrecognisedFile(f"--map: there is no field {field!r}; there are {', '.join(SPELLINGS)}", field=field)
        if column == "0":
            zeros.append(field)
        else:
            places[field] = _place(names, field, column)
    return places, tuple(zeros)


def _place(names: Sequence[str], field: str, column: str) -> int:
    exact = [place for place, name in enumerate(names) if name.strip() == column.strip()]
    found = exact or [place for place, name in enumerate(names) if plain(name) and plain(name) == plain(column)]
    if len(found) == 1:
        return found[0]
    if not found and column.isdecimal() and int(column) <= len(names):
        return int(column) - 1
    what = "is there more than once; give its number from 1" if found else "is not there"
    raise UnrecognisedFile(f"--map {field}={column}: column {column!r} {what}. {_seen(names)}", columns=list(names))


def _candidates(names: Sequence[str], kind: Kind | None, said: dict[str, int]) -> dict[str, list[int]]:
    """The columns that each field can be: the one that the user named, else those of its best spelling."""
    spelled = [plain(name) for name in names]
    bars = kind is Kind.BARS or (kind is None and _looks_like_bars(spelled, said))
    found = {field: [place] for field, place in said.items()}
    for field, spellings in SPELLINGS.items():
        if field in said or (bars and field not in {*fields_of(Kind.BARS), *_TIMES}):
            continue
        free = [(spellings.index(s), place) for place, s in enumerate(spelled) if s in spellings]
        free = [(rank, place) for rank, place in free if place not in said.values()]
        if free:
            found[field] = [place for rank, place in free if rank == min(free)[0]]
    return found


def _looks_like_bars(spelled: Sequence[str], said: Mapping[str, int]) -> bool:
    return all(name in said or any(s in SPELLINGS[name] for s in spelled) for name in ("open", "high", "low"))


def _only(names: Sequence[str], field: str, places: Sequence[int]) -> int:
    if len(places) == 1:
        return places[0]
    shown = " and ".join(f"{place + 1} ({names[place]!r})" for place in places)
    raise UnrecognisedFile(
        f"columns {shown} can both be {field}: say which with --map {field}=NUMBER. {_seen(names)}", columns=list(names)
    )


def _kind(names: Sequence[str], fields: set[str]) -> Kind:
    for kind, telling in _TELLING.items():
        if all(field in fields for field in telling):
            return kind
    near = max(_TELLING, key=lambda kind: len(fields.intersection(_TELLING[kind])))
    missing = [field for field in _TELLING[near] if field not in fields]
    if len(missing) == len(_TELLING[near]):
        raise UnrecognisedFile(
            f"neither bars (open, high, low, close), trades (price, size) nor quotes (bid, ask): {_seen(names)}. "
            "Name the columns with --map FIELD=COLUMN, or give another --delimiter",
            columns=list(names),
        )
    raise _missing(names, near, missing)


def _missing(names: Sequence[str], kind: Kind, missing: Sequence[str]) -> UnrecognisedFile:
    options = " ".join(f"--map {field}=COLUMN" for field in missing)
    hint = f"name {'it' if len(missing) == 1 else 'them'} with {options}"
    if {"volume", "bid_size", "ask_size"}.intersection(missing):
        hint += f" (or --map {missing[-1]}=0 when the file has none)"
    return UnrecognisedFile(
        f"{kind} need {', '.join(missing)}: {hint}. {_seen(names)}", columns=list(names), missing=list(missing)
    )


def _seen(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:40])
    return f"Columns seen: {shown}{', ...' if len(names) > 40 else ''}"


def _one_time(taken: dict[str, list[int]], said: Mapping[str, int]) -> dict[str, list[int]]:
    """Of the columns that can be the time, the ones to read: what the user said, a timestamp, date and time, a date."""
    if "timestamp" in taken and not ({"date", "time"} & said.keys() and "timestamp" not in said):
        unused = {"date", "time"}
    elif "date" in taken:
        unused = {"timestamp"}
    else:
        unused = {"timestamp", "date"}
    return {field: places for field, places in taken.items() if field not in unused}


def _check_taken_once(names: Sequence[str], places: dict[str, int]) -> None:
    for field, place in places.items():
        if twice := [other for other, at in places.items() if at == place and other != field]:
            raise UnrecognisedFile(
                f"column {names[place]!r} cannot be both {field} and {twice[0]}. {_seen(names)}", columns=list(names)
            )
