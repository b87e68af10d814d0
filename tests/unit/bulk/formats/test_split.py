"""Cutting a text into blocks of whole rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.bulk.formats.split import MAX_ROW_BYTES, SHOWN_BYTES, Block, end_of_rows, fields_of, rows_of, split
from tapehouse.errors import UnreadableFile

cells = st.sampled_from(["", "1", "a,b", 'q"q', "two\nlines", "x y"])
tables = st.lists(st.lists(cells, min_size=2, max_size=4), max_size=15)


def as_csv(rows: list[list[str]], newline: str) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator=newline).writerows(rows)
    return out.getvalue().encode()


def pieces_of(data: bytes, size: int) -> Iterator[tuple[bytes, int]]:
    for start in range(0, len(data), size):
        yield data[start : start + size], min(start + size, len(data))


def texts(block: Block) -> list[bytes]:
    rows = rows_of(block)
    return [block.data[start:end] for start, end in zip(rows.starts, rows.ends, strict=True)]


@given(rows=tables, size=st.integers(1, 50), block_bytes=st.integers(1, 80), newline=st.sampled_from(["\n", "\r\n"]))
def test_any_cut_gives_the_same_rows(rows: list[list[str]], size: int, block_bytes: int, newline: str) -> None:
    data = as_csv(rows, newline)
    blocks = list(split(pieces_of(data, size), block_bytes))
    assert b"".join(block.data for block in blocks) == data
    found = [text for block in blocks for text in texts(block)]
    assert [next(iter(csv.reader([text.decode()]))) for text in found if b"\n" not in text] == [
        row for row in rows if not any("\n" in cell for cell in row)
    ]
    whole = Block(data, 1)
    assert found == texts(whole)
    lines = [line for block in blocks for line in rows_of(block).lines]
    assert lines == list(rows_of(whole).lines)


@given(rows=tables)
def test_fields_are_counted_as_csv_does(rows: list[list[str]]) -> None:
    block = Block(as_csv(rows, "\n"), 1)
    found = rows_of(block)
    expected = [len(row) for row in csv.reader(io.StringIO(block.data.decode(), newline="")) if row]
    if len(found) == len(expected):
        assert list(fields_of(block, found, ",")) == expected


@given(data=st.binary(max_size=200), size=st.integers(1, 20), block_bytes=st.integers(1, 60))
def test_no_byte_is_lost(data: bytes, size: int, block_bytes: int) -> None:
    blocks = list(split(pieces_of(data, size), block_bytes, line=7))
    assert b"".join(block.data for block in blocks) == data
    line = 7
    for block in blocks:
        assert block.line == line
        line += block.data.count(b"\n")


def test_where_rows_end() -> None:
    assert end_of_rows(b"a\nb\nc") == 4
    assert end_of_rows(b'a\n"b\nc') == 2
    assert end_of_rows(b'"a\nb"\nc') == 6
    assert end_of_rows(b'"a\nb') == 0
    assert end_of_rows(b"") == 0


def test_a_quote_that_is_never_closed_costs_one_line() -> None:
    line = b"x" * 99 + b"\n"
    data = line * 5 + b'"' + line + line * (2 * MAX_ROW_BYTES // 100)
    blocks = list(split(pieces_of(data, 1 << 18), 1 << 18))
    assert b"".join(block.data for block in blocks) == data
    assert [block.data for block in blocks if b'"' in block.data] == [b'"' + line]
    assert next(block.line for block in blocks if b'"' in block.data) == 6


@pytest.mark.parametrize("quotes", [True, False])
@pytest.mark.parametrize("start", [b"x", b'"x'])
def test_the_beginning_of_a_row_beyond_all_measure_is_a_block_and_the_rest_is_skipped(
    quotes: bool, start: bytes
) -> None:
    data = b"a\nb\n" + start + b"x" * (10 * MAX_ROW_BYTES) + b"\nc\nd"
    blocks = list(split(pieces_of(data, 1 << 16), 1 << 16, quotes=quotes))
    assert b"".join(block.data for block in blocks if not block.long) == b"a\nb\nc\nd"
    (long,) = [block for block in blocks if block.long]
    assert (long.line, len(long.data)) == (3, SHOWN_BYTES)
    assert [block.line for block in blocks if block.data.startswith(b"c")] == [4]


def test_a_last_row_without_a_newline_is_cut_when_the_file_goes_on() -> None:
    blocks = list(split(pieces_of(b"a\nb", 2), 1, is_cut=lambda: True))
    assert [(block.data, block.cut) for block in blocks] == [(b"a\n", False), (b"b", True)]


def test_what_comes_before_an_error_is_given_and_the_cut_row_marked() -> None:
    def broken() -> Iterator[tuple[bytes, int]]:
        yield b"a,1\nb,2\nc,", 11
        raise UnreadableFile("cut")

    blocks = split(broken(), 1 << 10)
    found = [next(blocks), next(blocks)]
    assert [(block.data, block.line, block.cut) for block in found] == [(b"a,1\nb,2\n", 1, False), (b"c,", 3, True)]
    with pytest.raises(UnreadableFile, match="cut"):
        next(blocks)


def test_rows_know_their_lines() -> None:
    rows = rows_of(Block(b'\n\na\r\n"b\nb"\n\nc', 10))
    assert list(rows.lines) == [12, 13, 16]
    assert list(rows.ends - rows.starts) == [1, 5, 1]
    assert rows.take(np.array([2])).lines[0] == 16
