"""The report of an earlier run of the same job, to hold another one against."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.errors import InvalidArgument
from loadtests.job.figures import Figures
from loadtests.job.run_result import FORMAT
from loadtests.job.scenario_plan import Scenario


def read_baseline(path: Path, scenario: Scenario) -> dict[str, Figures]:
    """Returns the figures of the baseline by traffic. Raises: InvalidArgument where it is none, or of another job."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(f"--baseline: {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InvalidArgument(f"--baseline: {path} is no JSON: {error}") from None
    if not isinstance(said, Mapping) or said.get("format") != FORMAT:
        raise InvalidArgument(f"--baseline: {path} is no report.json of a load test")
    if others := differences(said["job"], scenario.job()):
        raise InvalidArgument(f"--baseline: {path} is of another job: {'; '.join(others)}")
    try:
        return {("" if name == "all" else name): Figures.from_json(one) for name, one in said["figures"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"--baseline: {path} has no figures: {error!r}") from None


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Returns where two jobs differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            line
            for name in (*before, *(name for name in now if name not in before))
            for line in differences(before.get(name), now.get(name), f"{path}.{name}" if path else str(name))
        ]
    plain = json.loads(json.dumps(now))
    return [] if before == plain else [f"{path} was {json.dumps(before)}, is {json.dumps(plain)}"]
