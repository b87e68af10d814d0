"""The Arrow stream decoder: any way of cutting the bytes gives the same rows, and nothing cut off passes for whole."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.client.arrow import RowsReceiver, StreamDecoder, parse_made_from
from tapehouse.client.wire import ARROW_STREAM
from tapehouse.errors import Unavailable

SCHEMA = pa.schema([("symbol", pa.dictionary(pa.int32(), pa.string())), ("close", pa.float64()), ("note", pa.string())])


def batch(*rows: tuple[str, float | None, str | None]) -> pa.RecordBatch:
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[], [], []]
    arrays = [pa.array(columns[0], pa.string()).dictionary_encode().cast(SCHEMA[0].type)]
    arrays += [pa.array(column, field.type) for column, field in zip(columns[1:], list(SCHEMA)[1:], strict=True)]
    return pa.record_batch(arrays, schema=SCHEMA)


# The dictionaries of the batches differ, so that the stream replaces them on the way.
BATCHES = [batch(("A", 1.0, None), ("B", None, "x")), batch(("C", 2.5, "y")), batch(), batch(("A", 3.0, "long" * 50))]


def stream(batches: Sequence[pa.RecordBatch]) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        for each in batches:
            writer.write_batch(each)
    return sink.getvalue()


def decode(pieces: Sequence[bytes]) -> tuple[list[pa.RecordBatch], StreamDecoder]:
    decoder = StreamDecoder()
    return [found for piece in pieces for found in decoder.feed(piece)], decoder


@given(cuts=st.lists(st.integers(0, len(stream(BATCHES))), max_size=12))
def test_any_cut_gives_the_same_batches(cuts: list[int]) -> None:
    data = stream(BATCHES)
    edges = [0, *sorted(cuts), len(data)]
    found, decoder = decode([data[start:end] for start, end in pairwise(edges)])
    assert decoder.finished
    assert decoder.schema == SCHEMA
    assert [each.to_pylist() for each in found] == [each.to_pylist() for each in BATCHES]


def test_a_byte_at_a_time() -> None:
    found, decoder = decode([bytes([byte]) for byte in stream(BATCHES)])
    assert decoder.finished
    assert [each.to_pylist() for each in found] == [each.to_pylist() for each in BATCHES]


def test_batches_come_as_soon_as_they_are_whole() -> None:
    first = len(stream(BATCHES[:1])) - 8  # without the end marker
    decoder = StreamDecoder()
    assert len(decoder.feed(stream(BATCHES)[:first])) == 1


def test_bytes_after_the_end_are_left_alone() -> None:
    found, decoder = decode([stream(BATCHES[:1]) + b"more"])
    assert len(found) == 1
    assert decoder.finished


@pytest.mark.parametrize("data", [b"<html>nothing of ours</html>", b"\xff\xff\xff\xff\x10\x00\x00\x00" + b"\x07" * 64])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Unavailable, match="not an Arrow stream"):
        StreamDecoder().feed(data)


HEADERS = {"content-type": ARROW_STREAM, "tapehouse-commit": "7"}


@given(length=st.integers(0, len(stream(BATCHES)) - 1))
def test_an_answer_that_was_cut_off_is_an_error(length: int) -> None:
    receiver = RowsReceiver(HEADERS)
    receiver.feed(stream(BATCHES)[:length])
    with pytest.raises(Unavailable, match="cut off"):
        receiver.result()


def test_the_headers_say_what_the_rows_are() -> None:
    receiver = RowsReceiver(HEADERS | {"tapehouse-made-from": "ES%3DF=1m;AAPL=1m,trades", "tapehouse-next-page": "t"})
    receiver.feed(stream(BATCHES))
    rows = receiver.result()
    assert (rows.commit, rows.next_page) == (7, "t")
    assert rows.made_from == {"ES=F": ("1m",), "AAPL": ("1m", "trades")}
    assert rows.table.schema.metadata == {
        b"tapehouse.commit": b"7",
        b"tapehouse.made_from": b'{"ES=F": ["1m"], "AAPL": ["1m", "trades"]}',
    }
    assert rows.table.num_rows == 4


def test_no_rows_still_have_columns() -> None:
    receiver = RowsReceiver(HEADERS)
    receiver.feed(stream([]))
    assert receiver.result().table.schema.names == SCHEMA.names


def test_an_answer_of_another_type_is_refused() -> None:
    with pytest.raises(Unavailable, match="is it a Tapehouse server"):
        RowsReceiver({"content-type": "text/html"})


def test_nothing_was_made_from_anything() -> None:
    assert parse_made_from("") == {}
