"""Any sequence of writes, corrections, deletes, undos, compactions and reopenings, compared with plain dictionaries.

The dictionaries below follow docs/design/versions.md by replaying it: what is current, and what each source said last,
after every commit; an undo is a replay without what it undoes. They share no code with any store.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
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
from tapehouse.store.base import Capability, Key, Met, Outcome, Selection, Series

SYMBOLS = ("A", "a", "É")
SOURCES = ("x", "y", "z")
MONTH = 1_706_745_600 * 1_000_000_000
"""2024-02-01T00:00Z: the start of a day, a month, and a span of every kind but years."""
YEAR = 1_704_067_200 * 1_000_000_000
TIMES = (-1, 0, YEAR - 1, YEAR, MONTH - MINUTE_NS, MONTH - 1, MONTH, MONTH + 1, MONTH + MINUTE_NS, MONTH + DAY_NS)
OPENINGS = {
    Interval.M1: tuple(time for time in TIMES if time % MINUTE_NS == 0),
    Interval.D1: (-DAY_NS, *(time for time in TIMES if time % DAY_NS == 0), MONTH - DAY_NS, YEAR - DAY_NS),
}
"""When bars open; trades and quotes have all of `TIMES`."""
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


class Event(NamedTuple):
    """What one commit did: rows that lost and rows that became current, a span that it deleted, commits it undid."""

    dataset: Dataset
    batch: str | None
    lost: Sequence[tuple[tuple[Any, ...], Entry]] = ()
    won: Sequence[tuple[tuple[Any, ...], Entry]] = ()
    deleted: tuple[Sequence[str], int, int] | None = None
    undid: frozenset[int] = frozenset()

    def covers(self, key: tuple[Any, ...]) -> bool:
        """Whether it deleted that key."""
        if self.deleted is None or key[:2] != self.dataset:
            return False
        symbols, start, end = self.deleted
        return key[2] in symbols and start <= key[3] < end

    def on(self, state: State) -> State:
        """The state after it."""
        before = [{k: v for k, v in held.items() if not self.covers(k)} for held in state]  # type: ignore[attr-defined]
        current, said, heard = before
        # In one commit a row that is not lost counts as said after one that is.
        for key, entry in [*sorted(self.lost, key=lambda one: one[1].place), *self.won]:
            own = (*key, entry.row["source"])
            said[own] = entry
            heard[own] = (*heard.get(own, ()), entry.row)
        return State(current | dict(self.won), said, heard)


class Model:
    """The store as dictionaries: `states[n]` is what a read as of commit n must find, after `events[:n]`."""

    def __init__(self) -> None:
        self.states = [State({}, {}, {})]
        self.events: list[Event] = []

    def _commit(self, event: Event) -> None:
        self.events.append(event)
        self.states.append(event.on(self.states[-1]) if not event.undid else self._replay(self.hidden())[0])

    def hidden(self) -> set[int]:
        """The commits that are undone by undos that are not."""
        found: set[int] = set()
        for number in range(len(self.events), 0, -1):
            found |= set() if number in found else self.events[number - 1].undid
        return found

    def _replay(self, without: Collection[int]) -> tuple[State, dict[tuple[Any, ...], list[int]]]:
        """The state, and the commits that changed each key, as if those commits had never been."""
        state, changes = self.states[0], dict[tuple[Any, ...], list[int]]()
        for number, event in enumerate(self.events, 1):
            if number not in without:
                before, state = state, event.on(state)
                for key in before.current.keys() | state.current.keys():
                    if before.current.get(key) is not state.current.get(key):
                        changes.setdefault(key, []).append(number)
        return state, changes

    def write(
        self,
        dataset: Dataset,
        rows: Sequence[dict[str, Any]],
        source: str,
        on_conflict: OnConflict,
        prefer: Sequence[str],
        batch: str | None = None,
    ) -> list[str]:
        """What becomes of each row; raises `Conflict` as the store must."""
        now, number = self.states[-1], len(self.states)
        ranks = {name: rank for rank, name in reversed(list(enumerate(prefer)))} if on_conflict == "prefer" else {}
        by_key: dict[tuple[Any, ...], list[Entry]] = {}
        verdicts = ["unchanged"] * len(rows)
        for place, (key, row) in enumerate(keyed(dataset, rows, source)):
            by_key.setdefault(key, []).append(Entry(number, place, row))
        lost, won = [], []
        for key, entries in by_key.items():
            entries.sort(key=lambda e: e.place if on_conflict == "keep" else -e.place)
            entries.sort(key=lambda e: ranks.get(e.row["source"], len(ranks) + 1))
            distinct = [e for n, e in enumerate(entries) if all(e.row != earlier.row for earlier in entries[:n])]
            before = now.current.get(key)
            for entry in distinct:
                said = now.said.get((*key, entry.row["source"]))
                first = entry is distinct[0]
                if first and before is None:
                    verdicts[entry.place] = "inserted"
                    won.append((key, entry))
                elif first and before is not None and before.row == entry.row:
                    pass
                elif on_conflict == "error":
                    raise Conflict("the model says so")
                elif first and before is not None and self._wins(entry, before, on_conflict, ranks):
                    verdicts[entry.place] = "replaced"
                    won.append((key, entry))
                elif (said is not None and said.row == entry.row) or (
                    sum(e.row["source"] == entry.row["source"] for e in distinct) > 1
                    and entry.row in now.heard.get((*key, entry.row["source"]), ())
                ):
                    pass
                else:
                    verdicts[entry.place] = "rejected"
                    lost.append((key, entry))
        if lost or won:
            self._commit(Event(dataset, batch, lost, won))
        return verdicts

    @staticmethod
    def _wins(entry: Entry, before: Entry, on_conflict: OnConflict, ranks: dict[str, int]) -> bool:
        if on_conflict == "keep" or (on_conflict == "own" and entry.row["source"] != before.row["source"]):
            return False
        last = len(ranks) + 1
        return ranks.get(entry.row["source"], last) <= ranks.get(before.row["source"], last)

    def delete(
        self, dataset: Dataset, symbols: Sequence[str], start: int, end: int, batch: str | None = None
    ) -> dict[str, int]:
        """The counts of the commit."""
        event = Event(dataset, batch, deleted=(symbols, start, end))
        deleted = sum(event.covers(key) for key in self.states[-1].current)
        if deleted:
            self._commit(event)
        return {"deleted": deleted} if deleted else {}

    def undo(self, batch: str) -> list[tuple[Dataset, dict[str, int], list[tuple[Any, ...]]]]:
        """Of each commit of the undo: data set, counts, and what it left: symbol, time, and the commit that changed it.
        Raises `Conflict` as the store must."""
        hidden = self.hidden()
        counting = [n for n, event in enumerate(self.events, 1) if event.batch == batch and n not in hidden]
        if not counting:
            raise Conflict("the model says so")
        name = next(
            name
            for name in [f"undo-{batch}", *(f"undo-{batch}-{n}" for n in range(2, 1_000))]
            if all(event.batch != name for event in self.events)
        )
        by_dataset = [(d, frozenset(n for n in counting if self.events[n - 1].dataset == d)) for d in DATASETS]
        return [(dataset, *self._undo(dataset, numbers, name)) for dataset, numbers in by_dataset if numbers]

    def _undo(
        self, dataset: Dataset, numbers: frozenset[int], name: str
    ) -> tuple[dict[str, int], list[tuple[Any, ...]]]:
        hidden = self.hidden()
        before, changes_before = self._replay(hidden)
        self._commit(Event(dataset, name, undid=numbers))
        hidden_then = self.hidden()
        after, changes_after = self._replay(hidden_then)
        counted, left = Counter[str](), []
        for key in before.current.keys() | after.current.keys() | changes_before.keys() | changes_after.keys():
            was, now = before.current.get(key), after.current.get(key)
            if was is not now:
                counted["deleted" if now is None else "inserted" if was is None else "replaced"] += 1
                continue
            # Undone commits count before the undo, those whose undo it undoes after it.
            for ours, changes in ((hidden_then - hidden, changes_before), (hidden - hidden_then, changes_after)):
                if ours & set(changes.get(key, ())) and changes[key][-1] not in ours:
                    counted["unchanged"] += 1
                    left.append((key[2], key[3], changes[key][-1]))
                    break
        return dict(counted), sorted(left)

    def batches(self) -> list[dict[str, Any]]:
        """Names, commits and undos of the batches, by their last commit, newest first."""
        members: dict[str, list[int]] = {}
        for number, event in enumerate(self.events, 1):
            if event.batch is not None:
                members.setdefault(event.batch, []).append(number)
        hidden = self.hidden()
        found = []
        for name, numbers in members.items():
            by = [n for n, e in enumerate(self.events, 1) if n not in hidden and e.undid & set(numbers)]
            of = [self.events[min(self.events[n - 1].undid) - 1].batch for n in numbers if self.events[n - 1].undid]
            found.append(
                {
                    "name": name,
                    "first_commit": numbers[0],
                    "last_commit": numbers[-1],
                    "commits": len(numbers),
                    "series": tuple(d for d in DATASETS if any(self.events[n - 1].dataset == d for n in numbers)),
                    "undone_by": self.events[by[-1] - 1].batch if set(numbers) <= hidden else None,
                    "undoes": of[0] if of else None,
                }
            )
        return sorted(found, key=lambda batch: -batch["last_commit"])

    def written(self, batch: str, dataset: Dataset) -> list[tuple[Any, ...]]:
        """Every row that the batch stored, with all columns and the commit, in any order."""
        entries = [
            entry
            for event in self.events
            if event.batch == batch and event.dataset == dataset
            for _, entry in (*event.lost, *event.won)
        ]
        return [(*(entry.row[name] for name in SCHEMAS[dataset[0]].names), entry.commit) for entry in entries]

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
def written(draw: st.DrawFn, kind: Kind, interval: Interval | None) -> list[dict[str, Any]]:
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
        time = draw(st.sampled_from(TIMES if interval is None else OPENINGS[interval]))
        return {"symbol": draw(st.sampled_from(SYMBOLS)), "timestamp": time, **numbers, **extra}

    return draw(st.lists(row(), max_size=12))


class Options(NamedTuple):
    """How a table is written."""

    source: str
    on_conflict: OnConflict
    prefer: Sequence[str]
    batch: str | None


PREFER = st.lists(st.sampled_from(SOURCES), min_size=1, unique=True)
MODES = st.sampled_from([mode for mode in OnConflict if mode is not OnConflict.PREFER])
BATCH = st.sampled_from([None, "p", "p", "q"])
OPTIONS = st.one_of(
    st.builds(Options, st.sampled_from(SOURCES), MODES, st.just([]), BATCH),
    st.builds(Options, st.sampled_from(SOURCES), st.just(OnConflict.PREFER), PREFER, BATCH),
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
        self._write(dataset, [data.draw(written(*dataset))], options)

    @rule(data=st.data(), dataset=st.sampled_from(DATASETS), options=OPTIONS)
    def write_together(self, data: st.DataObject, dataset: Dataset, options: Options) -> None:
        self._write(dataset, data.draw(st.lists(written(*dataset), max_size=4)), options)

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
        self._write(dataset, [rows], options)

    def _write(self, dataset: Dataset, parts: Sequence[list[dict[str, Any]]], options: Options) -> None:
        kind, interval = dataset

        def write() -> Commit:
            store, tables = self.home.store, [table(kind, rows) for rows in parts]
            if len(tables) == 1:
                commit: Commit = store.write(kind, tables[0], interval=interval, **options._asdict())
                return commit
            commit, outcomes = store.write_together(kind, tables, interval=interval, **options._asdict())
            verdicts = iter(expected)
            found = [msgspec.structs.replace(outcome, met=Met()) for outcome in outcomes]
            assert found == [Outcome(**Counter(islice(verdicts, len(rows)))) for rows in parts]
            return commit

        try:
            expected = self.model.write(dataset, [row for rows in parts for row in rows], *options)
        except Conflict:
            with pytest.raises(Conflict):
                write()
            return
        commit = write()
        assert (counts(commit), commit.number) == (dict(Counter(expected)), self.head)

    @rule(
        dataset=st.sampled_from(DATASETS),
        symbols=st.sets(st.sampled_from(SYMBOLS)),
        bounds=st.tuples(st.sampled_from(TIMES), st.sampled_from(TIMES)),
        batch=BATCH,
    )
    def delete(self, dataset: Dataset, symbols: set[str], bounds: tuple[int, int], batch: str | None) -> None:
        start, end = min(bounds), max(bounds)
        expected = self.model.delete(dataset, sorted(symbols), start, end, batch)
        commit = self.home.store.delete(
            dataset[0], sorted(symbols), interval=dataset[1], start=start, end=end, batch=batch
        )
        assert (counts(commit), commit.number) == (expected, self.head)

    @precondition(lambda self: Capability.UNDOES in self.home.store.capabilities and self.model.batches())
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from([batch["name"] for batch in self.model.batches()]))
        first = self.head + 1
        try:
            expected = self.model.undo(batch)
        except Conflict:
            with pytest.raises(Conflict):
                self.home.store.undo(batch)
            return
        undone = self.home.store.undo(batch)
        assert [commit.number for commit in undone.commits] == list(range(first, self.head + 1))
        assert [((c.kind, c.interval), counts(c)) for c in undone.commits] == [(d, found) for d, found, _ in expected]
        total = sum((Counter(found) for _, found, _ in expected), Counter[str]())
        assert (undone.removed, undone.left) == (total["deleted"], total["unchanged"])
        assert undone.restored == total["inserted"] + total["replaced"]
        assert undone.examples == [(*dataset, *one) for dataset, _, left in expected for one in left][:10]

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

        self._check_batches()

    def _check_batches(self) -> None:
        store, expected = self.home.store, self.model.batches()
        if Capability.UNDOES in store.capabilities:
            found = store.batches(limit=10_000)
            assert [
                {name: getattr(batch, name) for name in one} for batch, one in zip(found, expected, strict=True)
            ] == (expected)
        if Capability.AUDITS in store.capabilities:
            for name in (*(batch["name"] for batch in expected), "nobody"):
                for dataset in DATASETS:
                    with store.written(name, *dataset) as reading:
                        rows = tuples(reading.table())
                    assert sorted(rows, key=repr) == sorted(self.model.written(name, dataset), key=repr)

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
