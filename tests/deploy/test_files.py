"""The other deployment files: Compose, systemd, Knative, KServe; what they say about the gateway fits the gateway."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import gateway
from gateway.errors import InvalidArgument
from gateway.runtime.config_parser import parse, read_file
from gateway.runtime.options import BY_NAME
from tests.deploy.dockerfile import read
from tests.deploy.published_schemas import DEPLOY, ROOT, Document, documents, faults, vendored

COMPOSE = DEPLOY / "compose"
UNIT = DEPLOY / "systemd" / "model-serving-gateway.service"


def _seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|min|)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "s": 1, "min": 60}[unit]


@pytest.fixture(scope="module")
def compose() -> Document:
    document: Document = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return document


def test_compose_takes_the_file(compose: Document) -> None:
    schema = vendored("compose-spec")
    assert not list(schema.iter_errors(compose))
    wrong = {**compose, "services": {**compose["services"], "gateway": {"imagge": "x"}}}
    assert list(schema.iter_errors(wrong))


def test_compose_names_files_that_there_are(compose: Document) -> None:
    service = compose["services"]["gateway"]
    assert (COMPOSE / service["build"]["context"] / "Dockerfile").is_file()
    for name in ("prometheus", "grafana"):
        for mount in compose["services"][name]["volumes"]:
            source = mount.split(":")[0]
            assert source in compose["volumes"] or (COMPOSE / source).exists(), mount
    assert service["image"] == f"model-serving-gateway:{gateway.__version__}"


def test_compose_gives_the_gateway_time_to_stop_and_options_that_there_are(compose: Document) -> None:
    service = compose["services"]["gateway"]
    config = parse({}, {**image_environment(), **service["environment"]}, {})
    assert _seconds(service["stop_grace_period"]) >= config.process.grace_seconds + 5
    assert not [warning for warning in config.warnings if "is not an option" in warning]
    assert all(port.startswith("127.0.0.1:") for one in compose["services"].values() for port in one.get("ports", ()))


def test_prometheus_asks_where_the_gateway_answers(compose: Document) -> None:
    config = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text())
    [job] = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"gateway:{BY_NAME['metrics-port'].default}"]}]
    mounts = {mount.split(":")[1] for mount in compose["services"]["prometheus"]["volumes"]}
    assert set(config["rule_files"]) <= mounts


def image_environment() -> dict[str, str]:
    """The variables of the image."""
    environment = read((ROOT / "Dockerfile").read_text())[-1].environment
    return {name: value for name, value in environment.items() if name.startswith("GATEWAY_")}


def test_the_image_has_time_to_stop_and_nobody_is_let_in_unasked() -> None:
    config = parse({"insecure": True}, image_environment(), {})
    assert config.process.grace_seconds + 5 <= 10  # docker stop kills after ten seconds
    with pytest.raises(InvalidArgument, match="insecure"):
        parse({}, image_environment(), {})


def _unit() -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values.setdefault(name, []).append(value)
    return values


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    # The command must be there: a file of that name stands in its place.
    program = tmp_path / "gateway"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/model-serving-gateway/bin/gateway", str(program)))
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"]
    verified = subprocess.run([*verify, unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("TimeoutStopSec", "TimeoutStopSecs"))
    assert "TimeoutStopSecs" in subprocess.run([*verify, unit], capture_output=True, text=True, check=False).stderr
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", UNIT], capture_output=True, check=False
    )
    assert judged.returncode == 0, judged.stdout.decode()[-200:]


def test_systemd_is_given_a_configuration_of_options_that_there_are() -> None:
    path = UNIT.with_name("gateway.yaml")
    assert not parse({}, {}, read_file(path)).warnings
    told = re.sub(r"^# (?=[a-z-]+: )", "", path.read_text(), flags=re.MULTILINE)
    assert set(yaml.safe_load(told)) <= set(BY_NAME)
    [start] = [line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart=")]
    assert f"--config /etc/model-serving-gateway/{path.name}" in start


def test_systemd_gives_the_gateway_time_to_stop() -> None:
    unit = _unit()
    assert _seconds(unit["TimeoutStopSec"][0]) >= float(str(BY_NAME["grace-seconds"].default)) + 5
    # While a store is away at the first start it is not ready, and that is no failure.
    assert unit["TimeoutStartSec"] == ["infinity"]
    variables = [word for value in unit["Environment"] for word in value.split() if word.startswith("GATEWAY_")]
    assert not parse({}, dict(word.split("=", 1) for word in variables), {}).warnings


def _arguments(words: list[str]) -> dict[str, object]:
    """The options in the arguments of `serve`."""
    assert words[0] == "serve"
    given: dict[str, object] = {}
    for word in words[1:]:
        name, _, value = word.removeprefix("--").partition("=")
        given[name] = value or True
    return given


def test_kserve_finds_the_gateway_where_it_asks() -> None:
    [runtime] = documents((DEPLOY / "kserve" / "clusterservingruntime.yaml").read_text())
    [container] = runtime["spec"]["containers"]
    config = parse(_arguments(container["args"]), image_environment(), {})
    assert (config.listen.http_port, config.listen.grpc_port, config.models.repository) == (8080, 9000, "/mnt/models")
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == str(config.listen.metrics_port)
    assert container["image"] == f"model-serving-gateway:{gateway.__version__}"
    assert config.process.grace_seconds + 5 <= 30  # Kubernetes' own grace period


def test_knative_finds_one_port() -> None:
    [service] = documents((DEPLOY / "knative" / "service.yaml").read_text())
    spec = service["spec"]["template"]["spec"]
    [container] = spec["containers"]
    pod = {"containers": [{"name": "user", **container}], "volumes": spec["volumes"]}
    assert not faults(pod, "io.k8s.api.core.v1.PodSpec")
    assert [port["name"] for port in container["ports"]] == ["h2c"]
    given = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    config = parse({}, {**image_environment(), **given}, {})
    assert config.listen.single_port
    assert not config.listen.rest_apart
    assert config.process.grace_seconds + 5 <= 30
