"""Instruments <-> JSON and TOML: what is put over HTTP, and the files that people write them in."""

from __future__ import annotations

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


def _listed(document: Any) -> list[Instrument]:
    if isinstance(document, dict):
        if "instruments" not in document:
            raise msgspec.ValidationError("it has no `instruments`")
        document = document["instruments"]
    return msgspec.convert(document, list[Instrument])
