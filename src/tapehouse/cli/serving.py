"""`tapehouse serve`: its flags are the settings, each declared once in `settings.py`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from tapehouse.cli.context import chosen
from tapehouse.settings import SETTINGS, Setting

CONFIG = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file; default: TAPEHOUSE_CONFIG, else tapehouse.toml."),
]


def serve(config: Path | None = None, **flags: Any) -> None:
    """Serve the data folder over HTTP, with a page at /.

    Each flag is a setting: see docs/reference/settings.md for the environment and the file.
    """
    from tapehouse import server, settings

    flags = {name: _listed(name, value) for name, value in flags.items()}
    flags["store"] = _store_url(flags["store"] or chosen())
    server.serve(settings.load(config, flags))


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
