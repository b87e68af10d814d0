"""The forms of an answer: formats, codings, tags, and parts of files."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather, parquet
from tests.unit.api.conftest import Connect
from tests.unit.api.parts import ARROW, DAY_NS, JAN_2_NS, Client, bars, refused

from tapehouse.api.answers.coding import Coding, choose
from tapehouse.api.answers.ranges import Range, parse_range
from tapehouse.api.answers.spool import Rendered, Spool
from tapehouse.api.answers.validators import ETag
from tapehouse.model import Instrument, Interval, Kind
from tapehouse.store.memory import MemoryStore

BARS = "/v1/bars?interval=1d"
FILES = ["file", "csv", "parquet"]
ROUTES = [
    BARS,
    "/v1/trades",
    "/v1/quotes",
    "/v1/latest",
    "/v1/aggregate?bucket=1d",
    "/v1/symbols",
    "/v1/coverage",
    "/v1/instruments",
    "/v1/commits",
]


def raw(client: Client, path: str, method: str = "GET", **headers: str) -> Any:
    """An answer that is not compressed unless the headers say so; httpx undoes it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.request(method, path, headers={"accept-encoding": "identity"} | named)


def more(store: MemoryStore, close: float = 1.0) -> None:
    """Another commit."""
    count = store.head()
    store.write(Kind.BARS, bars("AAPL", [close], first=JAN_2_NS + (10 + count) * DAY_NS), interval=Interval.D1)


# Formats


@pytest.mark.parametrize("layout", ["columns", "rows"])
@pytest.mark.parametrize("path", [BARS, "/v1/latest", "/v1/aggregate?bucket=1d"])
def test_msgpack_is_the_document_of_json(client: Client, layout: str, path: str) -> None:
    path += f"{'&' if '?' in path else '?'}layout={layout}"
    packed = raw(client, path, accept="application/vnd.msgpack")

    assert packed.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(packed.content) == client.get(path).json()


@pytest.mark.parametrize("accept", ["application/x-ndjson", "application/jsonl"])
def test_json_lines_are_the_rows_of_json(client: Client, accept: str) -> None:
    lines = client.get(BARS, accept=accept)

    assert lines.headers["content-type"] == "application/x-ndjson"
    assert lines.headers["tapehouse-commit"] == "2"
    assert [json.loads(line) for line in lines.text.splitlines()] == client.get(BARS + "&layout=rows").json()["rows"]


def test_parquet(client: Client) -> None:
    table = parquet.read_table(io.BytesIO(client.get(BARS + "&format=parquet").content))
    assert table["close"].to_pylist() == client.get(BARS).json()["columns"]["close"]


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_arrow_whose_buffers_are_compressed(client: Client, compression: str) -> None:
    path = f"{BARS}&compression={compression}"
    stream = raw(client, path + "&format=arrow", accept_encoding="gzip, identity;q=0")
    file = raw(client, path + "&format=file")

    assert "content-encoding" not in stream.headers
    assert pa.ipc.open_stream(stream.content).read_all().num_rows == 5
    assert feather.read_table(io.BytesIO(file.content)).num_rows == 5
    refused(client.get(path + "&format=csv"), 400, "invalid_request", "compression")
    refused(client.get(BARS + "&format=arrow&compression=gzip"), 400, "invalid_request", "compression")


@pytest.mark.parametrize("format_", ["file", "parquet", "msgpack", "json"])
def test_what_has_to_be_whole_is_bounded(connect: Connect, format_: str) -> None:
    assert (
        "stream" in refused(connect(max_page_rows=4).get(f"{BARS}&format={format_}"), 413, "limit_exceeded")["detail"]
    )


# Codings


@pytest.mark.parametrize(
    ("header", "coding", "asked"),
    [
        (None, "identity", "identity"),
        ("", "identity", "identity"),
        ("gzip, deflate, br, zstd", "zstd", "identity"),
        ("gzip, deflate", "gzip", "identity"),
        ("x-gzip", "gzip", "identity"),
        ("*", "gzip", "identity"),
        ("br", "identity", "identity"),
        ("identity", "identity", "identity"),
        ("gzip;q=0", "identity", "identity"),
        ("gzip;q=nonsense, zstd;q=0.1", "zstd", "identity"),
        ("zstd;q=0.5, gzip", "gzip", "identity"),
        ("gzip, identity", "gzip", "identity"),
        ("gzip;q=0.5, identity", "identity", "identity"),
        ("zstd, identity;q=0.5", "zstd", "zstd"),
        ("gzip, identity;q=0", "gzip", "gzip"),
    ],
)
def test_which_coding(header: str | None, coding: str, asked: str) -> None:
    assert choose(header) == Coding(coding)
    assert choose(header, only_if_asked=True) == Coding(asked)


def unpacked(answer: Any) -> bytes:
    """The content as it was before it was compressed: httpx expands zstd only where an optional package is."""
    if not answer.content.startswith(b"\x28\xb5\x2f\xfd"):
        return bytes(answer.content)
    return bytes(pa.CompressedInputStream(pa.BufferReader(answer.content), "zstd").read())


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("path", [BARS, BARS + "&format=csv", BARS + "&layout=rows", "/v1/symbols", "/v1/latest"])
def test_answers_are_compressed(connect: Connect, coding: str, path: str) -> None:
    client = connect()
    plain, answer = raw(client, path), raw(client, path, accept_encoding=coding)

    assert answer.headers["content-encoding"] == coding
    assert "Accept-Encoding" in answer.headers["vary"]
    assert unpacked(answer) == plain.content
    assert int(answer.headers["content-length"]) != len(plain.content)
    assert answer.headers["etag"] != plain.headers["etag"]


def test_arrow_is_compressed_only_when_asked(client: Client) -> None:
    assert "content-encoding" not in raw(client, BARS, accept=ARROW, accept_encoding="gzip, zstd").headers
    answer = raw(client, BARS, accept=ARROW, accept_encoding="zstd, identity;q=0.1")
    assert answer.headers["content-encoding"] == "zstd"
    assert pa.ipc.open_stream(unpacked(answer)).read_all().num_rows == 5


# Tags


@pytest.mark.parametrize("path", ROUTES)
def test_what_one_has_is_not_sent_again(client: Client, store: MemoryStore, path: str) -> None:
    if path in ("/v1/trades", "/v1/quotes"):
        names = ["price", "size"] if path == "/v1/trades" else ["bid", "bid_size", "ask", "ask_size"]
        row = {"symbol": ["AAPL"], "timestamp": pa.array([JAN_2_NS], pa.timestamp("ns", "UTC"))}
        store.write(Kind(path[4:]), pa.table(row | {name: [1.0] for name in names}))
    first = raw(client, path)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"

    for sent in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
        for method in ("GET", "HEAD"):
            again = raw(client, path, method, if_none_match=sent)
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert raw(client, path, if_none_match='"other"').status_code == 200
    more(store)
    fresh = raw(client, path, if_none_match=tag)
    assert fresh.status_code == 200
    assert fresh.headers["etag"] != tag


def test_tags_are_of_one_form_of_one_question(client: Client, store: MemoryStore) -> None:
    paths = [
        BARS,
        f"{BARS}&layout=rows",
        f"{BARS}&times=ns",
        f"{BARS}&format=csv",
        f"{BARS}&symbols=AAPL",
        f"{BARS}&as_of=2",
    ]
    tags = [raw(client, path).headers["etag"] for path in paths]
    assert len(set(tags)) == len(tags)
    assert raw(client, "/v1/bars?times=ns&interval=1d").headers["etag"] == tags[2]
    assert raw(client, BARS, accept="text/csv").headers["etag"] not in tags
    store.put_instruments([Instrument(pattern="AAPL", calendar="XNYS")])
    assert raw(client, BARS).headers["etag"] != tags[0]  # days may begin elsewhere now


def test_tags_are_strong_where_bytes_are_the_same(client: Client) -> None:
    for form in ("json", "jsonl", "msgpack", *FILES):
        answers = [raw(client, f"{BARS}&format={form}") for _ in range(2)]
        assert answers[0].content == answers[1].content
        assert not answers[0].headers["etag"].startswith("W/"), form
    assert raw(client, f"{BARS}&format=arrow").headers["etag"].startswith("W/")


def test_what_never_changes_may_be_kept_for_ever(client: Client) -> None:
    kept = "private, max-age=31536000, immutable"
    page = client.get(f"{BARS}&limit=2").json()["next_page"]

    def said(query: str) -> str:
        return str(raw(client, BARS + query).headers["cache-control"])

    assert said("&as_of=2") == said(f"&limit=2&page={page}") == kept
    assert said("&as_of=2&start=2024-01-02T00:00:00Z") == kept
    assert said("&as_of=2&start=2024-01-02") == "private, no-cache"  # a day begins where the instrument says
    assert said("&as_of=2100-01-01T00:00:00Z") == "private, no-cache"  # there will be commits before it
    weekly = raw(client, "/v1/bars?interval=1w&as_of=2")
    assert weekly.headers["cache-control"] == "private, no-cache"  # weeks are made by calendars


# Ranges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", Range(0, 9)),
        ("bytes=5-", Range(5, None)),
        ("bytes=-7", Range(None, 7)),
        (" Bytes = 1-1 ", Range(1, 1)),
        (None, None),
        ("bytes=-", None),
        ("bytes=9-0", None),
        ("bytes=0-1,4-5", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=0-99999999999999999999", None),
    ],
)
def test_which_range(header: str | None, expected: Range | None) -> None:
    assert parse_range(header) == expected


@given(st.binary(max_size=30), st.none() | st.integers(0, 40), st.none() | st.integers(0, 40))
def test_a_range_is_a_slice(body: bytes, first: int | None, last: int | None) -> None:
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        return
    place = Range(first, last).of(len(body))
    expected = (
        body[max(0, len(body) - (last or 0)) :] if first is None else body[first : None if last is None else last + 1]
    )
    assert (b"" if place is None else body[slice(*place)]) == expected


@pytest.mark.parametrize("form", FILES)
def test_parts_of_a_file(client: Client, form: str) -> None:
    path = f"{BARS}&format={form}"
    whole = raw(client, path)
    size = len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"

    head = raw(client, path, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    for name in (
        "content-length",
        "content-type",
        "etag",
        "accept-ranges",
        "tapehouse-commit",
        "vary",
        "cache-control",
    ):
        assert head.headers[name] == whole.headers[name]
    for header, start, end in [
        ("0-3", 0, 4),
        ("4-", 4, size),
        ("-10", size - 10, size),
        ("-262144", 0, size),
        ("0-999999", 0, size),
    ]:
        part = raw(client, path, range=f"bytes={header}")
        assert part.status_code == 206
        assert part.content == whole.content[start:end]
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.headers["content-length"] == str(end - start)
        assert part.headers["etag"] == whole.headers["etag"]


@pytest.mark.parametrize("form", FILES)
def test_a_range_behind_the_end(client: Client, form: str) -> None:
    path = f"{BARS}&format={form}"
    size = len(raw(client, path).content)
    for header in (f"bytes={size}-", "bytes=-0"):
        answer = raw(client, path, range=header)
        refused(answer, 416, "range_not_satisfiable")
        assert answer.headers["content-range"] == f"bytes */{size}"


def test_what_is_no_single_range_is_answered_with_everything(client: Client) -> None:
    for header in ("bytes=0-1,3-4", "lines=1-2"):
        assert raw(client, f"{BARS}&format=csv", range=header).status_code == 200
    for form in ("json", "jsonl", "arrow", "msgpack"):
        answer = raw(client, f"{BARS}&format={form}", range="bytes=0-1")
        assert answer.status_code == 200
        assert "accept-ranges" not in answer.headers


@pytest.mark.parametrize("begin", [{"method": "HEAD"}, {"range": "bytes=-100"}])
def test_a_reader_gets_the_bytes_of_one_commit_whatever_is_written(
    client: Client, store: MemoryStore, begin: dict[str, str]
) -> None:
    path = f"{BARS}&format=csv"
    whole = raw(client, path)
    first = raw(client, path, **begin)
    assert first.headers["etag"] == whole.headers["etag"]

    more(store)
    rest = raw(client, path, range="bytes=0-")
    assert rest.content == whole.content
    assert rest.headers["tapehouse-commit"] == whole.headers["tapehouse-commit"]

    again = raw(client, path, **begin)
    assert again.headers["tapehouse-commit"] == "3"
    assert raw(client, path, range="bytes=0-").content == raw(client, path).content != whole.content


def test_readers_do_not_meet(connect: Connect, store: MemoryStore) -> None:
    client = connect()
    path = f"{BARS}&format=csv"
    raw(client, path, "HEAD", user_agent="one")
    more(store)
    raw(client, path, "HEAD", user_agent="two")

    assert raw(client, path, range="bytes=0-", user_agent="one").headers["tapehouse-commit"] == "2"
    assert raw(client, path, range="bytes=0-", user_agent="two").headers["tapehouse-commit"] == "3"


def test_one_in_the_middle_of_a_file_is_not_given_another(client: Client, store: MemoryStore) -> None:
    store.write(Kind.BARS, bars("LONG", [float(i) for i in range(1, 5_000)]), interval=Interval.D1)
    path = f"{BARS}&format=csv"
    size = int(raw(client, path, "HEAD").headers["content-length"])
    commit = raw(client, path, range="bytes=0-9").headers["tapehouse-commit"]
    more(store)

    assert raw(client, path, "HEAD").headers["tapehouse-commit"] == commit  # another of its kind, at the same time
    assert raw(client, path, range=f"bytes=10-{size - 1}").headers["tapehouse-commit"] == commit
    assert raw(client, path, "HEAD").headers["tapehouse-commit"] != commit


def test_if_range(client: Client, store: MemoryStore) -> None:
    path = f"{BARS}&format=csv"
    whole = raw(client, path)
    tag = whole.headers["etag"]
    assert raw(client, path, range="bytes=0-3", if_range=tag).content == whole.content[:4]
    more(store)
    assert raw(client, path, range="bytes=4-7", if_range=tag).content == whole.content[4:8]  # it is still kept
    fresh = raw(client, path, range="bytes=4-7", if_range='"other"')
    assert (fresh.status_code, fresh.content) == (200, raw(client, path).content)


def test_an_error_stays_one(client: Client) -> None:
    for headers in ({"range": "bytes=0-1"}, {"method": "HEAD"}):
        assert raw(client, f"{BARS}&format=csv&symbols=NOPE", **headers).status_code == 404


def test_what_is_too_large_to_be_kept(connect: Connect) -> None:
    client = connect(max_range_bytes=100)
    assert raw(client, f"{BARS}&format=csv").status_code == 200
    problem = refused(raw(client, f"{BARS}&format=csv", range="bytes=0-1"), 413, "limit_exceeded")
    assert "all of it at once" in problem["detail"]


def test_what_was_not_used_for_longest_makes_room(connect: Connect) -> None:
    client = connect(max_range_bytes=500)
    sizes = [
        int(raw(client, f"{BARS}&format=csv&limit={n}", "HEAD").headers["content-length"]) for n in (1, 2, 3, 4, 5)
    ]
    assert sum(sizes) > 500
    for n in (1, 2, 3, 4, 5):
        assert raw(client, f"{BARS}&format=csv&limit={n}", range="bytes=0-5").content == b"symbol"


def test_a_store_that_forgets_commits_can_be_read_in_ranges(connect: Connect, store: MemoryStore) -> None:
    class Forgetful:
        capabilities: frozenset[Any] = frozenset()

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    client = connect(of=Forgetful())
    whole = raw(client, f"{BARS}&format=csv")
    assert "etag" not in whole.headers
    assert raw(client, f"{BARS}&format=csv", range="bytes=-9").content == whole.content[-9:]


def test_what_nobody_asks_for_is_forgotten() -> None:
    now = [0.0]
    spool = Spool(1_000, 60.0, lambda: now[0])
    rendered = Rendered()
    rendered.write(b"12345")
    rendered.etag = ETag("a")
    spool.take(5)
    spool.keep(rendered, ("me",))
    now[0] = 59.0
    assert spool.of(("me",)) is rendered
    now[0] = 118.0
    assert spool.find('"a"') is rendered
    now[0] = 179.0
    assert spool.of(("me",)) is None
    assert spool.bytes == 0


def test_polars_reads_what_is_sent(client: Client) -> None:
    assert pl.read_ipc(io.BytesIO(raw(client, f"{BARS}&format=file").content)).height == 5
