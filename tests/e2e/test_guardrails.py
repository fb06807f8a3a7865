"""What else judges a canary, on a real gateway: unsound answers, other predictions, mirrors that disagree."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import grpc
import numpy as np
import pytest

from gateway.pb import control_pb2, control_pb2_grpc
from gateway.pb import inference_pb2 as pb
from gateway.telemetry.webhooks import secret_bytes, signature
from tests import models
from tests.e2e.product import Product, until
from tests.e2e.test_rollouts import KEYS, LIMIT_S, Load, active, apply, document, features, named

SECRET = "a secret of 24 bytes ok?"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    directory = tmp_path_factory.mktemp("guarded")
    repository = directory / "models"
    for model, contents in {
        "nan": (models.affine(features=8), models.root(features=8)),
        "shifted": (models.affine(1.0, features=8), models.affine(4.0, features=8)),
        "rated": (models.affine(1.0, features=8), models.affine(1.0, features=8)),
        "dear": (models.affine(1.0, features=8), models.affine(1.0, features=8)),
        "asked": (models.affine(1.0, features=8), models.affine(1.0, features=8)),
        "learned": (models.affine(1.0, features=8), models.affine(1.0, features=8)),
        "contrary": (models.affine(1.0, features=8), models.affine(-1.0, features=8)),
    }.items():
        for version, content in enumerate(contents, start=1):
            models.write_version(repository, model, str(version), content)
    secret = directory / "secret"
    secret.write_text(SECRET)
    product = Product(directory, repository, "--webhook-secret-file", str(secret))
    yield product.start()
    product.stop()


def rows_of(values: Callable[[int], np.ndarray]) -> Callable[[int], pb.ModelInferRequest]:
    def request(number: int) -> pb.ModelInferRequest:
        made = features(number)
        made.raw_input_contents[0] = values(number).astype(np.float32).tobytes()
        return made

    return request


def spread(number: int) -> np.ndarray:
    """Other values for each user, between 1 and 2."""
    return np.linspace(1.0, 1.2, 8) + (number % KEYS) / KEYS


def told(product: Product, model: str) -> tuple[str, str]:
    """The phase of a rollout and what it says; nothing before the judge has seen it."""
    done = product.cli("rollout", "show", model, "-o", "json")
    shown = json.loads(done.stdout) if done.exit_code == 0 else {}
    return str(shown.get("phase")), str(shown.get("told"))


def test_a_version_that_answers_nan_is_taken_back_within_seconds(guarded: Product, tmp_path: Path) -> None:
    apply(guarded, tmp_path, document("nan", guardrails=[{"kind": "outputs"}]))
    with Load(guarded, "nan", named("nan", rows_of(lambda number: -spread(number)))) as load:
        until(lambda: active(guarded, "nan")["shares"] == {"stable": 100}, LIMIT_S, "the canary has no share")
        answered = load.answers["canary", "OK"]
        before = load.answers["stable", "OK"]
        until(lambda: load.answers["stable", "OK"] > before + 200, LIMIT_S, "calls after it")
        assert load.answers["canary", "OK"] <= answered + 1
    assert len(load.users["canary"]) < KEYS / 3
    assert "failed: outputs: canary " in told(guarded, "nan")[1]


def test_a_version_that_predicts_something_else_is_held(guarded: Product, tmp_path: Path) -> None:
    guardrails = [{"kind": "errors", "passBelow": "5%"}, {"kind": "drift", "action": "hold"}]
    apply(guarded, tmp_path, document("shifted", guardrails=guardrails))
    with Load(guarded, "shifted", named("shifted", rows_of(spread)), keys=10_000):
        until(lambda: told(guarded, "shifted")[1].startswith("held: drift: index"), LIMIT_S, "it is held")
    assert told(guarded, "shifted")[0] == "ramping"
    assert active(guarded, "shifted")["step"] == 1
    assert active(guarded, "shifted")["shares"] == {"stable": 80, "canary": 20}


def test_a_mirror_that_disagrees_stops_the_canary_before_it_has_a_share(guarded: Product, tmp_path: Path) -> None:
    steps = [{"weight": "0%", "hold": "1s"}, {"weight": "50%", "hold": "1s"}]
    mirrors = [{"arm": "canary", "percent": "100%"}]
    guardrails = [{"kind": "shadow"}]
    apply(guarded, tmp_path, document("contrary", steps=steps, mirrors=mirrors, guardrails=guardrails))
    with Load(guarded, "contrary", named("contrary", rows_of(spread))) as load:
        until(lambda: told(guarded, "contrary")[0] == "stopped", LIMIT_S, "it is stopped")
    assert "mirrored calls differ, the limit is 0.01" in told(guarded, "contrary")[1]
    assert set(load.answers) == {("stable", "OK")}


class RatedLoad(Load):
    """Calls whose answers are rated: nine of ten of the worse arm's are worth nothing, and one of ten of the others."""

    def __init__(self, product: Product, model: str = "rated", worse: str = "canary", *, keys: int = KEYS) -> None:
        super().__init__(product, model, named(model, features), keys=keys)
        self._worse = worse
        self._items: list[control_pb2.FeedbackItem] = []
        self._rated = 0

    def answered(self, channel: grpc.Channel, arm: str, trailers: dict[str, str | bytes]) -> None:
        self._rated += 1
        is_seldom = self._rated % 10 == 0
        reward = float(is_seldom == (arm == self._worse))
        self._items.append(control_pb2.FeedbackItem(token=str(trailers["x-gateway-token"]), reward=reward))
        if len(self._items) == 50:
            control = control_pb2_grpc.ControlStub(channel)  # type: ignore[no-untyped-call]
            control.SendFeedback(control_pb2.SendFeedbackRequest(items=self._items), timeout=20)
            self._items = []


def test_a_version_whose_answers_are_worth_less_is_taken_back(guarded: Product, tmp_path: Path) -> None:
    steps = [{"weight": "50%", "hold": "1h"}]
    apply(guarded, tmp_path, document("rated", steps=steps, guardrails=[{"kind": "reward"}]))
    with RatedLoad(guarded):
        until(lambda: active(guarded, "rated")["shares"] == {"stable": 100}, LIMIT_S, "the canary has no share")
    assert "failed: reward: reward of " in told(guarded, "rated")[1]


def test_a_bandit_moves_to_the_arm_that_is_rated_better_and_says_why(guarded: Product, tmp_path: Path) -> None:
    bandit: dict[str, object] = {
        "interval": "2s",
        "minEvents": 20,
        "posterior": "beta",
        "floor": "10%",
        "guardrails": [{"kind": "errors"}],
    }
    ab = {"control": "a", "weights": {"a": "50%", "b": "50%"}, "bandit": bandit}
    spec = {
        "arms": {"a": {"version": "1"}, "b": {"version": "2"}},
        "key": {"from": ["metadata:x-user"]},
        "strategy": {"ab": ab},
    }
    route = {"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": "learned"}, "spec": spec}
    path = tmp_path / "learned.json"
    path.write_text(json.dumps(route))
    planned = guarded.cli("plan", "-f", str(path), "--requests-per-second", "100")
    assert "an arm has 10% to 90%" in planned.stdout
    assert "about 200 in all" in planned.stdout
    apply(guarded, tmp_path, json.dumps(route))
    with RatedLoad(guarded, "learned", "a", keys=100) as load:
        until(lambda: active(guarded, "learned")["shares"] == {"a": 10, "b": 90}, LIMIT_S, "b has all but the floor")
        until(lambda: len(load.users["b"]) >= 75, LIMIT_S, "the users of b have come")
    assert len(load.users["a"] & load.users["b"]) <= 60  # 40 % of the keys have to move, others never do
    shown = json.loads(guarded.cli("rollout", "show", "learned", "-o", "json").stdout)
    assert (shown["phase"], shown["strategy"], shown["id"] != "") == ("learning", "bandit", True)
    means = {arm["arm"]: arm["mean"] for arm in shown["arms"]}
    assert means["a"] == pytest.approx(0.1, abs=0.1)
    assert means["b"] == pytest.approx(0.9, abs=0.1)
    assert "REWARDS OF THIS WEIGHT" in guarded.cli("rollout", "show", "learned").stdout
    assert "bandit by reward, floor 10 %" in guarded.cli("status").stdout
    history = json.loads(guarded.cli("routes", "history", "learned", "-o", "json").stdout)
    assert (history[0]["operation"], history[0]["actor"]) == ("weights", "judge")
    entries = json.loads(guarded.cli("audit", "list", "-o", "json").stdout)
    entry = next(one["sequence"] for one in entries if one["revision"] == history[0]["revision"])
    verified = guarded.cli("audit", "verify", "--verdict", str(entry))
    assert "decided again from the rewards and the same draws: the same" in verified.stdout, verified.output
    assert guarded.cli("rollout", "pause", "learned").exit_code == 0
    assert json.loads(guarded.cli("rollout", "show", "learned", "-o", "json").stdout)["paused_by"]
    other = json.loads(json.dumps(route).replace("10%", "20%"))
    path.write_text(json.dumps(other))
    refused = guarded.cli("routes", "apply", "-f", str(path))
    assert "a bandit is running" in refused.output
    assert guarded.cli("rollout", "abort", "learned").exit_code == 0
    assert active(guarded, "learned")["shares"] == {"a": 100}
    assert guarded.cli("rollout", "retry", "learned").exit_code == 0
    assert active(guarded, "learned")["shares"] == {"a": 50, "b": 50}


def test_a_step_that_the_cpus_do_not_suffice_for_is_not_taken(guarded: Product, tmp_path: Path) -> None:
    guardrails = [{"kind": "errors", "passBelow": "20%"}]
    apply(guarded, tmp_path, document("dear", guardrails=guardrails, maxLoad="0.0001%"))
    with Load(guarded, "dear", named("dear", features)):
        until(lambda: told(guarded, "dear")[1].endswith("is the most that maxLoad allows"), LIMIT_S, "it is held")
    shown = json.loads(guarded.cli("rollout", "show", "dear", "--cpu-hour-price", "3600", "-o", "json").stdout)
    assert 0 < shown["capacity"]["now"] < 1.5
    assert shown["capacity"]["next_percent"] == 50
    assert {cost["arm"] for cost in shown["costs"]} == {"stable", "canary"}
    for cost in shown["costs"]:
        assert cost["price_per_1000"] == pytest.approx(cost["cpu_seconds_per_1000"])
        assert cost["cpu_seconds_per_1000"] > 0
    spent = {
        name: value for name, value in guarded.metrics().items() if name.startswith("gateway_run_cpu_seconds_total")
    }
    assert all(value > 0 for name, value in spent.items() if 'model="dear"' in name)
    assert sum('model="dear"' in name for name in spent) == 2
    assert "CPU seconds of runs for 1 000 requests" in guarded.cli("rollout", "show", "dear").stdout


class Decider(BaseHTTPRequestHandler):
    """Lets the first step end, and not the second."""

    taken: ClassVar[list[tuple[dict[str, str], bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
        passes = json.loads(body)["step"] == 0
        answer = json.dumps({"verdict": "pass" if passes else "fail", "reason": "sales day"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_somebody_else_is_asked_at_the_end_of_each_step(guarded: Product, tmp_path: Path) -> None:
    steps = [{"weight": "20%", "hold": "1s"}, {"weight": "50%", "hold": "1s"}]
    with ThreadingHTTPServer(("127.0.0.1", 0), Decider) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/step"
        apply(guarded, tmp_path, document("asked", steps=steps, guardrails=[{"kind": "webhook", "url": url}]))
        with Load(guarded, "asked", named("asked", features)):
            until(lambda: active(guarded, "asked")["shares"] == {"stable": 100}, LIMIT_S, "the canary has no share")
        server.shutdown()
        serving.join()
    assert "failed: webhook: 127.0.0.1 says fail (sales day)" in told(guarded, "asked")[1]
    [(first, body), (_, later)] = Decider.taken
    assert [json.loads(one)["step"] for one in (body, later)] == [0, 1]
    assert json.loads(body)["model"] == "asked"
    timestamp = int(first["webhook-timestamp"])
    assert first["webhook-signature"] == signature(secret_bytes(SECRET), first["webhook-id"], timestamp, body)
