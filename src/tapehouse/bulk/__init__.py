"""History from files: `plan` says what files are taken for, `load` writes their rows to a store."""

from tapehouse.bulk.base import LoadOptions, LoadReport, Progress, RecognisedFile, Writer
from tapehouse.bulk.load import load
from tapehouse.bulk.plan import describe, plan

__all__ = ["LoadOptions", "LoadReport", "Progress", "RecognisedFile", "Writer", "describe", "load", "plan"]
