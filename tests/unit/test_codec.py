"""The codec: what goes out comes back, text is what the reference says, and bad bodies name their row and column."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather, parquet

from tapehouse.codec import (
    MEDIA_TYPES,
    PIECE_ROWS,
    Times,
    decode_records,
    decode_table,
    encode_columns,
    encode_csv,
    encode_file,
    encode_lines,
    encode_parquet,
    encode_records,
    encode_rows,
    encode_stream,
    pack_columns,
    pack_rows,
    records_of,
    table_of,
    time_text,
)
from tapehouse.codec import objects as codec_objects
from tapehouse.errors import InvalidData, InvalidTable, LimitExceeded, TapehouseError, UnreadableFile
from tapehouse.model import NAME, SCHEMAS, TIMESTAMP, Bar, Kind, Quote, Trade
from tapehouse.times import format_time

JSON, CSV, STREAM, FILE, *OTHERS = MEDIA_TYPES
LINES_TYPES, PACKED_TYPES = OTHERS[:2], OTHERS[2:]
LINES, MSGPACK = LINES_TYPES[0], PACKED_TYPES[0]
DAY = 86_400_000_000_000
T0 = 1_704_205_800_000_000_000  # 2024-01-02T14:30:00Z
LIMIT = 1_000_000


def bars(rows: int = 3, **columns: Any) -> pa.Table:
    values: dict[str, Any] = {
        "symbol": pa.array(["AAPL", "MSFT"] * rows)[:rows].dictionary_encode(),
        "timestamp": pa.array([T0 + i * DAY for i in range(rows)], TIMESTAMP),
        "open": [1.5] * rows,
        "high": [2.0] * rows,
        "low": [1.0] * rows,
        "close": [1.75] * rows,
        "volume": [100.0] * rows,
    }
    return pa.table(values | columns)


def joined(pieces: Iterable[bytes]) -> bytes:
    return b"".join(pieces)


def as_columns(table: pa.Table, times: Times = Times.RFC3339) -> Any:
    return json.loads(joined(encode_columns(table, {}, {}, times)))["columns"]


def as_rows(table: pa.Table, times: Times = Times.RFC3339) -> Any:
    return json.loads(joined(encode_rows(table.to_batches(), {}, {}, times)))["rows"]


def as_csv(table: pa.Table, times: Times = Times.RFC3339) -> str:
    return joined(encode_csv(table.schema, table.to_batches(), times)).decode()


def decode(media_type: str, body: bytes, kind: Kind = Kind.BARS, **how: Any) -> pa.Table:
    return decode_table(kind, media_type, body, **{"max_rows": LIMIT} | how)


def encode(media_type: str, table: pa.Table) -> bytes:
    if media_type == JSON:
        return joined(encode_columns(table, {}, {}))
    if media_type == CSV:
        return as_csv(table).encode()
    if media_type in LINES_TYPES:
        return joined(encode_lines(table.to_batches()))
    if media_type in PACKED_TYPES:
        return joined(pack_columns(table, {}, {}))
    return joined(encode_stream(table.schema, table.to_batches()) if media_type == STREAM else encode_file(table))


# What goes out


def test_json_columns() -> None:
    body = joined(encode_columns(bars(2), {"commit": 12, "made_from": {}}, {"next_page": None}))

    assert body == (
        b'{"commit":12,"made_from":{},"columns":{"symbol":["AAPL","MSFT"],'
        b'"timestamp":["2024-01-02T14:30:00Z","2024-01-03T14:30:00Z"],"open":[1.5,1.5],"high":[2.0,2.0],'
        b'"low":[1.0,1.0],"close":[1.75,1.75],"volume":[100.0,100.0]},"next_page":null}'
    )


def test_json_rows() -> None:
    assert joined(encode_rows(bars(1).to_batches(), {"commit": 3}, {"next_page": "token"})) == (
        b'{"commit":3,"rows":[{"symbol":"AAPL","timestamp":"2024-01-02T14:30:00Z","open":1.5,"high":2.0,"low":1.0,'
        b'"close":1.75,"volume":100.0}],"next_page":"token"}'
    )


def test_csv() -> None:
    assert as_csv(bars(2)) == (
        "symbol,timestamp,open,high,low,close,volume\n"
        "AAPL,2024-01-02T14:30:00Z,1.5,2,1,1.75,100\n"
        "MSFT,2024-01-03T14:30:00Z,1.5,2,1,1.75,100\n"
    )


def test_no_rows() -> None:
    empty = bars(0)

    assert as_columns(empty) == {name: [] for name in empty.column_names}
    assert as_rows(empty) == []
    assert as_csv(empty) == "symbol,timestamp,open,high,low,close,volume\n"
    assert pa.ipc.open_stream(encode(STREAM, empty)).read_all().num_rows == 0
    assert pa.ipc.open_file(encode(FILE, empty)).read_all().num_rows == 0


def test_more_rows_than_one_piece() -> None:
    table = bars(PIECE_ROWS + 10)

    assert len(as_columns(table)["close"]) == len(as_rows(table)) == table.num_rows
    assert as_rows(table)[PIECE_ROWS]["timestamp"] == as_columns(table)["timestamp"][PIECE_ROWS]
    assert as_csv(table).count("\n") == table.num_rows + 1


def test_nan_infinity_and_null_are_null() -> None:
    values = pa.array([math.nan, math.inf, None], pa.float64())
    table = bars(3, vwap=values, trades=pa.array([1, None, 3]))

    assert as_columns(table)["vwap"] == [None, None, None]
    assert [row["vwap"] for row in as_rows(table)] == [None, None, None]
    assert as_columns(table)["trades"] == [1, None, 3]
    assert as_csv(table).splitlines()[1:] == [
        "AAPL,2024-01-02T14:30:00Z,1.5,2,1,1.75,100,,1",
        "MSFT,2024-01-03T14:30:00Z,1.5,2,1,1.75,100,,",
        "AAPL,2024-01-04T14:30:00Z,1.5,2,1,1.75,100,,3",
    ]


def test_null_names_and_times() -> None:
    table = pa.table({"source": pa.array(["a", None]).dictionary_encode(), "seen": pa.array([T0, None], TIMESTAMP)})

    assert as_columns(table) == {"source": ["a", None], "seen": ["2024-01-02T14:30:00Z", None]}
    assert as_rows(table)[1] == {"source": None, "seen": None}
    assert as_csv(table) == "source,seen\na,2024-01-02T14:30:00Z\n,\n"
    assert as_columns(table, Times.S)["seen"] == [T0 // 10**9, None]


def test_text_that_csv_has_to_quote() -> None:
    table = pa.table({"symbol": ["A"], "conditions": ['@,"x"\n']})

    assert as_csv(table) == 'symbol,conditions\n"A","@,""x""\n"\n'


def test_a_column_may_be_called_as_no_python_name_can() -> None:
    assert as_rows(pa.table({"return": [0.5], "complete": [True]})) == [{"return": 0.5, "complete": True}]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (Times.NS, T0 + 1),
        (Times.US, T0 // 10**3),
        (Times.MS, T0 // 10**6),
        (Times.S, T0 // 10**9),
        (Times.RFC3339, "2024-01-02T14:30:00.000000001Z"),
    ],
)
def test_times_as_asked(times: Times, expected: object) -> None:
    table = pa.table({"timestamp": pa.array([T0 + 1], TIMESTAMP)})

    assert as_columns(table, times) == {"timestamp": [expected]}
    assert as_rows(table, times) == [{"timestamp": expected}]
    assert as_csv(table, times) == f"timestamp\n{expected}\n"
    assert time_text(T0 + 1, times) == expected


@given(
    st.lists(st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(-9_223_372_036, 9_223_372_036).map(lambda s: s * 10**9))
)
def test_any_time_is_written_as_one_time_is(nanos: list[int]) -> None:
    table = pa.table({"timestamp": pa.array(nanos, TIMESTAMP)})
    expected = [format_time(each) for each in nanos]

    assert as_columns(table)["timestamp"] == expected
    assert [row["timestamp"] for row in as_rows(table)] == expected
    assert as_csv(table).splitlines()[1:] == expected


def test_others_open_the_arrow_formats() -> None:
    table = bars(3)

    assert pl.read_ipc_stream(encode(STREAM, table)).height == 3
    assert pl.read_ipc(encode(FILE, table), use_pyarrow=False).height == 3
    assert feather.read_table(io.BytesIO(encode(FILE, table))).equals(table)


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_arrow_is_compressed_when_asked_for(compression: str | None) -> None:
    table = pa.concat_tables([bars(25_000)] * 4).unify_dictionaries().combine_chunks()

    stream = joined(encode_stream(table.schema, table.to_batches(), compression))
    file = joined(encode_file(table, compression))

    assert pa.ipc.open_stream(stream).read_all().equals(table)
    assert feather.read_table(io.BytesIO(file)).equals(table)
    assert (len(file) < table.nbytes / 2) == (compression is not None)
    assert pa.ipc.open_file(file).num_record_batches == 2  # so that it can be read in parallel


def test_parquet() -> None:
    table = bars(3, vwap=pa.array([1.25, None, 1.5]))
    assert parquet.read_table(io.BytesIO(joined(encode_parquet(table)))).cast(table.schema).equals(table)


def test_batches_with_different_dictionaries() -> None:
    parts = [bars(1), bars(2).slice(1)]
    table = pa.concat_tables(
        [part.set_column(0, "symbol", part["symbol"].cast(pa.string()).dictionary_encode()) for part in parts]
    )

    for media_type in MEDIA_TYPES:
        assert decode(media_type, encode(media_type, table))["symbol"].to_pylist() == ["AAPL", "MSFT"]


# And back


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_what_goes_out_comes_back(media_type: str) -> None:
    source = pa.array(["sim"] * 3).dictionary_encode()
    table = bars(3, vwap=pa.array([1.25, None, 1.5]), trades=pa.array([7, None, 2]), source=source)

    back = decode(media_type, encode(media_type, table))

    assert back.select(table.column_names).cast(table.schema).equals(table)


# Arrow cannot read the text of the first, broken second that int64 nanoseconds hold.
stamps_ns = st.integers(-9_223_372_036 * 10**9, 2**63 - 2)
prices = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@given(values=st.lists(st.tuples(stamps_ns, prices, prices | st.none()), min_size=1))
def test_every_value_comes_back_to_the_last_bit(media_type: str, values: list[tuple[int, float, float | None]]) -> None:
    stamps, opens, vwaps = zip(*values, strict=True)
    table = bars(
        len(values), timestamp=pa.array(stamps, TIMESTAMP), open=list(opens), vwap=pa.array(vwaps, pa.float64())
    )

    back = decode(media_type, encode(media_type, table))

    assert back["timestamp"].cast(pa.int64()).to_pylist() == list(stamps)
    assert back["open"].to_pylist() == list(opens)
    assert back["vwap"].to_pylist() == list(vwaps) if "vwap" in back.column_names else set(vwaps) == {None}


ROW = {"symbol": "AAPL", "timestamp": T0, "open": 1, "high": 2, "low": 1, "close": 1.5, "volume": 10}


def test_json_rows_bare_or_named() -> None:
    for document in ([ROW, ROW], {"rows": [ROW, ROW]}):
        table = decode(JSON, json.dumps(document).encode())
        assert table.column_names == list(ROW)
        assert table["timestamp"].to_pylist()[0].value == T0


def test_one_name_for_all_rows_and_none() -> None:
    columns = {name: [value, value] for name, value in ROW.items()}

    named = decode(JSON, json.dumps({"columns": columns | {"symbol": "AAPL", "source": "me"}}).encode())
    unnamed = decode(JSON, json.dumps([{k: v for k, v in ROW.items() if k != "symbol"}]).encode())

    assert named["symbol"].to_pylist() == ["AAPL", "AAPL"]
    assert named["source"].to_pylist() == ["me", "me"]
    assert "symbol" not in unnamed.column_names


@pytest.mark.parametrize(
    ("times", "value"),
    [
        (Times.RFC3339, T0 // 10**9),
        (Times.RFC3339, T0 // 10**6),
        (Times.RFC3339, T0 // 10**3),
        (Times.RFC3339, T0),
        (Times.MS, T0 // 10**6),
        (Times.RFC3339, "2024-01-02T14:30:00Z"),
        (Times.RFC3339, "2024-01-02T16:30:00.000+02:00"),
        (Times.S, "2024-01-02T14:30:00Z"),
    ],
)
def test_times_of_a_body(times: Times, value: object) -> None:
    row = ROW | {"timestamp": value}
    line = ",".join(map(str, row.values()))

    for media_type, body in ((JSON, json.dumps([row])), (CSV, ",".join(row) + "\n" + line)):
        assert decode(media_type, body.encode(), times=times)["timestamp"].cast(pa.int64()).to_pylist() == [T0]


def test_integers_before_1973_need_their_unit() -> None:
    row = ROW | {"timestamp": 86_400_000}

    assert decode(JSON, json.dumps([row]).encode(), times=Times.MS)["timestamp"].to_pylist()[0].value == DAY


@pytest.mark.parametrize(
    ("document", "row", "column", "message"),
    [
        ([ROW, ROW | {"open": "x"}], 1, "open", "Expected `float`, got `str`"),
        ([ROW, ROW | {"open": None}], 1, "open", "Expected `float`, got `null`"),
        ([{"symbol": "A", "timestamp": 1}], 0, "open", "missing required field `open`"),
        ([ROW | {"opne": 1}], 0, "opne", "unknown field `opne`"),
        ({"rows": [ROW, ROW | {"trades": 1.5}]}, 1, "trades", "Expected `int | null`, got `float`"),
        ([ROW | {"timestamp": 1.5}], 0, "timestamp", "Expected `int | str`, got `float`"),
        (
            [ROW | {"timestamp": "2024-01-02T00:00Z"}, ROW | {"timestamp": "yesterday"}],
            1,
            "timestamp",
            "'yesterday'; expected RFC 3339",
        ),
        ([ROW | {"timestamp": "2024-01-02T14:30:00"}], 0, "timestamp", "expected RFC 3339 with a zone"),
        ([ROW | {"timestamp": "1500-01-01T00:00:00Z"}], 0, "timestamp", "between 1678 and 2262"),
        ([ROW | {"timestamp": 2**70}], 0, "timestamp", "expected an integer of 64 bits"),
        ([ROW | {"trades": 2**70}], 0, "trades", "does not fit int64"),
        ([ROW, 3], 1, None, "Expected `object`, got `int`"),
        ({"columns": {k: [v] for k, v in ROW.items()} | {"open": [None]}}, 0, "open", "Expected `float`, got `null`"),
        (
            {"columns": {k: [v] for k, v in ROW.items()} | {"open": [1, 2]}},
            None,
            "open",
            "2 values, but timestamp has 1",
        ),
        ({"columns": {"symbol": "A"}}, None, "timestamp", "missing required field"),
        ({"colums": {}}, None, None, 'needs "columns", or "rows"'),
        ({"rows": [], "columns": {k: [v] for k, v in ROW.items()}}, None, None, 'needs "columns", or "rows"'),
    ],
)
def test_bad_json_names_row_and_column(document: Any, row: int | None, column: str | None, message: str) -> None:
    with pytest.raises(InvalidTable) as caught:
        decode(JSON, json.dumps(document).encode())

    assert message in str(caught.value)
    assert (caught.value.details.get("row"), caught.value.details.get("column")) == (row, column)


def test_text_and_integers_are_not_mixed() -> None:
    with pytest.raises(InvalidTable, match="row 1, column timestamp: '2024-01-02T00:00:00Z'; expected all text or all"):
        decode(JSON, json.dumps([ROW, ROW | {"timestamp": "2024-01-02T00:00:00Z"}]).encode())


def test_a_time_that_overflows_in_its_unit() -> None:
    with pytest.raises(InvalidTable, match="column timestamp: an integer is too large"):
        decode(JSON, json.dumps([ROW | {"timestamp": T0}]).encode(), times=Times.MS)


@pytest.mark.parametrize(
    "body", [b"[{", b"{", b"\xff", b'[{"symbol": "\xff"}]', b'[{"open": NaN}]', b'[{"open": 1e999}]']
)
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises((UnreadableFile, InvalidTable)):
        decode(JSON, body)


HEADER = ",".join(ROW)


@pytest.mark.parametrize(
    ("lines", "row", "column", "message"),
    [
        (["A,2024-01-02T00:00:00Z,1,2,1,1,x"], 0, "volume", "invalid value 'x'"),
        (["A,2024-01-02T00:00:00Z,1,2,1,1,1", "A,2024-01-03T00:00:00Z,1"], 1, None, "Expected 7 columns, got 3"),
        (["A,2024-01-02T00:00:00Z,1,2,1,1,1", "A,soon,1,2,1,1,1"], 1, "timestamp", "'soon'; expected RFC 3339"),
        (["A,12,1,2,1,1,1", "A,99999999999999999999,1,2,1,1,1"], 1, "timestamp", "expected an integer of 64 bits"),
    ],
)
def test_bad_csv_names_row_and_column(lines: list[str], row: int, column: str | None, message: str) -> None:
    with pytest.raises(InvalidTable) as caught:
        decode(CSV, "\n".join([HEADER, *lines]).encode())

    assert message in str(caught.value)
    assert (caught.value.details.get("row"), caught.value.details.get("column")) == (row, column)


def test_csv_with_a_byte_order_mark_and_empty_cells() -> None:
    body = b"\xef\xbb\xbf" + f"{HEADER},vwap,source\nNA,{T0},1,2,1,1,1,NaN,\n".encode()

    table = decode(CSV, body)

    assert table["symbol"].to_pylist() == ["NA"]
    assert table["vwap"].to_pylist() == table["source"].to_pylist() == [None]


@pytest.mark.parametrize("media_type", [JSON, STREAM, FILE, LINES, MSGPACK])
@pytest.mark.parametrize("body", [b"\x00\x01\x02", b"ARROW1\x00\x00" * 8])
def test_what_is_not_what_it_says(media_type: str, body: bytes) -> None:
    with pytest.raises(UnreadableFile, match="the body is not"):
        decode(media_type, body)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_an_empty_body(media_type: str) -> None:
    with pytest.raises(UnreadableFile, match="the body is empty"):
        decode(media_type, b"")


@pytest.mark.parametrize("media_type", [STREAM, FILE])
def test_arrow_that_was_cut_off(media_type: str) -> None:
    body = encode(media_type, bars(100))

    with pytest.raises(UnreadableFile, match="the body is not an Arrow"):
        decode(media_type, body[: len(body) // 2])


@pytest.mark.parametrize("media_type", [JSON, STREAM, FILE, LINES, MSGPACK])
@given(data=st.data())
def test_damaged_bodies_are_refused_or_read_and_never_crash(media_type: str, data: st.DataObject) -> None:
    body = bytearray(encode(media_type, bars(3)))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))

    try:
        table = decode(media_type, bytes(body))
    except TapehouseError as error:
        assert error.status in (413, 422)  # noqa: PT017 - either outcome is right
    else:
        table.validate(full=True)


def test_more_rows_than_one_request_takes() -> None:
    with pytest.raises(LimitExceeded, match="the body has 3 rows; one request takes 2"):
        decode(STREAM, encode(STREAM, bars(3)), max_rows=2)


def compressed(table: pa.Table, codec: str, media_type: str = STREAM) -> bytes:
    sink = pa.BufferOutputStream()
    new = pa.ipc.new_stream if media_type == STREAM else pa.ipc.new_file
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("media_type", [STREAM, FILE])
def test_compressed_arrow_is_taken_up_to_its_size_without_compression(codec: str, media_type: str) -> None:
    table = bars(3)
    assert decode(media_type, compressed(table, codec, media_type), max_bytes=100_000)["open"].equals(table["open"])

    bomb = bars(1, source=pa.array(["x" * 50_000_000]))
    body = compressed(bomb, codec, media_type)
    assert len(body) < 1_000_000
    before = pa.total_allocated_bytes()
    pa.default_memory_pool().release_unused()
    with pytest.raises(LimitExceeded, match="more than 1,000,000 bytes without its compression"):
        decode(media_type, body, max_bytes=1_000_000)
    assert pa.total_allocated_bytes() - before < 1_000_000


def test_a_compressed_dictionary_counts_too() -> None:
    body = compressed(bars(1, source=pa.array(["x" * 50_000_000]).dictionary_encode()), "zstd")

    with pytest.raises(LimitExceeded, match="without its compression"):
        decode(STREAM, body, max_bytes=1_000_000)


def test_types_that_no_column_has_are_refused_before_they_are_read() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array([1.0]))
    for column in (pa.nulls(1, pa.list_(pa.int8())), pa.nulls(1, pa.struct({"a": pa.int8()})), runs):
        table = bars(1).append_column("source", column)
        with pytest.raises(InvalidTable, match=r"column source: .* is no type of a column here"):
            decode(STREAM, encode(STREAM, table))


@pytest.mark.parametrize("layout", ["rows", "columns", "named"])
def test_json_rows_are_counted_before_they_are_decoded(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        pytest.fail("it was decoded")

    monkeypatch.setattr(codec_objects, "_row", never)
    monkeypatch.setattr(codec_objects, "_column", never)
    columns = {name: [value] * 11 for name, value in ROW.items()}
    document = {"rows": [ROW] * 11, "named": {"rows": [ROW] * 11}, "columns": {"columns": columns}}[layout]

    with pytest.raises(LimitExceeded, match="the body has 11 rows; one request takes 10"):
        decode(JSON, json.dumps(document).encode(), max_rows=10)


def test_rows_come_in_slices_wherever_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = "},{"  # looks like the end of a row
    rows = [ROW | {"source": odd * (number % 3) or None, "open": number} for number in range(20)]
    whole = decode(JSON, json.dumps(rows, separators=(",", ":")).encode())
    monkeypatch.setattr(codec_objects, "_SLICE_BYTES", 100)

    for separators in ((",", ":"), (", ", ": ")):
        assert decode(JSON, json.dumps(rows, separators=separators).encode()).to_pylist() == whole.to_pylist()
    with pytest.raises(InvalidTable, match="row 15, column open: Expected `float`"):
        decode(JSON, json.dumps([*rows[:15], ROW | {"open": "x"}]).encode())
    with pytest.raises(InvalidTable, match=r"column timestamp: .* expected all text or all integers"):
        decode(JSON, json.dumps([*rows, ROW | {"timestamp": "2024-01-02T00:00:00Z"}]).encode())
    with pytest.raises(UnreadableFile):
        decode(JSON, json.dumps(rows).encode()[:-5])


def packed(document: Any) -> bytes:
    return msgspec.msgpack.encode(document)


def unpacked(pieces: Iterable[bytes]) -> Any:
    return msgspec.msgpack.decode(joined(pieces))


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 70_000])
def test_msgpack_holds_what_json_holds(rows: int) -> None:
    table = bars(rows, vwap=pa.array([None, math.nan, math.inf, 1.5, *[2.0] * rows][:rows], pa.float64()))
    head, tail = {"commit": 12, "made_from": {"AAPL": ["1m"]}}, {"next_page": None}

    assert unpacked(pack_columns(table, head, tail)) == json.loads(joined(encode_columns(table, head, tail)))
    small = table.slice(0, 20)
    assert unpacked(pack_rows(small, head, tail)) == json.loads(joined(encode_rows(small.to_batches(), head, tail)))


def test_msgpack_may_have_more_columns_than_a_small_map() -> None:
    table = pa.table({f"c{number}": [1.0, number] for number in range(20)})
    assert unpacked(pack_columns(table, {}, {})) == {
        "columns": {name: table[name].to_pylist() for name in table.column_names}
    }
    assert unpacked(pack_rows(table, {}, {})) == {"rows": table.to_pylist()}


@pytest.mark.parametrize(
    "document", [[ROW] * 2, {"rows": [ROW] * 2}, {"columns": {k: [v] * 2 for k, v in ROW.items()}}]
)
def test_msgpack_bodies_are_those_of_json(document: Any) -> None:
    assert decode(MSGPACK, packed(document)).equals(decode(JSON, json.dumps(document).encode()))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "the body needs `columns`, or `rows`"),
        ({"rows": {}}, "`rows` is a list of maps"),
        ([ROW, ROW | {"open": "x"}], "row 1, column open: Expected `float`"),
        ([{"timestamp": 1}], "column open: Object missing required field"),
        ({"columns": {**{k: [v] for k, v in ROW.items()}, "open": ["x"]}}, "row 0, column open: Expected `float`"),
        ({"columns": {"nope": [1]}}, "column nope: Object contains unknown field"),
        ([ROW, ROW | {"timestamp": "2024-01-02T00:00:00Z"}], "row 1, column timestamp: .* all text or all integers"),
        ([ROW | {"timestamp": datetime(2024, 1, 2, tzinfo=UTC)}], "row 0, column timestamp: Expected `int . str`"),
    ],
)
def test_bad_msgpack_names_row_and_column(document: Any, message: str) -> None:
    with pytest.raises(InvalidTable, match=message):
        decode(MSGPACK, packed(document))


@pytest.mark.parametrize("start", [b"\xdd\xff\xff\xff\xff", b"\x81\xa4rows\xdd\xff\xff\xff\xff\xc0"])
def test_a_msgpack_list_that_claims_to_be_long_is_not_made_room_for(start: bytes) -> None:
    with pytest.raises((LimitExceeded, UnreadableFile)):
        decode(MSGPACK, start)


def test_msgpack_rows_are_counted_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        pytest.fail("it was decoded")

    monkeypatch.setattr(codec_objects, "_packed_row", never)
    monkeypatch.setattr(codec_objects, "_packed_column", never)
    for document in (
        [ROW] * 11,
        {"rows": [ROW] * 11},
        {"columns": {name: [value] * 11 for name, value in ROW.items()}},
    ):
        with pytest.raises(LimitExceeded, match="the body has 11 rows; one request takes 10"):
            decode(MSGPACK, packed(document), max_rows=10)


@pytest.mark.parametrize("slice_bytes", [1, 100, 10_000])
def test_json_lines_come_in_slices(slice_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_objects, "_SLICE_BYTES", slice_bytes)
    rows = [ROW | {"open": number, "source": "a\nb" if number % 3 else None} for number in range(20)]
    whole = decode(JSON, json.dumps(rows).encode())

    for end in ("", "\n", "\r\n\n"):
        assert (
            decode(LINES, ("\n".join(json.dumps(row) for row in rows) + end).encode()).to_pylist() == whole.to_pylist()
        )
    with pytest.raises(InvalidTable, match="row 15, column open: Expected `float`"):
        decode(LINES, "\n".join(json.dumps(row) for row in [*rows[:15], ROW | {"open": "x"}]).encode())
    with pytest.raises(UnreadableFile, match="the body is not JSON lines from row"):
        decode(LINES, "\n".join(json.dumps(row) for row in rows).encode()[:-5])
    with pytest.raises(LimitExceeded):
        decode(LINES, "\n".join(json.dumps(row) for row in rows).encode(), max_rows=10)


# Records

RECORDS: dict[Kind, Any] = {
    Kind.BARS: Bar(symbol="A", timestamp=T0, open=1.0, high=2.0, low=1.0, close=1.5, volume=10.0, trades=3, source="s"),
    Kind.TRADES: Trade(symbol="A", timestamp=T0 + 1, price=1.0, size=2.0, side="buy", id="7", source="s"),
    Kind.QUOTES: Quote(symbol="A", timestamp=T0, bid=1.0, bid_size=1.0, ask=1.1, ask_size=2.0, ordinal=1),
}


@pytest.mark.parametrize("kind", Kind)
def test_records_come_back(kind: Kind) -> None:
    record = RECORDS[kind]

    assert decode_records(kind, encode_records([record], "json"), "json") == [record]
    assert decode_records(kind, encode_records([record], "msgpack"), "msgpack") == [record]
    assert records_of(kind, table_of(kind, [record])) == [record]


def test_a_table_of_records_has_the_model_s_schema() -> None:
    for kind, record in RECORDS.items():
        assert table_of(kind, [record]).schema.equals(SCHEMAS[kind])
    assert table_of(Kind.BARS, []).schema.field("symbol").type == NAME


def test_bytes_that_are_no_records() -> None:
    with pytest.raises(InvalidData, match=r"these are not bars: .*`\$\[0\]`"):
        decode_records(Kind.BARS, b'[{"symbol": "A"}]', "json")
    with pytest.raises(InvalidData, match="these are not trades"):
        decode_records(Kind.TRADES, b"\xc1", "msgpack")
