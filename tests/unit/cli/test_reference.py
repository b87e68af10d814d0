"""docs/reference/cli.md is what the commands say of themselves."""

from __future__ import annotations

import re
from pathlib import Path

from tapehouse.cli.reference import reference
from tapehouse.settings import SETTINGS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), "python -m tapehouse.cli.reference > docs/reference/cli.md"


def test_every_command_is_there_with_a_sentence() -> None:
    commands = re.findall(r"^## tapehouse (.+)$\n\n(.+)$", reference(), re.MULTILINE)
    names = {name for name, _ in commands}
    assert {"serve", "load", "bars", "symbols", "coverage", "compact", "stats", "commits", "delete", "doctor"} <= names
    assert {"keys add", "keys list", "keys remove", "instruments show", "instruments set", "version"} <= names
    assert all(sentence.endswith(".") for _, sentence in commands)


def test_every_setting_is_a_flag_of_serve() -> None:
    section = reference().partition("## tapehouse serve")[2].partition("\n## ")[0]
    assert [setting.name for setting in SETTINGS.values() if setting.flag not in section] == []


def test_every_command_takes_json_but_serve() -> None:
    sections = reference().split("\n## ")[1:]
    without = [section.partition("\n")[0] for section in sections if "`--json`" not in section]
    assert without == ["tapehouse serve"]
