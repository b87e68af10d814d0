"""Layouts that are known by name: the table of `formats.toml`, and the user's own."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path, PurePath
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import force_setattr, replace

from tapehouse import settings
from tapehouse.bulk.base import PRICES, Cell, Description, LoadOptions, RecognisedFile
from tapehouse.bulk.formats.convert import NUMBER_TYPES
from tapehouse.bulk.formats.zones import Zone
from tapehouse.bulk.recognise.names import SPELLINGS, UNNAMED, fields_of, plain
from tapehouse.bulk.recognise.steps import BY_WORD
from tapehouse.errors import InvalidRequest, InvalidSetting, InvalidTime, UnrecognisedFile
from tapehouse.model import MINUTE_NS, SCHEMAS, SECOND_NS, Interval

_GROUPS = {"symbol", "market", "interval", "minutes", "seconds"}
_NUMBER = r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?"
_DATE = r"\d{8}|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}"
_CLOCK = r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?"
_LOOKS = {
    Cell.EPOCH: r"\d{9,10}(\.\d+)?|\d{12,13}|\d{15,16}|\d{18,19}",
    Cell.DATE: _DATE,
    Cell.CLOCK: _CLOCK,
    Cell.DATETIME: rf"({_DATE})[ T]({_CLOCK}(Z|[+-]\d\d:?\d\d)?|\d{{6}}(\d{{3}})?)",
    Cell.NUMBER: _NUMBER,
    Cell.WHOLE: r"[+-]?\d+(\.0*)?",
    Cell.BOOL: r"(?i:true|false)",
    Cell.TEXT: r".*[^\d.,\s].*",
    Cell.ANY: r"(?s:.*)",
}
_CELLS = {cell: re.compile(look) for cell, look in _LOOKS.items()}
_SAMPLE_ROWS = 200
_FITTING_SHARE = 0.95


class Known(msgspec.Struct, frozen=True):
    """A description that fits, and what the file's name says by it."""

    description: Description
    symbol: str | None = None
    interval: Interval | None = None

    def options(self, options: LoadOptions, names: Sequence[str], rows: Sequence[Sequence[str]]) -> LoadOptions:
        """The user's word, and the description's where the user said nothing."""
        said = {field: at for field, each in self.description.columns.items() if (at := _chosen(each, names, rows))}
        zeros = dict.fromkeys(self.description.zeros, "0")
        return replace(
            options,
            mapping={**said, **zeros, **options.mapping},
            kind=options.kind or self.description.kind,
            time_format=options.time_format or self.description.time_format,
            timezone=options.timezone or self.description.timezone,
        )

    def decimals(self, cells: Mapping[str, Sequence[str]]) -> int:
        """How many decimals whole prices have; 0 when they are written with a point."""
        prices = [text for field in PRICES.intersection(cells) for text in cells[field] if text]
        return self.description.decimals if prices and all(text.removeprefix("-").isdecimal() for text in prices) else 0


def read_descriptions(entries: Sequence[Mapping[str, Any]], where: str) -> tuple[Description, ...]:
    """The entries of `[[formats]]`; `InvalidSetting` names the first that makes no sense, its key, and the file."""
    return tuple(_read(entry, number, where) for number, entry in enumerate(entries, 1))


def own_descriptions(config: str | Path | None = None) -> tuple[Description, ...]:
    """The user's own, of `[[formats]]` in the settings file (or the one named), for `LoadOptions.formats`."""
    return read_descriptions(*settings.table("formats", config))


def sent_descriptions(said: Any) -> tuple[Description, ...]:
    """Layouts that came with a request, as JSON has them: checked as those of a settings file, with the same words."""
    if not isinstance(said, list) or not all(isinstance(entry, dict) for entry in said):
        raise InvalidRequest("options: formats is a list of objects", parameter="options")
    try:
        return read_descriptions(said, "options")
    except InvalidSetting as exc:
        raise InvalidRequest(exc.message, parameter="options") from exc


@cache
def built_in() -> tuple[Description, ...]:
    """The table that comes with the package."""
    path = Path(__file__).with_name("formats.toml")
    return read_descriptions(tomllib.loads(path.read_text("utf-8"))["formats"], path.name)


def known_of(
    names: Sequence[str], header: bool, rows: Sequence[Sequence[str]], file: RecognisedFile, options: LoadOptions
) -> Known | None:
    """The first description that fits the file, whose `names` are from its header or else numbers."""
    spelled = {plain(name) for name in names} - UNNAMED
    for description in (*options.formats, *built_in()):
        if options.kind not in (None, description.kind):
            continue
        fits = _has_header(description, spelled) if header else has_shape(description, rows)
        if fits and (known := _by_name(description, file)):
            return known
    return None


def has_shape(description: Description, rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows without a header look like it; a few may be damaged."""
    shape, rows = description.shape, rows[:_SAMPLE_ROWS]
    if not shape or not rows or len(rows[0]) != len(shape):
        return False
    fitting = sum(
        len(row) == len(shape)
        and all(_CELLS[cell].fullmatch(text.strip()) for cell, text in zip(shape, row, strict=True))
        for row in rows
    )
    return fitting >= len(rows) * _FITTING_SHARE


def named(known: Known, file: RecognisedFile) -> Known | None:
    """The same description with what the name of another file says; None when that does not fit it."""
    return _by_name(known.description, file)


def _read(entry: Mapping[str, Any], number: int, where: str) -> Description:
    what = f"{where}: [[formats]] number {number} ({str(entry.get('name', 'without a name'))[:80]})"
    try:
        description = msgspec.convert(entry, Description)
    except msgspec.ValidationError as exc:
        raise InvalidSetting(f"{what}: {exc}", setting="formats") from exc
    if problem := _problem(description):
        raise InvalidSetting(f"{what}: {problem}", setting="formats")
    values = {field: {k.lower(): v for k, v in each.items()} for field, each in description.values.items()}
    force_setattr(description, "values", values)
    return description


def _problem(description: Description) -> str | None:
    """What makes no sense in it."""
    if bool(description.header) == bool(description.shape):
        return "it needs either header or shape"
    fields = {*fields_of(description.kind), "date", "time"}
    for field in (*description.columns, *description.zeros, *description.values):
        if field not in fields or field not in SPELLINGS:
            return f"{description.kind} have no field {field!r}; there are {', '.join(sorted(fields))}"
    numbers = {field.name for field in SCHEMAS[description.kind] if field.type in NUMBER_TYPES}
    if strange := set(description.carried) - numbers:
        return f"carried names {min(strange)!r}, which is no number of {description.kind}"
    if not 0 <= description.decimals <= 18:
        return f"decimals is between 0 and 18, not {description.decimals}"
    return _problem_of_rules(description)


def _problem_of_rules(description: Description) -> str | None:
    try:
        groups = set(re.compile(description.file or "").groupindex)
        for zone in (description.timezone, description.midnight):
            Zone(zone or "UTC")
    except (re.error, OverflowError, RecursionError) as exc:
        return f"file {description.file!r} is no regular expression: {exc}"
    except InvalidTime as exc:
        return exc.message
    if strange := groups - _GROUPS:
        return f"file has a group {min(strange)!r}; there are {', '.join(sorted(_GROUPS))}"
    return "file_required needs file" if description.file_required and not description.file else None


def _has_header(description: Description, spelled: set[str]) -> bool:
    wanted = _spelled(description.header)
    if not wanted or not wanted <= spelled:
        return False
    return description.others or spelled <= wanted | _spelled(description.optional)


@lru_cache(maxsize=1024)
def _spelled(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(plain, names))


def _by_name(description: Description, file: RecognisedFile) -> Known | None:
    name = PurePath(file.member or file.path).name
    found = re.search(description.file, name) if description.file else None
    if found is None:
        return None if description.file_required else Known(description, None, description.interval)
    groups = found.groupdict()
    return Known(description, _symbol(groups, description), _interval(groups, description))


def _symbol(groups: Mapping[str, str | None], description: Description) -> str | None:
    symbol = ".".join(word for word in (groups.get("symbol"), groups.get("market")) if word)
    return (symbol.upper() if description.upper else symbol) or None


def _interval(groups: Mapping[str, str | None], description: Description) -> Interval | None:
    if word := groups.get("interval"):
        return BY_WORD.get(word if word in BY_WORD else word.lower(), description.interval)
    for unit, nanos in (("minutes", MINUTE_NS), ("seconds", SECOND_NS)):
        if count := groups.get(unit):
            return _of_nanos(int(count) * nanos, f"{count} {unit}", description)
    return description.interval


def _of_nanos(nanos: int, said: str, description: Description) -> Interval:
    for interval in Interval:
        if interval.nanos == nanos:
            return interval
    raise UnrecognisedFile(f"these are bars of {said} ({description.name}), and there is no such interval")


def _chosen(columns: str | tuple[str, ...], names: Sequence[str], rows: Sequence[Sequence[str]]) -> str | None:
    """The column that a field is taken from: of several the first that has other values than 0; None: none is there."""
    wanted = (columns,) if isinstance(columns, str) else columns
    spelled = [plain(name) for name in names]
    there = [column for column in wanted if plain(column) in spelled or column.isdecimal()]
    for column in there[:-1]:
        place = spelled.index(plain(column)) if plain(column) in spelled else int(column) - 1
        if any(row[place].strip(" 0.,") for row in rows):
            return column
    return there[-1] if there else None


def is_row_number(values: np.ndarray) -> bool:
    """Whether these (nanoseconds) are no times but numbers of rows, read as epochs in seconds."""
    return bool(len(values)) and int(np.abs(values).max()) < 10**8 * SECOND_NS
