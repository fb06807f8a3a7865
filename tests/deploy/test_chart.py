"""The Helm chart and the manifests that are rendered from it, by the real Helm, against schemas that others publish."""

import json
import subprocess
import sys

import promql_parser
import pytest
import yaml

import gateway
from gateway.records.lake.retention import RetentionLimits
from gateway.runtime.options import BY_NAME, OPTIONS
from gateway.telemetry.names import METRICS
from tests.deploy.published_schemas import (
    DEPLOY,
    RESOURCES,
    ROOT,
    Document,
    documents,
    faults,
    helm,
    is_kubernetes,
    named,
    queries,
)

CHART = DEPLOY / "helm" / "model-serving-gateway"
PLAIN = DEPLOY / "kubernetes"
# What is rendered: each branch of each template once at least.
VALUES: dict[str, Document] = {
    "insecure": {"insecure": True},
    "plain": yaml.safe_load((PLAIN / "values.yaml").read_text()),
    "everything": {
        "tls": {"secret": "t", "clientCa": True},
        "access": {"secret": "a", "roles": True, "scrapeTokenSecret": "s"},
        "store": {"urlSecret": "r"},
        "models": {"claim": "m", "subPath": "p", "envSecret": "e"},
        "files": {"configMap": "f", "secret": "g", "config": "gateway.yaml"},
        "volumes": [{"name": "more", "emptyDir": {}}],
        "volumeMounts": [{"name": "more", "mountPath": "/more"}],
        "env": [{"name": "GATEWAY_WEBHOOK_URL", "value": "https://hooks.example"}],
        "options": {
            "log-level": "debug",
            "workers": 3,
            "reflection": True,
            "log-rate": 0.5,
            "trace-ratio": 0.00001,
            "load-on-demand": True,
            "model-memory-bytes": 8589934592,
            "max-connections": 1000000,
            "quotas": "/etc/gateway/files/quotas.yaml",
        },
        "imagePullSecrets": [{"name": "i"}],
        "serviceAnnotations": {"a": "b"},
        "nodeSelector": {"a": "b"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "p",
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "networkPolicy": {
            "clients": [{"podSelector": {"matchLabels": {"a": "b"}}}],
            "scrapers": [{"podSelector": {}}],
            "store": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "egress": [{"ports": [{"port": 9092, "protocol": "TCP"}]}],
        },
        "monitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "autoscaling": {"kind": "keda"},
    },
    "volumes": {
        "insecure": True,
        "persistence": {"enabled": True, "storageClass": "fast"},
        "autoscaling": {"kind": "keda"},
    },
}
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="helm is a program for Linux")


def render(values: Document, *, release: str = "gateway") -> "subprocess.CompletedProcess[str]":
    command = [str(helm()), "template", release, str(CHART), "--namespace", "serving", "-f", "-"]
    return subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Document]]:
    answers = {name: render(values) for name, values in VALUES.items()}
    assert not [answer.stderr for answer in answers.values() if answer.returncode]
    return {name: documents(answer.stdout) for name, answer in answers.items()}


def test_helm_has_nothing_against_the_chart() -> None:
    command = [str(helm()), "lint", "--strict", str(CHART), "--set", "insecure=true"]
    linted = subprocess.run(command, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_the_chart_is_of_this_release() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == gateway.__version__


@pytest.mark.parametrize("name", VALUES)
def test_kubernetes_takes_what_is_rendered(rendered: dict[str, list[Document]], name: str) -> None:
    own = [document for document in rendered[name] if is_kubernetes(document)]
    assert {f"{document['kind']}: {fault}" for document in own for fault in faults(document)} == set()
    assert len({(document["kind"], document["metadata"]["name"]) for document in rendered[name]}) == len(rendered[name])


def test_the_schema_notices_a_field_that_does_not_exist(rendered: dict[str, list[Document]]) -> None:
    workload = json.loads(json.dumps(named(rendered["insecure"], "Deployment")))
    workload["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["httpget"] = {}
    [fault] = faults(workload)
    assert "httpget" in fault


@pytest.mark.long
def test_operators_take_their_resources_and_kserve_its_runtime(rendered: dict[str, list[Document]]) -> None:
    if not RESOURCES.exists():
        pytest.skip(f"no models of custom resources in {RESOURCES}: make test installs them")
    custom = [document for found in rendered.values() for document in found if not is_kubernetes(document)]
    assert {document["kind"] for document in custom} == {"ServiceMonitor", "ScaledObject"}
    custom += documents((DEPLOY / "kserve" / "clusterservingruntime.yaml").read_text())
    wrong = json.loads(json.dumps(custom[-1]))
    wrong["spec"]["containers"][0]["prots"] = []
    command = [sys.executable, "-m", "tests.deploy.resource_program"]
    checked = subprocess.run(
        command, input=json.dumps([*custom, wrong]), capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert json.loads(checked.stdout) == [
        "ClusterServingRuntime.spec.containers[0].prots: V1Container has no such field"
    ]


def test_the_plain_manifests_are_what_the_chart_renders(rendered: dict[str, list[Document]]) -> None:
    """After a change of the chart: make manifests."""
    assert documents((PLAIN / "gateway.yaml").read_text()) == rendered["plain"]


def test_the_secrets_that_the_manifests_name_are_in_the_example(rendered: dict[str, list[Document]]) -> None:
    example = {
        document["metadata"]["name"]: document for document in documents((PLAIN / "secrets.example.yaml").read_text())
    }
    assert not [fault for document in example.values() for fault in faults(document)]
    values = VALUES["plain"]
    assert set(example) == {
        values["tls"]["secret"],
        values["access"]["secret"],
        values["access"]["scrapeTokenSecret"],
        values["store"]["urlSecret"],
    }
    assert "tokens" in example["gateway-access"]["stringData"]
    assert "url" in example["gateway-store"]["stringData"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "nothing protects the gateway"),
        ({"tls": {"secret": "t"}}, "nobody has to say who he is"),
        ({"access": {"secret": "a"}}, "nothing protects the gateway"),
        ({"insecure": True, "tls": {"clientCa": True}}, "tls.clientCa needs tls.secret"),
        ({"insecure": True, "options": {"insecure": True}}, "'insecure'"),
        ({"insecure": True, "options": {"grace-seconds": 100}}, "'grace-seconds'"),
        ({"insecure": True, "replica": 3}, "replica"),
        ({"insecure": True, "files": {"config": "gateway.yaml"}}, "files.config needs files.configMap"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: Document, text: str) -> None:
    refused = render(values)
    assert refused.returncode != 0
    assert text in refused.stderr


def _pod(found: list[Document]) -> Document:
    [workload] = [document for document in found if document["kind"] in ("Deployment", "StatefulSet")]
    pod: Document = workload["spec"]["template"]["spec"]
    return pod


def _environment(pod: Document) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}


@pytest.mark.parametrize("name", VALUES)
def test_every_variable_is_an_option(rendered: dict[str, list[Document]], name: str) -> None:
    names = [one["name"] for one in _pod(rendered[name])["containers"][0]["env"]]
    assert set(names) <= {option.environment_name for option in OPTIONS}
    assert len(set(names)) == len(names)
    for option, value in VALUES[name].get("options", {}).items():
        given = _environment(_pod(rendered[name]))[BY_NAME[option].environment_name]
        assert str(BY_NAME[option].setting.value.read(given)) == str(value)


def test_the_options_that_the_chart_sets_cannot_be_given_twice(rendered: dict[str, list[Document]]) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    names = schema["properties"]["options"]["propertyNames"]["not"]["enum"]
    refused = {BY_NAME[name].environment_name for name in names}
    fixed = {one["name"] for found in rendered.values() for one in _pod(found)["containers"][0]["env"]}
    shown = yaml.safe_load((CHART / "values.yaml").read_text())["options"]
    given = [shown, *(values.get("options", {}) for values in VALUES.values())]
    free = {BY_NAME[name].environment_name for options in given for name in options}
    free |= {one["name"] for values in VALUES.values() for one in values.get("env", ())}
    assert fixed - free - {"GATEWAY_MODEL_REPOSITORY"} <= refused


@pytest.mark.parametrize("name", VALUES)
def test_what_a_pod_keeps_fits_its_volume(rendered: dict[str, list[Document]], name: str) -> None:
    """Copies and prepared models that are not in use, the lake, and the bounds of segments and failed ones."""
    pod, given = _pod(rendered[name]), _environment(_pod(rendered[name]))
    options = ("content-store-bytes", "prepared-models-bytes", "log-retention-bytes")
    kept = [BY_NAME[option].setting.value.read(given[BY_NAME[option].environment_name]) for option in options]
    limits = RetentionLimits()
    sizes = [volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume["name"] == "data"]
    for found in rendered[name]:
        if found["kind"] == "StatefulSet":
            sizes += [c["spec"]["resources"]["requests"]["storage"] for c in found["spec"]["volumeClaimTemplates"]]
    [size] = sizes
    assert sum(kept) + limits.wal_max_bytes + limits.failed_max_bytes < int(size.removesuffix("Gi")) << 30


def test_files_that_options_name_are_mounted(rendered: dict[str, list[Document]]) -> None:
    """Under a root that nobody writes to: what is written goes to /data and /tmp."""
    pod = _pod(rendered["everything"])
    [container] = pod["containers"]
    assert container["args"] == ["serve", "--config=/etc/gateway/files/gateway.yaml"]
    places = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[places["/etc/gateway/files"]["name"]]["configMap"] == {"name": "f"}
    assert volumes[places["/etc/gateway/secrets"]["name"]]["secret"]["secretName"] == "g"
    assert {path for path, mount in places.items() if not mount.get("readOnly")} == {"/data", "/tmp", "/more"}
    assert _pod(rendered["insecure"])["containers"][0]["args"] == ["serve"]


@pytest.mark.parametrize("name", VALUES)
def test_a_pod_has_time_to_stop(rendered: dict[str, list[Document]], name: str) -> None:
    """The hook, the grace time, and the five seconds that are promised after it (docs/promises.md, P8)."""
    pod = _pod(rendered[name])
    command, seconds = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    grace_s = BY_NAME["grace-seconds"].setting.value.read(_environment(pod)["GATEWAY_GRACE_SECONDS"])
    assert command == "sleep"
    assert pod["terminationGracePeriodSeconds"] >= int(seconds) + grace_s + 5


@pytest.mark.parametrize("name", VALUES)
def test_liveness_is_not_readiness_and_asks_no_store(rendered: dict[str, list[Document]], name: str) -> None:
    container = _pod(rendered[name])["containers"][0]
    asked = {
        probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert asked == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    # Before a worker that hangs is replaced by the supervisor (2 s) nobody kills the pod.
    liveness = container["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 30


@pytest.mark.parametrize("name", VALUES)
def test_a_pod_may_do_nothing_that_it_need_not(rendered: dict[str, list[Document]], name: str) -> None:
    pod = _pod(rendered[name])
    [container] = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert ("GATEWAY_INSECURE" in _environment(pod)) == VALUES[name].get("insecure", False)


def test_what_the_services_select_are_the_pods_and_their_ports(rendered: dict[str, list[Document]]) -> None:
    for found in rendered.values():
        [workload] = [document for document in found if document["kind"] in ("Deployment", "StatefulSet")]
        labels = workload["spec"]["template"]["metadata"]["labels"].items()
        ports = {port["name"] for port in _pod(found)["containers"][0]["ports"]}
        assert named(found, "Service", "-headless")["spec"]["clusterIP"] == "None"
        for document in found:
            if document["kind"] == "Service":
                assert document["spec"]["selector"].items() <= labels
                assert {port["targetPort"] for port in document["spec"]["ports"]} <= ports
        for kind in ("PodDisruptionBudget", "NetworkPolicy"):
            spec = named(found, kind)["spec"]
            assert spec.get("selector", spec.get("podSelector"))["matchLabels"].items() <= labels
        rules = named(found, "NetworkPolicy")["spec"]["ingress"]
        assert {port["port"] for rule in rules for port in rule["ports"]} == ports


def test_what_scales_the_pods_asks_for_metrics_that_there_are(rendered: dict[str, list[Document]]) -> None:
    adapter: list[Document] = yaml.safe_load((PLAIN / "prometheus-adapter.yaml").read_text())
    asked = []
    for rule in adapter:
        series = rule["seriesQuery"].split("{")[0]
        text = rule["metricsQuery"].replace("<<.Series>>", series)
        asked.append(text.replace("<<.LabelMatchers>>", 'pod="p"').replace("<<.GroupBy>>", "pod"))
    asked += queries(named(rendered["everything"], "ScaledObject"))
    assert len(asked) == 4
    for text in asked:
        promql_parser.parse(text)
        assert "gateway_requests_in_flight" in text or "gateway_queue_seconds_bucket" in text
    assert {"gateway_requests_in_flight", "gateway_queue_seconds"} <= set(METRICS)
    scaler = named(rendered["plain"], "HorizontalPodAutoscaler")
    wanted = {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    assert wanted == {rule["name"]["as"] for rule in adapter}
