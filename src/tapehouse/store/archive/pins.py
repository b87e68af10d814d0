"""Who still reads what: files and rows that were replaced go away only when no reader can ask for them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from operator import itemgetter


class Pins:
    """A reader holds the generation that it started in; what a later generation replaced waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = 0
        self._held: Counter[int] = Counter()
        self._retired: list[tuple[int, Callable[[], None]]] = []

    def hold(self) -> Callable[[], None]:
        """Pin what there is now; the returned function lets go of it (once)."""
        with self._lock:
            generation = self._generation
            self._held[generation] += 1
        return lambda: self._release(generation)

    def _release(self, generation: int) -> None:
        with self._lock:
            self._held[generation] -= 1
            if not self._held[generation]:
                del self._held[generation]

    def retire(self, dispose: Callable[[], None]) -> None:
        """Have that called by `tidy` once every reader that is there now has gone."""
        with self._lock:
            self._retired.append((self._generation, dispose))
            self._generation += 1

    def tidy(self) -> int:
        """Dispose of what nobody can ask for any more; returns how much still waits.

        One that raises keeps no other from its turn, and is called again next time; then the error is raised.
        """
        with self._lock:
            oldest = min(self._held, default=self._generation)
            ready = [entry for entry in self._retired if entry[0] < oldest]
            self._retired = [entry for entry in self._retired if entry[0] >= oldest]
        with ExitStack() as stack:
            for entry in reversed(ready):
                stack.callback(self._dispose, entry)
        return len(self._retired)

    def _dispose(self, entry: tuple[int, Callable[[], None]]) -> None:
        try:
            entry[1]()
        except BaseException:
            with self._lock:
                self._retired = sorted([entry, *self._retired], key=itemgetter(0))
            raise

    @property
    def readers(self) -> int:
        """How many readers there are."""
        return sum(self._held.values())
