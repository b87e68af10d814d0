"""Whether anything at the beginning of a file can be loaded: one of which nothing can is refused as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import msgspec

from tapehouse.bulk.base import BadRow, LoadOptions, RecognisedFile
from tapehouse.bulk.formats.blocks import ParsedBy, blocks_of, in_order
from tapehouse.bulk.formats.typed import TypedParser, parts
from tapehouse.bulk.validate import Judge
from tapehouse.errors import UnrecognisedFile

BLOCK_BYTES, BLOCK_ROWS = 1 << 12, 1_000
MOST_BLOCKS = 256
"""Rows are read until one is good: of a file that can be loaded, the first few."""


def check_sample(file: RecognisedFile, options: LoadOptions) -> None:
    """`UnrecognisedFile` when the first `max_bad_rows` rows (or all there are) are bad; it says why, and shows one.

    Whether daily bars open at midnight where their instrument is, is not asked: instruments are not known here. With a
    `max_bad_share` of 1 nothing is asked.
    """
    reasons: Counter[str] = Counter()
    examples: dict[str, BadRow] = {}
    if options.max_bad_share >= 1:
        return
    for parse, block in islice(_blocks(file, options), MOST_BLOCKS):
        parsed = parse(block)
        if parsed.rows > parsed.bad_rows:
            return
        for reason, row in parsed.bad():
            reasons[reason] += 1
            examples.setdefault(reason, row)
        if reasons.total() >= options.max_bad_rows:
            break
    if reasons:
        raise UnrecognisedFile(_message(reasons, examples))


def _blocks(file: RecognisedFile, options: LoadOptions) -> Iterator[ParsedBy]:
    judge = Judge(file, by_instrument=False)
    if file.format.is_text:
        return blocks_of(file, judge, msgspec.structs.replace(options, block_bytes=BLOCK_BYTES))
    return in_order(((TypedParser(file, judge), part) for part in parts(file, BLOCK_ROWS)), file)


def _message(reasons: Counter[str], examples: dict[str, BadRow]) -> str:
    (worst, _), *others = reasons.most_common()
    more = f" ({len(others)} other reason{'s' * (len(others) > 1)} beside it)" if others else ""
    rows = reasons.total()
    what = f"none of the first {rows:,} rows can be loaded" if rows > 1 else "its only row cannot be loaded"
    field = worst.partition(" is missing")[0]
    hint = f"; --map {field}=0 when the file has none" if field in ("volume", "size", "bid_size", "ask_size") else ""
    shown = examples[worst]
    return f"{what}: {worst}{more}, for example line {shown.line:,}: {shown.row[:200]!r}{hint}"
