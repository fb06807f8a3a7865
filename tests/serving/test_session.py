"""Sessions: every datatype in and out, failures as values, and how many threads they get."""

import os
import re
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper

from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.runtime.cpu_quota import cpu_quota, runs_at_once, threads_per_session
from gateway.serving.session import RunFailed, Session, Termination, ort_version
from gateway.tensor import Datatype
from tests import models
from tests.machine_load import as_loaded


def filled(datatype: Datatype) -> npt.NDArray[np.generic]:
    if datatype is Datatype.BYTES:
        return np.array([[b"a", "\u00e9".encode(), b"", b"x\0y"]], dtype=object)
    if datatype is Datatype.BF16:
        return np.array([[0x3F80, 0x4000, 0xC040, 0x0001]], np.uint16)
    return np.array([[0, 1, 1, 0]], datatype.dtype)


@pytest.mark.parametrize("datatype", list(Datatype))
def test_every_datatype_goes_in_and_comes_out(datatype: Datatype) -> None:
    session = Session(models.identity(datatype), intra_threads=1)
    (spec,) = session.inputs
    assert (spec.name, spec.datatype, spec.shape, spec.optional) == ("x", datatype, (-1, 4), False)
    (output,) = session.run(None, {"x": filled(datatype)})
    assert output.dtype == datatype.dtype
    assert output.tolist() == filled(datatype).tolist()


@pytest.mark.parametrize("datatype", [Datatype.BF16, Datatype.BYTES, Datatype.FP32])
def test_arrays_without_rows(datatype: Datatype) -> None:
    session = Session(models.identity(datatype), intra_threads=1)
    (output,) = session.run(["y"], {"x": np.empty((0, 4), datatype.dtype)})
    assert output.shape == (0, 4)


def cast(source: int, target: int) -> bytes:
    node = helper.make_node("Cast", ["x"], ["y"], to=target)
    inputs = [helper.make_tensor_value_info("x", source, ["N", 2])]
    outputs = [helper.make_tensor_value_info("y", target, ["N", 2])]
    return bytes(models.model_of([node], inputs, outputs).SerializeToString())


def test_bf16_beside_other_types() -> None:
    out = Session(cast(TensorProto.FLOAT, TensorProto.BFLOAT16), intra_threads=1)
    assert out.run(None, {"x": np.array([[1.0, 2.0]], np.float32)})[0].tolist() == [[0x3F80, 0x4000]]
    back = Session(cast(TensorProto.BFLOAT16, TensorProto.FLOAT), intra_threads=1)
    assert back.run(None, {"x": np.array([[0x3F80, 0x4000]], np.uint16)})[0].tolist() == [[1.0, 2.0]]


def test_bytes_that_are_not_utf8_are_refused_naming_the_input() -> None:
    session = Session(models.identity(Datatype.BYTES), intra_threads=1)
    bad = np.array([[b"ok", b"\xff\xfe", b"", b""]], dtype=object)
    with pytest.raises(InvalidArgument, match="input 'x' element 1 is not valid UTF-8"):
        session.run(None, {"x": bad})
    assert session.run(None, {"x": filled(Datatype.BYTES)})


def test_outputs_come_in_the_order_asked_for() -> None:
    session = Session(models.add_sub(), intra_threads=1)
    ones = np.ones((1, 16), np.int32)
    difference, total = session.run(["OUTPUT1", "OUTPUT0"], {"INPUT0": ones, "INPUT1": ones})
    assert (difference[0, 0], total[0, 0]) == (0, 2)


def test_what_the_model_cannot_take_is_the_requests_fault() -> None:
    session = Session(models.gather(), intra_threads=1)
    for _ in range(20):
        with pytest.raises(InvalidArgument, match="Gather: indices element out of data bounds, idx=99") as caught:
            session.run(None, {"i": np.array([99], np.int64)})
        assert not re.search(r"/|0x|\.cc|ONNXRuntimeError", str(caught.value))
    assert session.run(None, {"i": np.array([3], np.int64)})[0].tolist() == [3.0]


@pytest.mark.parametrize("node", ["Add", "MatMul", "Concat"])
def test_sizes_that_do_not_fit_together_are_the_requests_fault(node: str) -> None:
    session = Session(models.two_matrices(node), intra_threads=1)
    left, right = np.ones((2, 3), np.float32), np.ones((5, 4), np.float32)
    with pytest.raises(InvalidArgument, match=f"cannot take these inputs: {node}: ") as caught:
        session.run(None, {"a": left, "b": right})
    assert not re.search(r"/onnx|0x|\.cc|\.h:", str(caught.value))


def test_failed_runs_are_typed_generic_and_leave_the_session_whole() -> None:
    session = Session(models.fragile(), intra_threads=1)
    for _ in range(20):
        with pytest.raises(RunFailed) as caught:
            session.run(None, {"i": np.array([99], np.int64)})
        assert str(caught.value) == "internal error"
        assert "Cast" in caught.value.reason
        assert "/onnxruntime_src" not in caught.value.reason
    assert session.run(None, {"i": np.array([3], np.int64)})[0].tolist() == [3.0]
    bad_feeds: list[dict[str, npt.NDArray[np.generic]]] = [
        {},
        {"j": np.array([1], np.int64)},
        {"i": np.array([1], np.int32)},
        {"i": np.array([[1]], np.int64)},
    ]
    for feeds in bad_feeds:
        with pytest.raises(RunFailed):
            session.run(None, feeds)
    with pytest.raises(RunFailed):
        session.run(["nothing"], {"i": np.array([1], np.int64)})


def test_a_run_is_stopped_from_another_thread() -> None:
    session = Session(models.endless(), intra_threads=1)
    termination = Termination()
    reasons: list[str] = []

    def run() -> None:
        try:
            session.run(None, {session.inputs[0].name: np.zeros((1, 64), np.float32)}, termination)
        except RunFailed as error:
            reasons.append(error.reason)

    thread = Thread(target=run)
    thread.start()
    termination.stop()
    thread.join(as_loaded(10))
    assert not thread.is_alive()
    assert termination.stopped
    assert "terminate" in reasons[0].lower()


@pytest.mark.parametrize("content", [b"", b"junk", b"<html>"])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(FailedPrecondition, match="refuses the model"):
        Session(content, intra_threads=1)


def test_reasons_do_not_name_directories(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"junk")
    for name in ("model.onnx", "missing.onnx"):
        with pytest.raises(FailedPrecondition) as caught:
            Session(tmp_path / name, intra_threads=1)
        assert str(tmp_path) not in str(caught.value)
        assert "onnxruntime_src" not in str(caught.value)


def test_a_missing_locale_is_named_with_its_cure() -> None:
    node = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale="xx_YY.UTF-8")
    tensors = [models.tensor_value(name, Datatype.BYTES, (None,)) for name in ("x", "y")]
    content = models.model_of([node], tensors[:1], tensors[1:]).SerializeToString()
    with pytest.raises(FailedPrecondition, match=r"needs the locale 'xx_YY\.UTF-8', .* `localedef -i xx_YY -f UTF-8"):
        Session(content, intra_threads=1)


def test_options_of_the_configuration_reach_the_runtime() -> None:
    options = {
        "graph_level": "off",
        "execution_mode": "1",
        "enable_mem_arena": "0",
        "enable_mem_pattern": "0",
        "session.disable_prepacking": "1",
        "session.model_external_initializers_file_folder_path": "/etc",  # names a file: passed over
    }
    session = Session(models.affine(), intra_threads=2, inter_threads=2, options=options)
    settings = session._session.get_session_options()
    assert (settings.intra_op_num_threads, settings.inter_op_num_threads) == (2, 2)
    assert not settings.enable_cpu_mem_arena
    assert not settings.enable_mem_pattern
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert settings.get_session_config_entry("session.inter_op.allow_spinning") == "0"
    assert settings.get_session_config_entry("session.disable_prepacking") == "1"
    with pytest.raises(RuntimeError):
        settings.get_session_config_entry("session.model_external_initializers_file_folder_path")


def test_shapes_offered_differently_from_the_models_own() -> None:
    session = Session(models.identity(Datatype.FP32, (-1, 2, 2)), intra_threads=1)
    session.reshape({"x": (2, 2)}, {"y": (4,)}, batches=True)
    (output,) = session.run(None, {"x": np.arange(12, dtype=np.float32).reshape(3, 4)})
    assert output.shape == (3, 4)
    assert output.ravel().tolist() == list(range(12))


def test_the_runtime_names_its_version() -> None:
    assert tuple(map(int, ort_version().split(".")[:2])) >= (1, 31)


# ---- threads ----


def membership(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cgroup"
    path.write_text(text)
    return path


def test_the_quota_is_the_least_of_all_cgroups_above(tmp_path: Path) -> None:
    root = tmp_path / "fs"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "cpu.max").write_text("50000 100000\n")
    (root / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(cgroup_root=root, membership=membership(tmp_path, "0::/a/b\n")) == 0.5


def test_the_quota_of_version_1(tmp_path: Path) -> None:
    folder = tmp_path / "fs" / "cpu,cpuacct"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("25000")
    (folder / "cpu.cfs_period_us").write_text("100000")
    lines = "12:memory:/x\n4:cpu,cpuacct:/docker/abc\n"
    assert cpu_quota(cgroup_root=tmp_path / "fs", membership=membership(tmp_path, lines)) == 0.25
    (folder / "cpu.cfs_quota_us").write_text("-1")
    assert cpu_quota(cgroup_root=tmp_path / "fs", membership=membership(tmp_path, lines)) >= 1


def test_without_cgroups_the_affinity_mask_counts(tmp_path: Path) -> None:
    assert cpu_quota(cgroup_root=tmp_path, membership=tmp_path / "none") >= 1
    assert cpu_quota(cgroup_root=tmp_path, membership=membership(tmp_path, "nonsense\n0::\n")) >= 1


@pytest.mark.parametrize(
    ("quota", "workers", "threads", "runs"),
    [(8.0, 2, 2, 2), (2.0, 2, 1, 1), (0.5, 1, 1, 1), (2.0, 1, 1, 2), (3.9, 1, 1, 4), (16.0, 1, 4, 4), (4.0, 0, 2, 2)],
)
def test_threads_and_runs_fill_a_workers_share(quota: float, workers: int, threads: int, runs: int) -> None:
    assert threads_per_session(quota, workers) == threads
    assert runs_at_once(quota, workers, threads) == runs


def test_threads_that_an_operator_asks_for_leave_fewer_runs_but_never_none() -> None:
    assert runs_at_once(4.0, 1, 4) == 1
    assert runs_at_once(2.0, 2, 8) == 1


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_free_size_of_a_reshape_takes_no_rows(rows: int) -> None:
    session = Session(models.affine(), intra_threads=1)
    session.reshape({"x": (-1,)}, {"y": (-1, 2)}, batches=True)
    (output,) = session.run(None, {"x": np.ones((rows, 2, 2), np.float32)})
    assert output.shape == (rows, 2, 2)


@pytest.mark.parametrize("module", ["gateway.serving.session", "loadtests.bench.bare"])
def test_the_runtime_sends_no_use_data(tmp_path: Path, module: str) -> None:
    program = f"import {module}, onnxruntime; onnxruntime.InferenceSession({models.identity(Datatype.FP32)!r})"
    quiet = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS"}  # each of them suppresses it too
    environment = {name: value for name, value in os.environ.items() if name not in quiet} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []  # it keeps what it will send, and an identifier of the host, in a cache there
