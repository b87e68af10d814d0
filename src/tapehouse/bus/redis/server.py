"""The server, or the cluster: one client for what may be asked twice, one for what may not, and errors in one place."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tapehouse.errors import LogDamaged, LogFull, MissingExtra, Unavailable, Unsettled

TIMEOUT_S = 5.0
_FRESH_S = 1.0
"""A server that answered within this time is taken to be there."""
_AWAY = ("LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "UNBLOCKED")
_FULL = ("OOM", "MISCONF", "LOGFULL")


class Server:
    """A Redis, or a cluster of them."""

    def __init__(self, url: str, *, cluster: bool, timeout_s: float) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.cluster import RedisCluster
            from redis.retry import Retry
        except ModuleNotFoundError as exc:
            raise MissingExtra("redis is not installed: pip install 'tapehouse[redis]'", extra="redis") from exc
        self._errors = redis.exceptions
        self.place = _without_password(url)
        self._heard_s, self._cluster = 0.0, cluster
        options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            # An append that is sent again by the driver would be there twice.
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 0,
        }
        with self._faults(sent=False):
            url = url.replace("redis+cluster://", "redis://", 1)
            made: Any = RedisCluster.from_url(url, **options) if cluster else redis.Redis.from_url(url, **options)
            self.client = made
            self.client.ping()
        self._heard_s = time.monotonic()

    def ask(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script that may be run twice."""
        with self._faults(sent=False):
            return self._run(script, keys, arguments)

    def ask_once(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script that must not be run twice; `Unsettled` when nobody knows whether it was."""
        if time.monotonic() - self._heard_s > _FRESH_S:
            with self._faults(sent=False):
                self.client.ping()
        with self._faults(sent=True):
            return self._run(script, keys, arguments)

    def _run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            answer = self.client.evalsha(digest, len(keys), *keys, *arguments)
        except self._errors.NoScriptError:
            answer = self.client.eval(script, len(keys), *keys, *arguments)
        self._heard_s = time.monotonic()
        return answer

    def call(self, *command: Any) -> Any:
        """Run a command that may be run twice."""
        with self._faults(sent=False):
            answer = self.client.execute_command(*command)
        self._heard_s = time.monotonic()
        return answer

    def wait(self, stream: str, after: str, milliseconds: int) -> None:
        """Wait for an entry of a stream with a greater id."""
        with self._faults(sent=False):
            self.client.xread({stream: after}, count=1, block=milliseconds)

    def config(self, *names: str) -> dict[str, str]:
        """What a server was told, by name."""
        target = {"target_nodes": self.client.get_random_node()} if self._cluster else {}
        with self._faults(sent=False):
            told = {name: value for asked in names for name, value in self.client.config_get(asked, **target).items()}
        return {_text(name): _text(value) for name, value in told.items()}

    def replicas(self, key: str, wanted: int, milliseconds: int) -> int:
        """How many replicas have what was written, once so many have, or the time is over."""
        target = {"target_nodes": self.client.get_node_from_key(key)} if self._cluster else {}
        with self._faults(sent=True):
            return int(self.client.execute_command("WAIT", wanted, milliseconds, **target))

    @contextmanager
    def _faults(self, *, sent: bool) -> Iterator[None]:
        """The driver's errors as ours."""
        errors = self._errors
        try:
            yield
        except errors.AuthenticationError as exc:
            raise Unavailable(f"{self.place} refuses the password: {exc}") from exc
        except (errors.ConnectionError, errors.TimeoutError, errors.ClusterError, OSError) as exc:
            self._heard_s = 0.0
            if str(exc).startswith(_AWAY):
                raise Unavailable(f"{self.place} cannot answer now: {exc}") from exc
            if sent:
                raise Unsettled(f"{self.place} was lost before it answered: {exc}") from exc
            raise Unavailable(f"{self.place} cannot be reached: {exc}") from exc
        except errors.OutOfMemoryError as exc:
            raise LogFull(f"{self.place} has no room for the log: OOM {exc}") from exc
        except errors.ResponseError as exc:
            text = str(exc)
            if text.startswith(_FULL):
                raise LogFull(f"{self.place} has no room for the log: {text}") from exc
            if text.startswith(_AWAY):
                raise Unavailable(f"{self.place} cannot answer now: {text}") from exc
            raise LogDamaged(f"{self.place}: {text}") from exc

    def close(self) -> None:
        """Let go of the connections."""
        self.client.close()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or 'localhost'}:{parts.port or 6379}"
