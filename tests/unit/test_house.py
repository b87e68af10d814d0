"""The rules of the house, read from the source: who imports whom, how large things are, what the docs must say."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tapehouse import errors

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "tapehouse"

# The same table, in words: docs/design/package.md.
FOUNDATION = {"errors", "model", "times", "calendars", "resample", "sums", "codec", "settings", "failpoints"}
COMPOSITION = {"server", "cli", "__main__", "client.embedded"}
PUBLIC = ""
"""The package itself: it exports the client's names."""

MAX_MODULE_LINES = 600
MAX_FUNCTION_LINES = 60
MAX_MODULES_A_FOLDER = 10
MAX_DEPTH = 2


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its name below `tapehouse`; a folder's `__init__` has the folder's name."""
    return {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def imports() -> dict[str, frozenset[str]]:
    """Module -> the modules of the package that it imports, anywhere in its source."""
    return {name: frozenset(_imported(path)) - {name} for name, path in modules().items()}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (_below(alias.name) for alias in node.names if _ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; name the module in full"
            if node.module and _ours(node.module):
                for alias in node.names:
                    child = _below(f"{node.module}.{alias.name}")
                    yield child if child in modules() else _below(node.module)


def _ours(name: str) -> bool:
    return name.split(".")[0] == "tapehouse"


def _below(name: str) -> str:
    return name.removeprefix("tapehouse").removeprefix(".")


def stage(name: str) -> str:
    return name.split(".")[0]


def composes(name: str) -> bool:
    return stage(name) in COMPOSITION or name in COMPOSITION


def allowed(importer: str, imported: str) -> bool:
    """Whether the rule of docs/design/package.md lets one module import the other."""
    if stage(imported) in FOUNDATION:
        return True
    if stage(importer) in FOUNDATION:
        return False
    if importer == PUBLIC:
        return stage(imported) == "client" and not composes(imported)
    if composes(importer):
        return not composes(imported) or stage(importer) in {stage(imported), "cli", "__main__"}
    if stage(importer) == stage(imported):
        return True
    return imported.endswith(".base")


def test_the_package_is_there() -> None:
    assert {"model", "errors", "store.base", "query.base"} <= set(modules())


@pytest.mark.parametrize("importer", sorted(modules()))
def test_a_module_imports_only_what_lies_below_it(importer: str) -> None:
    wrong = [imported for imported in sorted(imports()[importer]) if not allowed(importer, imported)]
    assert not wrong, f"tapehouse.{importer} must not import {wrong}: see docs/design/package.md"


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("model", "store.base"),
        ("query.history", "store.memory"),
        ("api.app", "server"),
        ("registry", "store.memory"),
        ("store.base", "query.history"),
        ("client.http", "server"),
        ("store.base", "cli.app"),
    ],
)
def test_the_rule_forbids(importer: str, imported: str) -> None:
    assert not allowed(importer, imported)


def test_no_cycles() -> None:
    try:
        order = list(TopologicalSorter(imports()).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")
    assert set(order) >= set(modules())


def _top_level_imports(body: list[ast.stmt]) -> Iterator[str]:
    """What a module imports when it is imported; blocks under `if TYPE_CHECKING` and functions are not run."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
            yield from _top_level_imports(node.body + node.orelse)
        elif isinstance(node, ast.Try | ast.With | ast.ClassDef):
            yield from _top_level_imports(node.body)


@cache
def _declared() -> set[str]:
    """The import names of the required dependencies in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {_normal(re.split(r"[<>=!~;\[ ]", line)[0]) for line in project["dependencies"]}
    owners = importlib.metadata.packages_distributions()
    return {name for name, dists in owners.items() if any(_normal(dist) in wanted for dist in dists)}


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize("name", sorted(modules()))
def test_top_level_imports_are_declared_dependencies(name: str) -> None:
    imported = set(_top_level_imports(tree_of(modules()[name]).body))
    undeclared = imported - sys.stdlib_module_names - _declared() - {"tapehouse", "__future__"}
    assert not undeclared, f"{name}: import {undeclared} where it is used, or declare it in pyproject.toml"


def test_the_client_loads_neither_server_nor_optional_extras() -> None:
    program = "import sys; from tapehouse import Client; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "tapehouse" in loaded
    assert not {"pandas", "polars", "exchange_calendars", "fastapi", "uvicorn", "duckdb", "typer"} & set(loaded)


@pytest.mark.parametrize("name", sorted(modules()))
def test_modules_and_functions_are_small(name: str) -> None:
    path = modules()[name]
    assert len(path.read_text().splitlines()) <= MAX_MODULE_LINES, f"{name}: split it"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{name}.{node.name} has {lines} lines: split it"


def _folders(top: Path) -> list[Path]:
    return [top, *(path for path in sorted(top.rglob("*")) if path.is_dir() and path.name != "__pycache__")]


@pytest.mark.parametrize("folder", _folders(PACKAGE), ids=lambda folder: str(folder.relative_to(PACKAGE.parent)))
def test_folders_hold_few_modules(folder: Path) -> None:
    held = [path.name for path in folder.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    assert len(held) <= MAX_MODULES_A_FOLDER, f"{folder}: {sorted(held)}"
    assert len(folder.relative_to(PACKAGE).parts) <= MAX_DEPTH or not held, f"{folder} is too deep"


def _classes(base: type[errors.TapehouseError], depth: int = 0) -> Iterator[tuple[int, type[errors.TapehouseError]]]:
    yield depth, base
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _classes(child, depth + 1)


def _drawn() -> list[tuple[int, str]]:
    drawing = re.compile(r"^ {4}((?:[│ ] {3})*(?:[├└]── )?)([A-Z]\w+)", re.MULTILINE)
    return [(len(prefix) // 4, name) for prefix, name in drawing.findall(errors.__doc__ or "")]


def test_the_error_tree_is_drawn_as_it_is() -> None:
    assert _drawn() == [(depth, found.__name__) for depth, found in _classes(errors.TapehouseError)]


def test_error_codes_are_distinct_and_documented() -> None:
    codes = [found.code for _, found in _classes(errors.TapehouseError)]
    assert len(set(codes)) == len(codes)
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    missing = [code for code in codes if f"`{code}`" not in page]
    assert not missing, f"docs/reference/errors.md lacks {missing}"


# What is committed must work anywhere, so it names no registry and no folder of one machine. A URL's host is one of
# these, or a bare word.
KNOWN_HOSTS = re.compile(
    r"[\w-]+|\.\.\.|127\.0\.0\.1|0\.0\.0\.0|\[::1\]|[\w.-]*\bexample(\.com|\.org|\.net)?|[\w.-]*\.test"
    r"|tapehouse\.dev|(www|arrow|parquet)\.apache\.org|keepachangelog\.com|semver\.org|www\.tradingview\.com|www\.w3\.org|json-schema\.org"
)
URL_HOST = re.compile(r"\bhttps?://([^/\s\"'`:)>{}\]\\]+)")
PRIVATE = re.compile(r"(?<![\w.~-])/(?:work|root|opt|tmp)/|--?(?:extra-)?index-url|--find-links|--trusted-host")
TEXT = {".py", ".md", ".toml", ".txt", ".sh", ".html", ".css", ".js", ".json", ".svg", ".yml", ".yaml", ".cfg", ""}
MADE_ELSEWHERE = {"static/vendor", "docs/images"}


def _committed() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    found = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in found if path.suffix in TEXT and path.is_file()]


def test_nothing_committed_names_a_registry_or_a_machine() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {found}"
        for path in _committed()
        if not any(part in path.as_posix() for part in MADE_ELSEWHERE) and path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for found in _strangers(line)
    ]
    assert not wrong, "\n".join(wrong)


def _strangers(line: str) -> list[str]:
    hosts = [host for host in URL_HOST.findall(line) if not KNOWN_HOSTS.fullmatch(host)]
    return hosts + PRIVATE.findall(line)


@pytest.mark.parametrize(
    "line", ["see https://pkg.mirror.internal/simple", "cd /" + "work/clone", "pip --index" + "-url x"]
)
def test_the_search_for_strangers_finds_them(line: str) -> None:
    assert _strangers(line)
