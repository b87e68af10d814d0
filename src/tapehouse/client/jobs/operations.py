"""Jobs over HTTP: asked for, watched, cancelled. What `wire.Operation` says of operations holds here too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from tapehouse.bulk.base import LoadOptions, OnProgress, Problem
from tapehouse.client.jobs.sending import Sending
from tapehouse.client.wire import Holding, JsonReceiver, Outgoing, Receiver, query
from tapehouse.errors import NotFound, NotSupported, Unavailable
from tapehouse.jobs.base import COLLECTION, Job, State, resume_with
from tapehouse.store.base import Capability

Watcher = Callable[[Job], None]
"""Told of a job whenever it has changed."""


class OfJob(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that answers with a job, which only a server has."""

    def receiver(self, headers: Mapping[str, str]) -> Receiver[Job]:
        return JsonReceiver(Job)

    def locally(self, folder: Holding) -> Job:
        raise NotSupported("nobody runs jobs here; a server does: `tapehouse serve`")


class LoadPaths(OfJob, frozen=True, kw_only=True):
    """Load files of the server's machine."""

    paths: tuple[str, ...]
    options: dict[str, Any]

    def request(self) -> Outgoing:
        content = msgspec.json.encode({"paths": self.paths, "options": self.options})
        path = "/v1/jobs/load"
        return Outgoing(
            method="POST", path=path, params=query(times="ns"), content=content, content_type="application/json"
        )


class LoadFiles(OfJob, frozen=True, kw_only=True):
    """Send files, each with the name that it is to have there, and load them."""

    files: tuple[tuple[str, Path], ...]
    options: dict[str, Any]
    progress: OnProgress | None = None
    """Told how much was sent."""

    def request(self) -> Outgoing:
        return Outgoing(
            method="POST",
            path="/v1/jobs/load",
            params=query(times="ns"),
            files=self.files,
            fields={"options": msgspec.json.encode(self.options).decode()},
            on_sent=None if self.progress is None else Sending(self.files, self.progress),
        )


class AskJob(OfJob, frozen=True, kw_only=True):
    """How a job is now."""

    id: str

    def request(self) -> Outgoing:
        return Outgoing(path=f"/v1/jobs/{quote(self.id, safe='')}", params=query(times="ns"))


class CancelJob(OfJob, frozen=True, kw_only=True):
    """Have a job end after its current step."""

    id: str

    def request(self) -> Outgoing:
        return Outgoing(method="POST", path=f"/v1/jobs/{quote(self.id, safe='')}/cancel", params=query(times="ns"))


class ListJobs(msgspec.Struct, frozen=True, kw_only=True):
    """What waits, runs, and ran, newest first."""

    limit: int = 100

    def request(self) -> Outgoing:
        return Outgoing(path="/v1/jobs", params=query(limit=self.limit, times="ns"))

    def receiver(self, headers: Mapping[str, str]) -> Receiver[list[Job]]:
        return JsonReceiver(list[Job], field="jobs")

    def locally(self, folder: Holding) -> list[Job]:
        store: Any = folder.store
        if Capability.DOCUMENTS not in store.capabilities:
            return []
        found = [_at_rest(msgspec.json.decode(each, type=Job)) for each in store.documents(COLLECTION).values()]
        return sorted(found, key=lambda job: job.created, reverse=True)[: self.limit]


def _at_rest(job: Job) -> Job:
    """A job of a folder that nobody served: what was not over then is interrupted, as a server would find it."""
    if job.state.is_over:
        return job
    problem = Problem(Unavailable.code, "the process that ran it ended; what it had written stays")
    return msgspec.structs.replace(job, state=State.INTERRUPTED, error=problem, resume=resume_with(job))


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """A job until it is over, or the server stops telling."""

    id: str
    on_change: Watcher

    def request(self) -> Outgoing:
        path = f"/v1/jobs/{quote(self.id, safe='')}/events"
        return Outgoing(path=path, params=query(times="ns"), accept="text/event-stream")

    def receiver(self, headers: Mapping[str, str]) -> Receiver[Job]:
        return _Events(self.on_change)

    def locally(self, folder: Holding) -> Job:
        raise NotFound(f"there is no job {self.id!r}", job=self.id)


class _Events:
    """Server-sent events, each a job."""

    def __init__(self, on_change: Watcher) -> None:
        self._on_change = on_change
        self._rest = b""
        self._last: Job | None = None

    def feed(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n\n")
        for event in whole:
            for line in event.split(b"\n"):
                if line.startswith(b"data:"):
                    self._last = _job(line.removeprefix(b"data:"))
                    self._on_change(self._last)

    def result(self) -> Job:
        """The job, which is over; `Unavailable` when the events ended before."""
        if self._last is None or not self._last.state.is_over:
            raise Unavailable("the server stopped telling of the job before it was over")
        return self._last


def _job(data: bytes) -> Job:
    try:
        return msgspec.json.decode(data, type=Job)
    except msgspec.MsgspecError as exc:
        raise Unavailable(f"the answer is not what a Tapehouse server sends: {exc}") from exc


def said(options: LoadOptions, validate: str) -> dict[str, Any]:
    """What the options say beyond the defaults, as JSON has it."""
    usual = LoadOptions()
    found = {
        name: getattr(options, name)
        for name in options.__struct_fields__
        if getattr(options, name) != getattr(usual, name)
    }
    return dict(msgspec.to_builtins({**found, "validate": validate}))
