"""URL scheme -> "module:Class". A backend's module, and the driver behind it, is imported only when it is chosen."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tapehouse.bus.base import Bus
from tapehouse.errors import InvalidSetting, MissingExtra
from tapehouse.store.base import Store


class Backend(NamedTuple):
    """Where a backend's class is, how its arguments are read from a URL, and the extra that brings its driver.

    `options` are the keyword arguments that it takes of those that its opener may be given.
    """

    target: str
    arguments: Callable[[str, str], tuple[Any, ...]]
    extra: str | None = None
    options: frozenset[str] = frozenset()


def open_store(url: str, **options: Any) -> Store:
    """The store at that URL, opened: `memory://`, `duckdb:///folder` (relative) or `duckdb:////folder` (absolute).

    `options` (`memory_limit_mb`, `threads`) go to a backend that knows them. Raises `InvalidSetting` for
    a URL that names no store that there is, `MissingExtra` when its driver is not installed, and what the store itself
    raises when it cannot be opened.
    """
    store: Store = open_backend("store", STORES, url, options)
    return store


def open_bus(url: str, **options: Any) -> Bus:
    """The log at that URL, opened: see `BUSES` for the forms, `open_store` for what can be raised."""
    bus: Bus = open_backend("bus", BUSES, url, options)
    return bus


def open_backend(
    setting: str, backends: Mapping[str, Backend], url: str, options: Mapping[str, Any] | None = None
) -> Any:
    """An instance of the backend that the URL names; `setting` names it in messages, which never show a whole URL."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise InvalidSetting(
            f"{setting} is a URL; there are {_forms(backends)} (a folder `data` is `duckdb:///data`)", setting=setting
        )
    if scheme not in backends:
        raise InvalidSetting(f"there is no {setting} {scheme[:40]!r}; there are {_forms(backends)}", setting=setting)
    backend = backends[scheme]
    arguments = backend.arguments(setting, rest)
    known = {name: value for name, value in (options or {}).items() if name in backend.options}
    return load(backend)(*arguments, **known)


def load(backend: Backend) -> Callable[..., Any]:
    """The backend's class; `MissingExtra` says what to install when its driver is not there."""
    module, _, name = backend.target.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as exc:
        missing = exc.name or module
        if missing.partition(".")[0] == "tapehouse":
            raise  # ours, and so a fault in the program
        package = f"tapehouse[{backend.extra}]" if backend.extra else "tapehouse"
        raise MissingExtra(f"{missing} is not installed: pip install '{package}'", extra=backend.extra) from exc
    return found


def _nothing(setting: str, rest: str) -> tuple[()]:
    if rest:
        raise InvalidSetting(f"{setting}: nothing follows `memory://`", setting=setting)
    return ()


def _folder(setting: str, rest: str) -> tuple[Path]:
    path = rest[1:]
    if not rest.startswith("/") or not path or "\0" in path:
        raise InvalidSetting(
            f"{setting}: a folder follows three slashes, `duckdb:///data`, or four when it is absolute, "
            f"`duckdb:////var/lib/tapehouse`; not {rest[:80]!r}",
            setting=setting,
        )
    return (Path(path),)


def _redis(scheme: str) -> Callable[[str, str], tuple[str]]:
    def read(setting: str, rest: str) -> tuple[str]:
        if not rest or rest.startswith("/"):
            raise InvalidSetting(f"{setting}: a host follows, `{scheme}://HOST:PORT`", setting=setting)
        return (f"{scheme}://{rest}",)

    return read


def _brokers(setting: str, rest: str) -> tuple[str, str]:
    servers, _, topic = rest.partition("/")
    if not servers or not topic or "/" in topic:
        raise InvalidSetting(
            f"{setting}: brokers and a topic follow, `kafka://HOST:PORT,HOST:PORT/TOPIC`", setting=setting
        )
    return servers, topic


def _forms(backends: Mapping[str, Backend]) -> str:
    return ", ".join(f"{scheme}://" for scheme in backends)


STORES = {
    "duckdb": Backend(
        "tapehouse.store.duckdb:DuckDBStore", _folder, options=frozenset({"memory_limit_mb", "threads", "command"})
    ),
    "memory": Backend("tapehouse.store.memory:MemoryStore", _nothing),
}
"""The stores that there are."""

BUSES = {
    "sqlite": Backend("tapehouse.bus.sqlite:SQLiteBus", _folder, options=frozenset({"max_bytes"})),
    "memory": Backend("tapehouse.bus.memory:MemoryBus", _nothing, options=frozenset({"max_bytes"})),
    "redis": Backend("tapehouse.bus.redis:RedisBus", _redis("redis"), extra="redis", options=frozenset({"max_bytes"})),
    "redis+cluster": Backend(
        "tapehouse.bus.redis:RedisClusterBus",
        _redis("redis+cluster"),
        extra="redis",
        options=frozenset({"max_bytes"}),
    ),
    "kafka": Backend("tapehouse.bus.kafka:KafkaBus", _brokers, extra="kafka"),
}
"""The buses that there are."""
