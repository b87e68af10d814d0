"""Files of a layout that was seen are taken for the same as when each is looked at alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tapehouse import bulk
from tapehouse.bulk.journal import identity
from tapehouse.bulk.plan import files as plan_files
from tapehouse.bulk.plan.alike import Layouts

HEAD = "Date,Open,High,Low,Close,Volume"


def days(count: int = 900, start: int = 0, form: str = "2{y:03}-{m:02}-{d:02}", tail: str = "1.5,3,0.5,2,10") -> str:
    """Rows of days in a row (of months with 28 days)."""
    spots = [(20 + n // 336, n // 28 % 12 + 1, n % 28 + 1) for n in range(start, start + count)]
    return "".join(f"{form.format(y=y, m=m, d=d)},{tail}\n" for y, m, d in spots)


def epochs(count: int, unit: int = 1000) -> str:
    return "".join(f"{(1704205800 + 60 * n) * unit},1,3,0.5,2,10\n" for n in range(count))


FOLDERS: dict[str, tuple[dict[str, str], dict[str, Any], int]] = {
    "as many as there are": ({f"S{n}.csv": f"{HEAD}\n{days(start=n)}" for n in range(4)}, {}, 3),
    "small ones": ({f"S{n}.csv": f"{HEAD}\n{days(12, n)}" for n in range(4)}, {}, 3),
    "too small ones": ({f"S{n}.csv": f"{HEAD}\n{days(5, n)}" for n in range(4)}, {}, 0),
    "CR LF": ({f"S{n}.csv": f"{HEAD}\n{days(start=n)}".replace("\n", "\r\n") for n in range(3)}, {}, 2),
    "day and month": (
        {f"S{n}.csv": f"{HEAD}\n{days(20, n * 5, '{d:02}/{m:02}/20{y}')}" for n in range(3)},
        {},
        0,
    ),
    "day and month, said": (
        {f"S{n}.csv": f"{HEAD}\n{days(20, n * 5, '{d:02}/{m:02}/20{y}')}" for n in range(3)},
        {"time_format": "%d/%m/%Y"},
        2,
    ),
    "a wrong one": (
        {"S1.csv": f"{HEAD}\n{days()}", "S2.csv": f"{HEAD}\n{'x' * 3000}\n", "S3.csv": f"{HEAD}\n{days()}"},
        {},
        1,
    ),
    "decimal commas between semicolons": (
        {
            "S1.csv": f"{HEAD}\n{days()}".replace(",", ";"),
            "S2.csv": f"{HEAD}\n{days()}".replace(",", ";").replace(".", ","),
            "S3.csv": f"{HEAD}\n{days()}".replace(",", ";"),
        },
        {},
        1,
    ),
    "other units": (
        {
            "S1.csv": f"t,o,h,l,c,v\n{epochs(200)}",
            "S2.csv": f"t,o,h,l,c,v\n{epochs(200, 10**6)}",
            "S3.csv": f"t,o,h,l,c,v\n{epochs(200)}",
        },
        {},
        1,
    ),
    "other intervals": (
        {
            "S1.csv": f"{HEAD}\n{days()}",
            "S2.csv": f"{HEAD}\n" + "".join(days(1, 7 * n) for n in range(300)),
            "S3.csv": f"{HEAD}\n{days()}",
        },
        {},
        2,
    ),
    "weeks that become days": (
        {
            "S1.csv": f"{HEAD}\n{days()}",
            "S2.csv": f"{HEAD}\n" + "".join(days(1, 7 * n) for n in range(40)) + days(300, 280),
            "S3.csv": f"{HEAD}\n" + days(300) + "".join(days(1, 300 + 7 * n) for n in range(40)),
            "S4.csv": f"{HEAD}\n" + days(40) + "".join(days(1, 40 + 7 * n) for n in range(60)) + days(40, 460),
        },
        {},
        0,
    ),
    "no header": ({f"S{n}.csv": epochs(200) for n in range(3)}, {}, 2),
    "no header, another layout": (
        {"S1.csv": epochs(200), "S2.csv": "".join(f"{1704205800000 + n},1.5,2,3,4,5\n" for n in range(200))},
        {},
        0,
    ),
    "a vendor's by the name": (
        {
            "XBTUSD_1.csv": "".join(f"{1704205800 + 60 * n},1,3,0.5,2,10,7\n" for n in range(200)),
            "ETHUSD_5.csv": "".join(f"{1704205800 + 300 * n},1,3,0.5,2,10,7\n" for n in range(200)),
            "other.csv": "".join(f"{1704205800 + 300 * n},1,3,0.5,2,10,7\n" for n in range(200)),
        },
        {},
        1,
    ),
    "symbols in a column": (
        {
            f"{n}.csv": "symbol," + f"{HEAD}\n" + days().replace("\n2", "\nA,2").replace("202", "A,202", 1)
            for n in range(3)
        },
        {},
        2,
    ),
    "a delimiter at the end of rows, and another file without": (
        {f"S{n}.csv": f"{HEAD}\n{days(start=n)}".replace(",10\n", ",10\n" if n == 2 else ",10,\n") for n in range(4)},
        {},
        2,
    ),
    "quotes around it": ({f"S{n}.csv": f"{HEAD}\n{days()}".replace("1.5", '"1.5"') for n in range(3)}, {}, 0),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_plan_of_many_is_the_plan_of_each(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents, said, expected = FOLDERS[case]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content.encode())
    recalled = _count_recalls(monkeypatch)
    options = bulk.LoadOptions(**said)
    together = bulk.plan([tmp_path], options)
    assert len(recalled) == expected
    alone = [bulk.plan([file.path], options)[0] for file in together]
    assert [_but_the_share(file) for file in together] == [_but_the_share(file) for file in alone]
    assert [identity(file) for file in together] == [identity(file) for file in alone]


def _count_recalls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    recalled: list[str] = []
    recall: Callable[..., Any] = Layouts.recall

    def counted(*args: Any) -> bulk.RecognisedFile | None:
        found: bulk.RecognisedFile | None = recall(*args)
        if found is not None:
            recalled.append(found.name)
        return found

    monkeypatch.setattr(plan_files.Layouts, "recall", counted)
    return recalled


def _but_the_share(file: bulk.RecognisedFile) -> bulk.RecognisedFile:
    """Without what is said of the interval by the sample, which is smaller for one of a layout that was seen."""
    return msgspec.structs.replace(file, interval_from=None)
