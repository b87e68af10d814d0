"""Query parameters: what a route knows, turned into what `History` is asked. Each is checked where it is named."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from datetime import date
from functools import cache
from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, WithJsonSchema
from starlette.datastructures import QueryParams
from starlette.requests import Request as HTTPRequest

from tapehouse.api.formats import Compression, Format, Layout
from tapehouse.codec import Times
from tapehouse.errors import InvalidRequest, TapehouseError
from tapehouse.model import SCHEMAS, Interval, Kind, OnConflict, check_symbol
from tapehouse.query.base import Request
from tapehouse.resample import DEFAULT_GROUP_MEASURES, DEFAULT_MEASURES
from tapehouse.times import parse_as_of, parse_bound

_TIME = "RFC 3339, a date, or epoch digits (10: s, 13: ms, 16: µs, 19: ns)"


def _read(parse: Callable[[Any, str], Any]) -> BeforeValidator:
    """Our own errors pass through pydantic untouched, and then name the parameter."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        try:
            return parse(value, info.field_name or "")
        except TapehouseError as error:
            error.details.setdefault("parameter", info.field_name)
            raise

    return BeforeValidator(validate)


def _names(value: Any, name: str) -> list[str]:
    """A comma list, or several of them. An empty one would look like no parameter at all, and ask for everything."""
    parts = [part.strip() for text in value for part in text.split(",")]
    if not all(parts):
        raise InvalidRequest(f"{name} has an empty name in it: {','.join(parts)[:64]!r}")
    return parts


def _boolean(value: str, name: str) -> bool:
    if value not in ("true", "false"):
        raise InvalidRequest(f"{name} is {value[:64]!r}; expected true or false")
    return value == "true"


Names = Annotated[list[str], _read(_names)]
Bound = Annotated[int | date, _read(parse_bound), WithJsonSchema({"type": "string"})]
AsOf = Annotated[int, _read(parse_as_of), WithJsonSchema({"type": "string"})]
AnInterval = Annotated[Interval, _read(lambda value, name: Interval.parse(value))]
ASymbol = Annotated[str, _read(lambda value, name: check_symbol(value))]
Switch = Annotated[bool, _read(_boolean)]


class Parameters(BaseModel):
    """The query parameters of a route; one that it does not know is an error.

    FastAPI could read them, at half a millisecond a request.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    async def of(cls, request: HTTPRequest) -> Self:
        """Those of a request: what a route depends on."""
        return cls.parse(request.query_params)

    @classmethod
    def parse(cls, params: QueryParams) -> Self:
        """The parameters, or an error that names the first that is wrong."""
        lists = _lists(cls)
        values: dict[str, Any] = {}
        for name, value in params.multi_items():
            if name in lists:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise InvalidRequest(f"{name[:64]} is there more than once", parameter=name[:64])
            else:
                values[name] = value
        try:
            return cls.model_validate(values)
        except ValidationError as exc:
            raise _wrong(cls, exc) from exc

    @classmethod
    def described(cls) -> list[dict[str, Any]]:
        """What OpenAPI says of them."""
        schema = cls.model_json_schema()
        required = schema.get("required", [])
        return [
            _described(name, _inlined(said, schema.get("$defs", {})), name in required)
            for name, said in schema["properties"].items()
        ]


@cache
def _lists(model: type[Parameters]) -> frozenset[str]:
    """The parameters that may be repeated."""
    return frozenset(each["name"] for each in model.described() if each["schema"].get("type") == "array")


def _described(name: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
    told = {key: value for key, value in schema.items() if key not in ("title", "description", "examples", "anyOf")}
    told |= next((each for each in schema.get("anyOf", []) if each.get("type") != "null"), {})
    found = {"name": name, "in": "query", "required": required, "schema": told}
    found |= {"description": schema["description"]} if "description" in schema else {}
    found |= {"example": schema["examples"][0]} if "examples" in schema else {}
    # A group has commas of its own, and so is repeated; other lists are comma lists.
    return found | ({"style": "form", "explode": name == "group"} if told.get("type") == "array" else {})


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with what it refers to put in its place."""
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    named = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else {}
    own = {key: _inlined(value, definitions) for key, value in schema.items() if key != "$ref"}
    return {key: value for key, value in named.items() if key not in ("title", "description")} | own


def _wrong(model: type[Parameters], exc: ValidationError) -> InvalidRequest:
    # An unknown name goes first: a required one may be missing only because it was misspelt.
    first = min(exc.errors(), key=lambda each: each["type"] != "extra_forbidden")
    name = str(first["loc"][0])[:64]
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, model.model_fields, n=1, cutoff=0)
        meant = f"; did you mean {near[0]!r}?" if near else ", nor any other"
        return InvalidRequest(f"there is no parameter {name!r} here{meant}", parameter=name)
    if first["type"] == "missing":
        return InvalidRequest(f"the parameter {name!r} is missing", parameter=name)
    return InvalidRequest(f"{name} is {str(first['input'])[:64]!r}: {first['msg']}", parameter=name)


class Written(Parameters):
    """How an answer is written."""

    format: Format | None = Field(None, description="Goes before `Accept`; `file` is an Arrow file, `arrow` a stream.")
    layout: Layout = Field(Layout.COLUMNS, description="Of JSON and msgpack.")
    times: Times = Field(Times.RFC3339, description="Of JSON, JSON lines, msgpack and CSV.")
    compression: Compression | None = Field(None, description="Of the buffers of an Arrow stream or file.")


class Selected(Written):
    """Which rows."""

    symbols: Names | None = Field(None, description="A comma list, or repeated. Default: all.", examples=[["AAPL"]])
    start: Bound | None = Field(None, description=f"Inclusive: {_TIME}.", examples=["2024-01-02"])
    end: Bound | None = Field(None, description=f"Exclusive: {_TIME}.", examples=["2025"])
    as_of: AsOf | None = Field(None, description="A commit number or a time: what was known then.")
    source: str | None = Field(None, description="That source's rows, whether or not they are the current ones.")


class Rows(Selected):
    """Which rows of one kind, in which order, in pages or not."""

    columns: Names | None = Field(None, description="A comma list, or `all`.")
    limit: int | None = Field(None, ge=1, description="Makes a page of at most that many rows, over all symbols.")
    order: Annotated[str, Field(pattern="^(asc|desc)$")] = Field(
        "asc", description="`asc`, or `desc`: newest first within each symbol."
    )
    page: str | None = Field(None, description="The token of the page before.")

    def request(self, kind: Kind) -> Request:
        """What `History` is asked."""
        return Request(
            kind=kind,
            interval=getattr(self, "interval", None),
            symbols=_tuple(self.symbols),
            start=self.start,
            end=self.end,
            columns=tuple(SCHEMAS[kind].names) if self.columns == ["all"] else _tuple(self.columns),
            limit=self.limit,
            newest_first=self.order == "desc",
            as_of=self.as_of,
            source=self.source,
            page=self.page,
            stored=getattr(self, "stored", False),
        )


class Bars(Rows):
    """Which bars."""

    interval: AnInterval = Field(description="One that is not stored is resampled.", examples=["1d"])
    stored: Switch = Field(False, description="`true`: only bars that are stored, nothing resampled.")


class Latest(Written):
    """Whose newest rows."""

    symbols: Names | None = Field(None, description="A comma list, or repeated. Default: all.")
    kind: Kind = Field(Kind.BARS)
    interval: AnInterval | None = Field(None, description="Of bars; default: the newest of any.")


class Aggregate(Selected):
    """What to compute per symbol or group, and bucket."""

    interval: AnInterval | None = Field(None, description="Bars to compute from; default: the finest stored.")
    bucket: AnInterval = Field(description="The time of one row.", examples=["1mo"])
    measures: Names | None = Field(
        None,
        description="A comma list of open high low close volume vwap count trades return volatility; "
        "or correlation, alone: a row per pair of symbols. "
        f"Default: {','.join(DEFAULT_MEASURES)}; of groups {','.join(DEFAULT_GROUP_MEASURES)}.",
    )
    group: list[str] | None = Field(None, description="`name:SYM,SYM`, repeated: a row per group.")
    group_by: Literal["asset_class", "currency", "calendar"] | None = Field(
        None, description="A row per group of instruments that are alike in that."
    )

    def request(self) -> Request:
        """The rows to compute from."""
        return Request(
            interval=self.interval,
            symbols=None if self.group_by else _tuple(self.symbols),
            start=self.start,
            end=self.end,
            as_of=self.as_of,
            source=self.source,
        )

    def groups(self) -> dict[str, tuple[str, ...]] | None:
        """Group -> its symbols."""
        if self.group is None:
            return None
        groups: dict[str, tuple[str, ...]] = {}
        for text in self.group:
            name, _, members = text.partition(":")
            symbols = tuple(part.strip() for part in members.split(","))
            if not name or not all(symbols) or name in groups:
                raise InvalidRequest(
                    f"group is `name:SYM,SYM` with distinct names, not {text[:64]!r}", parameter="group"
                )
            groups[name] = symbols
        return groups


class GroupedBody(msgspec.Struct, forbid_unknown_fields=False):
    """The groups of a body whose other members are the parameters of `Aggregate`."""

    groups: dict[str, list[str]] | None = None


def aggregate_of(body: bytes | bytearray) -> tuple[Aggregate, dict[str, tuple[str, ...]] | None]:
    """The parameters and the groups of a JSON object; an error names the member that is wrong."""
    try:
        document = msgspec.json.decode(body, type=dict[str, Any])
        named = msgspec.convert({"groups": document.pop("groups", None)}, GroupedBody).groups
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"the body is no JSON object of parameters and `groups`: {exc}") from exc
    items = [
        (name, value if isinstance(value, str) else msgspec.json.encode(value).decode())
        for name, values in document.items()
        for value in (values if isinstance(values, list) else [values])
        if value is not None
    ]
    asked = Aggregate.parse(QueryParams(items))
    if named is None:
        return asked, asked.groups()
    if asked.group is not None or asked.group_by is not None:
        raise InvalidRequest("give one of groups, group and group_by", parameter="groups")
    return asked, {name: tuple(members) for name, members in named.items()}


class Match(Parameters):
    """Which symbols."""

    match: str | None = Field(None, description="A pattern with `*` and `?`.", examples=["A*"], max_length=128)
    times: Times = Times.RFC3339


class Covered(Parameters):
    """Whose coverage."""

    symbols: Names | None = Field(None, description="A comma list, or repeated. Default: all.")
    kind: Kind | None = None
    interval: AnInterval | None = None
    spans: int = Field(100, ge=0, description="Missing spans to list per series, newest first.")
    times: Times = Times.RFC3339


class Committed(Parameters):
    """Which commits."""

    after: int = Field(0, ge=0, description="List the commits after that one.")
    limit: int = Field(100, ge=1, le=10_000)
    times: Times = Times.RFC3339


class Posted(Parameters):
    """How a body is taken."""

    symbol: ASymbol | None = Field(None, description="The symbol of a body that has no column `symbol`.")
    source: str | None = Field(None, description="The source of rows that name none.")
    on_conflict: OnConflict = Field(
        OnConflict.REPLACE, description="What happens to a row that is stored with other values."
    )
    prefer: Names = Field([], description="Sources, best first, for `on_conflict=prefer`.")
    batch: str | None = Field(None, description="The batch's name, kept with the commit.", max_length=256)
    times: Times = Field(Times.RFC3339, description="Of integers in the body, and of the answer.")


class PostedBars(Posted):
    """How a body of bars is taken."""

    interval: AnInterval


class Ingested(Parameters):
    """Who sends live records, and how it numbers them."""

    source: str = Field("live", description="Who sends them.", min_length=1, max_length=256)
    sequence: int | None = Field(None, ge=0, description="The source's number of the first; repeats are dropped.")
    session: str = Field("", max_length=64, description="Numbers of another session have nothing to do with these.")
    heartbeat_s: float | None = Field(None, gt=0, description="How often this source will be heard.")
    times: Times = Field(Times.RFC3339, description="Of integers in the body.")


class IngestedBars(Ingested):
    """The same of bars."""

    interval: AnInterval


class Deleted(Parameters):
    """Which rows to hide."""

    symbols: Names
    start: Bound | None = Field(None, description=f"Inclusive: {_TIME}.")
    end: Bound | None = Field(None, description=f"Exclusive: {_TIME}.")
    times: Times = Times.RFC3339


class DeletedBars(Deleted):
    """Which bars to hide."""

    interval: AnInterval


class Compacted(Parameters):
    """How much to compact."""

    everything: Switch = Field(False, description="`true`: all rows, settled or not.")


class Timed(Parameters):
    """How the times of an answer are written."""

    times: Times = Times.RFC3339


class Listed(Timed):
    """How much of a list."""

    limit: int = Field(100, ge=1, le=10_000)


class Batches(Listed):
    """Which batches."""

    batch: Names | None = Field(None, description="Those of these names; a comma list, or repeated.")
    before: int | None = Field(None, ge=0, description="Those whose last commit is before that one.")


class Judged(Timed):
    """Whose quality."""

    symbols: Names | None = Field(None, description="A comma list, or repeated. Default: all.")
    kind: Kind | None = None
    interval: AnInterval | None = None
    findings: Switch = Field(True, description="`false` leaves out what was found, and has grades and counts only.")


class Assessed(Timed):
    """What to look at anew."""

    symbols: Names | None = Field(None, description="A comma list, or repeated. Default: all.")
    kind: Kind | None = None
    interval: AnInterval | None = None
    validate_: Literal["full", "sample"] = Field(
        "sample", alias="validate", description="Every row, or at most `sample_rows` of them."
    )


class Loaded(Timed):
    """What a body is that is a file to load."""

    name: str | None = Field(None, description="The body is a file of this name, perhaps below folders.")
    options: str | None = Field(None, description="Of that load, as JSON.", examples=['{"interval": "1m"}'])


class Nothing(Parameters):
    """No parameters."""


def _tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
