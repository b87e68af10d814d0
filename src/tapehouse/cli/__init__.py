"""The command line: `tapehouse`."""

from tapehouse.cli.app import app, main

__all__ = ["app", "main"]
