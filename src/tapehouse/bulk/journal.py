"""How far a load came, kept in the store beside the rows, so that it can go on where it was.

A document of the collection `loads` says of a batch when it ran, its newest commit that is accounted for, and which
files it is of; one of `loads.files` how many blocks of a file are settled. They are written after the commit that they
tell of: after a kill in between, rows of that commit are read again and found unchanged.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from tapehouse.bulk.account import FileLoad
from tapehouse.bulk.base import NEWEST, Counts, RecognisedFile
from tapehouse.bulk.formats.files import reading
from tapehouse.bulk.run.hashes import Sum
from tapehouse.errors import InvalidRequest, NotFound, NotSupported
from tapehouse.model import Interval, Kind
from tapehouse.store.base import Capability, KeepsDocuments

LOADS, FILES = "loads", "loads.files"
_EDGE_BYTES = 1 << 16

State = Literal["running", "stopped", "finished"]


class Unchanged(msgspec.Struct, kw_only=True):
    """Rows of a series that the store had already, by symbol, and those it had under later rows of the same key."""

    kind: Kind
    interval: Interval | None
    sums: dict[str, Sum] = {}
    superseded: dict[str, Sum] = {}


class LoadProgress(msgspec.Struct, kw_only=True):
    """A load. Times are UTC nanoseconds; `orphans` are its commits that no run could account for before it died."""

    batch: str
    state: State
    started: int
    updated: int
    head: int
    files: list[str]
    block_bytes: int
    orphans: list[int] = []
    unchanged: list[Unchanged] = []


class FileProgress(msgspec.Struct, kw_only=True):
    """How far a file came: see `account.FileLoad`."""

    name: str
    done: bool
    blocks: int
    place: int
    numbered: bool
    counts: Counts
    sums: dict[str, Sum]


def identity(file: RecognisedFile) -> str:
    """Names the content of a file and what it is taken for, wherever it is."""
    taken_for = msgspec.structs.replace(file, path="", notes=(), problem=None)
    said = hashlib.blake2b(msgspec.json.encode(taken_for), digest_size=16)
    if getattr(file, "fingerprint", None) is None:
        said.update(_edges(Path(file.path)))
    return said.hexdigest()


def _edges(path: Path) -> bytes:
    with reading(path), path.open("rb") as file:
        found = file.seek(0, 2).to_bytes(8, "little")
        for place in (0, max(0, file.tell() - _EDGE_BYTES)):
            file.seek(place)
            found += file.read(_EDGE_BYTES)
    return found


def documents_of(store: Any) -> KeepsDocuments | None:
    """The store, when it keeps documents."""
    return store if Capability.DOCUMENTS in getattr(store, "capabilities", ()) else None


def loads(store: KeepsDocuments) -> list[LoadProgress]:
    """All loads that the store knows of, by the time at which they began."""
    kept = store.documents(LOADS).values()
    return sorted((msgspec.json.decode(each, type=LoadProgress) for each in kept), key=lambda each: each.started)


def earlier(store: Any, resume: str, files: Sequence[str]) -> LoadProgress:
    """The load to resume; `NotFound` when there is none, `NotSupported` when the store keeps no documents."""
    documents = documents_of(store)
    if documents is None:
        raise NotSupported("this store does not keep how far loads came; load again, and what is there stays unchanged")
    if resume != NEWEST:
        kept = documents.documents(LOADS, [resume])
        if not kept:
            raise NotFound(f"no load {resume} is known to this store", batch=resume)
        return msgspec.json.decode(kept[resume], type=LoadProgress)
    wanted = set(files)
    for each in reversed(loads(documents)):
        if each.state != "finished" and not wanted.isdisjoint(each.files):
            return each
    raise NotFound("no load of these files stopped before its end; load them without resuming")


class Journal:
    """Writes down how far one load came; without a store that keeps documents it does nothing."""

    def __init__(self, store: Any, batch: str, files: Sequence[FileLoad], block_bytes: int) -> None:
        self._store = documents_of(store)
        self._files = {file.number: identity(file.file) for file in files if not file.ended}
        self._written: set[str] = set()
        now = time.time_ns()
        self.load = LoadProgress(
            batch=batch,
            state="running",
            started=now,
            updated=now,
            head=store.head() if self._remembers(store) else 0,
            files=list(self._files.values()),
            block_bytes=block_bytes,
        )

    @property
    def kept(self) -> bool:
        """Whether anything is written down."""
        return self._store is not None

    @property
    def files(self) -> list[str]:
        """The identities of the files that are loaded."""
        return list(self._files.values())

    def begin(self) -> None:
        """Say that the load runs; `InvalidRequest` when the batch is known, since it can only be resumed."""
        if self._store is None:
            return
        known = self._store.documents(LOADS, [self.load.batch])
        if known:
            state = msgspec.json.decode(known[self.load.batch], type=LoadProgress).state
            if state != "finished":
                raise InvalidRequest(f"there is a load {self.load.batch} already: resume it, or name another batch")
        self._put({})

    def resume(self, earlier: LoadProgress, files: Sequence[FileLoad], store: Any) -> None:
        """Go on with an earlier load: files that it settled, wholly or in part, know so afterwards."""
        if self._store is None:
            raise NotSupported("this store does not keep how far loads came")
        new = [name for name in self.load.files if name not in earlier.files]
        earlier.orphans += _commits(store, earlier) if self._remembers(store) else []
        self.load = msgspec.structs.replace(earlier, state="running", files=[*earlier.files, *new])
        kept = self._store.documents(FILES, [self._key(name) for name in self._files.values()])
        for file in files:
            if file.number in self._files and (said := kept.get(self._key(self._files[file.number]))) is not None:
                self._written.add(self._files[file.number])
                _restore(file, msgspec.json.decode(said, type=FileProgress))
        self._put({})

    def settled(self, files: Iterable[FileLoad], head: int) -> None:
        """So far these files came, up to that commit."""
        if self._store is None:
            return
        self.load.head = max(self.load.head, head)
        names = {self._files[file.number]: file for file in files if file.number in self._files}
        self._written.update(names)
        self._put({self._key(name): _progress(file) for name, file in names.items()})

    def end(self, state: State) -> None:
        """The load ended; of one that finished, what files it had is not needed any more."""
        if self._store is None:
            return
        self.load.state = state
        self._put(dict.fromkeys(map(self._key, self._written)) if state == "finished" else {})

    def _key(self, name: str) -> str:
        return f"{self.load.batch}/{name}"

    def _put(self, files: dict[str, bytes | None]) -> None:
        """The files first: a load that says more than they do would go on too late."""
        assert self._store is not None
        if files:
            self._store.put_documents(FILES, files)
        self.load.updated = time.time_ns()
        self._store.put_documents(LOADS, {self.load.batch: msgspec.json.encode(self.load)})

    @staticmethod
    def _remembers(store: Any) -> bool:
        return Capability.VERSIONS in getattr(store, "capabilities", ())


def _progress(file: FileLoad) -> bytes:
    return msgspec.json.encode(
        FileProgress(
            name=file.file.name,
            done=file.ended and file.report.problem is None,
            blocks=file.blocks,
            place=file.place,
            numbered=file.numbered,
            counts=file.settled,
            sums=file.sums,
        )
    )


def _restore(file: FileLoad, said: FileProgress) -> None:
    file.resume(said.counts, said.sums, said.blocks, said.place, replays=said.numbered)
    if said.done:
        file.finished()


def _commits(store: Any, load: LoadProgress) -> list[int]:
    """The commits of the load after its newest one that is accounted for."""
    found, after = [], load.head
    while commits := store.commits(after=after, limit=1_000):
        found += [commit.number for commit in commits if commit.batch == load.batch]
        after = commits[-1].number
    return found
