"""From paths to what each file is taken for: only the beginnings and ends of files are read."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tapehouse.bulk.base import Format, LoadOptions, Problem, RecognisedFile
from tapehouse.bulk.formats.files import Look, check_member, container_of, look_at, members_of, raw_pieces
from tapehouse.bulk.plan.alike import Layouts
from tapehouse.bulk.plan.names import names
from tapehouse.bulk.plan.paths import TEXT_SUFFIXES, find, status_reports
from tapehouse.bulk.plan.sampled import check_sample
from tapehouse.bulk.plan.typed import recognise_typed, table_names
from tapehouse.bulk.plan.variants import kept_apart
from tapehouse.bulk.recognise import recognise_text
from tapehouse.bulk.recognise.dialect import Sample, layout_of
from tapehouse.bulk.recognise.objects import layout_of_objects, looks_like_json
from tapehouse.errors import InvalidData, UnreadableFile, UnrecognisedFile

SAMPLE_BYTES = (1 << 16, 1 << 20, 1 << 24)
"""How much of a text is looked at: more when less does not tell."""
_NAMED = 10

replace = msgspec.structs.replace


def plan(paths: Sequence[str | Path], options: LoadOptions) -> list[RecognisedFile]:
    """What every file is taken for, in the order in which a load reads them; nothing is written.

    A zip is one file for each member, a database one for each table of records. A file that cannot be loaded has a
    `problem`. Raises `NotFound` for a path that is not there, and `InvalidRequest` for an option that makes no sense.
    """
    found = find(paths)
    layouts = Layouts(options)
    called = names(found.files)
    files = kept_apart([file for path in found.files for file in _files(path, called[path], options, layouts)])
    if found.links and files:
        note = f"links were not followed: {_named([f'{link} (leads {where})' for link, where in found.links.items()])}"
        files[0] = replace(files[0], notes=(*files[0].notes, note))
    if found.reports and files:
        note = f"status reports of histdata.com were not taken: {_named(found.reports)}"
        files[0] = replace(files[0], notes=(*files[0].notes, note))
    return files


def _named(paths: Sequence[Path | str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(map(str, paths[:_NAMED])) + more


def _files(path: Path, name: str, options: LoadOptions, layouts: Layouts) -> Iterator[RecognisedFile]:
    file = RecognisedFile(path=str(path), name=name, source=_source(name, options), size=0)
    try:
        look = look_at(path)
        format_, compression = container_of(look.head)
        file = replace(
            file, size=look.fingerprint.size, fingerprint=look.fingerprint, format=format_, compression=compression
        )
        if compression == "zip":
            files = _members(file, options, layouts)
        elif format_ in (Format.SQLITE, Format.DUCKDB):
            files = _tables(file, options)
        else:
            files = iter([_recognised(file, options, layouts, look)])
        yield from files
    except InvalidData as exc:
        yield replace(file, problem=_problem(file, exc))


def _members(file: RecognisedFile, options: LoadOptions, layouts: Layouts) -> Iterator[RecognisedFile]:
    path = Path(file.path)
    members, others = members_of(path, TEXT_SUFFIXES)
    reports = status_reports(info.filename for info in members)
    members, others = [info for info in members if info.filename not in reports], [*others, *sorted(reports)]
    if not members:
        raise UnreadableFile(f"{path.name} has no member to load")
    for number, info in enumerate(members):
        notes = (f"not taken from the zip: {', '.join(others[:_NAMED])}",) if others and number == 0 else ()
        yield _member(replace(file, notes=notes), info, options, layouts)


def _member(file: RecognisedFile, info: zipfile.ZipInfo, options: LoadOptions, layouts: Layouts) -> RecognisedFile:
    name = f"{file.name}/{info.filename}"
    fingerprint = file.fingerprint and replace(file.fingerprint, crc=info.CRC)
    part = replace(
        file,
        name=name,
        member=info.filename,
        source=_source(name, options),
        size=info.compress_size,
        fingerprint=fingerprint,
    )
    try:
        check_member(Path(file.path), info)
    except InvalidData as exc:
        return replace(part, problem=_problem(part, exc))
    return _recognised(part, options, layouts, None)


def _tables(file: RecognisedFile, options: LoadOptions) -> Iterator[RecognisedFile]:
    """Each table that looks like records; the others are named. When none does, the reason of the first is given."""
    tables = table_names(Path(file.path), file.format)
    found, others, reason = [], [], ""
    for table in tables:
        name = f"{file.name}/{table}"
        part = replace(
            file, name=name, member=table, source=_source(name, options), size=file.size // max(len(tables), 1)
        )
        try:
            found.append(_typed(part, options))
        except UnrecognisedFile as exc:
            if exc.details.get("columns") is None:
                found.append(replace(part, problem=_problem(part, exc)))
            reason = reason or exc.message
            others.append(table)
    if not found:
        raise UnrecognisedFile(f"none of the tables {', '.join(others[:_NAMED])} looks like records: {reason}")
    if others := [table for table in others if table not in [each.member for each in found]]:
        note = f"not taken from the database, since they do not look like records: {', '.join(others[:_NAMED])}"
        found[0] = replace(found[0], notes=(*found[0].notes, note))
    yield from found


def _source(name: str, options: LoadOptions) -> str:
    return options.source or re.sub(r"[\x00-\x1f\x7f]", "?", f"file:{name}")[:256]


def _recognised(file: RecognisedFile, options: LoadOptions, layouts: Layouts, look: Look | None) -> RecognisedFile:
    try:
        return _text(file, options, layouts, look) if file.format.is_text else _typed(file, options)
    except InvalidData as exc:
        return replace(file, problem=_problem(file, exc))


def _typed(file: RecognisedFile, options: LoadOptions) -> RecognisedFile:
    found = recognise_typed(file, options)
    check_sample(found, options)
    return found


def _problem(file: RecognisedFile, exc: InvalidData) -> Problem:
    last = Path(file.path).name
    if file.member is None and exc.message.startswith(last):
        return Problem(exc.code, file.name + exc.message.removeprefix(last))
    named = exc.message if exc.message.startswith(file.name) else f"{file.name}: {exc.message}"
    return Problem(exc.code, named)


def _text(file: RecognisedFile, options: LoadOptions, layouts: Layouts, look: Look | None) -> RecognisedFile:
    if look is not None and file.compression is None and (known := layouts.recall(file, _ends(look))) is not None:
        return known
    for size in SAMPLE_BYTES:
        sample = _sample(file, size, look)
        try:
            return _of_sample(file, options, layouts, sample)
        except (UnrecognisedFile, UnreadableFile) as exc:
            if sample.whole or size == SAMPLE_BYTES[-1] or not exc.details.get("more"):
                raise
    raise AssertionError("the last sample returns or raises")


def _of_sample(file: RecognisedFile, options: LoadOptions, layouts: Layouts, sample: Sample) -> RecognisedFile:
    if file.member is not None and container_of(sample.head) != (Format.CSV, None):
        format_, compression = container_of(sample.head)
        raise UnreadableFile(f"{file.name} is {compression or format_} in a zip; unpack it first")
    if looks_like_json(sample):
        layout = layout_of_objects(sample, options)
        found = recognise_text(replace(file, format=Format.JSON), layout, options)[0]
        check_sample(found, options)
        return found
    if (known := layouts.recall(file, sample)) is not None:
        return known
    found, seen = recognise_text(file, layout_of(sample, options), options)
    check_sample(found, options)
    layouts.keep(sample, seen)
    return found


def _ends(look: Look) -> Sample:
    """What one look at a plain text gives of it."""
    whole = len(look.head) + len(look.tail) == look.fingerprint.size
    return Sample(look.head + look.tail) if whole else Sample(look.head, look.tail, whole=False)


def _sample(file: RecognisedFile, size: int, look: Look | None) -> Sample:
    """The beginning of the text, or of what can be read of it; of a plain file also its end."""
    if file.compression is None and look is not None and (sample := _ends(look)).whole:
        return sample
    head, whole = b"", True
    pieces = raw_pieces(Path(file.path), file.member, file.compression, size + 1, file.size if look else None)
    try:
        for piece, _ in pieces:
            head += piece
            if len(head) > size:
                whole = False
                break
    except UnreadableFile:
        if not head:
            raise
    return Sample(head[:size], look.tail if look and not whole and file.compression is None else b"", whole)
