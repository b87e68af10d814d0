"""What is known of each source: its numbers, when it was heard, and what became of its records."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec

from tapehouse.ingest.base import Receipt, SourceState
from tapehouse.ingest.sequences import Sequence
from tapehouse.model import SECOND_NS

_COUNTS = ("accepted", "repeated", "rejected", "late", "gaps", "missing")


class Source:
    """One source. Who takes what it sends holds `taking`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.numbers = Sequence()
        self.heard: int | None = None
        self.heartbeat_s: float | None = None
        self.taking = threading.Lock()
        self._counts: Counter[str] = Counter()

    def session(self, name: str, at: int) -> Sequence:
        """The numbers of that session, which are those of the source from now on."""
        if self.numbers.session != name:
            self.numbers = Sequence(name, at, None, {})
        self.numbers.seen = max(at, self.numbers.seen)
        return self.numbers

    def count(self, receipt: Receipt) -> None:
        """Add what became of an arrival."""
        for name in ("accepted", "repeated", "rejected", "late"):
            self._counts[name] += getattr(receipt, name)
        if receipt.gap is not None:
            self._counts["gaps"] += 1
            self._counts["missing"] += receipt.gap.last - receipt.gap.first + 1

    @property
    def counts(self) -> Mapping[str, int]:
        """What became of its records since the start."""
        return {name: self._counts[name] for name in _COUNTS}

    def state(self, now: int) -> SourceState:
        """All of it, as of now; a source is silent when it is not heard for longer than it said."""
        late = self.heartbeat_s is not None and now - (self.heard or 0) > self.heartbeat_s * SECOND_NS
        return SourceState(
            source=self.name,
            session=self.numbers.session,
            last=self.numbers.last,
            heard=self.heard,
            heartbeat_s=self.heartbeat_s,
            silent=self.heard is not None and late,
            **self.counts,
        )


class Sources:
    """All sources, by name. Thread-safe."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Source:
        with self._lock:
            if name not in self._sources:
                self._sources[name] = Source(name)
            return self._sources[name]

    def __iter__(self) -> Iterator[Source]:
        with self._lock:
            return iter([self._sources[name] for name in sorted(self._sources)])

    def encode(self) -> bytes:
        """The numbers of all sources."""
        return msgspec.msgpack.encode({source.name: source.numbers for source in self})

    def decode(self, state: bytes) -> None:
        """Take over numbers that were encoded."""
        for name, numbers in msgspec.msgpack.decode(state, type=dict[str, Sequence]).items():
            self[name].numbers = numbers
