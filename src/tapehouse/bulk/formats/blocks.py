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
from tapehouse.bulk.formats.split import split
from tapehouse.bulk.formats.text import Parsed, TextParser
from tapehouse.bulk.formats.typed import TypedParser, parts
from tapehouse.bulk.validate import Judge

GREW = "bytes that came to the file while it was read were not taken"


ParsedBy = tuple[Callable[[Any], Parsed], Any]
"""A block, after what parses it."""


def blocks_of(file: RecognisedFile, judge: Judge, options: LoadOptions) -> Iterator[ParsedBy]:
    """The blocks of a file in order, each with a function that any thread may call on it.

    A file that grew since it was looked at is read up to its size then, and the last block says so.
    """
    blocks = _blocks(file, judge, options)
    return carrying(blocks) if file.carried else blocks


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
