"""An A/B test on a real gateway, from the calls of its users and their rewards to the verdict."""

import json
from pathlib import Path

import numpy as np
import pytest

from gateway.pb import control_pb2
from gateway.pb import inference_pb2 as pb
from tests import models
from tests.e2e.calls import control, stub
from tests.e2e.conftest import connect
from tests.e2e.product import Product

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
