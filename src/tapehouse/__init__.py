"""A market-data server that you run yourself.

`Client` and `AsyncClient` reach a server or open a folder; the errors are those of `tapehouse.errors`. Names are
imported when they are first used, so that `import tapehouse` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tapehouse.client import AsyncClient, Client, Page
    from tapehouse.errors import (
        Conflict,
        Denied,
        InvalidData,
        InvalidRequest,
        InvalidSetting,
        MissingExtra,
        NotFound,
        NotSupported,
        StoreError,
        TapehouseError,
        Unavailable,
    )
    from tapehouse.model import Commit, Instrument, Interval, Kind, OnConflict

    __version__: str

__all__ = [
    "AsyncClient",
    "Client",
    "Commit",
    "Conflict",
    "Denied",
    "Instrument",
    "Interval",
    "InvalidData",
    "InvalidRequest",
    "InvalidSetting",
    "Kind",
    "MissingExtra",
    "NotFound",
    "NotSupported",
    "OnConflict",
    "Page",
    "StoreError",
    "TapehouseError",
    "Unavailable",
    "__version__",
]

_HOMES = {
    "tapehouse.client": ("AsyncClient", "Client", "Page"),
    "tapehouse.model": ("Commit", "Instrument", "Interval", "Kind", "OnConflict"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'tapehouse' has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version  # slower than all the rest here

        return version("tapehouse")
    home = next((module for module, names in _HOMES.items() if name in names), "tapehouse.errors")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
