"""What files are called in reports, plans and quarantine, and as the source of their rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


def names(paths: Iterable[Path]) -> dict[Path, str]:
    """A name for each path: its last part where no other file is called that; else as many folders before it as tell
    all files of that name apart, `X/bars.csv`."""
    alike = defaultdict[str, list[Path]](list)
    for path in paths:
        alike[path.name].append(path)
    return {path: name for same in alike.values() for path, name in _told_apart(same)}


def _told_apart(paths: list[Path]) -> Iterable[tuple[Path, str]]:
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        found = ["/".join(part.strip("/\\") for part in path.parts[-count:]) for path in paths]
        if len(set(found)) == len(paths):
            break
    return zip(paths, found, strict=True)
