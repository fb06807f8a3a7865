"""Versions tried in a process of their own: what comes back, and what is remembered."""

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gateway.serving.model_config import Warmup, WarmupInput
from gateway.serving.model_policy import Policy
from gateway.serving.probe import Prober, ProbeRequest
from gateway.serving.probe_child import public_reason
from gateway.serving.probe_request import ProbeResult, from_json, to_json
from gateway.serving.verification import ModelFacts
from gateway.tensor import Datatype, TensorSpec
from loaders.loader import LocalVersion
from tests import models
from tests.serving.bad_models import BAD
from tests.serving.catalogs import Fetch
from tests.serving.trial_processes import children

pytestmark = pytest.mark.usefixtures("earlier_zygotes")


async def test_good_model(fetch: Fetch) -> None:
    result = await Prober().probe(ProbeRequest(fetch(models.classifier())))
    assert result.ok, result.reason
    assert result.inputs == (TensorSpec("x", Datatype.FP32, (-1, 4)),)
    assert result.answers == (TensorSpec("scores", Datatype.FP32, (1, 3)),)
    assert result.facts is not None
    assert result.facts.parameter_count == 12
    assert sorted(result.run_us) == [1, 2, 8]
    assert all(run_us > 0 for run_us in result.run_us.values())
    assert result.batches
    assert result.rows_independent
    assert result.baseline_rss_bytes > 0
    assert result.memory_bytes < 4 << 20  # not the pages of the runtime itself
    assert result.warnings == ()


@pytest.mark.parametrize("datatype", [Datatype.BYTES, Datatype.BF16, Datatype.BOOL])
async def test_unusual_datatypes(datatype: Datatype, fetch: Fetch) -> None:
    result = await Prober().probe(ProbeRequest(fetch(models.identity(datatype))))
    assert result.ok, result.reason
    assert result.rows_independent
    assert result.bit_equal


async def test_rows_that_depend_on_each_other(fetch: Fetch) -> None:
    result = await Prober().probe(ProbeRequest(fetch(models.row_mixing())))
    assert result.ok
    assert result.rows_independent is False
    assert "depends on the other rows" in result.warnings[0]


async def test_more_rows_than_configured_are_not_tried(fetch: Fetch) -> None:
    local = fetch(models.classifier())
    assert sorted((await Prober().probe(ProbeRequest(local, max_batch_size=3))).run_us) == [1, 2, 3]
    alone = await Prober().probe(ProbeRequest(local, max_batch_size=0))
    assert sorted(alone.run_us) == [0]
    assert not alone.batches
    assert alone.rows_independent is None


def _compressed(inputs: tuple[int, ...], output: tuple[int, ...]) -> bytes:
    """y: the elements of x that are above -1000, in one row: how many, only a run can tell."""
    model = models.model_of(
        [
            helper.make_node("Greater", ["x", "low"], ["keep"]),
            helper.make_node("Reshape", ["keep", "flat"], ["all"]),
            helper.make_node("Compress", ["x", "all"], ["y"]),
        ],
        [models.tensor_value("x", Datatype.FP32, inputs)],
        [models.tensor_value("y", Datatype.FP32, output)],
        [models.weight("low", np.array([-1000], np.float32)), models.weight("flat", np.array([-1], np.int64))],
    )
    return bytes(model.SerializeToString())


async def test_model_that_does_not_batch(fetch: Fetch) -> None:
    local = fetch(_compressed((-1, 4), (-1,)))
    result = await Prober().probe(ProbeRequest(local))
    assert result.ok
    assert not result.batches
    assert "first dimension must be 2" in result.warnings[0]
    required = await Prober().probe(ProbeRequest(local, max_batch_size=8))
    assert not required.ok
    assert "first dimension must be 2" in required.reason


def _nan_answer() -> bytes:
    """Divides zero by zero, whatever comes in."""
    model = onnx.ModelProto.FromString(models.affine(0.0))
    model.graph.node.append(helper.make_node("Div", ["scaled", "scaled"], ["z"]))
    model.graph.output[0].name = "z"
    return bytes(model.SerializeToString())


def _fixed_and_failing() -> bytes:
    """Fixed shapes, and an index that never exists."""
    model = onnx.ModelProto.FromString(models.gather(1))
    model.graph.initializer.append(helper.make_tensor("far", TensorProto.INT64, [1], [99]))
    model.graph.node[0].input[1] = "j"
    model.graph.node.insert(0, helper.make_node("Add", ["i", "far"], ["j"]))
    model.graph.input[0].CopyFrom(models.tensor_value("i", Datatype.INT64, (3,)))
    return bytes(model.SerializeToString())


def _unsorted() -> bytes:
    model = onnx.ModelProto.FromString(models.affine())
    model.graph.node.insert(0, model.graph.node.pop())
    return bytes(model.SerializeToString())


BAD_ORDER = _unsorted()


@pytest.mark.parametrize(
    ("content", "reason", "lasting"),
    [
        (models.huge_constant(), "needs more memory than the limit", False),
        (models.endless(), "took longer than 2 s while being warmed up", False),
        (BAD["empty"].content, "is empty", True),
        (BAD["NaN"].content, "holds 4 NaN", True),
        (BAD["future operator set"].content, "needs version 1000", True),
        (BAD["escape in node name"].content, "control character", True),
    ],
    ids=["memory", "endless", "empty", "NaN weights", "opset", "control"],
)
async def test_refused(content: bytes, reason: str, lasting: bool, fetch: Fetch, tmp_path: Path) -> None:
    result = await Prober().probe(ProbeRequest(fetch(content), timeout_s=2 if "2 s" in reason else 30))
    assert not result.ok
    assert re.search(reason, result.reason), result.reason
    assert result.lasting is lasting
    assert str(tmp_path) not in result.reason
    assert "onnxruntime_src" not in result.reason
    assert result.reason.isprintable()
    assert not children()


@pytest.mark.parametrize(
    ("content", "warning"),
    [
        (_nan_answer(), "it answers NaN for made-up inputs, whether random, ones or zeros; a model_warmup"),
        (
            _compressed((1, 4), (7,)),
            r"output 'y' is declared with shape \[7\], the model answered \[4\]: that is what is served",
        ),
        (_fixed_and_failing(), "not warmed up: it takes none of the made-up inputs .*; a model_warmup in config"),
        (BAD_ORDER, "the ONNX checker objects: .*sorted"),
    ],
    ids=["NaN", "shape", "failing", "order"],
)
async def test_served_with_a_warning(content: bytes, warning: str, fetch: Fetch) -> None:
    result = await Prober().probe(ProbeRequest(fetch(content)))
    assert result.ok, result.reason
    assert re.search(warning, result.warnings[0]), result.warnings


async def test_what_a_user_knows_of_the_inputs_is_enough(fetch: Fetch) -> None:
    """With a model_warmup nothing is made up: here every made-up input would end the process."""
    node = helper.make_node("Div", ["x", "x"], ["y"])
    tensors = [models.tensor_value(name, Datatype.INT64, (2,)) for name in ("x", "y")]
    local = fetch(models.model_of([node], tensors[:1], tensors[1:]).SerializeToString())
    data = np.array([3, -7], "<i8").tobytes()
    given = Warmup("good", 0, {"x": WarmupInput(Datatype.INT64, (2,), "file", data)})
    result = await Prober().probe(ProbeRequest(local, warmups=(given,)))
    assert result.ok, result.reason
    assert result.warnings == ()
    assert result.run_us[0] > 0


async def test_nan_by_policy(fetch: Fetch) -> None:
    request = ProbeRequest(fetch(models.affine(float("nan"))), policy=Policy(allow_nan=True))
    result = await Prober().probe(request)
    assert result.ok, result.reason


async def test_load_beyond_the_memory_limit(fetch: Fetch) -> None:
    weights = np.ones((4096, 2048), np.float32)  # 32 MiB
    model = models.model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [models.tensor_value("x", Datatype.FP32, (-1, 4096))],
        [models.tensor_value("y", Datatype.FP32, (-1, 2048))],
        [models.weight("w", weights)],
    )
    local = fetch(model.SerializeToString())
    tight = await Prober().probe(ProbeRequest(local, memory_bytes=24 << 20))
    assert not tight.ok
    assert not tight.lasting
    assert "memory" in tight.reason or "bad allocation" in tight.reason
    ample = await Prober().probe(ProbeRequest(local))
    assert ample.ok, ample.reason
    assert 32 << 20 < ample.memory_bytes < 150 << 20


async def test_warmup_requests_come_first(fetch: Fetch) -> None:
    local = fetch(models.gather(8))
    good = Warmup("index", 2, {"i": WarmupInput(Datatype.INT64, (), "file", np.array([3, 7], "<i8").tobytes())})
    result = await Prober().probe(ProbeRequest(local, warmups=(good,)))
    assert result.ok, result.reason
    bad = replace(good, inputs={"i": WarmupInput(Datatype.INT64, (), "file", np.array([3, 8], "<i8").tobytes())})
    result = await Prober().probe(ProbeRequest(local, warmups=(bad,)))
    assert not result.ok
    assert "warm-up request 'index' failed" in result.reason


async def test_free_sizes_that_cannot_be_guessed(fetch: Fetch) -> None:
    """A product of a [a, b] with a fixed [5, 2] needs b = 5: the version serves, not warm."""
    model = models.model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [models.tensor_value("x", Datatype.FP32, (-1, -1))],
        [models.tensor_value("y", Datatype.FP32, (-1, 2))],
        [models.weight("w", np.ones((5, 2), np.float32))],
    )
    result = await Prober().probe(ProbeRequest(fetch(model.SerializeToString())))
    assert result.ok, result.reason
    assert result.run_us == {}
    assert "not warmed up" in result.warnings[0]


async def test_a_probe_that_took_too_long_is_remembered_until_somebody_asks_again(fetch: Fetch, tmp_path: Path) -> None:
    request = ProbeRequest(fetch(models.endless()), timeout_s=1.5)
    worker, sibling = (Prober(tmp_path / "cache") for _ in range(2))
    assert await worker.known(request) is None
    result = await worker.probe(request)
    assert result.timed_out
    (path,) = (tmp_path / "cache").glob("*.json")
    written_ns = path.stat().st_mtime_ns
    for prober in (worker, sibling):
        assert await prober.known(request) == result
        assert await prober.probe(request) == result
    assert path.stat().st_mtime_ns == written_ns, "it was tried again"
    assert await sibling.known(request, again=True) is None
    begin = time.monotonic()
    assert (await sibling.probe(request, again=True)).timed_out
    assert time.monotonic() - begin > 1.4
    assert path.stat().st_mtime_ns > written_ns
    os.utime(path, (time.time() - 3700, time.time() - 3700))
    assert await worker.known(request) is None


async def test_a_lack_of_memory_is_not_remembered(fetch: Fetch, tmp_path: Path) -> None:
    request = ProbeRequest(fetch(models.huge_constant()))
    prober = Prober(tmp_path / "cache")
    assert not (await prober.probe(request)).lasting
    assert await prober.known(request) is None  # who asks later tries again


def test_values_survive_json() -> None:
    spec = TensorSpec("x", Datatype.BYTES, (-1, 2), optional=True, labels=("a",))
    result = ProbeResult(
        ok=True,
        facts=ModelFacts((spec,), (), 17, 8, metadata={"k": "v"}, external_files=("w",)),
        inputs=(spec,),
        run_us={1: 2.5, 0: 1.0},
        rows_independent=False,
        warnings=("w",),
    )
    assert from_json(to_json(result), ProbeResult) == result
    warmup = Warmup("w", 1, {"x": WarmupInput(Datatype.INT8, (2,), "file", b"\x00\xff")}, 3)
    request = ProbeRequest(LocalVersion(Path("/a"), "d" * 64, ()), warmups=(warmup,), options={"graph_level": "off"})
    assert from_json(to_json(request), ProbeRequest) == request
    moved = replace(request, local=LocalVersion(Path("/b"), "d" * 64, ()))
    assert moved.key("1") == request.key("1") != request.key("2")


def test_reasons_hold_no_path_and_no_source_of_the_runtime() -> None:
    text = (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from /store/ab/model.onnx failed: "
        "/onnxruntime_src/onnxruntime/core/graph/model.cc:42 onnxruntime::Model::Model(int, bool) Unknown\x1b\n model"
    )
    assert public_reason(text, "/store/ab") == "Load model from model.onnx failed: Unknown\\x1b model"


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
async def test_a_model_that_dies_without_rows_serves_and_refuses_them(fetch: Fetch, operator: str) -> None:
    result = await Prober().probe(ProbeRequest(fetch(models.recurrent(operator))))
    assert result.ok
    assert result.batches
    assert result.empty_inputs.startswith("killed by signal 6")
    assert result.empty_inputs.endswith("while being run without rows or elements")


async def test_a_model_without_shapes_that_dies_without_rows_refuses_them(fetch: Fetch) -> None:
    """The configuration's warm-up tells a shape that it takes; the trial empties each of its dimensions."""
    given = Warmup("steps", 0, {"x": WarmupInput(Datatype.FP32, (2, 5, 4), "random")})
    content = models.without_shapes(models.recurrent())
    result = await Prober().probe(ProbeRequest(fetch(content), warmups=(given,)))
    assert (result.ok, result.batches) == (True, False)
    assert result.empty_inputs.startswith("killed by signal 6")


@pytest.mark.parametrize(("rank", "perm"), [(1, [0]), (2, [1, 0]), (4, [0, 2, 3, 1])])
async def test_a_model_without_shapes_is_tried_with_several_ranks(rank: int, perm: list[int], fetch: Fetch) -> None:
    values = [models.tensor_value(name, Datatype.FP32, [-1] * rank) for name in "xy"]
    model = models.model_of([helper.make_node("Transpose", ["x"], ["y"], perm=perm)], values[:1], values[1:])
    result = await Prober().probe(ProbeRequest(fetch(models.without_shapes(model.SerializeToString()))))
    assert (result.ok, list(result.run_us)) == (True, [0])
    assert [spec.any_shape for spec in result.inputs] == [True]
    assert [len(spec.shape) for spec in result.answers] == [rank]


@pytest.mark.parametrize("model", [models.recurrent("RNN"), models.affine(), models.two_matrices("MatMul")])
async def test_a_model_that_lives_without_rows_is_given_them(fetch: Fetch, model: bytes) -> None:
    result = await Prober().probe(ProbeRequest(fetch(model)))
    assert (result.ok, result.empty_inputs) == (True, "")
