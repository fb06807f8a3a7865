"""The judges of the load tests must find every kind of wrong answer; otherwise a green run says nothing."""

import numpy as np
import pytest

from gateway.pb import inference_pb2 as pb
from loadtests.arms import Arms
from loadtests.legality import LegalVersions
from loadtests.samples import Sample
from loadtests.verdict import Answer, Violation, answer_of, check_answer, check_version, share_text

ONE = {"label": np.array([[3]]), "probabilities": np.array([[0.9, 0.1]], np.float32)}
TWO = {"label": np.array([[5]]), "probabilities": np.array([[0.2, 0.8]], np.float32)}
SAMPLE = Sample({"1": ONE, "2": TWO}, (), ())


def answer(version: str, outputs: dict[str, np.ndarray], *, said: str | None = None, request_id: str = "x") -> Answer:
    message = pb.ModelInferResponse(model_version=version, id=request_id)
    for name, datatype in (("label", "INT64"), ("probabilities", "FP32")):
        message.outputs.add(name=name, datatype=datatype, shape=outputs[name].shape)
        message.raw_output_contents.append(outputs[name].tobytes())
    return answer_of(message, [("x-gateway-version", said or version), ("x-gateway-arm", "a")])


def test_a_right_answer_passes() -> None:
    check_answer(answer("2", TWO), SAMPLE, "x")


def test_rounding_of_a_batch_is_no_violation() -> None:
    near = TWO | {"probabilities": TWO["probabilities"] + np.float32(1e-5)}
    check_answer(answer("2", near), SAMPLE, "x")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (answer("1", TWO), "outputs are those of version '2'"),
        (answer("2", {**TWO, "label": ONE["label"]}), "outputs are those of no version"),
        (answer("2", {**TWO, "probabilities": TWO["probabilities"][0]}), "outputs are those of no version"),
        (answer("2", TWO, said="1"), "model_version is '2', the metadata name '1'"),
        (answer("2", TWO, request_id="y"), "id 'y'"),
        (answer("3", TWO), "version '3' answered, known are ['1', '2']"),
        (Answer(answer("2", TWO).message, {}), "no x-gateway-version"),
    ],
)
def test_a_wrong_answer_is_found(wrong: Answer, text: str) -> None:
    with pytest.raises(Violation) as raised:
        check_answer(wrong, SAMPLE, "x")
    assert text in str(raised.value)


def test_outputs_that_cannot_be_read_are_found() -> None:
    short = answer("2", TWO)
    short.message.raw_output_contents[1] = b"\0\0\0"
    with pytest.raises(Violation, match="probabilities"):
        check_answer(short, SAMPLE, "x")


@pytest.mark.parametrize(
    ("sent", "received", "legal"),
    [
        (0.0, 0.5, {"1"}),
        (0.5, 1.0, {"1", "2"}),  # the flip began while the call was under way
        (1.2, 1.8, {"1", "2"}),  # within the flip
        (1.5, 2.5, {"1", "2"}),  # the flip ended while the call was under way
        (2.1, 2.5, {"2"}),  # after the flip
        (2.0, 2.5, {"2"}),  # from its very end on
        (0.5, 9.0, {"1", "2"}),  # over all of it
    ],
)
def test_both_versions_are_legal_during_a_flip_only(sent: float, received: float, legal: set[str]) -> None:
    versions = LegalVersions(["1"], 0.0)
    versions.allow(["1", "2"], 1.0)
    versions.allow(["2"], 2.0)
    assert versions.between(sent, received) == legal


def test_an_answer_of_the_old_version_after_the_flip_is_a_violation() -> None:
    versions = LegalVersions(["1"], 0.0)
    versions.allow(["1", "2"], 1.0)
    versions.allow(["2"], 2.0)
    check_version(answer("1", ONE), versions.between(1.9, 2.5))
    with pytest.raises(Violation, match=r"version '1' answered while only \['2'\] was legal"):
        check_version(answer("1", ONE), versions.between(2.1, 2.5))


def test_time_does_not_go_back() -> None:
    versions = LegalVersions(["1"], 1.0)
    with pytest.raises(ValueError, match=r"at_s is 0\.5"):
        versions.allow(["2"], 0.5)


def test_a_key_that_changes_its_arm_is_a_violation() -> None:
    arms = Arms()
    arms.meet("ann", "a")
    arms.meet("ben", "b")
    arms.meet("ann", "a")
    with pytest.raises(Violation, match="key 'ann' went to arm 'b', before to 'a'"):
        arms.meet("ann", "b")


@pytest.mark.parametrize(
    ("hits", "total", "right"),
    [(200, 1000, True), (150, 1000, True), (149, 1000, False), (251, 1000, False), (0, 0, False)],
)
def test_a_share_is_right_within_four_sigma(hits: int, total: int, right: bool) -> None:
    assert (share_text(hits, total, 0.2) == "") is right
