""".github/workflows/load.yml: its steps are commands that there are, and nothing but GitHub's own actions."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtests.job.command import parser
from loadtests.job.job_options import scenario_from
from loadtests.job.scenario_file import load_scenario
from tests.deploy.published_schemas import vendored
from tests.loadtests.load_page import ROOT

TEXT = (ROOT / ".github" / "workflows" / "load.yml").read_text()
JOBS: dict[str, Any] = yaml.safe_load(TEXT)["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]
RUNS = [step["run"] for step in STEPS if "run" in step]


def test_it_checks_tests_and_loads() -> None:
    assert list(JOBS) == ["check", "test", "load"]
    targets = set(re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[0].split())
    asked = {word for run in RUNS for word in re.findall(r"^make (\w+)", run, re.M)}
    assert {"check", "test", "run"} == asked <= targets


def test_its_load_tests_can_be_typed_and_have_budgets() -> None:
    typed = [shlex.split(run)[3:] for run in RUNS if "-m loadtests" in run]
    assert {words[1] for words in typed} == {"steady", "flips", "mixed"}
    for words in typed:
        options = parser().parse_args(words)
        budgets = {one.name: one.text for one in scenario_from(load_scenario(options.scenario), options).budgets}
        assert budgets["failures"] == "0%"
        assert "throughput" in budgets
        assert options.report is not None


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").iterdir()), ids=lambda path: path.stem)
def test_github_takes_every_workflow(path: Path) -> None:
    schema = vendored("github-workflows")
    workflow = yaml.safe_load(path.read_text())
    workflow["on"] = workflow.pop(True)  # what YAML 1.1 takes `on` for
    assert [error.message for error in schema.iter_errors(workflow)] == []
    job = next(iter(workflow["jobs"].values()))
    job["stepps"] = job.pop("steps")
    assert list(schema.iter_errors(workflow))


def test_it_uses_nothing_but_githubs_own_actions() -> None:
    assert all(step["uses"].startswith("actions/") for step in STEPS if "uses" in step)
    assert set(re.findall(r"https?://([^/\s]+)", TEXT)) == {"127.0.0.1:8002"}
