"""What `tapehouse load` refuses before it looks for a store."""

from __future__ import annotations

import pytest
import typer

from tapehouse.cli.loads.load import load


def test_only_a_load_goes_on() -> None:
    with pytest.raises(typer.BadParameter, match="--dry-run says what one from the beginning does") as caught:
        load(["days.csv"], resume="one", dry_run=True)
    assert caught.value.param_hint == "--resume"
