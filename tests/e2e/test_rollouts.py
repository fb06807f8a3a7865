"""Rollouts that judge themselves, on a real gateway: what fails or is slow is stopped, what is equal gets everybody."""

import itertools
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from gateway.pb import inference_pb2 as pb
from tests import models
from tests.e2e.calls import stub
from tests.e2e.conftest import connect
from tests.e2e.product import Product, until

LIMIT_S = 60.0
KEYS = 500
STEPS = [{"weight": "20%", "hold": "2s"}, {"weight": "50%", "hold": "2s"}]
ERRORS = {"guardrails": [{"kind": "errors", "passBelow": "5%"}]}


@pytest.fixture(scope="module")
def rolling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    directory = tmp_path_factory.mktemp("rolling")
    repository = directory / "models"
    for model, contents in {
        "failing": (models.fragile(1000), models.fragile(8)),
        "equal": (models.fragile(1000), models.fragile(1000)),
        "slower": (models.slow(1, features=8), models.slow(3000, features=8)),
    }.items():
        for version, content in enumerate(contents, start=1):
            models.write_version(repository, model, str(version), content)
    product = Product(directory, repository)
    yield product.start()
    product.stop()


def document(
    model: str,
    *,
    steps: list[dict[str, str]] = STEPS,
    after: dict[str, object] | None = None,
    mirrors: list[dict[str, str]] | None = None,
    **analysis: object,
) -> str:
    canary: dict[str, object] = {"steps": steps, "analysis": {**ERRORS, **analysis}}
    if after is not None:
        canary["afterPromote"] = after
    spec = {
        "arms": {"stable": {"version": "1"}, "canary": {"version": "2"}},
        "key": {"from": ["metadata:x-user"]},
        "strategy": {"canary": canary},
        **({"mirrors": mirrors} if mirrors else {}),
    }
    return json.dumps({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": model}, "spec": spec})


def apply(product: Product, tmp_path: Path, text: str) -> None:
    path = tmp_path / "route.json"
    path.write_text(text)
    done = product.cli("routes", "apply", "-f", str(path), "--reason", "test")
    assert done.exit_code == 0, done.output


class Load:
    """Calls on a thread, users in turn; every ninth value is one that version 2 of `fragile` fails on."""

    def __init__(
        self, product: Product, model: str, request: Callable[[int], pb.ModelInferRequest], *, keys: int = KEYS
    ) -> None:
        self._keys = keys
        self.answers: Counter[tuple[str, str]] = Counter()
        self.users: dict[str, set[str]] = {}
        self.versions: dict[str, list[str]] = {}  # by user, a version once for as long as it answers
        self._product, self._model, self._request = product, model, request
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with connect(self._product) as channel:
            for number in itertools.count():
                if self._over.is_set():
                    return
                user = f"user-{number % self._keys}"
                call = stub(channel).ModelInfer.with_call
                try:
                    _, done = call(self._request(number), timeout=20, metadata=[("x-user", user)])
                    code, trailers = "OK", dict(done.trailing_metadata())
                except grpc.RpcError as error:
                    code, trailers = error.code().name, dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
                arm = str(trailers.get("x-gateway-arm"))
                self.answered(channel, arm, trailers)
                self.answers[arm, code] += 1
                self.users.setdefault(arm, set()).add(user)
                version, seen = str(trailers.get("x-gateway-version")), self.versions.setdefault(user, [])
                if code == "OK" and seen[-1:] != [version]:
                    seen.append(version)

    def answered(self, channel: grpc.Channel, arm: str, trailers: dict[str, str | bytes]) -> None:
        """What is done with an answer besides counting it."""


def index(value: int) -> pb.ModelInferRequest:
    """A request of `fragile` with one row."""
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name="i", datatype="INT64", shape=[1])
    tensor.contents.int64_contents.append(value % 9)
    return request


def features(_: int) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest()
    request.inputs.add(name="x", datatype="FP32", shape=[1, 8])
    request.raw_input_contents.append(np.zeros(8, np.float32).tobytes())
    return request


def named(model: str, make: Callable[[int], pb.ModelInferRequest]) -> Callable[[int], pb.ModelInferRequest]:
    def request(number: int) -> pb.ModelInferRequest:
        made = make(number)
        made.model_name = model
        return made

    return request


def active(product: Product, model: str) -> dict[str, object]:
    done = product.cli("routes", "get", model, "-o", "json")
    assert done.exit_code == 0, done.output
    status: dict[str, object] = json.loads(done.stdout)["status"]
    return status


def rollout(product: Product, model: str) -> dict[str, object]:
    done = product.cli("rollout", "show", model, "-o", "json")
    assert done.exit_code == 0, done.output
    shown: dict[str, object] = json.loads(done.stdout)
    return shown


def test_a_version_that_fails_is_taken_back_and_touches_canary_users_only(rolling: Product, tmp_path: Path) -> None:
    apply(rolling, tmp_path, document("failing"))
    with Load(rolling, "failing", named("failing", index)) as load:
        until(lambda: active(rolling, "failing")["shares"] == {"stable": 100}, LIMIT_S, "the canary has no share")
        before = load.answers["stable", "OK"]
        failed = load.answers["canary", "INTERNAL"]
        until(lambda: load.answers["stable", "OK"] > before + 500, LIMIT_S, "calls after it")
        assert load.answers["canary", "INTERNAL"] <= failed + 1
    assert load.answers["stable", "INTERNAL"] == 0
    assert len(load.users["canary"]) < KEYS / 3
    history = json.loads(rolling.cli("routes", "history", "failing", "-o", "json").stdout)
    newest = history[0] if isinstance(history, list) else history["revisions"][0]
    assert newest["actor"] == "judge"
    assert "failed: errors: canary " in newest["reason"]


def test_an_equal_version_gets_everybody_though_the_judge_is_killed(rolling: Product, tmp_path: Path) -> None:
    apply(rolling, tmp_path, document("equal", after={"watch": "2s"}))
    with Load(rolling, "equal", named("equal", index)) as load:
        until(lambda: active(rolling, "equal")["step"] == 2, LIMIT_S, "the second step")
        begun = rollout(rolling, "equal")["id"]
        os.kill(rolling.children("control")[0]["pid"], signal.SIGKILL)
        until(lambda: active(rolling, "equal")["versions"] == {"stable": "2", "canary": "1"}, LIMIT_S, "the promotion")
        until(lambda: rollout(rolling, "equal")["phase"] == "promoted", LIMIT_S, "the end of the watch")
    assert rollout(rolling, "equal")["id"] == begun
    assert {code for _, code in load.answers} == {"OK"}
    # As few keys moved as could: each from version 1 to 2, once, and none came back.
    assert {tuple(seen) for seen in load.versions.values()} <= {("1",), ("1", "2"), ("2",)}


def test_a_version_that_is_slower_is_taken_back(rolling: Product, tmp_path: Path) -> None:
    apply(rolling, tmp_path, document("slower", guardrails=[{"kind": "latency", "quantile": 0.9}]))
    with Load(rolling, "slower", named("slower", features)):
        until(lambda: active(rolling, "slower")["shares"] == {"stable": 100}, LIMIT_S, "the canary has no share")
