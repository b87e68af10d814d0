"""`docs/reference/cli.md`, from the commands: `python -m tapehouse.cli.reference > docs/reference/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

HEAD = """\
# Command line

<!-- Generated: python -m tapehouse.cli.reference > docs/reference/cli.md; a test fails when it differs. -->

`tapehouse COMMAND --help` says the same. Every command that is about data takes `--store`, before its name or after it:
a data folder, the address of a server, or a store's URL. Without it, it is `TAPEHOUSE_URL`, else the setting `store`. A
folder that a server owns is reached through that server, one that nobody owns is opened; so a command works the same
beside a running server and without one. `TAPEHOUSE_KEY` is the API key that goes with a server's address.

Data goes to standard output, everything else to standard error. `--json` makes the output one JSON document, an error
too: `{"error": {"code", "message", ...}}`. `--debug` shows the traceback of an error. `tapehouse --install-completion`
teaches the shell to complete commands and options.

| exit code | |
|---|---|
| 0 | done |
| 1 | an error, said in one sentence; a load that did not read every file to its end; `doctor` found something wrong |
| 2 | wrong usage |
| 130 | interrupted |
"""


def reference() -> str:
    """The page."""
    from tapehouse.cli.app import app

    group: Any = typer.main.get_command(app)
    return "\n".join([HEAD, *_commands(group, "tapehouse")])


def _commands(group: Any, prefix: str) -> Iterator[str]:
    for name, command in sorted(group.commands.items()):
        title = f"{prefix} {name}"
        if hasattr(command, "commands"):
            yield from _commands(command, title)
        else:
            yield from _section(title, command)


def _section(title: str, command: Any) -> Iterator[str]:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    yield f"## {title}\n"
    yield f"{command.help.strip()}\n"
    yield f"    {' '.join([title, '[OPTIONS]', *(_placeholder(each) for each in arguments)])}\n"
    yield "| | | default |"
    yield "|---|---|---|"
    yield from (_row(f"`{_placeholder(each)}`", each) for each in arguments)
    yield from (_row(_spelling(each), each) for each in options if "--help" not in each.opts)
    yield ""


def _row(name: str, param: Any) -> str:
    shown = param.default not in (None, False, (), [])
    default = f"`{getattr(param.default, 'value', param.default)}`" if shown else ""
    return f"| {name} | {_escaped(param.help or '')} | {default} |"


def _placeholder(argument: Any) -> str:
    name: str = argument.metavar or argument.name.upper() + ("..." if argument.nargs != 1 else "")
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _spelling(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or _type(option)}"
    spelled = ", ".join([*sorted(option.opts, key=len, reverse=True), *option.secondary_opts])
    return f"`{_escaped(spelled + value)}`"


def _type(option: Any) -> str:
    choices = getattr(option.type_descriptor.annotation, "__members__", None)
    return "|".join(each.value for each in choices.values()) if choices else str(option.name).upper()


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
