"""Kills at random instants, again and again, in the hope of finding one that no failpoint stands for."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.system import history
from tests.system.test_kill import ROOT, check

LIVES = 200


@pytest.mark.soak
def test_a_store_killed_at_any_instant_comes_back_whole(tmp_path: Path) -> None:
    instants = random.Random(1)
    killed = 0
    for life in range(LIVES):
        folder, done = tmp_path / str(life), 0
        while done < len(history.STEPS):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.system.history", str(folder), str(done)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            with process:
                time.sleep(instants.uniform(0.5, 2.5))
                process.kill()
                output = process.communicate()[0]
            killed += process.returncode == -9
            done = check(folder, done + len(output.split()))
    assert killed > LIVES / 2
