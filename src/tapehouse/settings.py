"""Every setting, declared once: the environment, `tapehouse.toml`, the flags of `serve` and the docs come from here.

A flag goes before the environment, that before the file, and that before the default.
"""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tapehouse.errors import InvalidSetting

PREFIX = "TAPEHOUSE_"
FILE = "tapehouse.toml"


def _says(description: str, **limits: Any) -> Meta:
    return Meta(description=description, **limits)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a server can be told. Relative paths count from the working directory."""

    store: Annotated[str, _says("Where the data lives: a store URL; `duckdb:///data` is the folder `data`.")] = (
        "duckdb:///data"
    )
    bus: Annotated[
        str | None,
        _says("Where live records are logged: a bus URL; by default `log` in the data folder, else memory."),
    ] = None
    host: Annotated[
        str, _says("Address to listen at; anything but loopback needs keys, or `insecure`.", min_length=1)
    ] = "127.0.0.1"
    port: Annotated[int, _says("TCP port to listen at; 0 takes a free one.", ge=0, le=65535)] = 8720
    insecure: Annotated[bool, _says("Listen beyond loopback without keys: everybody who gets there may do all.")] = (
        False
    )
    allowed_hosts: Annotated[tuple[str, ...], _says("Names, beside loopback's, that a request's Host may have.")] = ()
    allowed_origins: Annotated[
        tuple[str, ...], _says("Origins (`https://charts.example.com`) whose pages may call the API.")
    ] = ()
    keys_file: Annotated[str | None, _says("File of the API keys; by default `keys.json` in the data folder.")] = None
    instruments: Annotated[str | None, _says("TOML or JSON file of instruments, put in at every start.")] = None
    max_symbols: Annotated[int, _says("Symbols that one request may name.", ge=1)] = 1_000
    max_page_rows: Annotated[int, _says("Rows of one page, and of one answer as JSON columns or Arrow file.", ge=1)] = (
        1_000_000
    )
    max_buckets: Annotated[int, _says("Buckets that one aggregate may have, over all symbols.", ge=1)] = 5_000_000
    max_spans: Annotated[int, _says("Missing spans that one coverage may list, over all series.", ge=1)] = 200_000
    max_connections: Annotated[int, _says("Connections that may be open; beyond, the answer is 503.", ge=1)] = 10_000
    max_header_bytes: Annotated[
        int, _says("Bytes of a request line and its headers; beyond, the answer is 431.", ge=1_024)
    ] = 128 * 1024
    header_timeout_s: Annotated[
        float, _says("How long a connection may take to bring a whole request line and headers.", gt=0)
    ] = 20.0
    max_body_bytes: Annotated[int, _says("Bytes of one request's body.", ge=1)] = 256 * 1024 * 1024
    max_open_body_bytes: Annotated[
        int, _says("Bytes of all bodies that are open at once; beyond, the answer is 503.", ge=1)
    ] = 512 * 1024 * 1024
    max_upload_rows: Annotated[int, _says("Rows of one `POST`.", ge=1)] = 5_000_000
    max_concurrent_queries: Annotated[int, _says("Reads that run at once; others wait their turn.", ge=1)] = 2
    max_concurrent_writes: Annotated[int, _says("Writes that run at once; others wait their turn.", ge=1)] = 2
    max_waiting_queries: Annotated[
        int, _says("Store calls of a kind that may wait; beyond, the answer is 503.", ge=1)
    ] = 5_000
    max_wait_s: Annotated[
        float, _says("How long a read may have to wait, by what reads took lately; beyond, the answer is 503.", gt=0)
    ] = 15.0
    max_open_answers: Annotated[
        int, _says("Large answers being streamed at once; beyond, the answer is 503.", ge=1)
    ] = 64
    max_range_bytes: Annotated[
        int, _says("Bytes of all answers that are kept, in temporary files, while they are read in ranges.", ge=1)
    ] = 2 * 1024**3
    keep_ranges_s: Annotated[float, _says("How long an answer is kept after it was last read in ranges.", gt=0)] = 60.0
    stall_timeout_s: Annotated[float, _says("How long a client may stop reading before it is cut off.", gt=0)] = 60.0
    shutdown_timeout_s: Annotated[float, _says("How long open requests may take to end at shutdown.", gt=0)] = 10.0
    load_folders: Annotated[
        tuple[str, ...], _says("Folders of this machine that jobs may load files from; by default none.")
    ] = ()
    spool_folder: Annotated[
        str | None, _says("Where uploaded files wait to be loaded; by default `spool` in the data folder.")
    ] = None
    sample_rows: Annotated[int, _says("Rows of one load that the checks look at with `--validate sample`.", ge=1)] = (
        5_000_000
    )
    max_upload_bytes: Annotated[int, _says("Bytes of the files of one upload to load.", ge=1)] = 16 * 1024**3
    max_spool_bytes: Annotated[int, _says("Bytes of all uploaded files that wait to be loaded.", ge=1)] = 64 * 1024**3
    max_running_jobs: Annotated[int, _says("Loads that run at once; others wait their turn.", ge=1)] = 1
    max_waiting_jobs: Annotated[int, _says("Loads that may wait; beyond, the answer is 503.", ge=1)] = 100
    max_job_watchers: Annotated[int, _says("Clients that may watch jobs at once; beyond, the answer is 503.", ge=1)] = (
        1_000
    )
    max_ingest_rows: Annotated[int, _says("Live records of one request or message.", ge=1)] = 100_000
    max_message_bytes: Annotated[int, _says("Bytes of one WebSocket message of a client.", ge=1_024)] = 4 * 1024 * 1024
    max_subscriptions: Annotated[int, _says("Subscriptions that one client may have.", ge=1)] = 100
    max_topics: Annotated[int, _says("Topics that one subscription may name; patterns count as one.", ge=1)] = 10_000
    max_outbox_bytes: Annotated[
        int, _says("Bytes that may wait for a client to read, before it counts as slow.", ge=16 * 1024)
    ] = 1024 * 1024
    stream_heartbeat_s: Annotated[float, _says("How often a stream tells a quiet client that it is there.", gt=0)] = (
        15.0
    )
    max_operations_per_s: Annotated[float, _says("Messages a second that a stream takes of one client.", gt=0)] = 50.0
    max_future_s: Annotated[float, _says("Live records from further ahead than that are set aside.", gt=0)] = 5.0
    max_late_s: Annotated[float, _says("Live records that are older than that are set aside.", gt=0)] = 7 * 86_400.0
    grace_s: Annotated[float, _says("How long after its end a bar waits for late trades.", ge=0)] = 2.0
    derive_intervals: Annotated[tuple[str, ...], _says("Bars that are made of live trades; none: no bars.")] = (
        "1s",
        "1m",
        "5m",
        "1h",
        "1d",
    )
    record_interval_s: Annotated[float, _says("How long live records wait to be stored together.", gt=0)] = 0.5
    log_keep_s: Annotated[float, _says("How long the log keeps what is stored.", ge=0)] = 7 * 86_400.0
    log_max_bytes: Annotated[
        int,
        _says("Bytes that the log may take; what is stored goes first, and when it is full, ingest is refused.", ge=1),
    ] = 32 * 1024**3
    simulate_per_s: Annotated[
        float, _says("Trades a second of a simulated market that feeds this server; 0: none.", ge=0)
    ] = 0.0
    simulate_symbols: Annotated[int, _says("Symbols of that market.", ge=1, le=100_000)] = 20
    compact_interval_s: Annotated[
        float, _says("How often settled rows are moved into the archive; 0: only when asked.", ge=0)
    ] = 60.0
    store_memory_limit_mb: Annotated[int, _says("Memory for the store's own work.", ge=64)] = 1_024
    threads: Annotated[int, _says("Threads of one store call; 0: one per core.", ge=0)] = 0
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _says("The least important line to log.")] = (
        "info"
    )
    log_format: Annotated[Literal["text", "json"], _says("Log lines for people, or one JSON object per line.")] = "text"


OTHER_VARIABLES = {
    "TAPEHOUSE_CONFIG": "The settings file to read instead of `tapehouse.toml` in the working directory.",
    "TAPEHOUSE_URL": "The server that the client and the CLI talk to.",
    "TAPEHOUSE_KEY": "The API key that they send.",
    "TAPEHOUSE_FAILPOINTS": "For tests only: where the process kills itself.",
}
"""Variables that are not settings of the server."""

TABLES = {"formats": "Layouts of files that are recognised by name: see [loading](../guides/load.md#layouts-by-name)."}
"""Tables of the file that are not settings of the server: what they hold, `table` returns as it is."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One declaration. `type` is bool, int, float or str (`several`: a list of them); None as `default` means unset."""

    name: str
    type: type
    several: bool
    choices: tuple[str, ...]
    default: Any
    description: str
    annotation: Any

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """Its flag of `tapehouse serve`."""
        return "--" + self.name.replace("_", "-")

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[self.type]
        return f"a list of {words}s" if self.several else words + _limits(self.annotation)


def _limits(annotation: Any) -> str:
    meta = annotation.__metadata__[0]
    bounds = [("above", meta.gt), ("at least", meta.ge), ("at most", meta.le)]
    said = [f"{word} {bound}" for word, bound in bounds if bound is not None]
    return " " + " and ".join(said) if said else ""


def _declare(field: msgspec.structs.FieldInfo) -> Setting:
    annotation = field.type
    inner = typing.get_args(annotation)[0]
    if isinstance(inner, types.UnionType):
        inner = next(each for each in typing.get_args(inner) if each is not types.NoneType)
    several = typing.get_origin(inner) is tuple
    choices = typing.get_args(inner) if typing.get_origin(inner) is Literal else ()
    plain = str if several or choices else inner
    return Setting(
        name=field.name,
        type=plain,
        several=several,
        choices=choices,
        default=field.default,
        description=annotation.__metadata__[0].description,
        annotation=annotation,
    )


SETTINGS: dict[str, Setting] = {each.name: _declare(each) for each in msgspec.structs.fields(Settings)}


def load(
    config: str | os.PathLike[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of this start; raises `InvalidSetting` for an unknown name or an impossible value.

    `config` names the file (which then has to be there), `flags` are values by name of setting; None is not given.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for source in (
        _from_file(config or environ.get("TAPEHOUSE_CONFIG")),
        _from_environment(environ),
        _from_flags(flags),
    ):
        for name, (value, where) in source.items():
            values[name] = _convert(SETTINGS[name], value, where)
    return Settings(**values)


def table(
    name: str, config: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[list[dict[str, Any]], str]:
    """The entries of a table of `TABLES` (`[[formats]]`) in the settings file, and the file's name.

    `InvalidSetting` when the file cannot be read or the table is no list of tables; without a file there are none.
    """
    environ = os.environ if environ is None else environ
    document, path = _document(config or environ.get("TAPEHOUSE_CONFIG"))
    entries = document.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidSetting(f"{path}: {name} is a list of tables, each headed [[{name}]]", setting=name)
    return entries, path


_Found = dict[str, tuple[Any, str]]


def _from_flags(flags: Mapping[str, Any] | None) -> _Found:
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    for name in given:
        _check_known(name, SETTINGS, "the flags")
    return {name: (value, f"the flag {SETTINGS[name].flag}") for name, value in given.items()}


def _from_environment(environ: Mapping[str, str]) -> _Found:
    known = {setting.variable: setting.name for setting in SETTINGS.values()}
    found: _Found = {}
    for variable, value in environ.items():
        if variable.startswith(PREFIX) and variable not in OTHER_VARIABLES:
            _check_known(variable, known, "the environment")
            found[known[variable]] = (value, f"the environment variable {variable}")
    return found


def _from_file(config: str | os.PathLike[str] | None) -> _Found:
    document, path = _document(config)
    for name in document:
        _check_known(name, {**SETTINGS, **TABLES}, path)
    return {name: (value, path) for name, value in document.items() if name in SETTINGS}


def _document(config: str | os.PathLike[str] | None) -> tuple[dict[str, Any], str]:
    """The settings file and its name; nothing when none was named and there is none."""
    path = Path(config or FILE)
    if not config and not path.exists():
        return {}, str(path)
    try:
        return tomllib.loads(path.read_text("utf-8")), str(path)
    except OSError as exc:
        raise InvalidSetting(f"cannot read the settings file {path}: {exc.strerror}", file=str(path)) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidSetting(f"{path} is not TOML: {exc}", file=str(path)) from exc


def _check_known(name: str, known: Mapping[str, object], where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0)
        raise InvalidSetting(f"{where}: there is no setting {name!r}; did you mean {near[0]!r}?", setting=name)


def _convert(setting: Setting, value: Any, where: str) -> Any:
    if setting.several and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return msgspec.convert(value, setting.annotation, strict=False)  # in the environment all is text
    except msgspec.ValidationError as exc:
        shown = str(value)[:80]
        raise InvalidSetting(
            f"{setting.name} is {shown!r} ({where}), but has to be {setting.expected}",
            setting=setting.name,
            where=where,
        ) from exc


def reference() -> str:
    """`docs/reference/settings.md`."""
    rows = [_row(setting) for setting in SETTINGS.values()]
    others = [f"| `{name}` | {description} |" for name, description in OTHER_VARIABLES.items()]
    tables = [f"| `[[{name}]]` | {description} |" for name, description in TABLES.items()]
    return "\n".join([_HEAD, *rows, _TABLES, *tables, _BETWEEN, *others, ""])


def _row(setting: Setting) -> str:
    default = _toml(setting.default)
    names = f"`{setting.name}` | `{setting.variable}` | `{setting.flag}`"
    return f"| {names} | {setting.expected} | {default} | {setting.description} |"


def _toml(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{list(value)}`" if isinstance(value, Sequence) else f"`{value}`"


_HEAD = """\
# Settings

<!-- Generated by `python -m tapehouse.settings > docs/reference/settings.md`; a test fails when it differs. -->

A flag of `tapehouse serve` goes before the environment, that before the file `tapehouse.toml` in the working directory
(or the one named by `--config` or `TAPEHOUSE_CONFIG`), and that before the default. In the environment and in flags, a
list is separated by commas. Relative paths count from the working directory. An unknown name or an impossible value
stops the start and says where it came from.

| in the file | environment | flag | value | default | |
|---|---|---|---|---|---|"""

_TABLES = """
Tables of the file:

| in the file | |
|---|---|"""

_BETWEEN = """
Other variables:

| environment | |
|---|---|"""


if __name__ == "__main__":
    sys.stdout.write(reference())
