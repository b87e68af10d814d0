"""A file of any format as blocks, each with what parses it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tapehouse.bulk.base import Format, LoadOptions, RecognisedFile
from tapehouse.bulk.formats.files import PIECE_BYTES, Pieces, reading, text_pieces
from tapehouse.bulk.formats.jsonlines import JsonParser
from tapehouse.bulk.formats.split import Block, split
from tapehouse.bulk.formats.text import Parsed, TextParser
from tapehouse.bulk.formats.typed import Part, TypedParser, parts
from tapehouse.bulk.validate import Clocks, Judge, Shown

GREW = "bytes that came to the file while it was read were not taken"


HELD_BYTES = 64 << 20
"""So much of an hour that clocks show twice is looked at together."""

ParsedBy = tuple[Callable[[Any], Parsed], Any]
"""A block, after what parses it."""


def blocks_of(file: RecognisedFile, judge: Judge, options: LoadOptions) -> Iterator[ParsedBy]:
    """The blocks of a file in order, each with a function that any thread may call on it.

    A file that grew since it was looked at is read up to its size then, and the last block says so.
    """
    return in_order(_blocks(file, judge, options), file)


def in_order(blocks: Iterable[ParsedBy], file: RecognisedFile) -> Iterator[ParsedBy]:
    """Blocks in the order of the file, each with a parser that knows what it has to know of the others."""
    blocks = carrying(blocks) if file.carried else iter(blocks)
    clocks = Clocks(file)
    return telling(blocks, clocks) if clocks.change else blocks


def telling(blocks: Iterator[ParsedBy], clocks: Clocks) -> Iterator[ParsedBy]:
    """Blocks in order; where an hour that the clocks showed twice goes over several, each knows which is which.

    Of every block the last rows are looked at: when they lie in such an hour, it waits for the next one. When more
    than `HELD_BYTES` would wait, the order tells no more of bars in the rest of that hour.
    """
    held: list[ParsedBy] = []
    size, full = 0, False
    for parse, block in blocks:
        held.append((parse, block))
        size += _weight(block)
        goes_on = _ends_in_such_an_hour(parse, block, clocks)
        if goes_on and size < HELD_BYTES:
            continue
        yield from _told(held, clocks, full=full)
        held, size, full = [], 0, goes_on
    yield from _told(held, clocks, full=full)


def _weight(block: Any) -> int:
    return int(block.batch.nbytes) if isinstance(block, Part) else len(getattr(block, "data", b""))


def _ends_in_such_an_hour(parse: Any, block: Any, clocks: Clocks) -> bool:
    if not isinstance(parse, TextParser | JsonParser | TypedParser):
        return False
    shown = _shown(parse, parse.end_of(block), clocks)
    return shown is not None and bool(shown.changes.any())


def _shown(parse: Any, block: Any, clocks: Clocks) -> Shown | None:
    clocks.shown = None
    parse.judged_by(clocks)(block)
    return clocks.shown


def _told(held: list[ParsedBy], clocks: Clocks, *, full: bool) -> Iterator[ParsedBy]:
    """Consecutive blocks, of which all but the last one end in an hour that was shown twice.

    `full`: rows of it came before, and were given already.
    """
    if len(held) < 2 and not full:
        yield from held
        return
    shown = [_shown(parse, block, clocks) if isinstance(block, Block | Part) else None for parse, block in held]
    apart = iter(clocks.tell([each for each in shown if each is not None], full=full))
    for (parse, block), each in zip(held, shown, strict=True):
        if each is not None and isinstance(parse, TextParser | JsonParser | TypedParser):
            yield parse.telling(next(apart)), block
        else:
            yield parse, block


def carrying(blocks: Iterable[ParsedBy]) -> Iterator[ParsedBy]:
    """The blocks of a file in order, each with a parser that knows what the rows before it had last.

    Blocks are parsed in any order, and maybe in other processes, so that the thread that reads finds this. As a rule
    one of the last rows of a block has every value, so that it costs next to nothing.
    """
    known: dict[str, float] = {}
    for parse, block in blocks:
        if isinstance(parse, TextParser | JsonParser | TypedParser):
            yield parse.knowing(dict(known)), block
            known |= parse.last_known(block)
        else:
            yield parse, block


def _blocks(file: RecognisedFile, judge: Judge, options: LoadOptions) -> Iterator[ParsedBy]:
    if not file.format.is_text:
        parse_part = TypedParser(file, judge)
        yield from ((parse_part, part) for part in parts(file))
    elif file.dialect is not None:
        parse = JsonParser(file, judge) if file.format is Format.JSON else TextParser(file, judge)
        blocks = split(
            _without_lines(_pieces(file, options), file.dialect.skip),
            options.block_bytes,
            file.dialect.skip + 1,
            quotes=file.format is Format.CSV,
            is_cut=lambda: _growth(file) > 0,
        )
        yield from ((parse, block) for block in blocks)
        if growth := _growth(file):
            yield _say_growth, growth


def _pieces(file: RecognisedFile, options: LoadOptions) -> Pieces:
    if file.dialect is None:
        raise ValueError(f"{file.name} was not recognised")
    piece_bytes = min(PIECE_BYTES, options.block_bytes)
    return text_pieces(Path(file.path), file.member, file.compression, file.dialect, piece_bytes, _limit(file))


def _limit(file: RecognisedFile) -> int | None:
    return None if file.member is not None or file.fingerprint is None else file.fingerprint.size


def _growth(file: RecognisedFile) -> int:
    """How many bytes the file has more than when it was looked at."""
    if (limit := _limit(file)) is None:
        return 0
    with reading(Path(file.path)):
        return max(0, os.path.getsize(file.path) - limit)


def _say_growth(growth: int) -> Parsed:
    return Parsed(table=pa.table({}), rows=0, remarks={GREW: growth})


def _without_lines(pieces: Pieces, lines: int) -> Pieces:
    """The text after its first lines."""
    for piece, done in pieces:
        rest = piece
        while lines and rest:
            newline = rest.find(b"\n")
            lines -= newline >= 0
            rest = rest[newline + 1 :] if newline >= 0 else b""
        if rest:
            yield rest, done
