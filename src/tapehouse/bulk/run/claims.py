"""Which files are being loaded into which store, so that two loads of one file do not run at once.

A store's folder belongs to one process, and every load of it runs there: what that process remembers is all there is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tapehouse.errors import Conflict

_lock = threading.Lock()
_claims: dict[tuple[int, str], str] = {}


@contextmanager
def claimed(store: object, batch: str, files: Iterable[tuple[str, str]]) -> Iterator[None]:
    """These files (identity and name) are that load's; `Conflict` names the load that has one of them, or the batch."""
    wanted = {(id(store), identity): name for identity, name in files} | {
        (id(store), f"batch {batch}"): f"load {batch}"
    }
    with _lock:
        for key, name in wanted.items():
            if (other := _claims.get(key)) is not None:
                said = f"{name} is being loaded already, by {other}: wait until it has ended, or cancel it"
                raise Conflict(said, batch=other, file=name)
        _claims.update(dict.fromkeys(wanted, batch))
    try:
        yield
    finally:
        with _lock:
            for key in wanted:
                del _claims[key]
