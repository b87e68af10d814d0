"""API keys: a small JSON file of hashes, written by `tapehouse keys` and read again by the server when it changes.

A key is a random 256-bit token that is shown once. The file holds its SHA-256, which is enough for a secret that nobody
can guess (slow hashes are for passwords), so that checking one takes microseconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import msgspec

from tapehouse.errors import Forbidden, InvalidSetting, NotFound, RateLimited, Unauthenticated
from tapehouse.model import SECOND_NS

PREFIX = "th_"
_LOOK_AGAIN_S = 0.05
"""A change of the file is in force after this long: a look with every request would cost more than the rest of it."""

logger = logging.getLogger(__name__)


class Scope(StrEnum):
    """What a key may do; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, other: Scope) -> bool:
        """Whether a key of this scope may do what the other one allows."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key. `hash` is the SHA-256 of its token in hexadecimal; times are UTC nanoseconds."""

    name: str
    hash: str
    scope: Scope
    created: int
    expires: int | None = None
    rate_per_s: float | None = None


class _File(msgspec.Struct, kw_only=True):
    version: int = 1
    keys: list[Key] = []


class Bucket:
    """A token bucket: `rate_per_s` requests a second, and as many at once after a pause (at least one)."""

    def __init__(self, rate_per_s: float) -> None:
        self.rate_per_s = rate_per_s
        self._room = self._capacity = max(1.0, rate_per_s)
        self._at_s = 0.0

    def take(self, now_s: float) -> float:
        """0.0 when the request may pass, else the seconds after which one may."""
        self._room = min(self._capacity, self._room + (now_s - self._at_s) * self.rate_per_s)
        self._at_s = now_s
        if self._room < 1.0:
            return (1.0 - self._room) / self.rate_per_s
        self._room -= 1.0
        return 0.0


class Keys:
    """The keys of one file. The file need not be there: then there are none."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], int] = time.time_ns,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises `InvalidSetting` when the file is there but is not one of keys."""
        self.path = Path(path)
        self._clock = clock
        self._ticks = ticks
        self._buckets: dict[str, Bucket] = {}
        self._stamp, self._looked_s = _stamp(self.path), ticks()
        self._keys = _read(self.path)
        self._readable = True

    def __len__(self) -> int:
        return len(self._current())

    def __iter__(self) -> Iterator[Key]:
        return iter(self._current())

    @property
    def asked_for(self) -> bool:
        """Whether there are keys; a file that cannot be read any more may hold some, so that counts too."""
        return bool(self._current()) or not self._readable

    def add(
        self,
        name: str,
        scope: Scope | str = Scope.READ,
        rate_per_s: float | None = None,
        expires: int | None = None,
    ) -> str:
        """Make a key and return its token, which is kept nowhere; durable when it returns.

        Raises `InvalidSetting` when the name is taken or the scope or rate makes no sense.
        """
        key, token = _made(name, scope, rate_per_s, expires, self._clock())
        with self._writing() as keys:
            if any(other.name == name for other in keys):
                raise InvalidSetting(f"there is a key {name!r} already; remove it first", name=name)
            keys.append(key)
        return token

    def remove(self, name: str) -> None:
        """Forget a key, durable when it returns; raises `NotFound` when there is none of that name."""
        if not self.path.exists():  # and nothing is made of it
            raise NotFound(f"there is no key {name!r}: there is no {self.path}", name=name)
        with self._writing() as keys:
            kept = [key for key in keys if key.name != name]
            if len(kept) == len(keys):
                known = ", ".join(key.name for key in keys) or "none"
                raise NotFound(f"there is no key {name!r}; there are: {known}", name=name)
            keys[:] = kept

    def check(self, token: str | None, scope: Scope) -> Key:
        """The key of that token, if it may do what the scope allows.

        Raises `Unauthenticated`, `Forbidden` or `RateLimited` (with `retry_after_s`).
        """
        if token is None:
            raise Unauthenticated("this needs a key: send `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        key = self._find(token)
        if key is None:
            raise Unauthenticated("this key is not known")
        if key.expires is not None and key.expires <= self._clock():
            raise Unauthenticated(f"the key {key.name!r} has expired")
        if not key.scope.includes(scope):
            raise Forbidden(f"the key {key.name!r} may {key.scope}; this needs {scope}", scope=scope)
        self._limit(key)
        return key

    def _find(self, token: str) -> Key | None:
        """Compares with every key in constant time, so that timing tells nothing about any of them."""
        hashed = _hash(token)
        found = None
        for key in self._current():
            if hmac.compare_digest(key.hash, hashed):
                found = key
        return found

    def _limit(self, key: Key) -> None:
        if key.rate_per_s is None:
            return
        bucket = self._buckets.get(key.hash)
        if bucket is None or bucket.rate_per_s != key.rate_per_s:
            bucket = self._buckets[key.hash] = Bucket(key.rate_per_s)
        if wait_s := bucket.take(self._ticks()):
            raise RateLimited(
                f"the key {key.name!r} may make {key.rate_per_s:g} requests a second", retry_after_s=wait_s
            )

    def _current(self) -> list[Key]:
        """The keys as the file has them, or had them an instant ago.

        One that has become unreadable changes nothing: nobody is let in by it.
        """
        if (now_s := self._ticks()) - self._looked_s < _LOOK_AGAIN_S:
            return self._keys
        self._looked_s = now_s
        if (stamp := _stamp(self.path)) != self._stamp:
            try:
                self._keys = _read(self.path)
                self._readable = True
            except InvalidSetting as exc:
                logger.error("the keys as they were before stay in force: %s", exc)
                self._readable = False
            self._stamp = stamp
        return self._keys

    @contextmanager
    def _writing(self) -> Iterator[list[Key]]:
        """The keys, to be changed, and written when the block ends; other processes wait."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = _read(self.path)
            yield keys
            _write(self.path, msgspec.json.format(msgspec.json.encode(_File(keys=keys))))
            self._looked_s = -_LOOK_AGAIN_S
        finally:
            os.close(lock)


def _made(name: str, scope: Scope | str, rate_per_s: float | None, expires: int | None, now: int) -> tuple[Key, str]:
    if not name or len(name) > 64 or not name.isprintable():
        raise InvalidSetting(f"a key's name has 1 to 64 printable characters, not {name[:64]!r}")
    if scope not in list(Scope):
        raise InvalidSetting(f"there is no scope {scope!r}; there are {', '.join(Scope)}")
    if rate_per_s is not None and not rate_per_s > 0:
        raise InvalidSetting(f"a rate is above 0 requests a second, not {rate_per_s}")
    if expires is not None and expires <= now:
        raise InvalidSetting(f"a key expires in the future, not {(now - expires) / SECOND_NS:.0f} s ago")
    token = PREFIX + secrets.token_urlsafe(32)
    key = Key(name=name, hash=_hash(token), scope=Scope(scope), created=now, expires=expires, rate_per_s=rate_per_s)
    return key, token


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file does."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return (0, 0, 0)  # there, but not to be looked at: reading it says why
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _read(path: Path) -> list[Key]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File).keys
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise InvalidSetting(f"cannot read the keys in {path}: {exc.strerror}", file=str(path)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidSetting(f"{path} is not a file of keys: {exc}", file=str(path)) from exc


def _write(path: Path, content: bytes) -> None:
    """Replace the file as a whole: written beside it and synced, then renamed over it, then the folder synced."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")  # with mode 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
