"""Questions about history, answered from any store: calendars, resampling, limits and pages.

`StoredHistory` is imported when it is first used, so that a client, which only needs the contract in `base`, does not
load what answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tapehouse.query.history import StoredHistory

__all__ = ["StoredHistory"]


def __getattr__(name: str) -> object:
    if name != "StoredHistory":
        raise AttributeError(f"module 'tapehouse.query' has no attribute {name!r}")
    from tapehouse.query import history

    globals()[name] = history.StoredHistory
    return history.StoredHistory
