"""The corpus: a small file for each format and each kind of damage, loaded into a real store, against what is expected.

`tests/corpus/CASE/` holds the file, `expected.json`, and where the case needs them `options.json` (as `LoadOptions`)
and a `tapehouse.toml` with `[[formats]]`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tapehouse import bulk
from tapehouse.bulk.recognise.known import built_in, read_descriptions
from tapehouse.errors import InvalidData
from tapehouse.model import SCHEMAS, Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.times import format_time

CORPUS = Path(__file__).parents[2] / "corpus"
CASES = sorted(path.name for path in CORPUS.iterdir() if path.is_dir())
BESIDE = {"expected.json", "options.json", "tapehouse.toml"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBStore]:
    """One store for all cases; each finds its own rows by their source."""
    store = DuckDBStore(tmp_path_factory.mktemp("corpus") / "data")
    yield store
    store.close()


@pytest.mark.parametrize("case", CASES)
def test_the_corpus(case: str, store: DuckDBStore, tmp_path: Path) -> None:
    expected = json.loads((CORPUS / case / "expected.json").read_text())
    assert outcome(case, store, tmp_path) == expected


def test_every_layout_that_is_known_by_name_has_a_case() -> None:
    results = [json.loads((CORPUS / case / "expected.json").read_text()) for case in CASES]
    recognised = {file.get("recognised") for result in results for file in result["files"]}
    assert {description.name for description in built_in()} - recognised == set()


def options_of(case: str) -> bulk.LoadOptions:
    """The options of a case, its own formats among them; the rows of every case have its name as their source."""
    folder = CORPUS / case
    given = json.loads(path.read_text()) if (path := folder / "options.json").exists() else {}
    if (own := folder / "tapehouse.toml").exists():
        given["formats"] = read_descriptions(tomllib.loads(own.read_text())["formats"], own.name)
    return bulk.LoadOptions(**given, source=case, threads=1)


def outcome(case: str, store: DuckDBStore, folder: Path) -> dict[str, Any]:
    """What the files of a case were taken for, and what became of their rows."""
    options = options_of(case)
    paths = sorted(
        path for path in (CORPUS / case).iterdir() if path.name not in BESIDE and "-journal" not in path.name
    )
    files = bulk.plan(paths, options)
    result: dict[str, Any] = {"files": [_taken_for(file) for file in files]}
    try:
        report = bulk.load(paths, store, options, quarantine_dir=folder, files=files)
    except InvalidData as exc:
        return result | {"error": f"{exc.code}: {exc.message}"}
    for file, shown in zip(report.files, result["files"], strict=True):
        shown |= {"rows": file.counts.inserted + file.counts.replaced + file.counts.unchanged}
        shown |= {"quarantined": {each.reason: each.rows for each in file.rejections}} if file.rejections else {}
        shown |= {"said": file.notes} if file.notes else {}
        shown |= {"problem": file.problem.message} if file.problem else {}
    stored = [
        (kind, interval) for kind, interval in dict.fromkeys((file.kind, file.interval) for file in files) if kind
    ]
    return result | {"stored": [_stored(store, case, kind, interval) for kind, interval in stored]}


def _taken_for(file: bulk.RecognisedFile) -> dict[str, Any]:
    shown = {
        "name": file.name,
        "recognised": file.recognised,
        "kind": file.kind,
        "interval": file.interval,
        "format": file.format,
        "compression": file.compression,
        "times": file.times.seen if file.times else None,
        "notes": list(file.notes),
        "problem": file.problem.message if file.problem else None,
    }
    return {name: value for name, value in shown.items() if value not in (None, [])}


def _stored(store: DuckDBStore, case: str, kind: Kind, interval: Interval | None) -> dict[str, Any]:
    """The symbols of the case's rows of a kind, their number, and the first and last of them."""
    columns = tuple(name for name in SCHEMAS[kind].names if name != "ordinal")
    with store.read(Selection(kind=kind, interval=interval, columns=columns, source=case)) as reading:
        rows = (
            reading.table().cast(_plain(reading.schema)).sort_by([("timestamp", "ascending"), ("symbol", "ascending")])
        )
    shown = [_shown(row) for row in rows.take([0, rows.num_rows - 1]).to_pylist()] if rows.num_rows else [None, None]
    symbols = sorted(set(rows["symbol"].to_pylist()))
    return {"kind": kind, "rows": rows.num_rows, "symbols": symbols, "first": shown[0], "last": shown[1]}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    row["timestamp"] = format_time(row["timestamp"])
    return {name: value for name, value in row.items() if value is not None and name != "source"}


def _plain(schema: pa.Schema) -> pa.Schema:
    types = {"timestamp": pa.int64()}
    plain = [(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in schema]
    return pa.schema([(name, types.get(name, type_)) for name, type_ in plain])
