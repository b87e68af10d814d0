"""What commands say to people: tables, sizes, progress, exit codes, hints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec import structs

from tapehouse.bulk.base import (
    Certificate,
    Counts,
    FileReport,
    Held,
    LoadReport,
    Problem,
    Progress,
    RecognisedFile,
    Standing,
)
from tapehouse.bulk.checks.base import Look, Tally
from tapehouse.bulk.checks.documents import record
from tapehouse.cli import context, tables
from tapehouse.cli.loads.commands import quality
from tapehouse.cli.loads.progress import progress, said
from tapehouse.cli.loads.report import exit_code, show, standing_said
from tapehouse.client.jobs.sending import Sending
from tapehouse.errors import NotFound, Unauthenticated
from tapehouse.model import Commit, Kind
from tapehouse.store.duckdb import DuckDBStore


def test_a_table_in_a_pipe_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(("symbol", "rows", "note"), [("AAPL", 3270.0, None), ("F", 1.5, "x"), (tables.GAP,) * 3])
    assert capsys.readouterr().out.splitlines() == [
        "symbol  rows  note",
        "AAPL    3270",
        "F        1.5  x",
        "...      ...  ...",
    ]


def test_nested_values_and_lists_of_objects(capsys: pytest.CaptureFixture[str]) -> None:
    tables.pairs({"rows": 3, "archive": {"bytes": 2_500_000}, "series": [{"kind": "bars", "rows": 3}], "none": []})
    assert capsys.readouterr().out.splitlines() == [
        "rows           3",
        "archive.bytes  2.5 MB",
        "",
        "kind  rows",
        "bars     3",
    ]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1_000, "1 KB"), (1_234_567, "1.235 MB"), (5e15, "5000 TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert tables.size(count) == text


def test_progress() -> None:
    done = Progress(
        file="a.csv",
        file_number=1,
        files=2,
        bytes_done=250,
        bytes_total=1_000,
        rows=12_000,
        quarantined=3,
        rows_per_s=4_000.4,
        eta_s=9.2,
    )
    assert said(done) == "25%, 12,000 rows, 4,000 rows/s, 3 bad, 9 s left"


def test_progress_of_what_is_sent_is_in_lines_where_no_terminal_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tapehouse.cli.progress.SECONDS_BETWEEN_LINES", 0.0)
    (tmp_path / "a").write_bytes(b"a" * 4_000)
    with progress() as shown:
        sending = Sending([("a.csv", tmp_path / "a")], shown)
        for size in (1_000, 3_000, -4_000):
            sending("a.csv", size)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "a.csv: 25%, 1 KB of 4 KB sent, 0 s left",
        "a.csv: 100%, 4 KB of 4 KB sent, 0 s left",
        "a.csv: 0%, 0 B of 4 KB sent",
    ]


def report(*, quarantined: int = 0, problem: Problem | None = None, interrupted: bool = False) -> LoadReport:
    file = RecognisedFile(path="a.csv", name="a.csv", source="a", size=1)
    counts = Counts(read=5, inserted=5 - quarantined, quarantined=quarantined)
    return LoadReport(
        batch="b",
        files=[FileReport(file=file, counts=counts, problem=problem)],
        totals=counts,
        interrupted=interrupted,
    )


@pytest.mark.parametrize(
    ("given", "strict", "code"),
    [
        (report(), False, 0),
        (report(quarantined=2), False, 0),
        (report(quarantined=2), True, 1),
        (report(), True, 0),
        (report(problem=Problem("unreadable_file", "cut off")), False, 1),
        (report(interrupted=True), False, 130),
    ],
)
def test_exit_codes_of_load(given: LoadReport, strict: bool, code: int) -> None:
    assert exit_code(given, strict) == code


def test_a_load_that_had_nothing_left_to_do_has_no_pace(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = LoadReport(batch="b", files=[], totals=Counts())
    show(nothing)
    assert capsys.readouterr().out.splitlines()[0] == "0 rows read: nothing to do"
    show(structs.replace(report(), seconds=2.0))
    assert capsys.readouterr().out.splitlines()[0] == "5 rows read in 2.0 s (2 rows/s): 5 inserted"


def test_times_are_text_as_over_http() -> None:
    commit = Commit(number=1, recorded=1, kind=Kind.BARS, start=0, end=1_704_153_600_000_000_000)
    found = context.timed(commit)
    assert found["recorded"] == "1970-01-01T00:00:00.000000001Z"
    assert (found["start"], found["end"]) == ("1970-01-01T00:00:00Z", "2024-01-02T00:00:00Z")
    assert found["number"] == 1


def test_an_error_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    context.report(NotFound("there is no folder data", folder="data"), as_json=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error: there is no folder data",
        "  Load something into it: tapehouse load FILES, or name another: --store FOLDER.",
    ]


def test_an_error_as_json(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    context.report(Unauthenticated("no key", wanted="read"), as_json=True)
    found = json.loads(capfdbinary.readouterr().out)
    assert found == {"error": {"code": "unauthenticated", "message": "no key", "wanted": "read"}}


@pytest.mark.parametrize(
    ("standing", "lines"),
    [
        (None, ["b: what it stored is kept as it was read"]),
        (
            Standing(series=2, written=1_200, current=1_200),
            ["b: 2 series, 1,200 rows are kept as they were read; all of them are current"],
        ),
        (
            Standing(series=1, written=20, current=0, undone_by="undo-b"),
            ["b: 1 series, 20 rows are kept as they were read; none of them is current: undone by undo-b"],
        ),
        (
            Standing(series=1, written=20, current=5),
            [
                "b: 1 series, 20 rows are kept as they were read; 5 of them are current: "
                "the others were replaced, deleted or lost"
            ],
        ),
        (
            Standing(series=1, written=0, current=0, unchanged=20, found=[Held(batch="a", undone_by="undo-a")]),
            ["b: 1 series, no rows are this batch's own", "20 rows were there before, brought by a (undone by undo-a)"],
        ),
    ],
)
def test_what_a_certificate_proves(standing: Standing | None, lines: list[str]) -> None:
    certificate = Certificate(
        batch="b", formula="f", checked=1, after=0, head=1, counts=Counts(), series=[], standing=standing
    )
    assert standing_said(certificate) == lines


def test_what_decided_a_grade_has_a_column(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tally = Tally(rows=100, inspected=50, quarantined=900, errors=25, warnings=2, expected=60, missing=9, holes=8)
    store = DuckDBStore(tmp_path / "data")
    record(store, [Look(symbol="A", kind=Kind.TRADES, interval=None, first=1, last=2, tally=tally)])
    store.close()
    quality(store=str(tmp_path / "data"))
    names, row = capsys.readouterr().out.splitlines()
    assert names.split()[-7:] == ["rows", "inspected", "quarantined", "errors", "warnings", "missing", "holes"]
    assert row.split()[-7:] == ["100", "50", "900", "25", "2", "9", "8"]
    assert "quarantined: 90.0000%, errors: 50.0000%" in row
