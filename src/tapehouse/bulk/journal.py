"""How far a load came, kept in the store beside the rows, so that it can go on where it was.

A document of the collection `loads` says of a batch when it ran and of which files it is. Those of `loads.files` say
how many blocks of each file are settled and, under `BATCH/`, by which commits; they are written together, after the
commit that they tell of: after a kill in between, rows of that commit are read again, and counted as it has them.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from tapehouse.bulk.account import FileLoad
from tapehouse.bulk.base import NEWEST, Counts, RecognisedFile, SetAside
from tapehouse.bulk.formats.files import END_BYTES, reading
from tapehouse.bulk.quarantine import Reasons
from tapehouse.codec.content import Sum
from tapehouse.errors import InvalidRequest, NotFound, NotSupported, TapehouseError
from tapehouse.model import Interval, Kind
from tapehouse.store.base import Capability, KeepsDocuments, Outcome

LOADS, FILES = "loads", "loads.files"
ANNOUNCED = "loads.announced"
"""Has a document of each file, by its identity, of a load that is about to begin."""
_ANNOUNCED_FILES = 100
_EDGE_BYTES = 1 << 16
_PAGE = 1_000

State = Literal["running", "stopped", "finished"]
Known = TypeVar("Known", "LoadProgress", "Tally", "FileProgress")

logger = logging.getLogger(__name__)


class Unchanged(msgspec.Struct, kw_only=True):
    """Rows of a series that the store had already, by symbol, and those it had under later rows of the same key."""

    kind: Kind
    interval: Interval | None
    sums: dict[str, Sum] = {}
    superseded: dict[str, Sum] = {}
    repeated: int = 0
    """How many of them this load itself had brought before."""


FORMAT = 1
"""Raised whenever an older program would read what is written down of a load in another sense."""


class LoadProgress(msgspec.Struct, kw_only=True):
    """A load. Times are UTC nanoseconds. A `running` one of which this process knows nothing was killed."""

    batch: str
    state: State
    started: int
    updated: int
    first: int
    """The store's newest commit when it began."""
    files: list[str]
    block_bytes: int
    quarantine: list[str] = []
    """Files that were in the load's quarantine folder when it began: another load's of the same name."""
    format: int = FORMAT


class Unsettled(msgspec.Struct, kw_only=True):
    """What a commit did that the run which made it did not live to write down, as far as it was not read again."""

    inserted: int
    replaced: int
    rejected: int

    @property
    def rows(self) -> int:
        return self.inserted + self.replaced + self.rejected


class Tally(msgspec.Struct, kw_only=True):
    """What is settled of a load beside its files: its commits that are accounted for, and what they left."""

    commits: list[int] = []
    unsettled: dict[int, Unsettled] = {}
    unchanged: list[Unchanged] = []
    found: list[str] = []
    """The first batches that had brought rows which this load found unchanged."""
    set_aside: list[SetAside] = []

    @property
    def mine(self) -> list[int]:
        """All commits of the load."""
        return [*self.commits, *self.unsettled]

    def recounted(self, outcome: Outcome) -> tuple[Outcome, int | None]:
        """The outcome with rows of unsettled commits counted as these count them, and the first of these commits."""
        counts = {name: getattr(outcome, name) for name in ("inserted", "replaced", "rejected", "unchanged")}
        own, first = dict(outcome.met.own), None
        for commit in sorted(own.keys() & self.unsettled.keys()):
            duplicates, conflicts = own[commit]
            for name in ("inserted", "replaced", "rejected"):
                left = self.unsettled[commit]
                rows = min(duplicates, counts["unchanged"], getattr(left, name))
                setattr(left, name, getattr(left, name) - rows)
                counts[name], counts["unchanged"] = counts[name] + rows, counts["unchanged"] - rows
                duplicates -= rows
            own[commit], first = (duplicates, conflicts), first or commit
        met = msgspec.structs.replace(outcome.met, own=own)
        return msgspec.structs.replace(outcome, **counts, met=met), first

    def retire(self) -> None:
        """Unsettled commits of which all rows were read again are accounted for."""
        for commit in [commit for commit, left in self.unsettled.items() if not left.rows]:
            del self.unsettled[commit]
            self.commits.append(commit)


class FileProgress(msgspec.Struct, kw_only=True):
    """How far a file came: see `account.FileLoad`. `modified` is the time of the file, ns."""

    name: str
    path: str
    source: str
    kind: Kind
    interval: Interval | None
    modified: int
    done: bool
    blocks: int
    place: int
    numbered: bool
    first_commit: int = 0
    counts: Counts
    reasons: Reasons = msgspec.field(default_factory=Reasons)
    sums: dict[str, Sum]
    quarantine: str | None = None
    bad_bytes: int = 0
    """So much of the quarantine file is of what is settled."""


def identity(file: RecognisedFile) -> str:
    """Names the content of a file and what it is taken for, wherever it is and by however many rows that was seen.

    Of the content, its size and ends: files that differ between these, and were written at other times, have one too.
    """
    times = file.times and msgspec.structs.replace(file.times, seen="")
    taken_for = msgspec.structs.replace(
        file,
        path="",
        notes=(),
        problem=None,
        interval_from=None,
        times=times,
        fingerprint=file.fingerprint and msgspec.structs.replace(file.fingerprint, mtime_ns=0),
    )
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


def _read(document: bytes, type_: type[Known], batch: str) -> Known:
    """What was written down of a load; `NotSupported` when another version did, so that this one cannot go on."""
    try:
        found = msgspec.json.decode(document, type=type_)
        if isinstance(found, LoadProgress) and found.format > FORMAT:
            raise msgspec.ValidationError(f"its format is {found.format}, and {FORMAT} is the newest known here")
        return found
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise NotSupported(
            f"what the store keeps of load {batch} cannot be read by this version ({exc}), and it cannot be resumed; "
            "load its files under another name, and what is there already stays unchanged",
            batch=batch,
        ) from exc


def loads(store: KeepsDocuments) -> list[LoadProgress]:
    """All loads that the store knows of, by the time at which they began; what cannot be read is logged."""
    found = []
    for batch, document in store.documents(LOADS).items():
        try:
            found.append(_read(document, LoadProgress, batch))
        except NotSupported as exc:
            logger.warning("%s", exc.message)
    return sorted(found, key=lambda each: each.started)


def announce(store: Any, files: Iterable[RecognisedFile]) -> None:
    """A load of the files is about to begin: one that is killed before it does is known to have been asked for.

    The first of very many stand for all.
    """
    documents = documents_of(store)
    able = [file for file in files if file.problem is None][:_ANNOUNCED_FILES]
    if documents is not None and able:
        documents.put_documents(ANNOUNCED, {identity(file): b"{}" for file in able})


def earlier(store: Any, resume: str, files: Sequence[str]) -> LoadProgress | None:
    """The load to resume, None when the newest of the files was announced and never began.

    A finished one when it had all of the files, so that nothing is left to do; `InvalidRequest` when it had not.
    `NotFound` when there is none, `NotSupported` when the store keeps no documents.
    """
    documents = documents_of(store)
    if documents is None:
        raise NotSupported("this store does not keep how far loads came; load again, and what is there stays unchanged")
    wanted = set(files)
    if resume != NEWEST:
        kept = documents.documents(LOADS, [resume])
        if not kept:
            raise NotFound(f"no load {resume} is known to this store", batch=resume)
        known = _read(kept[resume], LoadProgress, resume)
        if known.state == "finished" and not wanted <= set(known.files):
            raise InvalidRequest(
                f"load {resume} came to its end, and some of these files were not in it: load them without resuming",
                batch=resume,
            )
        return known
    for each in reversed(loads(documents)):
        if each.state != "finished" and not wanted.isdisjoint(each.files):
            return each
    if documents.documents(ANNOUNCED, list(files)):
        return None
    for each in reversed(loads(documents)):
        if wanted and wanted <= set(each.files):
            return each
    raise NotFound("no load of these files stopped before its end; load them without resuming")


def check_not_undone(store: Any, batch: str) -> None:
    """`InvalidRequest` when the batch is undone: what its undo hid would pass for loaded."""
    if Capability.UNDOES not in getattr(store, "capabilities", ()):
        return
    for known in store.batches([batch], limit=1):
        if known.undone_by is not None:
            raise InvalidRequest(
                f"batch {batch} was undone by {known.undone_by}: load the files under another name, or undo "
                f"{known.undone_by} to bring it back",
                batch=batch,
                undone_by=known.undone_by,
            )


class Journal:
    """Writes down how far one load came; without a store that keeps documents it does nothing."""

    def __init__(self, store: Any, batch: str, files: Sequence[FileLoad], block_bytes: int) -> None:
        self._store = documents_of(store)
        self._files = _names(files)
        self._written: set[str] = set()
        self.tally = Tally()
        now = time.time_ns()
        self.load = LoadProgress(
            batch=batch,
            state="running",
            started=now,
            updated=now,
            first=store.head() if Capability.VERSIONS in getattr(store, "capabilities", ()) else 0,
            files=list(self._files.values()),
            block_bytes=block_bytes,
        )

    @property
    def resumable(self) -> bool:
        """Whether the load can go on from what is written down."""
        return self._store is not None and self.load.state != "finished"

    def begin(self) -> None:
        """Say that the load runs; `InvalidRequest` when the batch did not come to its end: it can only be resumed."""
        if self._store is None:
            return
        check_not_undone(self._store, self.load.batch)
        for known in self._store.documents(LOADS, [self.load.batch]).values():
            if _read(known, LoadProgress, self.load.batch).state != "finished":
                raise InvalidRequest(
                    f"load {self.load.batch} did not come to its end: resume it, or name another batch"
                )
        self._say("running")
        self._store.put_documents(ANNOUNCED, dict.fromkeys(self._files.values()))

    def resume(self, before: LoadProgress, files: Sequence[FileLoad]) -> list[FileProgress]:
        """Go on with an earlier load: files that it settled, wholly or in part, know so afterwards.

        Returned is what it settled of others, which are not there now, or not as they were.
        """
        if self._store is None:
            raise NotSupported("this store does not keep how far loads came")
        given = list(self._files.values())
        others = [name for name in before.files if name not in given]
        self.load = msgspec.structs.replace(before, files=[*others, *given])
        check_not_undone(self._store, self.load.batch)
        kept = self._store.documents(FILES, [self._key(name) for name in ("", *self.load.files)])
        if (said := kept.get(self._key(""))) is not None:
            self.tally = _read(said, Tally, self.load.batch)
        self._find_unsettled()
        told = {
            name: _read(kept[self._key(name)], FileProgress, self.load.batch)
            for name in self.load.files
            if self._key(name) in kept
        }
        self._written.update(told, [""])
        for file in files:
            if (progress := told.get(self._files.get(file.number, ""))) is not None:
                restore(file, progress)
        self._say("running")
        return [told[name] for name in others if name in told]

    def _find_unsettled(self) -> None:
        """Note the commits of the load that no run lived to write down."""
        if Capability.VERSIONS not in getattr(self._store, "capabilities", ()):
            return
        store: Any = self._store
        known, after = set(self.tally.mine), self.load.first
        while commits := store.commits(after=after, limit=_PAGE):
            after = commits[-1].number
            for each in commits:
                if each.batch == self.load.batch and each.action == "write" and each.number not in known:
                    self.tally.unsettled[each.number] = Unsettled(
                        inserted=each.inserted, replaced=each.replaced, rejected=each.rejected
                    )

    def settled(self, files: Iterable[FileLoad], commit: int | None) -> None:
        """So far these files came, by that commit when there was one."""
        if commit is not None:
            self.tally.commits.append(commit)
        if self._store is None:
            return
        names = {self._files[file.number]: file for file in files if file.number in self._files}
        for file in names.values():
            file.quarantine.flush()
        self._written.update(names, [""])
        documents = {self._key(name): _progress(file) for name, file in names.items()}
        self._store.put_documents(FILES, {**documents, self._key(""): msgspec.json.encode(self.tally)})

    def end(self, state: State) -> None:
        """The load ended; of one that finished, what is said of its files is not needed any more."""
        if self._store is None:
            return
        if state == "finished":  # it knows of no file that it did not settle
            self.load.files = [name for name in self.load.files if name in self._written]
        self._say(state)
        if state == "finished" and self._written:
            self._store.put_documents(FILES, dict.fromkeys(map(self._key, self._written)))

    def stop(self) -> None:
        """The load ends by an error. A store that cannot even keep that says `running` of it, as after a kill."""
        if self._store is None or self.load.state != "running":
            return
        try:
            self._say("stopped")
        except TapehouseError as exc:
            logger.warning("that the load %s stopped could not be written down: %s", self.load.batch, exc.message)

    def _key(self, name: str) -> str:
        return f"{self.load.batch}/{name}"

    def _say(self, state: State) -> None:
        assert self._store is not None
        self.load.state, self.load.updated = state, time.time_ns()
        self._store.put_documents(LOADS, {self.load.batch: msgspec.json.encode(self.load)})


def _names(files: Sequence[FileLoad]) -> dict[int, str]:
    """The identity of each file by its number; copies of one have a number behind it."""
    names: dict[int, str] = {}
    copies = Counter[str]()
    for file in files:
        if not file.ended:
            name = identity(file.file)
            copies[name] += 1
            names[file.number] = name if copies[name] == 1 else f"{name}-{copies[name]}"
    return names


def _progress(file: FileLoad) -> bytes:
    return msgspec.json.encode(
        FileProgress(
            name=file.file.name,
            path=file.file.path,
            source=file.file.source,
            kind=file.kind,
            interval=file.file.interval,
            modified=file.file.fingerprint.mtime_ns if file.file.fingerprint else 0,
            done=file.ended and file.report.problem is None,
            blocks=file.blocks,
            place=file.place,
            numbered=file.numbered,
            first_commit=file.first_commit,
            counts=file.settled,
            reasons=file.settled_reasons,
            sums=file.sums,
            quarantine=None if file.quarantine.path is None else str(file.quarantine.path),
            bad_bytes=file.bad_bytes,
        )
    )


def restore(file: FileLoad, said: FileProgress) -> None:
    """So far the file came; one that was written since is to be compared before it goes on."""
    file.resume(said.counts, said.reasons, said.sums, said.blocks, said.place, replays=said.numbered)
    file.first_commit = said.first_commit
    file.doubted = _touched(file.file, said.modified)
    if said.quarantine is not None:
        file.resume_quarantine(said.quarantine, said.bad_bytes)
    if said.done and not file.doubted and not file.lost_bad:
        file.finished()


def _touched(file: RecognisedFile, modified: int) -> bool:
    """Whether it was written since, and its fingerprint does not tell all of its content."""
    mark = file.fingerprint
    if mark is None or mark.mtime_ns == modified:
        return False
    return mark.crc is None and mark.size > 2 * END_BYTES
