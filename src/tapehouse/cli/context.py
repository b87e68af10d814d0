"""What every command shares: which store it is about, and how it speaks.

Data goes to standard output, everything else to standard error. Heavy modules are imported where they are used, so that
`--help` is quick.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapehouse.errors import TapehouseError

if TYPE_CHECKING:
    from tapehouse.client import Client

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended."""

Where = Annotated[
    str | None,
    typer.Option(
        "--store",
        "--url",
        metavar="FOLDER|URL",
        help="A data folder, a server (http://...) or a store's URL. Default: TAPEHOUSE_URL, else the setting `store`.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Kind = Annotated[str, typer.Option("--kind", metavar="KIND", help="bars, trades or quotes.")]
Interval = Annotated[
    str | None,
    typer.Option("--interval", "-i", metavar="INTERVAL", help="1s 5s 15s 30s 1m 5m 15m 30m 1h 4h 1d 1w 1mo."),
]
Start = Annotated[
    str | None,
    typer.Option(
        "--start", metavar="TIME", help="From here on: 2024, 2024-01-02, 2024-01-02T14:30:00Z or epoch digits."
    ),
]
End = Annotated[str | None, typer.Option("--end", metavar="TIME", help="Up to here, exclusive.")]


def target(where: str | None) -> str:
    """The store that a command is about: as told, else TAPEHOUSE_URL, else the setting."""
    from tapehouse import settings

    return where or chosen() or os.environ.get("TAPEHOUSE_URL") or settings.load().store


def choose(where: str | None) -> None:
    """The store named before the command: `tapehouse --store data bars AAPL`."""
    _chosen.clear()
    if where is not None:
        _chosen["where"] = where


def chosen() -> str | None:
    """What `--store` before the command named."""
    return _chosen.get("where")


_chosen: dict[str, str] = {}


def connect(where: str | None, *, create: bool = False) -> Client:
    """A client of that store: through its owner when there is one."""
    from tapehouse.client import Client

    return Client(target(where), create=create)


def say(text: str = "") -> None:
    """A line for people."""
    typer.echo(text, err=True)


def emit(value: Any) -> None:
    """A value as JSON: indented on a terminal, on one line otherwise."""
    import msgspec

    encoded = msgspec.json.encode(value, enc_hook=str)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    sys.stdout.buffer.write(encoded + b"\n")
    sys.stdout.flush()


def timed(value: Any) -> Any:
    """A struct as a dictionary, its times as RFC 3339, as the HTTP API has them."""
    from tapehouse.codec import with_times

    return with_times(value)


def report(error: TapehouseError, *, as_json: bool) -> None:
    """An error, as one sentence and what to do about it; with `--json`, as an object on standard output."""
    if as_json:
        emit({"error": {"code": error.code, "message": error.message, **error.details}})
        return
    say(f"{_red('error:')} {error.message}")
    if hint := hint_for(error):
        say(f"  {hint}")


def confirm(question: str, yes: bool) -> None:
    """Ask, unless told not to; where nobody can be asked, that is wrong usage."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask at; say --yes", param_hint="--yes")
    typer.confirm(question, abort=True, err=True)


def hint_for(error: TapehouseError) -> str | None:
    """What to do about it, where the message does not say."""
    if error.code == "not_found" and "folder" in error.details:
        return "Load something into it: tapehouse load FILES, or name another: --store FOLDER."
    return _HINTS.get(error.code)


_HINTS = {
    "unauthenticated": "Put the key into TAPEHOUSE_KEY; `tapehouse keys add` makes one.",
    "forbidden": "The key's scope does not reach that far; `tapehouse keys list` shows scopes.",
    "unrecognised_file": "Say what it is with --map, --symbol, --symbol-from, --interval or --tz.",
    "store_damaged": "`tapehouse doctor` says what is damaged.",
    "invalid_setting": "docs/reference/settings.md lists all settings; `tapehouse doctor` checks them.",
}


def _red(text: str) -> str:
    return typer.style(text, fg=typer.colors.RED, bold=True)
