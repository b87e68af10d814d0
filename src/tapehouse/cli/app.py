"""The `tapehouse` command: its commands, and what becomes of their errors.

Exit codes: 0 done, 1 an error, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Annotated, NoReturn

import typer
from typer._click.exceptions import ClickException

from tapehouse.cli import context, doctor, exporting, reading, serving, writing
from tapehouse.cli.loads import commands, load
from tapehouse.cli.loads.options import with_values
from tapehouse.errors import InvalidRequest, TapehouseError

HELP = """A market-data server that you run yourself.

Commands go through the server that owns the data folder when there is one, and open the folder themselves otherwise.
"""

# Plain help: drawing boxes would take as long as all the rest of `--help`.
app = typer.Typer(
    name="tapehouse",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


@app.callback()
def options(
    store: context.Where = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    context.choose(store)


app.command()(serving.serve)
app.command()(load.load)
app.command()(commands.batches)
app.command()(commands.undo)
app.command()(commands.certify)
app.command()(commands.quality)
app.command()(commands.jobs)
app.command()(exporting.export)
app.command()(reading.bars)
app.command()(reading.symbols)
app.command()(reading.coverage)
app.command()(reading.stats)
app.command()(reading.commits)
app.command()(writing.compact)
app.command()(writing.delete)
app.add_typer(writing.instruments, name="instruments", no_args_is_help=True)
app.add_typer(serving.keys, name="keys", no_args_is_help=True)
app.command()(doctor.doctor)
app.command("version")(doctor.versions)


def main() -> NoReturn:
    """Run the command line of this process."""
    arguments = with_values(sys.argv[1:])
    debug, as_json = "--debug" in arguments, "--json" in arguments
    if not debug:
        sys.excepthook = _fault
    try:
        # The option is taken anywhere; to the parser it belongs before the command.
        arguments = ["--debug"] * debug + [each for each in arguments if each != "--debug"]
        code = app(arguments, prog_name="tapehouse", standalone_mode=not as_json)
    except TapehouseError as error:
        if debug:
            raise
        context.report(error, as_json=as_json)
        sys.exit(1)
    except ClickException as error:  # the parser tells people itself
        context.report(InvalidRequest(error.format_message()), as_json=True)
        sys.exit(error.exit_code)
    except typer.Abort:
        context.say("Aborted.")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _fault(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    """What nobody foresaw: a sentence instead of a traceback."""
    context.say(f"a fault in tapehouse: {kind.__name__}: {error}")
    context.say("  Please report it with the traceback that --debug shows.")
