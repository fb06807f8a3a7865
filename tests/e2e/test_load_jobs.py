"""Load jobs against the running product: routes as they were, nothing written where they run, shipped scenarios."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from xml.etree import ElementTree

import grpc
import pytest

from gateway.pb import control_pb2 as pb
from gateway.pb.control_pb2_grpc import ControlStub
from gateway.tensor import Datatype
from loadtests.job.scenario_file import load_scenario, shipped
from tests import models
from tests.e2e.conftest import connect
from tests.e2e.product import Product, environment, until
from tests.loadtests.load_page import JOBS
from tests.routing.servers import free_port

pytestmark = pytest.mark.usefixtures("no_routes")
ROOT = Path(__file__).parents[2]
ROUTE = """
apiVersion: gateway/v1
kind: Route
metadata: {model: digits, owner: team-a}
spec:
  arms: {a: {version: "1"}, b: {version: "2"}}
  key: {from: ["metadata:x-user-id"]}
  strategy: {ab: {control: a, weights: {a: 70%, b: 30%}}}
"""


def addresses(product: Product) -> list[str]:
    return ["--server", product.server, "--rest", f"127.0.0.1:{product.port('http')}"]


def started(product: Product, cwd: Path, *words: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """A command of the load tests that is sent to this gateway."""
    return started_as([*words, *addresses(product)], cwd)


@contextmanager
def started_as(words: Sequence[str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A command of the load tests, run in `cwd`; killed if it is still there at the end."""
    command = [sys.executable, "-m", "loadtests", *words]
    output = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=cwd, env=environment() | {"PYTHONPATH": str(ROOT)}, stdout=output, stderr=output, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def load(product: Product, cwd: Path, *words: str) -> tuple[int, str]:
    """Exit code and what was printed."""
    with started(product, cwd, *words) as process:
        out, errors = process.communicate(timeout=150)
        return process.returncode, out + errors


def route(product: Product) -> pb.Route | None:
    with connect(product) as channel:
        try:
            answer: pb.Route = ControlStub(channel).GetRoute(pb.GetRouteRequest(model="digits"), timeout=10)  # type: ignore[no-untyped-call]
        except grpc.RpcError:
            return None
        return answer


def is_former(product: Product, former: pb.Route) -> bool:
    """Whether document and table are those of before; revisions go on."""
    now = route(product)
    return now is not None and (now.document_json, list(now.table)) == (former.document_json, list(former.table))


@pytest.fixture
def former(product: Product) -> pb.Route:
    """The route of digits, which a load test has to leave as it is."""
    assert product.cli("routes", "apply", "-f", "-", text=ROUTE).exit_code == 0
    made = route(product)
    assert made is not None
    return made


def test_a_load_test_that_flips_leaves_routes_and_folder_as_they_were(
    product: Product, former: pb.Route, tmp_path: Path
) -> None:
    (tmp_path / "cwd").mkdir()
    report = tmp_path / "reports" / "flips"
    code, text = load(
        product, tmp_path / "cwd", "run", "flips", "--model", "digits", "--seconds", "2", "--warm-up", "0",
        "--budget", "throughput=50%", "--report", str(report),
    )  # fmt: skip
    assert code == 0, text
    said = json.loads((report / "report.json").read_text())
    assert said["changes"]["changes"] >= 3
    assert set(said["figures"]["all"]["versions"]) == {"1", "2"}
    assert said["figures"]["all"]["offered"] == said["figures"]["all"]["right"] > 50
    assert said["restored"] == f"the route of revision {former.revision}"
    assert is_former(product, former)
    assert list((tmp_path / "cwd").iterdir()) == []
    assert {path.name for path in report.iterdir()} == {"report.html", "report.json", "junit.xml"}
    assert ElementTree.parse(report / "junit.xml").getroot().find(".//failure") is None


@pytest.mark.parametrize(
    ("number", "code"),
    [
        # The guard waits for what may be on its way; tests/api/test_route_guard.py has one that waits for less.
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.long),
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 130, marks=pytest.mark.long),
    ],
)
def test_a_load_test_that_is_ended_leaves_the_route_as_it_was(
    product: Product, former: pb.Route, tmp_path: Path, number: int, code: int
) -> None:
    with started(product, tmp_path, "run", "flips", "--model", "digits", "--seconds", "300") as process:

        def changed() -> bool:
            now = route(product)
            return now is not None and "loadtests" in now.document_json

        until(changed, 60, "the first change of the route")
        if number != signal.SIGKILL:  # it may be killed at any moment, but has to have begun to be asked to end
            before = route(product)
            assert before is not None
            until(lambda: (now := route(product)) is not None and now.revision > before.revision, 60, "a flip")
        process.send_signal(number)
        assert process.wait(60) == code
        until(lambda: is_former(product, former), 60, "the route of before")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_change_of_somebody_else_stays(product: Product, former: pb.Route, tmp_path: Path) -> None:
    with started(product, tmp_path, "run", "flips", "--model", "digits", "--seconds", "300") as process:
        until(lambda: (now := route(product)) is not None and "loadtests" in now.document_json, 60, "the first change")
        process.send_signal(signal.SIGSTOP)  # no flip comes between
        other = ROUTE.replace("70%", "60%").replace("30%", "40%").replace("team-a", "team-b")
        assert product.cli("routes", "apply", "-f", "-", text=other).exit_code == 0
        process.kill()
        process.wait(60)
    now = route(product)
    assert now is not None
    assert "team-b" in now.document_json


@pytest.fixture(scope="module")
def varied(start_product: Callable[..., Product], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A gateway with a model of any size, and one whose second version fails."""
    repository = tmp_path_factory.mktemp("varied") / "models"
    models.write_version(repository, "wide", "1", models.identity(Datatype.FP32, (-1, -1)))
    models.write_version(repository, "wide", "2", models.identity(Datatype.FP32, (-1, -1)))
    models.write_version(repository, "risky", "1", models.fragile(100))
    models.write_version(repository, "risky", "2", models.fragile(1))
    product = Product(repository.parent, repository)
    try:
        yield product.start()
    finally:
        product.kill()


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_scenario_runs_in_short_form(varied: Product, tmp_path: Path, name: str) -> None:
    model = ["--model", "risky" if name == "canary-bad-version" else "wide"]
    model += ["--model", "risky", "--version", "1"] if name == "mixed" else []
    seconds = "30" if name == "canary-bad-version" else "3"
    code, text = load(
        varied, tmp_path, "run", name, *model, "--seconds", seconds, "--warm-up", "1", "--budget", "throughput=50%"
    )
    assert code == 0, text
    assert name != "canary-bad-version" or "the gateway took version 2 back after" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_capacity_is_found_and_servers_are_compared(varied: Product, tmp_path: Path) -> None:
    words = ["--model", "wide", "--seconds", "2", "--budget", "p99=500ms"]
    code, text = load(varied, tmp_path, "capacity", *words, "--first", "2000", "--precision", "50")
    assert code in (0, 4), text
    assert "capacity: " in text
    code, text = load(
        varied, tmp_path, "compare", "steady", "--model", "wide", "--version", "1", "--with-version", "2",
        "--seconds", "2", "--rounds", "2",
        "--budget", "p50=+1000%", "--budget", "throughput=50%", "--budget", "p99=+5000%",
    )  # fmt: skip
    assert code == 0, text
    assert "A: " in text
    assert "B: " in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_locust_with_two_workers_sends_each_call_once(product: Product, former: pb.Route, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    locust = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "distributed.py")]
    port, report = str(free_port()), tmp_path / "report"
    words = "flips --model digits --seconds 3 --warm-up 0 --budget throughput=50%"
    words += f" --server {product.server} --report {report}"
    master = ["--headless", "--only-summary", "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    worker = ["--worker", "--master-host", "127.0.0.1", "--master-port", port]
    commands = [worker, worker, [*master, "--expect-workers", "2", "-u", "2", "-r", "2", "--run", words]]
    where = environment() | {"PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [*locust, *one], cwd=tmp_path / "cwd", env=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for one in commands
    ]
    try:
        text = processes[-1].communicate(timeout=150)[0].decode()
        assert processes[-1].returncode == 0, text
        assert [process.wait(60) for process in processes[:-1]] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    said = json.loads((report / "report.json").read_text())
    assert said["senders"]["processes"] == 2
    alone = list(load_scenario("flips").traffic[0].arrivals.moments(3, 1))
    assert said["figures"]["all"]["offered"] == len(alone)  # the two together are the one
    assert set(said["figures"]["all"]["versions"]) == {"1", "2"}
    assert is_former(product, former)
    assert list((tmp_path / "cwd").iterdir()) == []


# What a command of the page ends with, where it is not 0: a good version is not taken back.
_ENDS = {"canary-bad-version": 1}
_SHORT = {"run": ["--seconds", "2", "--warm-up", "0"], "capacity": ["--seconds", "1"], "compare": ["--seconds", "1"]}


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_command_of_the_page_does_what_it_says(product: Product, tmp_path: Path) -> None:
    """In short form, with budgets that a busy machine holds; later ones read what earlier ones wrote."""
    (tmp_path / "cwd").mkdir()
    for given in JOBS:
        words = [word.replace("/tmp/", f"{tmp_path}/").replace("docs/", f"{ROOT}/docs/") for word in given]
        if words[0] in _SHORT:
            words = [word.replace("127.0.0.1:8001", product.server) for word in words]
            words += [*_SHORT[words[0]], *([] if "--server" in words else addresses(product))]
            words += ["--budget", "throughput=30%"] if words[0] != "compare" else ["--rounds", "1"]
            for budget in ("p50=+25%", "p50=+10%", "throughput=-5%", "p99=250ms", "p99=100ms"):
                if budget in words and words[0] != "capacity":
                    words[words.index(budget)] = {"-": "throughput=-70%", "+": "p50=+5000%"}.get(budget[4], "p90=5s")
        with started_as(words, tmp_path / "cwd") as process:
            out, errors = process.communicate(timeout=200)
        codes = {_ENDS.get(words[1] if len(words) > 1 else "", 0)}
        # What this machine can do is not known, nor what else it does: 4 says that budgets of time tell nothing.
        timed = words[0] in ("capacity", "compare") or "checkout.yaml" in " ".join(words)
        codes |= {1, 4} if timed else {4}
        assert process.returncode in codes, (words, out, errors)
    assert list((tmp_path / "cwd").iterdir()) == []
    assert json.loads((tmp_path / "baseline" / "report.json").read_text())["figures"]["all"]["right"] > 0
