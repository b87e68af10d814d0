"""What is known of what was loaded, over HTTP or from an open store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from tapehouse.bulk.base import CERTIFICATES, Certificate
from tapehouse.bulk.checks.base import COLLECTION, Assessment, Quality, decode, mark_stale
from tapehouse.client.jobs.loading import validate_of
from tapehouse.client.jobs.operations import OfJob
from tapehouse.client.reads import kind_of
from tapehouse.client.wire import Holding, JsonReceiver, Outgoing, Receiver, query
from tapehouse.errors import NotFound, NotSupported
from tapehouse.model import Interval, Kind
from tapehouse.store.base import Batch, Capability, Undone


class CertificateSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate in short: of so many series and rows, `disagreeing` series are not as their files were.

    `checked` is when, UTC nanoseconds; `superseded` rows were there under a later row of the same key.
    """

    batch: str
    checked: int
    head: int
    series: int
    rows: int
    superseded: int = 0
    disagreeing: int = 0


class Batches(msgspec.Struct, frozen=True, kw_only=True):
    """Batches by their last commit, newest first."""

    names: tuple[str, ...] | None = None
    before: int | None = None
    limit: int = 100

    def request(self) -> Outgoing:
        params = query(batch=self.names, before=self.before, limit=self.limit, times="ns")
        return Outgoing(path="/v1/batches", params=params)

    def receiver(self, headers: Mapping[str, str]) -> Receiver[list[Batch]]:
        return JsonReceiver(list[Batch], field="batches")

    def locally(self, folder: Holding) -> list[Batch]:
        found: list[Batch] = _capable(folder, Capability.UNDOES).batches(
            self.names, before=self.before, limit=self.limit
        )
        return found


class Undo(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch did, taken back."""

    batch: str

    def request(self) -> Outgoing:
        path = f"/v1/batches/{quote(self.batch, safe='')}/undo"
        return Outgoing(method="POST", path=path, params=query(times="ns"))

    def receiver(self, headers: Mapping[str, str]) -> Receiver[Undone]:
        return JsonReceiver(Undone)

    def locally(self, folder: Holding) -> Undone:
        undone: Undone = _capable(folder, Capability.UNDOES).undo(self.batch)
        return undone


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """The certificates in short, newest first."""

    def request(self) -> Outgoing:
        return Outgoing(path="/v1/certificates", params=query(times="ns"))

    def receiver(self, headers: Mapping[str, str]) -> Receiver[list[CertificateSummary]]:
        return JsonReceiver(list[CertificateSummary], field="certificates")

    def locally(self, folder: Holding) -> list[CertificateSummary]:
        documents = _capable(folder, Capability.DOCUMENTS).documents(CERTIFICATES)
        found = [summary(msgspec.json.decode(each, type=Certificate)) for each in documents.values()]
        return sorted(found, key=lambda each: -each.checked)


class Certify(OfJob, frozen=True, kw_only=True):
    """A job that compares what a batch's load read with what the store has."""

    batch: str

    def request(self) -> Outgoing:
        path = f"/v1/certificates/{quote(self.batch, safe='')}/check"
        return Outgoing(method="POST", path=path, params=query(times="ns"))


class CertificateOf(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate of a batch, as it was last kept."""

    batch: str

    def request(self) -> Outgoing:
        path = f"/v1/certificates/{quote(self.batch, safe='')}"
        return Outgoing(path=path, params=query(times="ns"))

    def receiver(self, headers: Mapping[str, str]) -> Receiver[Certificate]:
        return JsonReceiver(Certificate)

    def locally(self, folder: Holding) -> Certificate:
        found = _capable(folder, Capability.DOCUMENTS).documents(CERTIFICATES, [self.batch])
        if self.batch not in found:
            raise NotFound(f"there is no certificate of a batch {self.batch!r}", batch=self.batch)
        return msgspec.json.decode(found[self.batch], type=Certificate)


class Qualities(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks found of each series."""

    symbols: tuple[str, ...] | None = None
    kind: Kind | None = None
    interval: str | None = None

    def request(self) -> Outgoing:
        params = query(symbols=self.symbols, kind=self.kind, interval=self.interval, times="ns")
        return Outgoing(path="/v1/quality", params=params)

    def receiver(self, headers: Mapping[str, str]) -> Receiver[list[Quality]]:
        return JsonReceiver(list[Quality], field="quality")

    def locally(self, folder: Holding) -> list[Quality]:
        interval = None if self.interval is None else Interval.parse(self.interval)
        store = _capable(folder, Capability.DOCUMENTS)
        found = (
            each
            for each in map(decode, store.documents(COLLECTION).values())
            if (self.symbols is None or each.symbol in self.symbols)
            and self.kind in (None, each.kind)
            and interval in (None, each.interval)
        )
        return [msgspec.structs.replace(each, looks=()) for each in mark_stale(found, store)]


class Assess(OfJob, frozen=True, kw_only=True):
    """A job that looks at what is stored anew."""

    asked: Assessment

    def request(self) -> Outgoing:
        asked = self.asked
        params = query(
            symbols=asked.symbols, kind=asked.kind, interval=asked.interval, validate=asked.validate, times="ns"
        )
        return Outgoing(method="POST", path="/v1/quality/check", params=params)


def assessment(symbols: tuple[str, ...] | None, kind: str | None, interval: str | None, validate: str) -> Assessment:
    """What to look at anew, in the words of a caller; `InvalidRequest` names one that makes no sense."""
    return Assessment(
        symbols=symbols,
        kind=None if kind is None else kind_of(kind),
        interval=None if interval is None else Interval.parse(interval),
        validate=validate_of(validate),
    )


def summary(certificate: Certificate) -> CertificateSummary:
    """A certificate in short."""
    return CertificateSummary(
        batch=certificate.batch,
        checked=certificate.checked,
        head=certificate.head,
        series=len(certificate.series),
        rows=sum(each.rows for each in certificate.series),
        superseded=sum(each.superseded for each in certificate.series),
        disagreeing=len(certificate.disagreeing),
    )


def _capable(folder: Holding, capability: Capability) -> Any:
    if capability not in folder.store.capabilities:
        raise NotSupported(f"this store lacks the capability {capability!s}", capability=str(capability))
    return folder.store
