"""Settings: where they come from, what wins, and what stops the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapehouse import settings
from tapehouse.errors import InvalidSetting
from tapehouse.settings import SETTINGS, Settings, load

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_nothing_given_means_the_defaults() -> None:
    assert load(environ={}) == Settings()
    assert load(environ={"HOME": "/root"}).store == "duckdb:///data"


def test_a_flag_goes_before_the_environment_and_that_before_the_file() -> None:
    Path("tapehouse.toml").write_text('port = 1\nhost = "::1"\nmax_symbols = 7\n')
    environ = {"TAPEHOUSE_PORT": "2", "TAPEHOUSE_MAX_SYMBOLS": "8"}

    found = load(environ=environ, flags={"port": 3, "host": None})

    assert (found.port, found.max_symbols, found.host) == (3, 8, "::1")


def test_the_file_can_be_named_by_flag_or_environment() -> None:
    Path("other.toml").write_text("port = 1")
    Path("third.toml").write_text("port = 2")

    assert load("other.toml", environ={"TAPEHOUSE_CONFIG": "third.toml"}).port == 1
    assert load(environ={"TAPEHOUSE_CONFIG": "third.toml"}).port == 2


def test_a_named_file_has_to_be_there() -> None:
    with pytest.raises(InvalidSetting, match=r"cannot read the settings file missing\.toml: No such file"):
        load("missing.toml", environ={})


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml(content: bytes) -> None:
    Path("tapehouse.toml").write_bytes(content)

    with pytest.raises(InvalidSetting, match=r"tapehouse\.toml is not TOML"):
        load(environ={})


def test_text_becomes_the_type_of_the_setting() -> None:
    environ = {
        "TAPEHOUSE_INSECURE": "true",
        "TAPEHOUSE_ALLOWED_HOSTS": "charts.example.com, tape",
        "TAPEHOUSE_COMPACT_INTERVAL_S": "2.5",
        "TAPEHOUSE_KEYS_FILE": "secrets.json",
    }

    found = load(environ=environ)

    assert found.insecure is True
    assert found.allowed_hosts == ("charts.example.com", "tape")
    assert found.compact_interval_s == 2.5
    assert found.keys_file == "secrets.json"


def test_a_list_in_the_file() -> None:
    Path("tapehouse.toml").write_text('allowed_hosts = ["a", "b"]')

    assert load(environ={}).allowed_hosts == ("a", "b")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "port",
            "http",
            "port is 'http' (the environment variable TAPEHOUSE_PORT), but has to be a whole number at least",
        ),
        ("port", "65536", "at most 65535"),
        (
            "insecure",
            "maybe",
            "insecure is 'maybe' (the environment variable TAPEHOUSE_INSECURE), but has to be true or",
        ),
        ("log_level", "loud", "has to be one of debug, info, warning, error"),
        ("stall_timeout_s", "0", "has to be a number above 0"),
        ("max_symbols", "x" * 1000, "max_symbols is '" + "x" * 80 + "' ("),
    ],
)
def test_an_impossible_value_says_what_where_and_what_was_expected(name: str, value: str, message: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load(environ={f"TAPEHOUSE_{name.upper()}": value})

    assert message in str(caught.value)
    assert caught.value.details["setting"] == name


def test_an_impossible_value_in_the_file_names_the_file() -> None:
    Path("tapehouse.toml").write_text('port = "many"')

    with pytest.raises(InvalidSetting, match=r"port is 'many' \(tapehouse\.toml\)"):
        load(environ={})


def test_an_unknown_name_stops_the_start_and_names_the_nearest() -> None:
    with pytest.raises(InvalidSetting, match=r"environment: there is no setting 'TAPEHOUSE_PROT'.*'TAPEHOUSE_PORT'"):
        load(environ={"TAPEHOUSE_PROT": "1"})
    with pytest.raises(InvalidSetting, match=r"the flags: there is no setting 'hots'.*'host'"):
        load(environ={}, flags={"hots": "x"})
    Path("tapehouse.toml").write_text("[server]\nport = 1")
    with pytest.raises(InvalidSetting, match=r"tapehouse\.toml: there is no setting 'server'"):
        load(environ={})


def test_variables_of_the_client_are_not_settings() -> None:
    assert load(environ=dict.fromkeys(settings.OTHER_VARIABLES, "") | {"TAPEHOUSE_URL": "http://tape"}) == Settings()


def test_every_setting_is_declared_in_full() -> None:
    for setting in SETTINGS.values():
        assert setting.description.endswith("."), setting.name
        assert setting.variable == f"TAPEHOUSE_{setting.name.upper()}"
        assert setting.type in (bool, int, float, str)
        assert getattr(Settings(), setting.name) == setting.default


def test_the_reference_is_up_to_date() -> None:
    assert REFERENCE.read_text("utf-8") == settings.reference(), "run python -m tapehouse.settings > docs/reference/..."
