"""Whether a client has an answer already: entity tags, and how long one may keep it (RFC 9110, 13; RFC 9111).

A tag is made from all that an answer depends on: the question, the form it is written in, the commit that it is of, the
instruments (which say where days begin) and the version of this program. So it is known before anything is encoded.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request

from tapehouse.model import Instrument
from tapehouse.store.base import Capability

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_DIGEST_BYTES = 12
_PROGRAM = version("tapehouse")

IMMUTABLE = "private, max-age=31536000, immutable"
"""Of an answer that is the same for ever."""
ASK_AGAIN = "private, no-cache"
"""Of an answer that may be kept, and is asked after before it is used."""


@dataclass(frozen=True)
class ETag:
    """An entity tag. Two weak ones that are equal stand for the same rows, two strong ones for the same bytes."""

    value: str
    weak: bool = False

    def __str__(self) -> str:
        return f'{"W/" if self.weak else ""}"{self.value}"'

    def is_in(self, header: str | None) -> bool:
        """Whether `If-None-Match` names it: compared weakly."""
        if header is None:
            return False
        return header.strip() == "*" or any(tag.removeprefix("W/") == f'"{self.value}"' for tag in _TAG.findall(header))

    def is_exactly(self, header: str) -> bool:
        """Whether `If-Range` names it: compared strongly, which no weak tag is equal to."""
        return not self.weak and header.strip() == f'"{self.value}"'


class Tags:
    """Makes the tags of one store's answers; any thread may ask."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._remembers = Capability.VERSIONS in store.capabilities
        self._keeps = Capability.INSTRUMENTS in store.capabilities
        self._instruments: tuple[list[Instrument], str] = ([], "")

    def of(self, request: Request, commit: int, *form: object, weak: bool = False) -> ETag | None:
        """The tag of the answer to a request in that form, as of a commit; None when the store does not remember."""
        if not self._remembers:
            return None
        parts = (_PROGRAM, *question(request), *form, commit, self._digest())
        digest = hashlib.blake2b("\0".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES)
        return ETag(digest.hexdigest(), weak)

    def of_newest(self, request: Request, *form: object) -> ETag | None:
        """The tag of an answer that is made after this, from the newest commit or one that comes meanwhile: weak."""
        return self.of(request, self._store.head(), *form, weak=True) if self._remembers else None

    def _digest(self) -> str:
        if not self._keeps:
            return ""
        instruments: list[Instrument] = self._store.instruments()
        known, digest = self._instruments
        if instruments != known:  # quick, since they are the same objects
            digest = hashlib.blake2b(msgspec.msgpack.encode(instruments), digest_size=_DIGEST_BYTES).hexdigest()
            self._instruments = instruments, digest
        return digest


def question(request: Request) -> list[str]:
    """What is asked, however its parameters are ordered."""
    return [request.url.path, *(f"{name}={value}" for name, value in sorted(request.query_params.multi_items()))]
