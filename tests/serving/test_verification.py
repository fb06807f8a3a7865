"""Every bad file of reliability table D is refused for its own reason; good ones are described truly."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from gateway.errors import Code
from gateway.serving.model_policy import InvalidModel, Policy
from gateway.serving.verification import verify
from gateway.tensor import Datatype, TensorSpec
from loaders.filesystem import FilesystemLoader
from loaders.store import ContentStore
from tests import models
from tests.serving.bad_models import BAD, FLOATS, Bad
from tests.serving.catalogs import Fetch


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_refuses(bad: Bad, fetch: Fetch, tmp_path: Path) -> None:
    local = fetch(bad.content, bad.files)
    with pytest.raises(InvalidModel, match=bad.reason) as caught:
        verify(local)
    text = str(caught.value)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert str(tmp_path) not in text
    assert text.isprintable()
    assert len(text) < 800


@pytest.mark.parametrize("datatype", Datatype)
def test_accepts_every_datatype(datatype: Datatype, fetch: Fetch) -> None:
    facts = verify(fetch(models.identity(datatype, (-1, 3))))
    assert facts.inputs == (TensorSpec("x", datatype, (-1, 3)),)
    assert facts.outputs == (TensorSpec("y", datatype, (-1, 3)),)


def test_facts(fetch: Fetch) -> None:
    model = onnx.ModelProto.FromString(models.affine(2.0, features=5))
    model.producer_version = "1.2"
    model.metadata_props.add(key="author", value="a\nb")
    content = model.SerializeToString()
    facts = verify(fetch(content))
    assert (facts.opset, facts.ir_version, facts.producer) == (17, 8, "tests 1.2")
    assert (facts.parameter_count, facts.weight_bytes, facts.model_bytes) == (10, 40, len(content))
    assert facts.metadata == {"author": "a\nb"}
    assert facts.external_files == ()


def test_external_data_in_their_place(fetch: Fetch) -> None:
    content = models.with_external_data(FLOATS, location="weights/w.bin", offset="4096", length="16")
    facts = verify(fetch(content, {"weights/w.bin": b"\0" * 4096 + FLOATS.tobytes()}))
    assert facts.external_files == ("weights/w.bin",)


def test_external_data_beside_a_model_in_a_directory(tmp_path: Path) -> None:
    folder = tmp_path / "repository/m/1/model.onnx"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(models.with_external_data(FLOATS, location="w.bin"))
    (folder / "w.bin").write_bytes(FLOATS.tobytes())
    local = FilesystemLoader(tmp_path / "repository", ContentStore(tmp_path / "store")).fetch("m", "1")
    assert verify(local).external_files == ("model.onnx/w.bin",)


def test_nan_by_policy_and_infinity_always(fetch: Fetch) -> None:
    assert verify(fetch(models.affine(float("nan"))), policy=Policy(allow_nan=True)).infinite_weights == 0
    assert verify(fetch(models.affine(float("-inf")))).infinite_weights == 4


@pytest.mark.parametrize(
    ("data_type", "pattern"),
    [(TensorProto.FLOAT16, 0x7C00), (TensorProto.BFLOAT16, 0xFF80), (TensorProto.FLOAT8E5M2, 0x7C)],
)
def test_infinity_of_small_floats_is_no_nan(data_type: int, pattern: int, fetch: Fetch) -> None:
    model = onnx.ModelProto.FromString(models.affine())
    model.graph.initializer.append(TensorProto(name="w", data_type=data_type, dims=[1], int32_data=[pattern]))
    model.ir_version = 9
    assert verify(fetch(model.SerializeToString())).infinite_weights == 1


def test_overridable_initializers_are_no_inputs(fetch: Fetch) -> None:
    model = onnx.ModelProto.FromString(models.affine())
    model.graph.input.append(models.tensor_value("scale", Datatype.FP32, (4,)))
    assert [spec.name for spec in verify(fetch(model.SerializeToString())).inputs] == ["x"]


def test_own_functions_are_operators(fetch: Fetch) -> None:
    model = onnx.ModelProto.FromString(models.affine())
    opsets = [helper.make_opsetid("", models.OPSET)]
    double = helper.make_function("own", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opsets)
    model.functions.append(double)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node.append(helper.make_node("Double", ["x"], ["z"], domain="own"))
    assert verify(fetch(model.SerializeToString())).opset == 17


def test_bytes_changed_after_the_fetch_are_refused(fetch: Fetch) -> None:
    local = fetch(models.affine())
    path = local.model_file()
    path.chmod(0o644)
    path.write_bytes(models.affine(3.0))
    with pytest.raises(InvalidModel, match="SHA-256 is another"):
        verify(local)


def test_size_limit(fetch: Fetch) -> None:
    with pytest.raises(InvalidModel, match="at most 100 are allowed"):
        verify(fetch(models.affine()), policy=Policy(max_model_bytes=100))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_any_damage_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, seed: int, count: int) -> None:
    """Flipped bytes end in InvalidModel or in a description, never in another exception."""
    random = np.random.default_rng(seed)
    content = bytearray(models.with_external_data(FLOATS, location="w.bin", offset="0", length="16"))
    for position in random.integers(0, len(content), count):
        content[position] = random.integers(0, 256)
    root = tmp_path_factory.mktemp("damage")
    loader = FilesystemLoader(root / "r", ContentStore(root / "s"))
    files = {"w.bin": FLOATS.tobytes()}
    models.write_version(root / "r", "m", "1", bytes(content), files=files)
    local = loader.fetch("m", "1")
    reason = ""
    try:
        verify(local)
    except InvalidModel as error:
        reason = str(error)
    assert not reason or reason.isprintable()
