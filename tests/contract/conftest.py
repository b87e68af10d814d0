"""Every test here that asks for a `store` runs once with each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.stores import BACKENDS, Home


@pytest.fixture(params=BACKENDS)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """An empty store of each kind, and the way to reopen it."""
    home = Home(BACKENDS[request.param], tmp_path / "data")
    yield home
    home.close()


@pytest.fixture
def store(home: Home) -> Any:
    """An empty store of each kind."""
    return home.store
