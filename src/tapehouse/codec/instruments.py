"""Instruments <-> JSON and TOML: what is put over HTTP, and the files that people write them in."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from tapehouse.errors import InvalidData, UnreadableFile
from tapehouse.model import Instrument


def decode_instruments(body: bytes | bytearray) -> list[Instrument]:
    """The instruments of a JSON document, a list or an object with `instruments`; `InvalidData` says what is wrong."""
    try:
        return _listed(msgspec.json.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidData(f"these are not instruments: {exc}") from exc


def check_instrument(instrument: Instrument) -> None:
    """Raise `InvalidData` for a tick size that is none; `calendars.timeline` knows calendars and time zones."""
    size = instrument.tick_size
    if size is not None and not 0 < size < math.inf:
        raise InvalidData(
            f"the instrument {instrument.pattern[:64]!r} has the tick_size {size}; expected a finite number above 0",
            field="tick_size",
            instrument=instrument.pattern[:64],
        )


def read_instruments(file: Path) -> list[Instrument]:
    """The instruments of a file: JSON when it is named `.json`, else TOML with `[[instruments]]` tables.

    Whether there are such calendars and zones is for the store's side to check. Raises `UnreadableFile`.
    """
    try:
        data = file.read_bytes()
        return _listed(msgspec.json.decode(data) if file.suffix.lower() == ".json" else tomllib.loads(data.decode()))
    except OSError as exc:
        raise UnreadableFile(f"cannot read the instruments in {file}: {exc.strerror}", file=str(file)) from exc
    except (msgspec.MsgspecError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UnreadableFile(f"{file} does not list instruments: {exc}", file=str(file)) from exc
    except InvalidData as exc:
        raise UnreadableFile(f"{file}: {exc.message}", file=str(file), **exc.details) from exc


def _listed(document: Any) -> list[Instrument]:
    if isinstance(document, dict):
        if "instruments" not in document:
            raise msgspec.ValidationError("it has no `instruments`")
        document = document["instruments"]
    instruments = [_instrument(entry, place) for place, entry in enumerate(msgspec.convert(document, list[Any]), 1)]
    for instrument in instruments:
        check_instrument(instrument)
    return instruments


def _instrument(entry: Any, place: int) -> Instrument:
    try:
        return msgspec.convert(entry, Instrument)
    except (msgspec.ValidationError, OverflowError) as exc:
        pattern = entry.get("pattern") if isinstance(entry, dict) else None
        name = repr(pattern[:64]) if isinstance(pattern, str) else f"number {place}"
        raise msgspec.ValidationError(f"the instrument {name}: {exc}") from exc
