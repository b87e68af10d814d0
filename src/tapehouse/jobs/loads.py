"""Loads as jobs: of files that lie here, where that is allowed, and of files that were sent."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tapehouse.bulk.base import Description, LoadOptions, LoadReport
from tapehouse.bulk.checks.base import Assessment, Validate
from tapehouse.errors import Forbidden, InvalidRequest, TapehouseError
from tapehouse.jobs.base import (
    Assess,
    Certify,
    Control,
    Ended,
    Job,
    Jobs,
    LoadFiles,
    LoadRequest,
    ReadFormats,
    Upload,
    Work,
)
from tapehouse.jobs.spool import Spool

PROBLEMS_NAMED = 10
"""So many files that were refused are named in the job itself, which the list has without its report."""
FILES_REPORTED = 1_000
"""So many files are in a job's report; what went wrong goes first."""
SERIES_REPORTED = 1_000
_NAMES_SHOWN = 100


class _Paths(msgspec.Struct, frozen=True, kw_only=True, tag="paths"):
    paths: tuple[str, ...]
    options: LoadOptions
    validate: Validate
    anywhere: bool


class _Uploaded(msgspec.Struct, frozen=True, kw_only=True, tag="upload"):
    folder: str
    sizes: dict[str, int]
    options: LoadOptions
    validate: Validate


class _Certified(msgspec.Struct, frozen=True, kw_only=True, tag="certify"):
    batch: str


class _Assessed(msgspec.Struct, frozen=True, kw_only=True, tag="quality"):
    asked: Assessment


_Asked = _Paths | _Uploaded | _Certified | _Assessed
"""What jobs are asked, as it is kept while they are queued."""


class LoadJobs:
    """`jobs.base.Loads`, of one store."""

    def __init__(
        self,
        jobs: Jobs,
        load: LoadFiles,
        certify: Certify,
        spool: Spool,
        folders: Sequence[str] = (),
        *,
        assess: Assess,
        read_formats: ReadFormats,
        own_formats: Sequence[Description] = (),
    ) -> None:
        """`folders` are those whose files may be loaded by anybody who may write; relative ones count from here.

        All loads know the layouts `own_formats`, after those that are sent along, which `read_formats` takes.
        """
        self.jobs, self.formats, self._own_formats = jobs, read_formats, tuple(own_formats)
        self._load, self._certify, self._assess, self._spool = load, certify, assess, spool
        self._folders = [Path(folder).expanduser().resolve() for folder in folders]

    def load(self, request: LoadRequest, *, anywhere: bool) -> Job:
        """See `jobs.base.Loads`."""
        if not request.paths:
            raise InvalidRequest("paths names no file", parameter="paths")
        if any(not path or "\0" in path for path in request.paths):
            raise InvalidRequest("a path is empty, or has a NUL in it", parameter="paths")
        paths = request.paths if anywhere else tuple(self._allowed(path) for path in request.paths)
        options = self._completed(request.options)
        asked = _Paths(paths=tuple(paths), options=options, validate=request.validate, anywhere=anywhere)
        return self._submit("load", asked, batch=_batch(options), what=_shown(request.paths))

    def upload(self) -> Upload:
        """See `jobs.base.Loads`."""
        return self._spool.upload()

    def load_upload(self, upload: Upload, options: LoadOptions, validate: Validate = Validate.SAMPLE) -> Job:
        """See `jobs.base.Loads`."""
        options = self._completed(options)
        asked = _Uploaded(folder=str(upload.folder), sizes=dict(upload.sizes), options=options, validate=validate)
        try:
            if not upload.sizes:
                raise InvalidRequest("no file was sent", parameter="file")
            names = _shown(list(upload.sizes))
            return self._submit("load", asked, batch=_batch(options), what=names, after=upload.discard)
        except TapehouseError:
            upload.discard()
            raise

    def certify(self, batch: str) -> Job:
        """See `jobs.base.Loads`."""
        return self._submit("certify", _Certified(batch=batch), batch=batch)

    def assess(self, asked: Assessment) -> Job:
        """See `jobs.base.Loads`."""
        return self._submit("quality", _Assessed(asked=asked), batch="", what=_shown(asked.symbols or ()))

    def restart(self) -> None:
        """Queue again what waited when the last process ended, and remove uploads that nothing waits for.

        Once, before anything is asked for.
        """
        wanted: set[Path] = set()
        self.jobs.restart(partial(self._again, wanted))
        self._spool.sweep(wanted)

    def _again(self, wanted: set[Path], said: bytes) -> tuple[Work, Callable[[], None] | None]:
        try:
            asked = msgspec.json.decode(said, type=_Asked)
        except (msgspec.MsgspecError, TapehouseError) as exc:
            return partial(_not_understood, str(exc)), None
        if not isinstance(asked, _Uploaded):
            return partial(self._do, asked), None
        upload = self._spool.again(Path(asked.folder), asked.sizes)
        wanted.add(upload.folder)

        def work(control: Control) -> Ended:
            upload.check()
            return self._do(asked, control)

        return work, upload.discard

    def _submit(self, kind: str, asked: _Asked, **how: Any) -> Job:
        return self.jobs.submit(kind, partial(self._do, asked), asked=msgspec.json.encode(asked), **how)

    def _do(self, asked: _Asked, control: Control) -> Ended:
        """The work of all jobs."""
        match asked:
            case _Certified(batch=batch):
                certificate = self._certify(batch)
                hidden = max(0, len(certificate.series) - SERIES_REPORTED)
                shown = msgspec.structs.replace(certificate, series=certificate.series[:SERIES_REPORTED])
                return Ended(report=msgspec.to_builtins(shown), hidden=hidden)
            case _Assessed(asked=assessment):
                grades = self._assess(assessment, stop=control.stop)
                return Ended(whole=not control.stop.is_set(), report={"grades": grades})
            case _Paths(paths=paths, anywhere=anywhere):
                allowed = paths if anywhere else [self._allowed(path) for path in paths]  # what is allowed may change
                return self._ended(self._loaded(allowed, asked, control))
            case _Uploaded(folder=folder):
                report = self._loaded([folder], asked, control)
                return self._ended(report, Path(folder))

    def _loaded(self, paths: Sequence[str], asked: _Paths | _Uploaded, control: Control) -> LoadReport:
        how: dict[str, Any] = {"progress": control.progress, "stop": control.stop}
        return self._load(paths, asked.options, validate=asked.validate, **how)

    def _ended(self, report: LoadReport, folder: Path | None = None) -> Ended:
        files, problems = len(report.files), [file.problem for file in report.files if file.problem is not None]
        hidden = _shorten(report)
        if folder is not None:
            _hide(report, folder)
        built = msgspec.to_builtins(report)
        return Ended(
            whole=not report.interrupted,
            batch=report.batch,
            report=built,
            hidden=hidden,
            files=files,
            refused=len(problems),
            problems=tuple(problems[:PROBLEMS_NAMED]),
        )

    def _completed(self, options: LoadOptions) -> LoadOptions:
        """With a batch, so that the job can be told by it before it begins, and the layouts that are known here."""
        unsaid = [each for each in self._own_formats if each not in options.formats]
        return _named(msgspec.structs.replace(options, formats=(*options.formats, *unsaid)))

    def _allowed(self, path: str) -> str:
        """The path with its links followed, once it and all below it lie in the allowed folders."""
        for found in _matches(path):
            for each in _all_of(found):
                resolved = Path(os.path.realpath(each))
                if not any(resolved == folder or folder in resolved.parents for folder in self._folders):
                    raise _forbidden(each, path, self._folders)
        return path if glob.has_magic(path) else os.path.realpath(path)


def _not_understood(why: str, control: Control) -> Ended:
    raise InvalidRequest(f"what another version of tapehouse queued is not understood: {why}; ask for it again")


def _matches(path: str) -> list[str]:
    found = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else [path]
    return found or [path]


def _all_of(path: str) -> Iterator[str]:
    """The path, and when it is a folder all that is in it."""
    yield path
    for folder, folders, files in os.walk(path):
        yield from (os.path.join(folder, name) for name in [*folders, *files])


def _forbidden(found: str, path: str, folders: Sequence[Path]) -> Forbidden:
    if not folders:
        return Forbidden(
            "this server loads no files of its own machine for others: name the folders in its setting load_folders, "
            "send the files, or load them there",
            parameter="paths",
        )
    named = ", ".join(str(folder) for folder in folders)
    where = "leads" if found == path else f"has {Path(found).name!r}, which leads"
    return Forbidden(f"{path} {where} out of the folders that may be loaded from: {named}", parameter="paths")


def _named(options: LoadOptions) -> LoadOptions:
    if options.batch is not None or options.resume is not None:
        return options
    name = f"load-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    return msgspec.structs.replace(options, batch=name)


def _batch(options: LoadOptions) -> str:
    """What is known of the batch before the load begins."""
    return options.batch or options.resume or ""


def _shown(names: Sequence[str]) -> tuple[str, ...]:
    more = len(names) - _NAMES_SHOWN
    return (*names[:_NAMES_SHOWN], *([f"and {more:,} more"] if more > 0 else []))


def _shorten(report: LoadReport) -> int:
    """Leave out files that there are too many of, those first of which there is nothing to say; how many."""
    hidden = len(report.files) - FILES_REPORTED
    if hidden <= 0:
        return 0
    telling = sorted(report.files, key=lambda file: (file.problem is None, not file.rejections, not file.notes))
    kept = {id(file) for file in telling[:FILES_REPORTED]}
    report.files = [file for file in report.files if id(file) in kept]
    return hidden


def _hide(report: LoadReport, folder: Path) -> None:
    """Name files by what their sender called them, not by where they lay."""
    prefix = f"{folder}{os.sep}"
    for each in report.files:
        each.file = msgspec.structs.replace(each.file, path=each.file.path.removeprefix(prefix))
