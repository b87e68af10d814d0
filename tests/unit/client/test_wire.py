"""Problem documents become the errors they stand for; only what is safe is asked again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tapehouse import errors
from tapehouse.client.wire import MAX_ATTEMPTS, JsonReceiver, error_from, query, seconds_before_retry
from tapehouse.model import Commit


def tree(root: type[errors.TapehouseError] = errors.TapehouseError) -> Iterator[type[errors.TapehouseError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


@pytest.mark.parametrize("kind", list(tree()), ids=lambda kind: kind.code)
def test_every_error_comes_back_as_itself(kind: type[errors.TapehouseError]) -> None:
    problem = {"type": "https://tapehouse.dev/errors/x", "title": "T", "status": kind.status, "code": kind.code}
    body = json.dumps(problem | {"detail": "what and where", "row": 3}).encode()
    error = error_from(kind.status, {}, body, "http://server")
    assert type(error) is kind
    assert error.message == "what and where"
    assert error.details == {"row": 3}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.Unauthenticated),
        (404, errors.NotFound),
        (406, errors.InvalidRequest),
        (413, errors.LimitExceeded),
        (422, errors.InvalidData),
        (429, errors.RateLimited),
        (502, errors.Unavailable),
        (503, errors.Overloaded),
        (500, errors.TapehouseError),
    ],
)
@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"", b"[]", b'{"message": "a proxy"}', b"\xff"])
def test_an_answer_that_is_no_problem_document_goes_by_its_status(
    status: int, kind: type[errors.TapehouseError], body: bytes
) -> None:
    error = error_from(status, {}, body, "http://server")
    assert type(error) is kind
    assert f"http://server answered {status}" in error.message


def test_a_code_of_a_newer_server_goes_by_its_status() -> None:
    error = error_from(409, {}, b'{"code": "not_yet_invented", "detail": "d"}', "http://server")
    assert type(error) is errors.Conflict


def test_the_error_says_when_to_come_back() -> None:
    error = error_from(503, {"retry-after": "2"}, b'{"code": "overloaded", "detail": "d"}', "http://server")
    assert error.details == {"retry_after_s": 2.0}


@pytest.mark.parametrize(
    ("method", "status", "after", "attempt", "wait"),
    [
        ("GET", 503, "1", 1, 1.0),
        ("GET", 429, "0", MAX_ATTEMPTS - 1, 0.0),
        ("GET", 503, "1", MAX_ATTEMPTS, None),
        ("GET", 503, "3600", 1, None),
        ("GET", 503, None, 1, None),
        ("GET", 503, "Wed, 21 Oct 2026 07:28:00 GMT", 1, None),
        ("GET", 500, "1", 1, None),
        ("POST", 503, "1", 1, None),
        ("DELETE", 503, "1", 1, None),
    ],
)
def test_what_is_asked_again(method: str, status: int, after: str | None, attempt: int, wait: float | None) -> None:
    headers = {} if after is None else {"retry-after": after}
    assert seconds_before_retry(method, status, headers, attempt) == wait


def test_query_parameters() -> None:
    params = query(symbols=("A", "B"), limit=3, everything=True, page=None, source="file:a b.csv")
    assert params == [("symbols", "A,B"), ("limit", "3"), ("everything", "true"), ("source", "file:a b.csv")]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"other": 1}', b'{"commits": [{"number": "x"}]}'])
def test_an_answer_of_somebody_else_is_refused(body: bytes) -> None:
    receiver = JsonReceiver(list[Commit], field="commits")
    receiver.feed(body)
    with pytest.raises(errors.Unavailable, match="not what a Tapehouse server sends"):
        receiver.result()
