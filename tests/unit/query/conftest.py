from __future__ import annotations

import pytest
from tests.unit.query.tables import Written


@pytest.fixture
def written() -> Written:
    return Written()
