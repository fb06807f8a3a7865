"""What clients read of the server and its models, and what they may do to the repository."""

import json
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest

from gateway.pb import inference_pb2 as pb
from tests import models
from tests.api.stand import Stand, standing

pytestmark = pytest.mark.asyncio(loop_scope="session")

IA, NF, UI, FP = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.FAILED_PRECONDITION,
)


async def refused(call: "grpc.aio.UnaryUnaryCall[object, object]", code: grpc.StatusCode) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code
    return caught.value.details() or ""


# ---- server and metadata ----


async def test_the_server_is_live_and_ready(stand: Stand) -> None:
    assert (await stand.stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await stand.stub.ServerReady(pb.ServerReadyRequest())).ready


async def test_the_server_names_only_extensions_that_it_has(stand: Stand) -> None:
    answer = await stand.stub.ServerMetadata(pb.ServerMetadataRequest())
    assert answer.name == "gateway"
    assert answer.version
    assert "statistics" in answer.extensions
    assert not [
        name for name in answer.extensions if "shared_memory" in name or name in ("sequence", "trace", "logging")
    ]


async def test_a_model_is_ready_not_ready_or_unknown(stand: Stand) -> None:
    ready = stand.stub.ModelReady
    assert (await ready(pb.ModelReadyRequest(name="affine"))).ready
    assert (await ready(pb.ModelReadyRequest(name="affine", version="1"))).ready
    assert not (await ready(pb.ModelReadyRequest(name="broken"))).ready
    assert not (await ready(pb.ModelReadyRequest(name="nobody"))).ready
    assert not (await ready(pb.ModelReadyRequest(name="affine", version="9"))).ready
    await refused(ready(pb.ModelReadyRequest(name="../etc")), IA)
    await refused(ready(pb.ModelReadyRequest(name="")), IA)


async def test_metadata_have_the_batch_dimension_and_the_versions(stand: Stand) -> None:
    answer = await stand.stub.ModelMetadata(pb.ModelMetadataRequest(name="simple"))
    assert (answer.name, list(answer.versions), answer.platform) == ("simple", ["1"], "onnxruntime_onnx")
    assert [(item.name, item.datatype, list(item.shape)) for item in answer.inputs] == [
        ("INPUT0", "INT32", [-1, 16]),
        ("INPUT1", "INT32", [-1, 16]),
    ]
    assert [item.name for item in answer.outputs] == ["OUTPUT0", "OUTPUT1"]
    two = await stand.stub.ModelMetadata(pb.ModelMetadataRequest(name="affine", version="1"))
    assert list(two.versions) == ["1", "2"]
    await refused(stand.stub.ModelMetadata(pb.ModelMetadataRequest(name="nobody")), NF)
    await refused(stand.stub.ModelMetadata(pb.ModelMetadataRequest(name="broken", version="1")), FP)


async def test_the_configuration_is_completed_from_the_model(stand: Stand) -> None:
    config = (await stand.stub.ModelConfig(pb.ModelConfigRequest(name="simple"))).config
    assert config.name == "simple"
    assert config.max_batch_size == 8
    assert [(item.name, item.data_type, list(item.dims)) for item in config.input] == [
        ("INPUT0", pb.TYPE_INT32, [16]),
        ("INPUT1", pb.TYPE_INT32, [16]),
    ]
    await refused(stand.stub.ModelConfig(pb.ModelConfigRequest(name="nobody")), NF)


# ---- statistics ----


async def test_statistics_count_what_was_served(stand: Stand) -> None:
    async def read() -> pb.ModelStatistics:
        answer = await stand.stub.ModelStatistics(pb.ModelStatisticsRequest(name="gather", version="1"))
        one: pb.ModelStatistics = answer.model_stats[0]
        return one

    before = await read()
    for index in (1, 2, 99):
        request = pb.ModelInferRequest(model_name="gather")
        request.inputs.add(name="i", datatype="INT64", shape=[3])
        request.raw_input_contents.append(np.full(3, index, np.int64).tobytes())
        call = stand.stub.ModelInfer(request)
        if index == 99:
            await refused(call, grpc.StatusCode.INTERNAL)
        else:
            await call
    after = await read()
    stats, earlier = after.inference_stats, before.inference_stats
    assert (after.name, after.version) == ("gather", "1")
    assert stats.success.count - earlier.success.count == 2
    assert stats.fail.count - earlier.fail.count == 1
    assert stats.compute_infer.ns > earlier.compute_infer.ns
    assert stats.queue.count == stats.success.count
    assert after.execution_count - before.execution_count == 2
    assert after.inference_count - before.inference_count == 6
    assert after.last_inference > 1_600_000_000_000
    assert sum(item.compute_infer.count for item in after.batch_stats) == after.execution_count


async def test_statistics_of_all_models_have_every_ready_version(stand: Stand) -> None:
    answer = await stand.stub.ModelStatistics(pb.ModelStatisticsRequest())
    names = {(item.name, item.version) for item in answer.model_stats}
    assert {("affine", "1"), ("affine", "2"), ("wide", "1")} <= names
    assert ("broken", "1") not in names
    answer = await stand.stub.ModelStatistics(pb.ModelStatisticsRequest(name="affine"))
    assert [item.version for item in answer.model_stats] == ["1", "2"]
    await refused(stand.stub.ModelStatistics(pb.ModelStatisticsRequest(name="nobody")), NF)
    await refused(stand.stub.ModelStatistics(pb.ModelStatisticsRequest(name="affine", version="9")), NF)


# ---- repository ----


async def test_the_index_has_every_version_with_its_state(stand: Stand) -> None:
    answer = await stand.stub.RepositoryIndex(pb.RepositoryIndexRequest())
    states = {(item.name, item.version): item for item in answer.models}
    assert states["affine", "2"].state == "READY"
    assert states["broken", "1"].state == "UNAVAILABLE"
    assert "no ONNX model" in states["broken", "1"].reason
    ready = await stand.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert {item.state for item in ready.models} == {"READY"}
    await refused(stand.stub.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="other")), UI)


async def test_models_are_loaded_and_unloaded(stand: Stand) -> None:
    models.write_version(stand.repository, "late", "1", models.affine(5.0))
    await stand.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="late"))
    assert (await stand.stub.ModelReady(pb.ModelReadyRequest(name="late"))).ready
    request = pb.RepositoryModelUnloadRequest(model_name="late")
    request.parameters["unload_dependents"].bool_param = False
    await stand.stub.RepositoryModelUnload(request)
    index = await stand.stub.RepositoryIndex(pb.RepositoryIndexRequest())
    (late,) = (item for item in index.models if item.name == "late")
    assert (late.state, late.reason) == ("UNAVAILABLE", "unloaded")
    infer = pb.ModelInferRequest(model_name="late", raw_input_contents=[bytes(16)])
    infer.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    await refused(stand.stub.ModelInfer(infer), NF)


async def test_a_configuration_in_the_request_takes_the_place_of_the_file(stand: Stand) -> None:
    models.write_version(stand.repository, "configured", "1", models.affine(5.0))
    request = pb.RepositoryModelLoadRequest(model_name="configured")
    request.parameters["config"].string_param = json.dumps({"max_batch_size": 3})
    await stand.stub.RepositoryModelLoad(request)
    config = await stand.stub.ModelConfig(pb.ModelConfigRequest(name="configured"))
    assert config.config.max_batch_size == 3
    for text in ("{", '{"max_batch_size": "many"}', "[" * 100_000):
        request.parameters["config"].string_param = text
        await refused(stand.stub.RepositoryModelLoad(request), IA)
    config = await stand.stub.ModelConfig(pb.ModelConfigRequest(name="configured"))
    assert config.config.max_batch_size == 3


@pytest.mark.parametrize(
    ("name", "parameter", "code"),
    [
        ("file:1/model.onnx", pb.ModelRepositoryParameter(bytes_param=b"x"), UI),
        ("file:../../root/.bashrc", pb.ModelRepositoryParameter(bytes_param=b"x"), IA),
        ("file:/etc/passwd", pb.ModelRepositoryParameter(bytes_param=b"x"), IA),
        ("file:1/../../x", pb.ModelRepositoryParameter(bytes_param=b"x"), IA),
        ("file:..\\x", pb.ModelRepositoryParameter(bytes_param=b"x"), IA),
        ("file:", pb.ModelRepositoryParameter(bytes_param=b"x"), IA),
        ("config", pb.ModelRepositoryParameter(bytes_param=b"{}"), IA),
        ("config", pb.ModelRepositoryParameter(string_param="x" * (1 << 20) + "x"), IA),
        ("other", pb.ModelRepositoryParameter(bool_param=True), IA),
    ],
)
async def test_what_a_load_cannot_take(
    stand: Stand, name: str, parameter: pb.ModelRepositoryParameter, code: grpc.StatusCode
) -> None:
    before = sorted(path for path in stand.repository.parent.rglob("*") if "wal" not in path.parts)
    request = pb.RepositoryModelLoadRequest(model_name="affine", parameters={name: parameter})
    await refused(stand.stub.RepositoryModelLoad(request), code)
    after = sorted(path for path in stand.repository.parent.rglob("*") if "wal" not in path.parts)
    assert after == before


async def test_a_load_that_fails_says_why(stand: Stand) -> None:
    text = await refused(stand.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="broken")), FP)
    assert "no ONNX model" in text
    await refused(stand.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="nobody")), NF)
    await refused(stand.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="../affine")), IA)
    await refused(stand.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="nobody")), NF)
    unload = pb.RepositoryModelUnloadRequest(model_name="affine")
    unload.parameters["other"].bool_param = True
    await refused(stand.stub.RepositoryModelUnload(unload), IA)


async def test_a_model_that_a_route_serves_is_unloaded_by_force_only(stand: Stand) -> None:
    models.write_version(stand.repository, "routed", "1", models.affine(5.0))
    await stand.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="routed"))
    await stand.catalog.require("routed", ["1"])
    request = pb.RepositoryModelUnloadRequest(model_name="routed")
    text = await refused(stand.stub.RepositoryModelUnload(request), FP)
    assert "the route of model 'routed' serves version 1" in text
    assert "'force'" in text
    assert (await stand.stub.ModelReady(pb.ModelReadyRequest(name="routed"))).ready
    request.parameters["force"].bool_param = False
    await refused(stand.stub.RepositoryModelUnload(request), FP)
    request.parameters["force"].bool_param = True
    await stand.stub.RepositoryModelUnload(request)
    assert not (await stand.stub.ModelReady(pb.ModelReadyRequest(name="routed"))).ready


async def test_a_model_whose_route_is_gone_is_unloaded_without_more_words(stand: Stand) -> None:
    models.write_version(stand.repository, "unrouted", "1", models.affine(5.0))
    await stand.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="unrouted"))
    await stand.catalog.require("unrouted", ["1"])
    stand.catalog.release_unrouted(())
    await stand.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="unrouted"))


# ---- settings and shared memory ----


async def test_trace_settings_can_be_read_but_not_changed(stand: Stand) -> None:
    answer = await stand.stub.TraceSetting(pb.TraceSettingRequest())
    assert list(answer.settings["trace_level"].value) == ["OFF"]
    same = pb.TraceSettingRequest(model_name="affine")
    same.settings["trace_level"].value.append("OFF")
    same.settings["trace_rate"].SetInParent()
    assert await stand.stub.TraceSetting(same) == answer
    change = pb.TraceSettingRequest()
    change.settings["trace_file"].value.append("/etc/passwd")
    await refused(stand.stub.TraceSetting(change), UI)
    unknown = pb.TraceSettingRequest()
    unknown.settings["nothing"].value.append("1")
    await refused(stand.stub.TraceSetting(unknown), IA)
    await refused(stand.stub.TraceSetting(pb.TraceSettingRequest(model_name="nobody")), NF)


async def test_log_settings_can_be_read_but_not_changed(stand: Stand) -> None:
    answer = await stand.stub.LogSettings(pb.LogSettingsRequest())
    assert answer.settings["log_file"].string_param == ""
    assert answer.settings["log_error"].bool_param
    same = pb.LogSettingsRequest()
    same.settings["log_error"].bool_param = True
    assert await stand.stub.LogSettings(same) == answer
    for change in (pb.LogSettingsRequest(), pb.LogSettingsRequest()):
        change.settings["log_file"].string_param = "/tmp/x"
        await refused(stand.stub.LogSettings(change), UI)
    unknown = pb.LogSettingsRequest()
    unknown.settings["nothing"].bool_param = True
    await refused(stand.stub.LogSettings(unknown), IA)


async def test_there_is_no_shared_memory(stand: Stand) -> None:
    stub = stand.stub
    assert not (await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())).regions
    assert not (await stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest())).regions
    await refused(stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(name="r")), NF)
    await refused(stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest(name="r")), NF)
    await refused(stub.SystemSharedMemoryRegister(pb.SystemSharedMemoryRegisterRequest(name="r", key="/k")), UI)
    await refused(stub.CudaSharedMemoryRegister(pb.CudaSharedMemoryRegisterRequest(name="r")), UI)
    await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
    await stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest())


async def test_a_reload_with_another_contract_is_seen_by_learned_requests(tmp_path: Path, probes: Path) -> None:
    models.write_version(tmp_path / "models", "m", "1", models.affine(2.0))
    async with standing(tmp_path / "models", tmp_path, probes=probes) as own:
        request = pb.ModelInferRequest(model_name="m", raw_input_contents=[bytes(16)])
        request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        for _ in range(3):
            assert (await own.stub.ModelInfer(request)).raw_output_contents[0] == bytes(16)
        models.write_version(tmp_path / "models", "m", "1", models.affine(2.0, features=8))
        await own.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="m"))
        assert "Expected [-1,8], got [1,4]" in await refused(own.stub.ModelInfer(request), IA)
