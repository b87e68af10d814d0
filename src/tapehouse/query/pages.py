"""Page tokens: where a page ended, as of which commit, and of which question. Opaque to clients.

A token is not a secret and grants nothing; its checksum only tells a damaged or foreign one from one of ours.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec

from tapehouse.errors import InvalidToken
from tapehouse.query.base import Request
from tapehouse.store.base import Key

_VERSION = 1
_CHECKSUM_BYTES = 8
_MAX_TOKEN_LENGTH = 1_024


class Page(msgspec.Struct, frozen=True, array_like=True):
    """Where to go on: after `after`, as of `commit` (None when the store does not remember).

    `resampled` says whether the pages have the columns of resampled bars: what is written between two pages does not
    change what they look like.
    """

    version: int
    fingerprint: bytes
    commit: int | None
    resampled: bool
    after: Key


def encode_page(request: Request, commit: int | None, resampled: bool, after: Key) -> str:
    """The token of the page after this one."""
    body = msgspec.msgpack.encode(Page(_VERSION, _fingerprint(request), commit, resampled, after))
    return base64.urlsafe_b64encode(_checksum(body) + body).rstrip(b"=").decode()


def decode_page(request: Request) -> Page | None:
    """The page that the request's token asks for; `InvalidToken` for a damaged one, or one of another question."""
    if request.page is None:
        return None
    page = _decode(request.page)
    if page.fingerprint != _fingerprint(request):
        raise InvalidToken("the page token is of another question; ask with the same parameters as for the page before")
    return page


def _decode(token: str) -> Page:
    try:
        if len(token) > _MAX_TOKEN_LENGTH:
            raise ValueError("too long")
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        checksum, body = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
        if _checksum(body) != checksum:
            raise ValueError("checksum")
        page = msgspec.msgpack.decode(body, type=Page)
    except (ValueError, binascii.Error, msgspec.MsgspecError) as exc:
        raise InvalidToken("the page token is damaged or not ours; start again from the first page") from exc
    if page.version != _VERSION:
        raise InvalidToken("the page token was made by another version; start again from the first page")
    return page


def _fingerprint(request: Request) -> bytes:
    question = msgspec.structs.replace(request, page=None, limit=None)
    return _checksum(msgspec.json.encode(question))


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES, person=b"tapehouse-page").digest()
