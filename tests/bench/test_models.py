"""The models are the same each time, two versions answer differently, and a wrong answer is seen."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.pb import inference_pb2
from loadtests.bench import body, models
from loadtests.bench.cases import Case
from loadtests.bench.models import MODELS, VERSIONS, BenchModel
from loadtests.bench.probe import WrongAnswer, probing
from loadtests.bench.servers import ARMS, Server, route_document
from loadtests.bench.session import expected_outputs


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_versions_answer_differently_and_as_large_as_said(model: BenchModel, tmp_path: Path) -> None:
    models.write(model, tmp_path)
    first, second = expected_outputs(model, tmp_path).values()
    assert first.shape == second.shape == (1, *model.output_shape)
    # Further apart than what counts as the same answer, so one version is never taken for the other.
    assert not np.allclose(first, second, rtol=1e-2, atol=1e-4)


def test_a_model_has_the_same_bytes_each_time() -> None:
    assert MODELS["mlp"].serialized("1") == MODELS["mlp"].serialized("1")


def test_the_body_is_one_framed_message(tmp_path: Path) -> None:
    bulk = MODELS["bulk"]
    body.write(bulk, tmp_path / "bulk.bin")
    content = (tmp_path / "bulk.bin").read_bytes()
    assert content[0] == 0
    assert int.from_bytes(content[1:5]) == len(content) - 5
    request = inference_pb2.ModelInferRequest.FromString(content[5:])
    assert len(request.raw_input_contents[0]) == 1 << 20
    assert list(request.inputs[0].shape) == [1, 1 << 18]


def test_right_answers_have_one_size_and_wrong_ones_are_refused(bare: Server, tiny: Case) -> None:
    with probing(bare.address, tiny.model, tiny.expected) as probe:
        assert probe.answer_bytes("user-0") == probe.ask("user-1").data_bytes > 5
        assert probe.ask("user-0").version == "1"
    wrong = {version: values + 0.01 for version, values in tiny.expected.items()}
    with (
        probing(bare.address, tiny.model, wrong) as probe,
        pytest.raises(WrongAnswer, match=r"version 1 answered"),
    ):
        probe.ask("user-0")


def test_a_refused_call_names_the_code(bare: Server, tiny: Case) -> None:
    unknown = replace(tiny.model, name="nobody")
    with probing(bare.address, unknown, tiny.expected) as probe, pytest.raises(WrongAnswer, match="nobody: UNKNOWN"):
        probe.ask("user-0")


def test_the_route_names_every_version() -> None:
    spec = route_document("tiny")["spec"]
    assert isinstance(spec, Mapping)
    assert {arm["version"] for arm in spec["arms"].values()} == set(VERSIONS)
    assert set(spec["strategy"]["ab"]["weights"].values()) == {"50%"}
    assert set(ARMS.values()) == set(VERSIONS)
