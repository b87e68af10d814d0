"""From paths to what each file is taken for: the part of a load that reads only the beginnings of files."""

from tapehouse.bulk.plan.describe import describe
from tapehouse.bulk.plan.files import plan
from tapehouse.bulk.plan.survey import FileSurvey, Survey, describe_survey, survey

__all__ = ["FileSurvey", "Survey", "describe", "describe_survey", "plan", "survey"]
