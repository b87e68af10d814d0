"""Files of one plan that would become one series, although their names say that they hold different prices."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from tapehouse.bulk.base import Problem, RecognisedFile
from tapehouse.errors import UnrecognisedFile
from tapehouse.model import Kind

VARIANTS = frozenset({"bid", "ask", "mid", "unadjusted", "adjusted", "adjsplit", "adjsplitdiv", "splitadjusted"})
"""Words that Dukascopy, FirstRate and others put into the names of files whose rows have the same keys."""

_Series = tuple[str, Kind, object]


def variant_of(name: str) -> str | None:
    """The word of the name that says which prices the file has: `bid` of `EURUSD_Candlestick_1_M_BID_2024.csv`."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((word for word in words if word in VARIANTS), None)


def kept_apart(files: Sequence[RecognisedFile]) -> list[RecognisedFile]:
    """The same files; those of one symbol, kind and interval that are different variants of it have a problem, since
    the rows of the one would take the place of the other's. Which variant a file is, its notes say."""
    variants: dict[_Series, dict[str, RecognisedFile]] = defaultdict(dict)
    for file in files:
        if (series := _series(file)) and (variant := variant_of(file.name)):
            variants[series].setdefault(variant, file)
    return [_checked(file, variants) for file in files]


def _series(file: RecognisedFile) -> _Series | None:
    if file.symbol is None or file.kind is None or file.problem is not None:
        return None
    return file.symbol, file.kind, file.interval


def _checked(file: RecognisedFile, variants: dict[_Series, dict[str, RecognisedFile]]) -> RecognisedFile:
    variant, series = variant_of(file.name), _series(file)
    if variant is None or series is None:
        return file
    others = [(word, other.name) for word, other in variants[series].items() if word != variant]
    if not others:
        return msgspec.structs.replace(file, notes=(*file.notes, f"the file's name says: {variant}"))
    word, other = others[0]
    what = f"{file.interval} bars" if file.kind is Kind.BARS else str(file.kind)
    told = (
        f"{file.name} has {what} of {file.symbol}, and so has {other}, the one {variant} and the other {word} prices, "
        "by their names: in one series the rows of the one would take the place of the other's. Load them one after "
        "the other, each with a --symbol of its own"
    )
    return msgspec.structs.replace(file, problem=Problem(UnrecognisedFile.code, told))
