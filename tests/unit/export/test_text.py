"""CSV and JSON lines: numbers to the last bit, and text that cannot be mistaken for a missing value."""

from __future__ import annotations

import csv
import io
import json
import struct

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.codec.encode import encode_csv, encode_lines

floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)


def table(numbers: list[float], words: list[str | None]) -> pa.Table:
    return pa.table({"n": pa.array(numbers, pa.float64()), "word": pa.array(words, pa.string())})


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


@given(rows=st.lists(st.tuples(floats, texts), min_size=1, max_size=20), delimiter=st.sampled_from([",", "\t", ";"]))
def test_what_is_written_reads_back(rows: list[tuple[float, str | None]], delimiter: str) -> None:
    given = table(*map(list, zip(*rows, strict=True)))
    text = b"".join(encode_csv(given.schema, given.to_batches(), delimiter=delimiter)).decode()
    header, *found = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    assert header == ["n", "word"]
    assert [bits(float(number)) for number, _ in found] == [bits(number) for number, _ in rows]
    assert [word for _, word in found] == [word or "" for _, word in rows]
    lines = [json.loads(line) for line in b"".join(encode_lines(given.to_batches())).decode().split("\n") if line]
    assert [(bits(line["n"]), line["word"]) for line in lines] == [(bits(number), word) for number, word in rows]


@pytest.mark.parametrize("word", ["", "NA", "null", "-", "nan", " x", "a,b", 'say "x"', "two\nlines"])
def test_what_could_be_mistaken_is_in_quotes_and_what_is_missing_is_not(word: str) -> None:
    given = table([1.0, 2.0], [word, None])
    text = b"".join(encode_csv(given.schema, given.to_batches())).decode()
    quoted = word.replace('"', '""')
    assert text == f'n,word\n1,"{quoted}"\n2,\n'


def test_plain_text_is_not_in_quotes() -> None:
    given = table([1.0], ["plain"])
    assert b"".join(encode_csv(given.schema, given.to_batches())) == b"n,word\n1,plain\n"
    assert b"".join(encode_csv(given.schema, given.to_batches(), delimiter="\t")) == b"n\tword\n1\tplain\n"
