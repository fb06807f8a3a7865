"""Every example of the ONNX operators that plain ONNX Runtime runs is a model that can be served."""

import warnings
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.backend.test.case.node import collect_testcases

from gateway.errors import GatewayError
from gateway.serving.config_source import EMPTY
from gateway.serving.contract import complete
from gateway.serving.session import Session
from gateway.serving.verification import verify
from gateway.serving.warm_up import WarmUp, served_outputs
from loaders.loader import FileEntry, LocalVersion


def runnable(most: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The examples that the runtime runs with their own inputs, and whose inputs and outputs are tensors.

    At most so many for each operator that a model begins with.
    """
    yielded: Counter[str] = Counter()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for case in collect_testcases(None):
        if case.model is None or not case.data_sets:
            continue
        values = [*case.model.graph.input, *case.model.graph.output]
        if any(value.type.WhichOneof("value") != "tensor_type" for value in values):
            continue
        operator = case.model.graph.node[0].op_type
        if yielded[operator] >= most:
            continue
        feed = {value.name: np.asarray(data) for value, data in zip(values, case.data_sets[0][0], strict=False)}
        try:
            session = onnxruntime.InferenceSession(
                case.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            session.run(None, feed)
        except Exception:  # the runtime's own exceptions share no other base: it does not run this at all
            continue
        yielded[operator] += 1
        yield case.name, case.model


def load(model: onnx.ModelProto, directory: Path) -> None:
    """All that a probe and a load do, without a process for each. Raises: GatewayError."""
    content = model.SerializeToString()
    (directory / "model.onnx").write_bytes(content)
    entry = FileEntry("model.onnx", len(content), sha256(content).hexdigest())
    verify(LocalVersion(directory, "0" * 64, (entry,)))
    session = Session(directory / "model.onnx", intra_threads=1)
    findings = WarmUp(session, None, (), allow_nan=False, seed=0).run()
    complete(
        EMPTY,
        "m",
        inputs=session.inputs,
        outputs=served_outputs(session.outputs, findings.answers, session.inputs),
        overridable=session.overridable,
        read_file=lambda name: b"",
        may_batch=findings.batches,
        rows_independent=findings.rows_independent,
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("most", "served_at_least"), [(2, 250), pytest.param(1000, 1400, marks=pytest.mark.long)])
def test_what_the_runtime_runs_is_served(tmp_path: Path, most: int, served_at_least: int) -> None:
    refused, served = {}, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the examples and made-up inputs divide by zero on purpose
        for name, model in runnable(most):
            try:
                load(model, tmp_path)
                served += 1
            except GatewayError as error:
                refused[name] = str(error)
    assert not refused
    assert served >= served_at_least
