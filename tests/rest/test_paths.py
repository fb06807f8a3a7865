"""Every path of applications is served: an example for each row of the tables."""

import re
from shutil import rmtree
from typing import Any, NamedTuple

import pytest

from gateway.access.permissions import RPCS
from gateway.pb import inference_pb2
from gateway.rest.rest_service import INFER_PATHS, OWN_PATHS, PREDICT_PATHS
from gateway.rest.triton_paths import RPC_PATHS, SERVICE
from tests.api.stand import Stand
from tests.models import affine, write_version
from tests.rest.asking import ask, told
from tests.serving.ensembles import Step, config, write_ensemble

pytestmark = pytest.mark.asyncio(loop_scope="session")
_TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
_INFER = {"inputs": [_TENSOR]}
_NAMES = {"{model}": "affine", "{version}": "1", "{region}": "r", "{repository}": "elsewhere"}


class Example(NamedTuple):
    """A body, the status, and what the JSON of the answer has, or is."""

    body: object = None
    status: int = 200
    has: Any = None


EXAMPLES: dict[tuple[str, str], Example] = {
    ("GET", "/"): Example(has={"status": "alive"}),
    ("GET", "/healthz"): Example(has={"live": True}),
    ("GET", "/readyz"): Example(has={"ready": True}),
    ("GET", "/v2"): Example(has={"name": "gateway"}),
    ("GET", "/v2/health/live"): Example(has={"live": True, "ready": True}),
    ("GET", "/v2/health/ready"): Example(has={"live": True, "ready": True}),
    ("GET", "/v2/models/{model}"): Example(has={"name": "affine", "platform": "onnxruntime_onnx"}),
    ("GET", "/v2/models/{model}/config"): Example(has={"name": "affine", "max_batch_size": 8}),
    ("GET", "/v2/models/{model}/ready"): Example(has={"name": "affine", "ready": True}),
    ("GET", "/v2/models/{model}/stats"): Example(has={"model_stats"}),
    ("GET", "/v2/models/{model}/trace/setting"): Example(has={"trace_level": ["OFF"], "trace_rate": "1000"}),
    ("POST", "/v2/models/{model}/trace/setting"): Example({"trace_level": None}, has={"trace_level": ["OFF"]}),
    ("GET", "/v2/models/stats"): Example(has={"model_stats"}),
    ("GET", "/v2/trace/setting"): Example(has={"trace_count": "-1"}),
    ("POST", "/v2/trace/setting"): Example({"trace_rate": "1"}, 501, {"error"}),
    ("GET", "/v2/logging"): Example(has={"log_format": "default", "log_verbose_level": 0}),
    ("POST", "/v2/logging"): Example({"log_verbose_level": 2}, 501, {"error"}),
    ("POST", "/v2/models/{model}/infer"): Example(_INFER, has={"model_name": "affine"}),
    ("POST", "/v2/models/{model}/generate"): Example({}, 501, {"error"}),
    ("POST", "/v2/models/{model}/generate_stream"): Example({}, 501, {"error"}),
    ("POST", "/v2/repository/index"): Example(),
    ("POST", "/v2/repository/{repository}/index"): Example({"ready": True}, 501, {"error"}),
    ("POST", "/v2/repository/models/{model}/load"): Example({"parameters": {"x": 1}}, 400, {"error"}),
    ("POST", "/v2/repository/{repository}/models/{model}/load"): Example({}, 501, {"error"}),
    ("POST", "/v2/repository/models/{model}/unload"): Example({"parameters": {"force": 1}}, 400, {"error"}),
    ("POST", "/v2/repository/{repository}/models/{model}/unload"): Example({}, 501, {"error"}),
    ("GET", "/v1/models"): Example(has={"models"}),
    ("GET", "/v2/models"): Example(has={"models"}),
    ("GET", "/v1/models/{model}"): Example(has={"name": "affine", "ready": True}),
    ("POST", "/v1/models/{model}:predict"): Example({"instances": [[1, 2, 3, 4]]}, has={"predictions"}),
    ("POST", "/v1/models/{model}:explain"): Example({}, 501, {"error"}),
    **{
        (method, f"/v2/{kind}sharedmemory/{path}"): Example({} if method == "POST" else None, status, has)
        for kind in ("system", "cuda")
        for method, path, status, has in (
            ("GET", "status", 200, None),
            ("GET", "region/{region}/status", 404, {"error"}),
            ("POST", "region/{region}/register", 501, {"error"}),
            ("POST", "unregister", 200, {}),
            ("POST", "region/{region}/unregister", 200, {}),
        )
    },
}
ROWS = [
    *((row.method, row.path) for row in RPC_PATHS),
    *((row.method, row.path) for row in OWN_PATHS),
    *(("POST", path) for path in (*INFER_PATHS, *PREDICT_PATHS)),
]


def without_version(path: str) -> str:
    return path.replace("/versions/{version}", "")


async def test_every_rpc_is_reached_but_the_stream() -> None:
    reached = {row.rpc for row in RPC_PATHS} | {row.rpc for row in OWN_PATHS}
    methods = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(methods) - reached == {"ModelStreamInfer"}
    assert all(f"{SERVICE}{rpc}" in RPCS for rpc in reached)
    assert {(method, without_version(path)) for method, path in ROWS} == set(EXAMPLES)


@pytest.mark.parametrize(("method", "path"), ROWS, ids=lambda value: value)
async def test_a_path(stand: Stand, method: str, path: str) -> None:
    example = EXAMPLES[method, without_version(path)]
    place = re.sub(r"\{\w+\}", lambda name: _NAMES[name.group()], path)
    answer = await ask(stand, method, place, example.body)
    assert (answer.status, answer.fields["content-type"]) == (example.status, "application/json"), answer.body
    value = told(answer)
    if isinstance(example.has, dict):
        assert {name: value[name] for name in example.has} == example.has
    elif example.has is not None:
        assert example.has <= value.keys()
    else:
        assert isinstance(value, list)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nobody", 404),
        ("/v2/models/nobody/ready", 404),
        ("/v1/models/nobody", 404),
        ("/v2/models/broken/ready", 503),
        ("/v2/models/affine/versions/9/ready", 404),
        ("/v2/models/affine/versions/x%2Fy", 400),
        ("/v2/models/a%00b", 400),
        ("/v9", 404),
    ],
)
async def test_what_is_not_there(stand: Stand, path: str, status: int) -> None:
    answer = await ask(stand, "GET", path)
    assert (answer.status, list(told(answer))) == (status, ["error"])


async def test_a_path_with_another_method_says_which_it_has(stand: Stand) -> None:
    answer = await ask(stand, "DELETE", "/v2/models/affine/infer")
    assert (answer.status, answer.fields["allow"]) == (405, "POST")


async def test_the_numbers_of_statistics_are_numbers(stand: Stand) -> None:
    await ask(stand, "POST", "/v2/models/affine/infer", _INFER)
    (one,) = [
        one for one in told(await ask(stand, "GET", "/v2/models/affine/stats"))["model_stats"] if one["version"] == "2"
    ]
    assert one["inference_stats"]["success"]["count"] >= 1
    assert isinstance(one["last_inference"], int)


async def test_a_model_is_unloaded_and_loaded(stand: Stand) -> None:
    body = {"parameters": {"unload_dependents": False}}
    assert (await ask(stand, "POST", "/v2/repository/models/scalar/unload", body)).status == 200
    assert (await ask(stand, "GET", "/v2/models/scalar/ready")).status in (404, 503)
    index = told(await ask(stand, "POST", "/v2/repository/index"))
    (one,) = [one for one in index if one["name"] == "scalar"]
    assert (one["state"], one["reason"]) == ("UNAVAILABLE", "unloaded")
    assert "scalar" not in told(await ask(stand, "GET", "/v1/models"))["models"]
    assert (await ask(stand, "POST", "/v2/repository/models/scalar/load", {})).status == 200
    assert (await ask(stand, "GET", "/v2/models/scalar/ready")).status == 200


async def test_an_ensemble_that_lost_a_step_is_not_ready_and_names_it(stand: Stand) -> None:
    write_version(stand.repository, "step", "1", affine())
    write_ensemble(stand.repository, "whole", config(Step("step")))
    try:
        for name in ("step", "whole"):
            assert (await ask(stand, "POST", f"/v2/repository/models/{name}/load", {})).status == 200
        assert (await ask(stand, "GET", "/v2/models/whole/ready")).status == 200
        assert (await ask(stand, "POST", "/v2/repository/models/step/unload", {})).status == 200
        answer = await ask(stand, "GET", "/v2/models/whole/ready")
        assert (answer.status, "step 1 (model 'step')" in told(answer)["error"]) == (503, True)
    finally:
        for name in ("whole", "step"):
            await ask(stand, "POST", f"/v2/repository/models/{name}/unload", {})
            rmtree(stand.repository / name)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://elsewhere"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "http://["},
        {"origin": "http://tests"},  # the name of the host that is asked, a name that was pointed at this host
    ],
)
@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_no_page_of_another_site_loads_or_unloads(stand: Stand, headers: dict[str, str], verb: str) -> None:
    answer = await ask(stand, "POST", f"/v2/repository/models/scalar/{verb}", {}, headers)
    assert (answer.status, "another site" in told(answer)["error"]) == (403, True)
    assert (await ask(stand, "GET", "/v2/models/scalar/ready")).status == 200
