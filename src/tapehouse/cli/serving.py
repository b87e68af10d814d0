"""`tapehouse serve`, whose flags are the settings, each declared once in `settings.py`; and the keys to the server."""

from __future__ import annotations

import inspect
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapehouse.cli import tables
from tapehouse.cli.context import Json, Where, chosen, emit, say, target
from tapehouse.errors import InvalidRequest
from tapehouse.settings import SETTINGS, Setting

if TYPE_CHECKING:
    from tapehouse.api.keys import Keys

CONFIG = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file; default: TAPEHOUSE_CONFIG, else tapehouse.toml."),
]


def serve(config: Path | None = None, **flags: Any) -> None:
    """Serve the data folder over HTTP, with a page at /.

    Each flag is a setting: see docs/reference/settings.md for the environment and the file.
    """
    from tapehouse import server, settings
    from tapehouse.bulk import own_descriptions

    flags = {name: _listed(name, value) for name, value in flags.items()}
    flags["store"] = _store_url(flags["store"] or chosen())
    server.serve(settings.load(config, flags), own_descriptions(config))


def _store_url(store: str | None) -> str | None:
    """A folder as a URL, since here as everywhere `--store data` is one."""
    return store if store is None or "://" in store else f"duckdb:///{store}"


def _listed(name: str, value: Any) -> Any:
    """A list that was given with commas, a number that was given as such."""
    return value.split(",") if SETTINGS[name].several and value is not None else value


def _parameter(setting: Setting) -> inspect.Parameter:
    """The flag of a setting; None as default, since a flag that is not given leaves the word to the environment."""
    words = f"{setting.description} [{setting.variable}]"
    if setting.type is bool:
        option = typer.Option(f"{setting.flag}/--no-{setting.flag[2:]}", help=words, show_default=False)
    else:
        option = typer.Option(setting.flag, metavar=_metavar(setting), help=words, show_default=False)
    kind = setting.type if not setting.several else str
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return "|".join(setting.choices)
    names: dict[type, str] = {int: "NUMBER", float: "NUMBER"}
    return f"{setting.name.upper()},..." if setting.several else names.get(setting.type, "TEXT")


_config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=CONFIG)
serve.__signature__ = inspect.Signature([*map(_parameter, SETTINGS.values()), _config])  # type: ignore[attr-defined]
serve.__annotations__ = {"return": None}


keys = typer.Typer(help="The API keys of the server. It reads them again when they change.")

KeysFile = Annotated[
    Path | None,
    typer.Option("--keys-file", help="Default: the setting `keys_file`, else keys.json in the data folder."),
]


class Scope(StrEnum):
    """What a key may do; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@keys.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is, or what for.")],
    scope: Annotated[Scope, typer.Option(help="What it may do; each includes the ones before it.")] = Scope.READ,
    rate_per_s: Annotated[float | None, typer.Option(help="Requests a second; default: any number.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="When it stops working; default: never.")] = None,
    json: Json = False,
    keys_file: KeysFile = None,
    store: Where = None,
) -> None:
    """Make a key, and show it once: only its hash is kept."""
    token = _open(keys_file, store).add(name, scope.value, rate_per_s, _instant(expires))
    if json:
        emit({"name": name, "scope": scope, "key": token})
        return
    typer.echo(token)
    say(f"This is the key {name!r}; it is not shown again. Clients send it from TAPEHOUSE_KEY.")


@keys.command("list")
def list_keys(json: Json = False, keys_file: KeysFile = None, store: Where = None) -> None:
    """List the keys, without the secrets."""
    from tapehouse.times import format_time

    found = [
        {
            "name": key.name,
            "scope": str(key.scope),
            "created": format_time(key.created),
            "expires": None if key.expires is None else format_time(key.expires),
            "rate_per_s": key.rate_per_s,
        }
        for key in _open(keys_file, store)
    ]
    if json:
        emit(found)
    elif found:
        tables.show(list(found[0]), [list(key.values()) for key in found])
    else:
        say("no keys")


@keys.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Which key.")],
    json: Json = False,
    keys_file: KeysFile = None,
    store: Where = None,
) -> None:
    """Remove a key; a running server refuses it from the next request on."""
    _open(keys_file, store).remove(name)
    if json:
        emit({"removed": name})
    else:
        typer.echo(f"key {name!r} removed")


def _open(keys_file: Path | None, store: str | None) -> Keys:
    from tapehouse import settings
    from tapehouse.api.keys import Keys
    from tapehouse.client.embedded import folder_of

    if keys_file is not None:
        return Keys(keys_file)
    if store is None and (configured := settings.load().keys_file) is not None:
        return Keys(configured)
    where = target(store)
    if "://" in where and not where.startswith("duckdb://"):
        raise InvalidRequest(f"{where} is not a folder; say where its server keeps the keys: --keys-file FILE")
    return Keys(folder_of(where) / "keys.json")


def _instant(expires: str | None) -> int | None:
    from datetime import UTC, datetime

    from tapehouse.model import SECOND_NS
    from tapehouse.times import parse_bound

    if expires is None:
        return None
    bound = parse_bound(expires, "expires")
    if isinstance(bound, int):
        return bound
    return int(datetime(bound.year, bound.month, bound.day, tzinfo=UTC).timestamp()) * SECOND_NS
