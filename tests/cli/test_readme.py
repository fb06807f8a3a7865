"""What README says, where a program can check it."""

import re
from pathlib import Path

import pytest

from gateway.routing.document.notation import parse_yaml
from gateway.runtime.option import Option
from gateway.runtime.options import OPTIONS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option_is_in_the_table_with_its_default(option: Option) -> None:
    rows = re.findall(rf"^\| `--{option.name}` \| (.*?) \| (.*?) \|$", README, re.MULTILINE)
    assert rows == [(option.default_text or "(empty)", option.help.replace("<", "\\<"))]


def test_the_table_has_no_other_options() -> None:
    named = set(re.findall(r"^\| `--([a-z-]+)`", README, re.MULTILINE))
    assert named == {option.name for option in OPTIONS}


def test_the_route_is_a_route() -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    [document] = parse_yaml(text)
    assert document.versions() == {"1", "2"}


def test_the_service_config_is_the_tested_one() -> None:
    assert (ROOT / "docs" / "examples" / "service-config.json").read_text().strip() in README
