"""The options of `tapehouse load`, each with its name, its help and its type."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

RESUME = "--resume"
NEWEST = "*"
"""What `--resume` alone means: the newest load of any of the files that did not come to its end."""


class Validate(StrEnum):
    """How much of the good rows is looked at by the statistical checks."""

    FULL = "full"
    SAMPLE = "sample"
    OFF = "off"


Paths = Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders, patterns ('*.csv.gz').")]
Map = Annotated[
    list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="The column of a field; repeatable.")
]
OneKind = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="bars, trades or quotes.")]
Symbol = Annotated[str | None, typer.Option(help="The one symbol of all rows.")]
SymbolFrom = Annotated[
    str | None, typer.Option(metavar="WHERE", help="name, folder, or a pattern whose first group it is.")
]
Zone = Annotated[str | None, typer.Option(help="The zone of times that state none: America/New_York, +05:30.")]
TimeFormat = Annotated[str | None, typer.Option(help="As of strftime, or s, ms, us, ns for epochs.")]
Delimiter = Annotated[str | None, typer.Option(help="What stands between columns.")]
Decimal = Annotated[str | None, typer.Option(help="The decimal mark, . or ,")]
Encoding = Annotated[str | None, typer.Option(help="Of text files.")]
Source = Annotated[str | None, typer.Option(help="Where the rows are from; default: the file's name.")]
Conflict = Annotated[str, typer.Option("--on-conflict", metavar="HOW", help="replace, keep, own, prefer or error.")]
Prefer = Annotated[str | None, typer.Option(metavar="SOURCE,SOURCE", help="For --on-conflict prefer: best first.")]
Batch = Annotated[str | None, typer.Option(help="What the load is called; default: a new name.")]
Resume = Annotated[
    str | None,
    typer.Option(
        RESUME, metavar="[BATCH]", help="Go on with a load that was cut short; alone: the newest of these files."
    ),
]
Checked = Annotated[Validate, typer.Option(help="How many good rows the statistical checks look at.")]
Instruments = Annotated[Path | None, typer.Option(metavar="FILE", help="Put these instruments into the store first.")]
Quarantine = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="For bad rows; default: quarantine in the data folder.")
]
BadShare = Annotated[
    float,
    typer.Option(
        help="Give a file up when more than this share of its rows is bad: at its end, or from 1,000 bad rows on."
    ),
]
Threads = Annotated[int | None, typer.Option(help="For parsing; default: one per core.")]
IfEmpty = Annotated[bool, typer.Option("--if-empty", help="Do nothing when the store holds anything.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 when any row is bad.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what the files are taken for, and what a load would do.")
]


def with_values(arguments: list[str]) -> list[str]:
    """The arguments of the command line with a value for the `--resume` of `load` where it stands alone, as the parser
    wants one."""
    if next((argument for argument in arguments if argument in ("load", "export")), None) != "load":
        return arguments
    found = []
    for place, argument in enumerate(arguments):
        alone = argument == RESUME and (place + 1 == len(arguments) or arguments[place + 1].startswith("-"))
        found.append(f"{RESUME}={NEWEST}" if alone else argument)
    return found
