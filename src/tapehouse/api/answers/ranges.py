"""`Range` of a request (RFC 9110, 14): one part of a body by its bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGES = re.compile(r"bytes\s*=\s*(?P<first>\d{1,19})?-(?P<last>\d{1,19})?", re.IGNORECASE)


@dataclass(frozen=True)
class Range:
    """Bytes `first` to `last`, or, without `first`, the last `last` bytes."""

    first: int | None
    last: int | None

    @property
    def is_suffix(self) -> bool:
        """Whether it counts from the end."""
        return self.first is None

    def of(self, size: int) -> tuple[int, int] | None:
        """The place `[start, end)` in so many bytes, or None when none of them are meant."""
        if self.first is None:
            start, end = max(0, size - (self.last or 0)), size
        else:
            start, end = self.first, size if self.last is None else min(size, self.last + 1)
        return (start, end) if start < end else None


def parse_range(header: str | None) -> Range | None:
    """The one range that is asked for. Several, other units and what is none are passed over, as the RFC allows."""
    found = _RANGES.fullmatch(header.strip()) if header else None
    if found is None:
        return None
    first, last = (None if found[name] is None else int(found[name]) for name in ("first", "last"))
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        return None
    return Range(first, last)
