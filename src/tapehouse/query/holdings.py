"""What the store holds as of a commit: the series of each symbol, and which instrument a symbol is."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from msgspec.structs import replace

from tapehouse.errors import NotFound, NotSupported
from tapehouse.model import MAX_TIME_NS, Instruments, Interval, Kind
from tapehouse.query.base import COMMIT_NUMBERS_END
from tapehouse.store.base import Capability, Key, Selection, Series, Store

_MAX_COMMITS_TO_SCAN = 10_000
_SERIES_KINDS = [(Kind.BARS, interval) for interval in Interval] + [(Kind.TRADES, None), (Kind.QUOTES, None)]


class Holdings:
    """Series and instruments of a store."""

    def __init__(self, store: Store) -> None:
        # What only some stores can do is asked of it only where `capabilities` says that it can.
        self._store: Any = store
        self._remembers = Capability.VERSIONS in store.capabilities

    def commit(self, as_of: int | None) -> int | None:
        """The commit to read as of: the one given, the newest at the time given, or None when nothing is given."""
        if as_of is None:
            return None
        if not self._remembers:
            raise NotSupported("this store does not remember: it cannot answer as of an earlier commit or time")
        if as_of < COMMIT_NUMBERS_END and as_of >= 0:
            if as_of > (head := self._store.head()):
                raise NotFound(f"there is no commit {as_of}; the newest is {head}", commit=as_of)
            return as_of
        return int(self._store.commit_at(as_of))

    def series(
        self, symbols: Sequence[str] | None, as_of: int | None
    ) -> tuple[int | None, dict[str, tuple[Series, ...]]]:
        """A commit to read as of (None: the store does not remember) and, by symbol, series that span all its rows.

        The spans may be wider than the rows as of an earlier commit, never narrower.
        """
        while self._remembers:
            commit = self._store.head() if as_of is None else as_of
            held = self._store.coverage(None, symbols)
            if not self._removed_since(commit):
                return commit, _by_symbol(held)
            if as_of is not None:
                return commit, _by_symbol(_widened([*held, *self._look(symbols, commit)]))
        return None, _by_symbol(self._store.coverage(None, symbols))

    def check_known(self, symbols: Sequence[str], series: dict[str, tuple[Series, ...]]) -> None:
        """Raises `NotFound` that names up to five symbols that the store has no rows of, and symbols like them."""
        if unknown := [symbol for symbol in symbols if symbol not in series]:
            known = self._store.symbols()
            near = sorted({near for symbol in unknown[:5] for near in _near(symbol, known)})
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            like = f"; there is {', '.join(near)}" if near else ""
            raise NotFound(
                f"no data for {', '.join(unknown[:5])}{more}{like}", symbols=unknown[:5], count=len(unknown), near=near
            )

    def instruments(self) -> Instruments:
        """The instruments of the store; none when it keeps none."""
        if Capability.INSTRUMENTS not in self._store.capabilities:
            return Instruments([])
        return Instruments(self._store.instruments())

    def _removed_since(self, commit: int) -> bool:
        """Whether rows may have gone since: only then can today's coverage be narrower than it was."""
        if self._store.head() == commit:
            return False
        since = self._store.commits(after=commit, limit=_MAX_COMMITS_TO_SCAN)
        return len(since) == _MAX_COMMITS_TO_SCAN or any(known.action != "write" for known in since)

    def _look(self, symbols: Sequence[str] | None, commit: int) -> Iterator[Series]:
        """Every series as of a commit, found by reading its ends. `rows` is the least it can be."""
        for kind, interval in _SERIES_KINDS:
            selection = Selection(kind=kind, interval=interval, columns=("symbol", "timestamp"), limit=1, as_of=commit)
            for symbol in self._names(selection) if symbols is None else symbols:
                first = self._one(selection, (symbol,), newest_first=False)
                last = self._one(selection, (symbol,), newest_first=True)
                if first is not None and last is not None:
                    yield Series(
                        symbol=symbol,
                        kind=kind,
                        interval=interval,
                        first=first.timestamp,
                        last=last.timestamp,
                        rows=1 + (first.timestamp != last.timestamp),
                    )

    def _names(self, selection: Selection) -> Iterator[str]:
        after: Key | None = None
        while (found := self._one(selection, None, after=after)) is not None:
            yield found.symbol
            after = Key(found.symbol, MAX_TIME_NS)

    def _one(
        self,
        selection: Selection,
        symbols: tuple[str, ...] | None,
        *,
        newest_first: bool = False,
        after: Key | None = None,
    ) -> Key | None:
        asked = replace(selection, symbols=symbols, newest_first=newest_first, after=after)
        with self._store.read(asked) as reading:
            for batch in reading:
                if batch.num_rows:
                    return Key(batch["symbol"][0].as_py(), batch["timestamp"][0].value)
        return None


def _widened(held: list[Series]) -> list[Series]:
    """Each series once, with a span that holds the spans of all its mentions."""
    found: dict[tuple[str, Kind, Interval | None], Series] = {}
    for series in held:
        known = found.setdefault((series.symbol, series.kind, series.interval), series)
        found[series.symbol, series.kind, series.interval] = replace(
            known, first=min(known.first, series.first), last=max(known.last, series.last)
        )
    return list(found.values())


def _by_symbol(held: list[Series]) -> dict[str, tuple[Series, ...]]:
    ordered = sorted(held, key=lambda series: series.symbol)
    return {symbol: tuple(found) for symbol, found in groupby(ordered, key=lambda series: series.symbol)}


def _near(symbol: str, known: list[str]) -> list[str]:
    folded = {name.upper(): name for name in known}
    return [folded[name] for name in difflib.get_close_matches(symbol.upper(), folded, n=2)]
