"""Wall-clock times of zones, against the standard library."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.bulk.formats.zones import Zone
from tapehouse.errors import InvalidTime
from tapehouse.model import DAY_NS, SECOND_NS

ZONES = ["America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Tokyo"]
EPOCH = datetime(1970, 1, 1)


def nanos(time: datetime) -> int:
    return int((time - EPOCH) / timedelta(seconds=1)) * SECOND_NS


@given(
    zone=st.sampled_from(ZONES),
    times=st.lists(
        st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(microsecond=0)), min_size=1
    ),
)
def test_any_wall_clock_is_what_the_standard_library_says(zone: str, times: list[datetime]) -> None:
    found = Zone(zone).to_utc(np.array([nanos(time) for time in times], np.int64))
    for row, time in enumerate(times):
        first = time.replace(tzinfo=ZoneInfo(zone))
        back = first.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        skipped = found.skipped is not None and bool(found.skipped[row])
        repeated = found.repeated is not None and bool(found.repeated[row])
        assert skipped == (back != time)
        if not skipped:
            assert found.utc[row] == nanos(first.astimezone(UTC).replace(tzinfo=None))
            assert repeated == (first.utcoffset() != first.replace(fold=1).utcoffset())


@given(
    zone=st.sampled_from(ZONES), times=st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), min_size=1)
)
def test_utc_as_the_clocks_show_it(zone: str, times: list[datetime]) -> None:
    times = [time.replace(microsecond=0) for time in times]
    local = Zone(zone).to_local(np.array([nanos(time) for time in times], np.int64))
    expected = [time.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) for time in times]
    assert list(local) == [nanos(time) for time in expected]


@pytest.mark.parametrize(("offset", "hours"), [("+05:30", 5.5), ("-0500", -5), ("UTC+2", 2), ("Z", 0), ("UTC", 0)])
def test_offsets(offset: str, hours: float) -> None:
    found = Zone(offset).to_utc(np.array([0], np.int64))
    assert found.utc[0] == -int(hours * 3_600) * SECOND_NS
    assert Zone(offset).to_local(found.utc)[0] == 0


def test_one_nanosecond_either_side_of_a_change() -> None:
    zone = Zone("America/New_York")
    change = nanos(datetime(2024, 3, 10, 7))
    assert list(zone.to_local(np.array([change - 1, change])) - change) == [
        -5 * 3_600 * SECOND_NS - 1,
        -4 * 3_600 * SECOND_NS,
    ]
    two, three = nanos(datetime(2024, 3, 10, 2)), nanos(datetime(2024, 3, 10, 3))
    skipped = zone.to_utc(np.array([two - 1, two, three - 1, three])).skipped
    assert skipped is not None
    assert list(skipped) == [False, True, True, False]


def test_a_midnight_that_clocks_skip_is_when_they_skip_it() -> None:
    midnight = nanos(datetime(2018, 11, 4))
    zone = Zone("America/Sao_Paulo")
    assert list(zone.starts_of_days(np.array([midnight - DAY_NS, midnight]))) == [
        midnight - DAY_NS + 3 * 3_600 * SECOND_NS,
        midnight + 3 * 3_600 * SECOND_NS,
    ]


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "New York"])
def test_unknown_zones(name: str) -> None:
    with pytest.raises(InvalidTime, match="unknown time zone"):
        Zone(name)


def test_no_times_at_all() -> None:
    assert len(Zone("Europe/Berlin").to_utc(np.empty(0, np.int64)).utc) == 0
