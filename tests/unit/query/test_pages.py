"""Pages: every row once, in order, whatever their size, and whatever is written between them."""

from __future__ import annotations

import base64
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.query.tables import Written, rows

from tapehouse.errors import InvalidToken
from tapehouse.model import HOUR_NS, MINUTE_NS, Interval, Kind
from tapehouse.query.base import Request
from tapehouse.query.pages import decode_page, encode_page
from tapehouse.store.base import Key

REQUEST = Request(interval=Interval.M1, symbols=("A",), start=date(2024, 1, 2), end=5)


def test_a_token_is_of_its_question() -> None:
    token = encode_page(REQUEST, 7, True, Key("A", 5, 2))
    page = decode_page(
        Request(interval=Interval.M1, symbols=("A",), start=date(2024, 1, 2), end=5, page=token, limit=3)
    )
    assert page is not None
    assert (page.commit, page.resampled, page.after) == (7, True, Key("A", 5, 2))
    assert decode_page(REQUEST) is None


@pytest.mark.parametrize(
    "other",
    [
        {"interval": Interval.M5},
        {"symbols": ("B",)},
        {"symbols": None},
        {"start": date(2024, 1, 3)},
        {"end": 6},
        {"newest_first": True},
        {"source": "x"},
        {"as_of": 3},
        {"columns": ("close",)},
    ],
)
def test_a_token_of_another_question_is_refused(other: dict[str, Any]) -> None:
    token = encode_page(REQUEST, 7, True, Key("A", 5))
    asked: dict[str, Any] = {"interval": Interval.M1, "symbols": ("A",), "start": date(2024, 1, 2), "end": 5}
    with pytest.raises(InvalidToken, match="another question"):
        decode_page(Request(**(asked | other), page=token))


@given(place=st.integers(0, 1_000), flip=st.integers(1, 255))
def test_a_token_with_any_byte_changed_is_refused(place: int, flip: int) -> None:
    token = encode_page(REQUEST, 7, True, Key("A", 5))
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[place % len(raw)] ^= flip
    changed = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    with pytest.raises(InvalidToken):
        decode_page(Request(interval=Interval.M1, symbols=("A",), start=date(2024, 1, 2), end=5, page=changed))


@pytest.mark.parametrize("token", ["", "x", "not a token!", "AAAA", "é", "A" * 5_000, "../../etc/passwd"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidToken):
        decode_page(Request(page=token))


@st.composite
def stores(draw: st.DrawFn) -> Written:
    """Three symbols with minutes, hours and trades, many of them at the same time."""
    written = Written()
    for symbol in ("A", "B", "C"):
        minutes = draw(st.sets(st.integers(0, 200), max_size=15))
        if minutes:
            written.bars(symbol, "1m", [minute * MINUTE_NS for minute in sorted(minutes)])
        hours = draw(st.sets(st.integers(0, 3), max_size=2))
        if hours:
            written.bars(symbol, "1h", [hour * HOUR_NS for hour in sorted(hours)])
        ticks = sorted(draw(st.lists(st.integers(0, 5), max_size=12)))
        if ticks:
            written.trades(symbol, ticks, price=[float(i) for i in range(len(ticks))])
    written.bars("Z", "1s", [0])
    return written


def pages(written: Written, request: dict[str, Any], sizes: list[int], *, between: Any = None) -> list[dict[str, Any]]:
    """All rows, read page by page."""
    found, token, turn = [], None, 0
    while True:
        answer = written.history.read(Request(**request, page=token, limit=sizes[turn % len(sizes)]))
        page = rows(answer.table())
        assert len(page) <= sizes[turn % len(sizes)]
        found += page
        if answer.next_page is None:
            return found
        assert page
        token, turn = answer.next_page, turn + 1
        if between is not None:
            between(turn)


KINDS = st.sampled_from(
    [
        {"kind": Kind.TRADES},
        {"kind": Kind.BARS, "interval": Interval.M1},
        {"kind": Kind.BARS, "interval": Interval.H1},
        {"kind": Kind.BARS, "interval": Interval.H1, "columns": ("close",)},
        {"kind": Kind.BARS, "interval": Interval.D1},
    ]
)


@given(
    written=stores(),
    asked=KINDS,
    newest_first=st.booleans(),
    symbols=st.sampled_from([None, ("Z", "B", "A"), ("C", "Z")]),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
def test_pages_of_any_size_are_one_read(
    written: Written, asked: dict[str, Any], newest_first: bool, symbols: tuple[str, ...] | None, sizes: list[int]
) -> None:
    known = set(written.store.symbols())
    if symbols is not None:
        symbols = tuple(symbol for symbol in symbols if symbol in known)
    request = {**asked, "newest_first": newest_first, "symbols": symbols, "start": 0, "end": 4 * HOUR_NS}
    if asked["kind"] is Kind.TRADES and not any(s.kind is Kind.TRADES for s in written.store.coverage(None, symbols)):
        written.trades("Z", [0])
        request["symbols"] = ("Z",)
    whole = whole_of(written, request)
    assert pages(written, request, sizes) == whole

    def write(turn: int) -> None:
        for symbol in ("A", "B", "D"):
            written.bars(symbol, "1m", [turn * MINUTE_NS, (turn + 100) * MINUTE_NS], volume=float(turn))
            written.bars(symbol, "1h", [turn % 3 * HOUR_NS], volume=float(turn))
            written.trades(symbol, [turn % 6], price=-float(turn))
        written.store.delete(Kind.BARS, ["A", "C"], interval=Interval.M1, start=turn * MINUTE_NS)
        written.store.delete(Kind.TRADES, ["A", "C"])

    assert pages(written, request, sizes, between=write) == whole


def whole_of(written: Written, request: dict[str, Any]) -> list[dict[str, Any]]:
    return rows(written.history.read(Request(**request)).table())


def test_a_page_that_is_exactly_full_is_the_last(written: Written) -> None:
    written.bars("A", "1m", [0, MINUTE_NS, 2 * MINUTE_NS])
    for limit, more in ((2, True), (3, False), (4, False)):
        answer = written.history.read(Request(interval=Interval.M1, limit=limit))
        assert answer.next_page is None
        assert answer.table().num_rows == min(limit, 3)
        assert (answer.next_page is not None) is more


def test_the_rest_can_be_streamed_from_a_page_on(written: Written) -> None:
    written.bars("A", "1m", [i * MINUTE_NS for i in range(5)])
    first = written.history.read(Request(interval=Interval.M1, limit=2))
    first.table()
    rest = written.history.read(Request(interval=Interval.M1, page=first.next_page))
    assert [row["timestamp"] // MINUTE_NS for row in rows(rest.table())] == [2, 3, 4]
    assert rest.next_page is None


def test_a_damaged_token_is_refused_by_a_read(written: Written) -> None:
    written.bars("A", "1m", [0])
    with pytest.raises(InvalidToken):
        written.history.read(Request(interval=Interval.M1, limit=1, page="AAAA"))
