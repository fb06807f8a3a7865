"""Scenario files: what is shipped can be read, and what is wrong is named by its field."""

from pathlib import Path

import pytest

from gateway.errors import InvalidArgument
from loadtests.job.scenario_file import load_scenario, read_scenario, shipped
from loadtests.job.scenario_plan import CanaryPlan, FlipPlan, KeyPlan

HEAD = "apiVersion: loadtests/v1\nname: mine\nduration: 10s\n"
CALLS = HEAD + "traffic:\n  - name: calls\n    arrivals: {poisson: {rate: 50}}\n"


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_scenario_can_be_read_and_says_what_it_is(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.description
    assert scenario.budgets
    assert scenario.for_models(["m"]).traffic[0].model == "m"


def test_the_shipped_scenarios_are_the_jobs() -> None:
    assert set(shipped()) >= {"steady", "spike", "ramp", "flips", "canary-bad-version", "mixed", "large"}
    assert isinstance(load_scenario("flips").change, FlipPlan)
    canary = load_scenario("canary-bad-version").change
    assert isinstance(canary, CanaryPlan)
    assert canary.judged_within_s
    assert {one.protocol for one in load_scenario("mixed").traffic} == {"grpc", "grpc-stream", "rest-binary"}
    assert load_scenario("large").traffic[0].payload.size_bytes == 1 << 20


def test_every_field_is_read() -> None:
    text = (
        CALLS
        + """
    model: m
    version: 3
    protocol: rest-json
    connections: 7
    deadline: 250ms
    key: {metadata: x-user-id, count: 10}
    headers: {x-a: b}
    payload: {generate: {rows: 2, distinct: 3, seed: 4, bytes: 2KiB, inputs: {x: {shape: [1, 2], low: -1, high: 1}}}}
    budgets: {p50: 5ms}
warmUp: 2
budgets: {failures: 0%}
changes: {model: n, flip: {every: 1s, versions: [1, 2]}}
"""
    )
    scenario = read_scenario(text, Path("here/mine.yaml"))
    [calls] = scenario.traffic
    assert (calls.model, calls.version, calls.protocol, calls.connections) == ("m", "3", "rest-json", 7)
    assert (calls.deadline_s, calls.key, calls.headers) == (0.25, KeyPlan("x-user-id", 10), {"x-a": "b"})
    assert (calls.payload.rows, calls.payload.distinct, calls.payload.seed) == (2, 3, 4)
    assert calls.payload.size_bytes == 2048
    assert calls.payload.inputs["x"].shape == (1, 2)
    assert [one.title for one in scenario.budgets] == ["failures 0%", "calls: p50 5ms"]
    assert (scenario.change, scenario.changed_model) == (FlipPlan(1.0, ("1", "2")), "n")
    assert (scenario.warm_up_s, scenario.seconds) == (2, 10)


def test_a_file_of_inputs_lies_beside_its_scenario(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CALLS + "    payload: {file: {path: inputs.npz}}\n")
    assert load_scenario(str(tmp_path / "mine.yaml")).traffic[0].payload.path == str(tmp_path / "inputs.npz")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "0 documents"),
        (CALLS + "speed: 3\n", "scenario.speed: unknown field"),
        (CALLS.replace("apiVersion: loadtests/v1\n", ""), "scenario.apiVersion: required, but missing"),
        (CALLS.replace("loadtests/v1", "v2"), "scenario.apiVersion: 'v2' is not one of loadtests/v1"),
        (CALLS.replace("10s", "fast"), "scenario.duration: 'fast' is not a time"),
        (CALLS.replace("10s", "10ms"), "scenario.duration: at least 1 s"),
        (CALLS.replace("rate: 50", "rte: 50"), 'arrivals.poisson.rte: unknown field; did you mean "rate"?'),
        (CALLS.replace("rate: 50", "rate: 0"), "arrivals.poisson.rate: 0 is not a number from 0.001"),
        (CALLS.replace("poisson", "gamma"), "traffic[0].arrivals.gamma: unknown field"),
        (HEAD + "traffic: []\n", "scenario.traffic: it is empty"),
        (CALLS + "  - name: calls\n    arrivals: {constant: {rate: 1}}\n", "'calls' is the name of two"),
        (CALLS + "    protocol: soap\n", "traffic[0].protocol: 'soap' is not one of grpc, grpc-stream"),
        (
            CALLS + "    payload: {file: {path: a}, log: {path: b}}\n",
            "payload: name exactly one of generate, file, log",
        ),
        (CALLS + "    payload: {generate: {bytes: 1MB}}\n", "payload.generate.bytes: '1MB' is not a size such as"),
        (CALLS + "changes: {canary: {weight: 20%, start: 60%, end: 40%}}\n", "start is not before end"),
        (CALLS + "changes: {flip: {every: 1s, versions: [1, 1]}}\n", "name two different versions"),
        (CALLS + "changes: {model: m}\n", "changes: name exactly one of flip, canary"),
        (CALLS + "budgets: {p99: 1}\n", "budgets.p99: '1' is not a time such as 50ms"),
        (CALLS + "duration: 5s\n", "duration"),  # twice
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        load_scenario(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_traffic_without_a_model_is_that_of_the_command_line() -> None:
    mixed = load_scenario("mixed")
    both = mixed.for_models(["a", "b"])
    assert len(both.traffic) == 6
    assert {one.name for one in both.traffic} >= {"unary a", "rest b"}
    assert both.highest == pytest.approx(mixed.highest)
    assert both.at_rate(100).highest == pytest.approx(100)
    with pytest.raises(InvalidArgument, match="give --model NAME"):
        mixed.for_models([])


def test_an_unknown_scenario_names_those_that_are_there() -> None:
    with pytest.raises(InvalidArgument, match="shipped are canary-bad-version, flips"):
        load_scenario("nosuch")
