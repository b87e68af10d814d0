"""A file of either format as blocks, each with what parses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tapehouse.bulk.base import Format, LoadOptions, RecognisedFile
from tapehouse.bulk.formats.files import PIECE_BYTES, Pieces, text_pieces
from tapehouse.bulk.formats.parquet import ParquetParser, parts
from tapehouse.bulk.formats.split import split
from tapehouse.bulk.formats.text import Parsed, TextParser
from tapehouse.bulk.validate import Judge


def blocks_of(
    file: RecognisedFile, judge: Judge, options: LoadOptions
) -> Iterator[tuple[Callable[[Any], Parsed], Any]]:
    """The blocks of a file in order, each with a function that any thread may call on it."""
    if file.format is Format.PARQUET:
        parse_part = ParquetParser(file, judge)
        yield from ((parse_part, part) for part in parts(file))
    elif file.dialect is not None:
        parse = TextParser(file, judge)
        piece_bytes = min(PIECE_BYTES, options.block_bytes)
        pieces = text_pieces(Path(file.path), file.member, file.compression, file.dialect, piece_bytes)
        pieces = _without_lines(pieces, file.dialect.skip)
        yield from ((parse, block) for block in split(pieces, options.block_bytes, file.dialect.skip + 1))


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
