"""An A/B test on a real gateway, from the calls of its users and their rewards to the verdict."""

import json
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from gateway.pb import control_pb2
from gateway.pb import inference_pb2 as pb
from tests import models
from tests.e2e.calls import control, stub
from tests.e2e.conftest import connect
from tests.e2e.product import Product, until

KEYS = 400
ROUTE = {
    "apiVersion": "gateway/v1",
    "kind": "Route",
    "metadata": {"model": "shop"},
    "spec": {
        "arms": {"a": {"version": "1"}, "b": {"version": "2"}},
        "key": {"from": ["metadata:x-user"]},
        "strategy": {
            "ab": {"control": "a", "weights": {"a": "50%", "b": "50%"}, "metrics": [{"name": "reward"}], "srm": {}}
        },
    },
}


@pytest.mark.long  # two starts of the product: Parquet is written when a minute is over, or when it stops
def test_the_better_arm_is_found_from_what_its_users_said(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    for version, scale in (("1", 2.0), ("2", 3.0)):
        models.write_version(repository, "shop", version, models.affine(scale))
    product = Product(tmp_path, repository, "--feedback-token").start()
    try:
        route = tmp_path / "route.json"
        route.write_text(json.dumps(ROUTE))
        done = product.cli("routes", "apply", "-f", str(route), "--reason", "test")
        assert done.exit_code == 0, done.output
        rng = np.random.default_rng(0)
        with connect(product) as channel:
            items, arms = [], set()
            for number in range(KEYS * 2):
                request = pb.ModelInferRequest(model_name="shop", id=f"r{number}")
                request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
                request.raw_input_contents.append(rng.normal(size=4).astype("<f4").tobytes())
                user = [("x-user", f"user-{number % KEYS}")]
                _, call = stub(channel).ModelInfer.with_call(request, timeout=20, metadata=user)
                told = dict(call.trailing_metadata())
                arms.add(told["x-gateway-arm"])
                reward = float(rng.normal()) + (2.0 if told["x-gateway-arm"] == "b" else 0.0)
                items.append(control_pb2.FeedbackItem(token=str(told["x-gateway-token"]), reward=reward))
            assert arms == {"a", "b"}
            answer = control(channel).SendFeedback(control_pb2.SendFeedbackRequest(items=items), timeout=30)
            assert answer.accepted == len(items)
        product.stop()
        product.start()
        words = ("results", "shop", "--data-dir", str(product.data))
        page = tmp_path / "results.html"
        made = json.loads(product.cli(*words, "-o", "json", "--html", str(page)).stdout)
        assert made["outcome"] == "better", made["verdicts"]
        [phase] = made["phases"]
        assert phase["requests"] == 2 * KEYS
        assert sum(made["checks"][0]["keys"].values()) >= KEYS - 1  # two of them may share a bucket
        [reward_told] = [one for one in made["metrics"] if one["metric"] == "reward"]
        assert reward_told["difference"]["low"] < 2 < reward_told["difference"]["high"]
        assert page.read_text().startswith("<!doctype html>")
        draft = tmp_path / "draft.json"
        value = json.loads(json.dumps(ROUTE))
        value["spec"]["strategy"] = {"pinned": {"arm": "b"}}
        draft.write_text(json.dumps(value))
        estimated = product.cli(*words, "--policy", str(draft))
        assert "with this policy the reward would have been" in estimated.stdout, estimated.output
        assert "more; this holds at every look" in estimated.stdout
    finally:
        product.kill()


@pytest.mark.long  # 4000 users, because the check is of keys
def test_an_arm_that_others_answer_for_breaks_the_split_while_the_test_runs(tmp_path: Path) -> None:
    """All of b's requests fail and are answered by a: b has keys by the route, and none by what was counted."""
    repository = tmp_path / "models"
    for version, rows in (("1", 1000), ("2", 8)):
        models.write_version(repository, "shop", version, models.fragile(rows))
    product = Product(tmp_path, repository).start()
    try:
        value = json.loads(json.dumps(ROUTE))
        value["spec"]["fallback"] = {"order": ["a"], "on": ["INTERNAL"], "budget": "100%"}
        route = tmp_path / "route.json"
        route.write_text(json.dumps(value))
        done = product.cli("routes", "apply", "-f", str(route), "--reason", "test")
        assert done.exit_code == 0, done.output
        answered = 0
        with connect(product) as channel:
            for number in range(4000):
                request = pb.ModelInferRequest(model_name="shop")
                request.inputs.add(name="i", datatype="INT64", shape=[1]).contents.int64_contents.append(8)
                with suppress(grpc.RpcError):  # the fallback's budget is of the last ten seconds
                    stub(channel).ModelInfer(request, timeout=20, metadata=[("x-user", f"u{number}")])
                    answered += 1
        assert answered > 3500

        def told() -> list[dict[str, object]]:
            lines = product.page("/events?follow=false").splitlines()
            events = [json.loads(line) for line in lines if line.strip()]
            return [event for event in events if event["type"] == "split.mismatch"]

        [event] = until(told, 40, "the event split.mismatch")
        assert event["subject"] == "shop"
        data = event["data"]
        assert isinstance(data, dict)
        assert data["keys"]["b"] == 0
        assert data["shares"] == {"a": 0.5, "b": 0.5}
    finally:
        product.kill()
