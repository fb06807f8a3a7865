"""Every shipped alert in Prometheus itself: it fires for what it is meant for, and keeps quiet otherwise."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tests.telemetry.alert_cases import CASES, UP, Series
from tests.telemetry.firing import RULES
from tests.telemetry.promtool import needs_promtool, promtool

RULE_FILE = yaml.safe_load(RULES.read_text())
SEVERITIES = {rule["alert"]: rule["labels"]["severity"] for group in RULE_FILE["groups"] for rule in group["rules"]}
Tree = dict[str, object]


def sample(alert: str, labels: Mapping[str, str]) -> Tree:
    """What ALERTS holds of an alert that fires."""
    shown = {"alertname": alert, "alertstate": "firing", "severity": SEVERITIES[alert], **labels}
    return {"labels": "ALERTS{" + ",".join(f'{key}="{value}"' for key, value in shown.items()) + "}", "value": 1}


def query(at: int, expected: list[Tree], **labels: str) -> Tree:
    """What ALERTS must hold at that minute of alerts that fire with these labels."""
    named = ",".join(f'{key}="{value}"' for key, value in {"alertstate": "firing", **labels}.items())
    return {"expr": f"ALERTS{{{named}}}", "eval_time": f"{at}m", "exp_samples": expected}


def inputs(series: Series, instance: str) -> list[Tree]:
    """The series of one gateway."""
    made: list[Tree] = []
    for name, values in series.items():
        metric, brace, labels = name.partition("{")
        made.append({"series": f"{metric}{{instance='{instance}'" + (f",{labels}" if brace else "}"), "values": values})
    return made


def run(folder: Path, *tests: tuple[list[Tree], list[Tree]], every: str = "1m") -> None:
    """Lets promtool evaluate the rules over the series, that often, and answer the queries."""
    path = folder / "unit_tests.yaml"
    document = [{"interval": "1m", "input_series": series, "promql_expr_test": queries} for series, queries in tests]
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": every, "tests": document}))
    promtool("test", "rules", str(path))


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} | {"GatewayAbsent"} == set(SEVERITIES)


@needs_promtool
@pytest.mark.slow
def test_every_alert_fires_and_keeps_quiet(tmp_path: Path) -> None:
    """Cases at once, each on an instance of its own: what is true of one gateway says nothing of another."""
    tests: dict[bool, tuple[list[Tree], list[Tree]]] = {}
    for number, case in enumerate(CASES):
        fires, quiet = f"fires-{number}", f"quiet-{number}"
        series, queries = tests.setdefault(case.at > 100, ([], []))
        series += inputs(case.fires, fires) + inputs(case.quiet, quiet)
        expected = sample(case.alert, {**case.labels, "instance": fires})
        queries.append(query(case.at, [expected], alertname=case.alert, instance=fires))
        queries.append(query(case.at, [], alertname=case.alert, instance=quiet))
    run(tmp_path, tests[False])
    run(tmp_path, tests[True], every="15m")  # hours by the minute would take seconds


@needs_promtool
@pytest.mark.slow
def test_no_data_is_told(tmp_path: Path) -> None:
    """Where nothing is known something is said, once; a gateway that tells nothing but its version does not serve."""
    run(
        tmp_path,
        ([], [query(60, [sample("GatewayAbsent", {})])]),
        (inputs(UP, "g"), [query(60, [sample("NoWorkerReady", {"instance": "g"})])]),
    )


@needs_promtool
def test_the_rule_file_is_one_that_prometheus_takes() -> None:
    promtool("check", "rules", str(RULES))
