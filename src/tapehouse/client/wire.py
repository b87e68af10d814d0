"""What goes over the wire and what comes back, without doing any I/O: the core that both clients share.

An `Operation` says which request it makes and what receives the answer; a shell (`http.py`) only moves the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from tapehouse.errors import (
    Denied,
    InvalidData,
    InvalidRequest,
    NotFound,
    NotSupported,
    Overloaded,
    TapehouseError,
    Unavailable,
)
from tapehouse.query.base import History
from tapehouse.store.base import KeepsInstruments, Store

MAX_ATTEMPTS = 3
LONGEST_WAIT_S = 10.0
ARROW_STREAM = "application/vnd.apache.arrow.stream"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Params = list[tuple[str, str]]


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A request, before an address is put in front of it."""

    method: str = "GET"
    path: str
    params: Params = []
    accept: str = "application/json"
    content: bytes | None = None
    content_type: str | None = None
    files: tuple[tuple[str, Path], ...] = ()
    """Sent as the parts `file` of a form, each with its name, and read while they are sent."""
    fields: dict[str, str] = {}
    """The other parts of that form; they go first."""
    on_sent: Callable[[str, int], None] | None = None
    """Told with a file's name of so many bytes of it that go out; of fewer than none when it is sent again."""

    @property
    def headers(self) -> dict[str, str]:
        """What to send beside the address; whoever knows where the server is may ask for compression."""
        headers = {"Accept": self.accept, "Accept-Encoding": "identity"}
        if self.content_type is not None:
            headers["Content-Type"] = self.content_type
        return headers


class Receiver(Protocol[T_co]):
    """Takes the body of a good answer piece by piece."""

    def feed(self, data: bytes) -> None:
        """The next bytes."""

    def result(self) -> T_co:
        """The answer, once all bytes were fed; raises `Unavailable` when it was cut off."""


class Holding(Protocol):
    """An open store, and the history that is asked of it."""

    @property
    def store(self) -> Store:
        """Where rows are written to."""

    @property
    def history(self) -> History:
        """What answers questions."""

    @property
    def instruments(self) -> KeepsInstruments:
        """The store as a keeper of instruments; raises `NotSupported` when it is none."""


class Operation(Protocol[T_co]):
    """One thing that a client can do: over HTTP, or in this process."""

    def request(self) -> Outgoing:
        """What to send."""

    def receiver(self, headers: Mapping[str, str]) -> Receiver[T_co]:
        """What takes the body of an answer with those headers."""

    def locally(self, folder: Holding) -> T_co:
        """The same, asked of an open folder."""


class Body:
    """Collects a body that is decoded as a whole."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:
        self._parts.append(data)

    def content(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)


class JsonReceiver(Body):
    """A JSON body, decoded to a type; `field` picks one member of the object that it is."""

    def __init__(self, type_: Any = Any, field: str | None = None) -> None:
        super().__init__()
        self._type = type_
        self._field = field

    def result(self) -> Any:
        try:
            document = msgspec.json.decode(self.content())
            value = document if self._field is None else document[self._field]
            return msgspec.convert(value, self._type)
        except (msgspec.MsgspecError, KeyError, TypeError) as exc:
            raise Unavailable(f"the answer is not what a Tapehouse server sends: {exc}") from exc


def seconds_before_retry(method: str, status: int, headers: Mapping[str, str], attempt: int) -> float | None:
    """How long to wait before asking again, or None when the answer is final.

    Only a question that changes nothing is repeated, only when the server said when (`Retry-After` in seconds), not
    later than `LONGEST_WAIT_S`, and at most `MAX_ATTEMPTS` times in all.
    """
    after = headers.get("retry-after", "")
    if method != "GET" or status not in (429, 503) or attempt >= MAX_ATTEMPTS or not after.isdecimal():
        return None
    return float(after) if float(after) <= LONGEST_WAIT_S else None


def error_from(status: int, headers: Mapping[str, str], body: bytes, origin: str) -> TapehouseError:
    """The error that a refusal stands for: of the class that the problem document's code names."""
    problem = _problem(body)
    if problem is None:
        kind = _class_of_status(status)
        return kind(f"{origin} answered {status} without a reason; is it a Tapehouse server?", status=status)
    kind = _CLASSES.get(str(problem.get("code"))) or _class_of_status(status)
    details = {name: value for name, value in problem.items() if name not in _PROBLEM_MEMBERS}
    if (after := headers.get("retry-after", "")).isdecimal():
        details["retry_after_s"] = float(after)
    message = problem.get("detail") or problem.get("title") or f"{origin} answered {status}"
    return kind(str(message), **details)


_PROBLEM_MEMBERS = frozenset({"type", "title", "status", "detail", "code", "instance", "message"})


def error_named(code: str, message: str, **details: Any) -> TapehouseError:
    """The error of that code."""
    return _CLASSES.get(code, TapehouseError)(message, **details)


def _problem(body: bytes) -> dict[str, Any] | None:
    try:
        problem = json.loads(body)
    except ValueError:
        return None
    return problem if isinstance(problem, dict) and ("code" in problem or "detail" in problem) else None


def _tree(root: type[TapehouseError]) -> Iterator[type[TapehouseError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


_CLASSES: dict[str, type[TapehouseError]] = {kind.code: kind for kind in _tree(TapehouseError)}


def _class_of_status(status: int) -> type[TapehouseError]:
    exact: dict[int, type[TapehouseError]] = {
        401: _CLASSES["unauthenticated"],
        403: Denied,
        404: NotFound,
        409: _CLASSES["conflict"],
        413: _CLASSES["limit_exceeded"],
        422: InvalidData,
        429: _CLASSES["rate_limited"],
        501: NotSupported,
        502: Unavailable,
        503: Overloaded,
        504: Unavailable,
    }
    return exact.get(status) or (InvalidRequest if 400 <= status < 500 else TapehouseError)


def query(**values: str | int | bool | Sequence[str] | None) -> Params:
    """Query parameters: None is left out, a list becomes a comma list, true and false are words."""
    params = []
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif not isinstance(value, str | int):
            value = ",".join(value)
        params.append((name, str(value)))
    return params
