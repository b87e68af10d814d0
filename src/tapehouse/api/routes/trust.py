"""What can be known of what was loaded: its batches, which can be undone, its certificates, and its quality."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from tapehouse.api.context import Here, capable, check_number
from tapehouse.api.formats import answer_json, answer_list
from tapehouse.api.keys import Scope
from tapehouse.api.problems import documented
from tapehouse.api.routes import parameters as given
from tapehouse.api.routes.jobs import JOB_EXAMPLE, loads_of
from tapehouse.api.security import needs
from tapehouse.bulk.base import CERTIFICATES, Certificate
from tapehouse.bulk.checks.base import COLLECTION as QUALITY
from tapehouse.bulk.checks.base import Assessment, Quality, Validate, decode, mark_stale
from tapehouse.codec import time_text
from tapehouse.errors import NotFound
from tapehouse.store.base import Batch, Capability

router = APIRouter(prefix="/v1", tags=["trust"])

_PART = 500
_READ, _WRITE = [needs(Scope.READ)], [needs(Scope.WRITE)]

_BATCH = {
    "name": "load-20240103T090000Z-1a2b3c",
    "first_commit": 13,
    "last_commit": 14,
    "started": "2024-01-03T09:00:00Z",
    "ended": "2024-01-03T09:00:02Z",
    "commits": 2,
    "series": [["bars", "1d"]],
    "inserted": 12_154,
    "replaced": 0,
    "unchanged": 0,
    "rejected": 0,
    "deleted": 0,
    "undone_by": None,
    "undoes": None,
}
_UNDONE = {
    "batch": "load-20240103T090000Z-1a2b3c",
    "commits": [],
    "removed": 12_150,
    "restored": 0,
    "left": 4,
    "examples": [["bars", "1d", "AAPL", "2024-01-02T00:00:00Z", 15]],
}
_CERTIFIED = {
    "batch": "load-20240103T090000Z-1a2b3c",
    "checked": "2024-01-03T09:00:02Z",
    "head": 14,
    "series": 6,
    "rows": 12_154,
    "superseded": 0,
    "disagreeing": 0,
}
_CERTIFICATE = {
    "batch": "load-20240103T090000Z-1a2b3c",
    "formula": "rows-1",
    "checked": "2024-01-03T09:00:02Z",
    "head": 14,
    "counts": {"read": 12_154, "inserted": 12_154},
    "series": [{"kind": "bars", "interval": "1d", "symbol": "AAPL", "rows": 3_270, "source": "9f86d081884c7d65"}],
}
_QUALITY = {
    "symbol": "AAPL",
    "kind": "bars",
    "interval": "1d",
    "grade": "B",
    "decided_by": "holes: 0.0611%",
    "first": "2000-03-01T00:00:00Z",
    "last": "2013-03-01T00:00:00Z",
    "tally": {"rows": 3_270, "inspected": 3_270, "expected": 3_272, "missing": 2, "holes": 2},
    "findings": [],
    "overlapping": False,
    "stale": False,
}


@router.get(
    "/batches",
    dependencies=_READ,
    responses=documented(400, 401, 403, 501, example={"batches": [_BATCH]}),
    summary="Batches",
)
async def batches(request: Request, here: Here, asked: Annotated[given.Batches, Depends(given.Batches.of)]) -> Response:
    """What loads, uploads and feeds brought, by their last commit, newest first."""
    keeper = capable(here.store, Capability.UNDOES)

    def parts() -> list[list[Batch]]:
        return [keeper.batches(asked.batch, before=asked.before, limit=asked.limit)]

    return await answer_list(here, request, here.workers.query, "batches", parts, asked.times)


@router.post(
    "/batches/{name:path}/undo",
    dependencies=_WRITE,
    responses=documented(400, 401, 403, 404, 409, 501, 507, example=_UNDONE),
    summary="Undo a batch",
)
async def undo(
    request: Request, here: Here, name: str, asked: Annotated[given.Timed, Depends(given.Timed.of)]
) -> Response:
    """Take back what a batch did, as one transaction that is a batch itself. Rows that others wrote or deleted since
    stay as they are; `left` counts them, and `examples` has the first. Reads as of before still see the batch."""
    keeper = capable(here.store, Capability.UNDOES)
    undone = await here.workers.write.run(partial(keeper.undo, name), request=request)
    found = msgspec.to_builtins(undone)
    found["examples"] = [
        [kind, interval, symbol, time_text(time, asked.times), commit]
        for kind, interval, symbol, time, commit in found["examples"]
    ]
    return answer_json(found, asked.times)


@router.get(
    "/certificates",
    dependencies=_READ,
    responses=documented(400, 401, 403, 501, example={"certificates": [_CERTIFIED]}),
    summary="Certificates",
)
async def certificates(
    request: Request, here: Here, asked: Annotated[given.Timed, Depends(given.Timed.of)]
) -> Response:
    """The certificates of loads in short, newest first: how many series and rows agree with their files."""
    keeper = capable(here.store, Capability.DOCUMENTS)

    def parts() -> list[list[dict[str, Any]]]:
        found = [_decoded(document) for document in keeper.documents(CERTIFICATES).values()]
        return [[_short(each) for each in sorted(found, key=lambda each: -each.checked)]]

    return await answer_list(here, request, here.workers.scan, "certificates", parts, asked.times)


@router.get(
    "/certificates/{name:path}",
    dependencies=_READ,
    responses=documented(400, 401, 403, 404, 501, example=_CERTIFICATE),
    summary="A certificate",
)
async def certificate(
    request: Request, here: Here, name: str, asked: Annotated[given.Timed, Depends(given.Timed.of)]
) -> Response:
    """What a load read and what the store gave back, with a hash for each series from both."""
    keeper = capable(here.store, Capability.DOCUMENTS)

    def find() -> dict[str, Any]:
        documents = keeper.documents(CERTIFICATES, [name])
        if name not in documents:
            raise NotFound(f"there is no certificate of a batch {name[:128]!r}", batch=name[:128])
        return dict(msgspec.to_builtins(_decoded(documents[name])))

    return answer_json(await here.workers.query.run(find, request=request), asked.times)


@router.post(
    "/certificates/{name:path}/check",
    dependencies=_WRITE,
    responses=documented(400, 401, 403, 404, 501, 503, example=JOB_EXAMPLE | {"kind": "certify"}),
    summary="Check a certificate",
)
async def check(
    request: Request, here: Here, name: str, asked: Annotated[given.Timed, Depends(given.Timed.of)]
) -> Response:
    """Read the batch back from the store and compare it with what its load read, as a job."""
    certify = partial(loads_of(here).certify, name)
    return answer_json(msgspec.to_builtins(await here.workers.write.run(certify, request=request)), asked.times)


@router.get(
    "/quality",
    dependencies=_READ,
    responses=documented(400, 401, 403, 413, 501, example={"quality": [_QUALITY]}),
    summary="Quality",
)
async def quality(request: Request, here: Here, asked: Annotated[given.Judged, Depends(given.Judged.of)]) -> Response:
    """What the checks found of each series, with a grade from A to F and the counts that made it. `stale`: rows that it
    was made of may be gone since."""
    check_number(here, asked.symbols)
    keeper = capable(here.store, Capability.DOCUMENTS)
    parts = partial(_qualities, keeper, asked)
    return await answer_list(here, request, here.workers.scan, "quality", parts, asked.times)


@router.post(
    "/quality/check",
    dependencies=_WRITE,
    responses=documented(400, 401, 403, 413, 501, 503, example=JOB_EXAMPLE | {"kind": "quality", "batch": ""}),
    summary="Check the quality",
)
async def check_quality(
    request: Request, here: Here, asked: Annotated[given.Assessed, Depends(given.Assessed.of)]
) -> Response:
    """Look at what is stored anew and keep the grades, as a job. Its report counts the `grades`."""
    check_number(here, asked.symbols)
    capable(here.store, Capability.DOCUMENTS)
    symbols = None if asked.symbols is None else tuple(asked.symbols)
    wanted = Assessment(symbols=symbols, kind=asked.kind, interval=asked.interval, validate=Validate(asked.validate_))
    assess = partial(loads_of(here).assess, wanted)
    return answer_json(msgspec.to_builtins(await here.workers.write.run(assess, request=request)), asked.times)


def _qualities(keeper: Any, asked: given.Judged) -> Iterator[list[dict[str, Any]]]:
    wanted = None if asked.symbols is None else frozenset(asked.symbols)
    found = (
        each
        for each in map(decode, keeper.documents(QUALITY).values())
        if (wanted is None or each.symbol in wanted)
        and asked.kind in (None, each.kind)
        and asked.interval in (None, each.interval)
    )
    said = (_plain(each, asked.findings) for each in mark_stale(found, keeper))
    while part := list(islice(said, _PART)):
        yield part


def _plain(each: Quality, findings: bool) -> dict[str, Any]:
    """Without the looks, of which it is the sum."""
    return dict(
        msgspec.to_builtins(msgspec.structs.replace(each, looks=(), findings=each.findings if findings else ()))
    )


def _decoded(document: bytes) -> Certificate:
    return msgspec.json.decode(document, type=Certificate)


def _short(each: Certificate) -> dict[str, Any]:
    def total(name: str) -> int:
        return sum(getattr(series, name) for series in each.series)

    return {
        "batch": each.batch,
        "checked": each.checked,
        "head": each.head,
        "series": len(each.series),
        "rows": total("rows"),
        "superseded": total("superseded"),
        "disagreeing": len(each.disagreeing),
    }
