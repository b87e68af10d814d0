"""Structs and dictionaries -> JSON documents, with their times as text or integers."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any

import msgspec

from tapehouse.codec.encode import Times, time_text

TIME_FIELDS = frozenset({"first", "last", "start", "end", "recorded", "created", "started", "ended", "checked"})
"""The members of a document that are times, all of them UTC nanoseconds inside."""


def encode_document(document: Any, times: Times = Times.RFC3339) -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(with_times(document, times))


def encode_list(name: str, parts: Iterable[Sequence[Any]], times: Times = Times.RFC3339) -> Generator[bytes]:
    """`{name: [...]}`, encoded part by part as they come."""
    opening = b"{" + msgspec.json.encode(name) + b":["
    for part in parts:
        if part:
            yield opening + encode_document(part, times)[1:-1]
            opening = b","
    yield (b"" if opening == b"," else opening) + b"]}"


def with_times(document: Any, times: Times = Times.RFC3339) -> Any:
    """The document in builtins, its times as asked for."""
    return _with_times(msgspec.to_builtins(document), times)


def _with_times(value: Any, times: Times) -> Any:
    if isinstance(value, list | tuple):
        return [_with_times(each, times) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: time_text(each, times) if name in TIME_FIELDS and isinstance(each, int) else _with_times(each, times)
        for name, each in value.items()
    }
