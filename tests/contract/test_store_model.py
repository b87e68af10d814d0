"""Any sequence of writes, corrections, deletes, compactions and reopenings, compared with plain dictionaries.

The dictionaries below follow docs/design/versions.md by replaying it: what is current, and what each source said last,
after every commit. They share no code with any store.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.contract.stores import BACKENDS, Backend, Home, counts, table, tuples

from tapehouse.errors import Conflict
from tapehouse.model import DAY_NS, MINUTE_NS, PROVENANCE, SCHEMAS, Commit, Interval, Kind, OnConflict
from tapehouse.store.base import Capability, Key, Selection, Series

SYMBOLS = ("A", "a", "É")
SOURCES = ("x", "y", "z")
MONTH = 1_706_745_600 * 1_000_000_000
"""2024-02-01T00:00Z: the start of a day, a month, and a span of every kind but years."""
YEAR = 1_704_067_200 * 1_000_000_000
TIMES = (-1, 0, YEAR - 1, YEAR, MONTH - MINUTE_NS, MONTH - 1, MONTH, MONTH + 1, MONTH + MINUTE_NS, MONTH + DAY_NS)
VALUES = (0.0, 0.1, 1.5, 123456789.12345678)

Dataset = tuple[Kind, Interval | None]
DATASETS: tuple[Dataset, ...] = (
    (Kind.BARS, Interval.M1),
    (Kind.BARS, Interval.D1),
    (Kind.TRADES, None),
    (Kind.QUOTES, None),
)
NUMBERS = {
    Kind.BARS: ("open", "high", "low", "close", "volume"),
    Kind.TRADES: ("price", "size"),
    Kind.QUOTES: ("bid", "bid_size", "ask", "ask_size"),
}


class Entry(NamedTuple):
    """A row of the model, the commit that brought it, and its place in the commit."""

    commit: int
    place: int
    row: dict[str, Any]


class State(NamedTuple):
    """What is current, what each source said last, and all that it said.

    By key: (kind, interval, symbol, timestamp, ...identity).
    """

    current: dict[tuple[Any, ...], Entry]
    said: dict[tuple[Any, ...], Entry]
    heard: dict[tuple[Any, ...], tuple[dict[str, Any], ...]]


def keyed(
    dataset: Dataset, rows: Iterable[dict[str, Any]], source: str
) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Each row as the store must keep it, with its key."""
    kind, counted, result = dataset[0], Counter[Any](), []
    for row in rows:
        full = {name: row.get(name) for name in SCHEMAS[kind].names} | {"source": row.get("source") or source}
        identity: tuple[Any, ...] = ()
        if kind is not Kind.BARS:
            values = tuple(full[name] for name in NUMBERS[kind])
            if full["id"] is None:
                equal = (full["symbol"], full["timestamp"], full["source"], values)
                full["ordinal"] = counted[equal]
                counted[equal] += 1
                identity = (full["source"], values, full["ordinal"])
            else:
                identity = (full["source"], full["id"])
        result.append(((*dataset, full["symbol"], full["timestamp"], *identity), full))
    return result


class Model:
    """The store as dictionaries: `states[n]` is what a read as of commit n must find."""

    def __init__(self) -> None:
        self.states = [State({}, {}, {})]

    def write(
        self,
        dataset: Dataset,
        rows: Sequence[dict[str, Any]],
        source: str,
        on_conflict: OnConflict,
        prefer: Sequence[str],
    ) -> dict[str, int]:
        """The counts of the commit; raises `Conflict` as the store must."""
        now, number = self.states[-1], len(self.states)
        ranks = {name: rank for rank, name in reversed(list(enumerate(prefer)))} if on_conflict == "prefer" else {}
        by_key: dict[tuple[Any, ...], list[Entry]] = {}
        counted: Counter[str] = Counter()
        for place, (key, row) in enumerate(keyed(dataset, rows, source)):
            by_key.setdefault(key, []).append(Entry(number, place, row))
        lost, won = [], []
        for key, entries in by_key.items():
            entries.sort(key=lambda e: e.place if on_conflict == "keep" else -e.place)
            entries.sort(key=lambda e: ranks.get(e.row["source"], len(ranks) + 1))
            distinct = [e for n, e in enumerate(entries) if all(e.row != earlier.row for earlier in entries[:n])]
            counted["unchanged"] += len(entries) - len(distinct)
            before = now.current.get(key)
            for entry in distinct:
                said = now.said.get((*key, entry.row["source"]))
                first = entry is distinct[0]
                if first and before is None:
                    counted["inserted"] += 1
                    won.append((key, entry))
                elif first and before is not None and before.row == entry.row:
                    counted["unchanged"] += 1
                elif on_conflict == "error":
                    raise Conflict("the model says so")
                elif first and before is not None and on_conflict != "keep" and self._ranks(entry, before, ranks):
                    counted["replaced"] += 1
                    won.append((key, entry))
                elif (said is not None and said.row == entry.row) or (
                    sum(e.row["source"] == entry.row["source"] for e in distinct) > 1
                    and entry.row in now.heard.get((*key, entry.row["source"]), ())
                ):
                    counted["unchanged"] += 1
                else:
                    counted["rejected"] += 1
                    lost.append((key, entry))
        if lost or won:
            self.states.append(State(dict(now.current), dict(now.said), dict(now.heard)))
            # In one commit a row that is not lost counts as said after one that is.
            for key, entry in [*sorted(lost, key=lambda one: one[1].place), *won]:
                own = (*key, entry.row["source"])
                self.states[-1].said[own] = entry
                self.states[-1].heard[own] = (*self.states[-1].heard.get(own, ()), entry.row)
            self.states[-1].current.update(won)
        return {name: count for name, count in counted.items() if count}

    @staticmethod
    def _ranks(entry: Entry, before: Entry, ranks: dict[str, int]) -> bool:
        last = len(ranks) + 1
        return ranks.get(entry.row["source"], last) <= ranks.get(before.row["source"], last)

    def delete(self, dataset: Dataset, symbols: Sequence[str], start: int, end: int) -> dict[str, int]:
        """The counts of the commit."""
        now = self.states[-1]

        def kept(entries: dict[tuple[Any, ...], Any]) -> dict[tuple[Any, ...], Any]:
            return {
                key: entry
                for key, entry in entries.items()
                if not (key[:2] == dataset and key[2] in symbols and start <= key[3] < end)
            }

        after = State(kept(now.current), kept(now.said), kept(now.heard))
        deleted = len(now.current) - len(after.current)
        if deleted:
            self.states.append(after)
        return {"deleted": deleted} if deleted else {}

    def rows(self, dataset: Dataset, as_of: int = -1, source: str | None = None) -> list[tuple[Any, ...]]:
        """The rows of a read, in order, with all columns and the commit."""
        state = self.states[as_of]
        entries = state.current if source is None else {k: e for k, e in state.said.items() if k[-1] == source}
        found = [entry for key, entry in entries.items() if key[:2] == dataset]
        found.sort(key=lambda e: (e.row["symbol"], e.row["timestamp"], e.commit, e.place))
        return [(*(entry.row[name] for name in SCHEMAS[dataset[0]].names), entry.commit) for entry in found]

    def coverage(self) -> list[Series]:
        """What is held, by symbol, kind and interval."""
        times: dict[tuple[Any, ...], list[int]] = {}
        for kind, interval, symbol, time, *_ in self.states[-1].current:
            times.setdefault((symbol, kind, interval), []).append(time)
        order = {(kind, interval): n for n, (kind, interval) in enumerate(DATASETS)}
        return [
            Series(symbol=symbol, kind=kind, interval=interval, first=min(held), last=max(held), rows=len(held))
            for (symbol, kind, interval), held in sorted(times.items(), key=lambda one: (one[0][0], order[one[0][1:]]))
        ]


@st.composite
def written(draw: st.DrawFn, kind: Kind) -> list[dict[str, Any]]:
    """Rows of few symbols, times and values, so that they meet one another; some with columns that others lack."""
    optional: dict[str, st.SearchStrategy[Any]] = {"source": st.sampled_from([None, *SOURCES])}
    if kind is Kind.BARS:
        optional |= {"vwap": st.sampled_from([None, *VALUES]), "trades": st.sampled_from([None, 0, 7])}
    else:
        optional |= {"id": st.sampled_from([None, "1", "2"]), "exchange": st.sampled_from([None, "N"])}
    present = draw(st.sets(st.sampled_from(sorted(optional))))
    number = st.sampled_from(VALUES)

    @st.composite
    def row(draw: st.DrawFn) -> dict[str, Any]:
        value, extra = draw(number), {name: draw(optional[name]) for name in sorted(present)}
        numbers = dict.fromkeys(NUMBERS[kind], value)
        return {"symbol": draw(st.sampled_from(SYMBOLS)), "timestamp": draw(st.sampled_from(TIMES)), **numbers, **extra}

    return draw(st.lists(row(), max_size=12))


class Options(NamedTuple):
    """How a table is written."""

    source: str
    on_conflict: OnConflict
    prefer: Sequence[str]


PREFER = st.lists(st.sampled_from(SOURCES), unique=True)
OPTIONS = st.one_of(
    st.builds(Options, st.sampled_from(SOURCES), st.sampled_from(OnConflict), st.just([])),
    st.builds(Options, st.sampled_from(SOURCES), st.just(OnConflict.PREFER), PREFER),
)


class StoreMachine(RuleBasedStateMachine):
    """A store and its model, through anything that may happen to them."""

    backend: Backend

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tapehouse-model-"))
        self.home = Home(self.backend, self.folder / "data")
        self.model = Model()
        self.announced: list[int] = []
        self._listen()

    def _listen(self) -> None:
        if Capability.ANNOUNCES in self.home.store.capabilities:
            self.home.store.subscribe(lambda change: self.announced.append(change.commit))

    def teardown(self) -> None:
        if hasattr(self, "home"):
            try:
                self._check_everything()
            finally:
                self.home.close()
                shutil.rmtree(self.folder)

    @rule(data=st.data(), dataset=st.sampled_from(DATASETS), options=OPTIONS)
    def write(self, data: st.DataObject, dataset: Dataset, options: Options) -> None:
        self._write(dataset, data.draw(written(dataset[0])), options)

    @precondition(lambda self: self.model.states[-1].current)
    @rule(data=st.data(), options=OPTIONS, value=st.sampled_from([None, *VALUES]))
    def correct(self, data: st.DataObject, options: Options, value: float | None) -> None:
        """Write keys that are there, with the same value (for None) or another, from the same source or another."""
        current = self.model.states[-1].current
        keys = data.draw(st.lists(st.sampled_from(sorted(current, key=repr)), min_size=1, max_size=8))
        dataset = keys[0][:2]
        rows = [dict(current[key].row) for key in keys if key[:2] == dataset]
        for row in rows:
            row |= {} if value is None else dict.fromkeys(NUMBERS[dataset[0]], value)
            row |= {"source": data.draw(st.sampled_from([row["source"], None]))}
            row.pop("ordinal", None)
        self._write(dataset, rows, options)

    def _write(self, dataset: Dataset, rows: list[dict[str, Any]], options: Options) -> None:
        kind, interval = dataset

        def write() -> Commit:
            commit: Commit = self.home.store.write(kind, table(kind, rows), interval=interval, **options._asdict())
            return commit

        try:
            expected = self.model.write(dataset, rows, *options)
        except Conflict:
            with pytest.raises(Conflict):
                write()
            return
        commit = write()
        assert (counts(commit), commit.number) == (expected, self.head)

    @rule(
        dataset=st.sampled_from(DATASETS),
        symbols=st.sets(st.sampled_from(SYMBOLS)),
        bounds=st.tuples(st.sampled_from(TIMES), st.sampled_from(TIMES)),
    )
    def delete(self, dataset: Dataset, symbols: set[str], bounds: tuple[int, int]) -> None:
        start, end = min(bounds), max(bounds)
        expected = self.model.delete(dataset, sorted(symbols), start, end)
        commit = self.home.store.delete(dataset[0], sorted(symbols), interval=dataset[1], start=start, end=end)
        assert (counts(commit), commit.number) == (expected, self.head)

    @precondition(lambda self: Capability.COMPACTS in self.home.store.capabilities)
    @rule(everything=st.booleans())
    def compact(self, everything: bool) -> None:
        self.home.store.compact(everything=everything)

    @precondition(lambda self: self.backend.persists)
    @rule()
    def reopen(self) -> None:
        self.home.reopen()
        self._listen()

    @rule(data=st.data(), dataset=st.sampled_from(DATASETS), source=st.sampled_from([None, None, *SOURCES]))
    def read_the_past(self, data: st.DataObject, dataset: Dataset, source: str | None) -> None:
        as_of = data.draw(st.integers(0, self.head))
        self._check(dataset, as_of, source)

    @rule(
        dataset=st.sampled_from(DATASETS),
        symbols=st.none() | st.sets(st.sampled_from([*SYMBOLS, "nobody"])),
        bounds=st.tuples(st.sampled_from(TIMES), st.sampled_from(TIMES)),
        limit=st.integers(1, 5),
        newest_first=st.booleans(),
        source=st.sampled_from([None, None, *SOURCES]),
    )
    def read_in_pages(
        self,
        dataset: Dataset,
        symbols: set[str] | None,
        bounds: tuple[int, int],
        limit: int,
        newest_first: bool,
        source: str | None,
    ) -> None:
        start, end = min(bounds), max(bounds)
        expected = [
            row
            for row in self.model.rows(dataset, source=source)
            if (symbols is None or row[0] in symbols) and start <= row[1] < end
        ]
        if newest_first:
            expected.reverse()
            expected.sort(key=lambda row: row[0])
        options = {"symbols": None if symbols is None else tuple(symbols), "start": start, "end": end, "source": source}
        found: list[tuple[Any, ...]] = []
        after, page = None, [()]
        while page:
            page = self._read(dataset, limit=limit, newest_first=newest_first, after=after, **options)
            found += page
            assert len(page) <= limit
            assert len(found) <= len(expected)
            if page:
                same = [row for row in found if row[:2] == found[-1][:2]]
                after = Key(*found[-1][:2], len(same) - 1)
        assert found == expected

    @rule(dataset=st.sampled_from(DATASETS), symbols=st.none() | st.sets(st.sampled_from([*SYMBOLS, "nobody"])))
    def latest(self, dataset: Dataset, symbols: set[str] | None) -> None:
        last = {row[0]: row for row in self.model.rows(dataset) if symbols is None or row[0] in symbols}
        found = self.home.store.latest(
            dataset[0],
            None if symbols is None else sorted(symbols, reverse=True),
            interval=dataset[1],
            columns=self._columns(dataset[0]),
        )
        assert tuples(found) == [last[symbol] for symbol in sorted(last)]

    @invariant()
    def the_head_and_what_is_held_agree(self) -> None:
        if hasattr(self, "home"):
            assert self.home.store.head() == self.head
            assert self.home.store.coverage() == self.model.coverage()
            assert self.announced == list(range(1, self.head + 1))

    @property
    def head(self) -> int:
        return len(self.model.states) - 1

    @staticmethod
    def _columns(kind: Kind) -> tuple[str, ...]:
        return (*SCHEMAS[kind].names, *PROVENANCE)

    def _read(self, dataset: Dataset, **selection: Any) -> list[tuple[Any, ...]]:
        kind, interval = dataset
        columns = self._columns(kind)
        with self.home.store.read(Selection(kind=kind, interval=interval, columns=columns, **selection)) as reading:
            return tuples(reading.table())

    def _check_everything(self) -> None:
        store = self.home.store
        assert store.symbols() == sorted({series.symbol for series in self.model.coverage()})
        assert [commit.number for commit in store.commits(limit=10_000)] == list(range(1, self.head + 1))
        assert all(np.diff([commit.recorded for commit in store.commits(limit=10_000)]) > 0)
        for dataset in DATASETS:
            for as_of in range(self.head + 1):
                self._check(dataset, as_of)
            for source in SOURCES:
                self._check(dataset, self.head, source)

    def _check(self, dataset: Dataset, as_of: int, source: str | None = None) -> None:
        expected = self.model.rows(dataset, as_of, source)
        found = self._read(dataset, as_of=as_of, source=source)
        assert found == expected, f"{dataset} as of {as_of} from {source}"


@pytest.mark.timeout(0)  # a failure is shrunk first, and the long search has no end in sight
@pytest.mark.parametrize("name", BACKENDS)
def test_a_store_does_what_dictionaries_do(name: str) -> None:
    machine = type("Machine", (StoreMachine,), {"backend": BACKENDS[name]})
    # The reference is quick, and shows here what the model itself is worth.
    examples = settings().max_examples // 2 if BACKENDS[name].persists else settings().max_examples * 3
    run_state_machine_as_test(machine, settings=settings(max_examples=examples))
