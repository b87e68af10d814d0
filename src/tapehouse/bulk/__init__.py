"""History from files: `plan` says what files are taken for, `load` writes their rows to a store."""

from tapehouse.bulk.base import LoadOptions, LoadReport, Progress, RecognisedFile, Workers, Writer
from tapehouse.bulk.load import check_any, load
from tapehouse.bulk.plan import FileSurvey, Survey, describe, describe_survey, plan, survey
from tapehouse.bulk.recognise.known import own_descriptions

__all__ = [
    "FileSurvey",
    "LoadOptions",
    "LoadReport",
    "Progress",
    "RecognisedFile",
    "Survey",
    "Workers",
    "Writer",
    "check_any",
    "describe",
    "describe_survey",
    "load",
    "own_descriptions",
    "plan",
    "survey",
]
