"""docs/load-tests.md: what it shows can be typed, and its tables are those of the program."""

import re

import pytest

from loadtests.job.command import COMMANDS as NAMES
from loadtests.job.command import parser
from loadtests.job.job_options import scenario_from
from loadtests.job.run_result import RunExit
from loadtests.job.scenario_file import load_scenario, read_scenario, shipped
from loadtests.job.scenario_plan import PROTOCOLS
from tests.loadtests.load_page import COMMANDS, JOBS, LOCUST, PAGE, ROOT


def test_every_line_of_a_block_is_a_command() -> None:
    assert len(JOBS) + len(LOCUST) == len(COMMANDS)
    assert {words[0] for words in JOBS} == set(NAMES)
    assert [("--worker" in words, "--master" in words) for words in LOCUST] == [(True, False), (False, True)]


@pytest.mark.parametrize("words", [*JOBS, ["run", *LOCUST[1][-1].split()]], ids=" ".join)
def test_a_command_of_the_page_can_be_typed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = parser().parse_args(words)
    if options.command in ("run", "compare"):
        assert scenario_from(load_scenario(options.scenario), options).traffic
    elif options.command == "check":
        assert load_scenario(options.scenario)


def test_the_page_has_every_exit_code_with_its_meaning() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, re.M))
    assert rows == {str(code.value): code.meaning for code in RunExit}


def test_the_scenario_of_the_page_is_the_example() -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    path = ROOT / "docs" / "examples" / "load" / "checkout.yaml"
    assert path.read_text() == text
    assert read_scenario(text, path).name == "checkout"


def test_the_page_names_every_scenario_and_protocol() -> None:
    assert all(f"`{name}`" in PAGE for name in (*shipped(), *PROTOCOLS))
