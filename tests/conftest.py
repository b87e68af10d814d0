"""What all tests share: the parts that some need, and how long Hypothesis searches.

`HYPOTHESIS_PROFILE=soak` (`make soak`) searches long and at random; by default the search is short and the same each
time, so that a change in the outcome is a change in the code.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.parts", "tests.servers_kafka"]

settings.register_profile(
    "quick",
    max_examples=50,
    stateful_step_count=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "soak",
    settings.get_profile("quick"),
    max_examples=1_000,
    stateful_step_count=60,
    derandomize=False,
    print_blob=True,
)
# Taken out of the environment, since what the tests start knows no such variable.
settings.load_profile(os.environ.pop("HYPOTHESIS_PROFILE", "quick"))
