"""Inference by REST: the same answers as over gRPC, whatever the form, and the same refusals through one table."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from gateway.errors import Code
from gateway.pb import inference_pb2 as pb
from gateway.rest.http_refusal import HTTP_STATUS
from gateway.routing.decision.route import propose
from gateway.routing.decision.snapshot import Snapshot
from gateway.telemetry.sums import branch
from gateway.tensor import Datatype
from tests.api.calls import endless, good, is_well, until
from tests.api.conftest import ECHOED
from tests.api.routes import ab
from tests.api.stand import Stand
from tests.api.test_refusals import REFUSED
from tests.promises.internals import INTERNALS
from tests.rest.asking import SIZE, as_rest, ask, data_of, path_of, told

pytestmark = pytest.mark.asyncio(loop_scope="session")
KEY = {"from": ["metadata:x-user-id"], "onMissing": "control"}
ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _well_after(stand: Stand) -> AsyncIterator[None]:
    yield
    await is_well(stand)


def rows(**more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": ROWS.tolist()}], **more}


@pytest.mark.parametrize("again", [False, True])
async def test_json_and_binary_give_what_grpc_gives(stand: Stand, again: bool) -> None:
    by_grpc = await stand.stub.ModelInfer(good(2))
    expected = np.frombuffer(by_grpc.raw_output_contents[0], np.float32)
    answer = await ask(stand, "POST", path_of("affine", "1"), rows(id="j"))
    output = {"name": "y", "datatype": "FP32", "shape": [2, 4], "data": expected.tolist()}
    assert (answer.status, answer.fields["content-type"]) == (200, "application/json")
    assert told(answer) == {"model_name": "affine", "model_version": "1", "id": "j", "outputs": [output]}
    path, body, headers = as_rest(good(2))
    answer = await ask(stand, "POST", path, body, headers)
    assert (answer.status, answer.fields["content-type"]) == (200, "application/octet-stream")
    assert data_of(answer) == [by_grpc.raw_output_contents[0]]
    assert told(answer)["id"] == "good"


@pytest.mark.parametrize("datatype", ECHOED)
async def test_a_datatype_comes_back_as_it_went(stand: Stand, datatype: Datatype) -> None:
    model = f"echo-{datatype.wire_name}"
    raw = b"\x01\0\0\0a\x02\0\0\0\xc3\xbc" if datatype is Datatype.BYTES else bytes([1, 0] * datatype.size)
    tensor = {"name": "x", "shape": [1, 2], "datatype": datatype.wire_name}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}).encode()
    wanted = json.dumps({"name": "y", "parameters": {"binary_data": True}})
    head = head[:-1] + b', "outputs": [' + wanted.encode() + b"]}"
    answer = await ask(stand, "POST", path_of(model), head + raw, {SIZE: str(len(head))})
    assert data_of(answer) == [raw]
    refused = datatype in (Datatype.FP16, Datatype.BF16)
    data: list[object] = ["a", "\u00fc"] if datatype is Datatype.BYTES else [True, False]
    if datatype is Datatype.INT8:
        data = [1, 0]
    answer = await ask(stand, "POST", path_of(model), {"inputs": [{**tensor, "data": data}]})
    assert answer.status == (400 if refused else 200)
    if refused:
        assert "binary" in told(answer)["error"]
    else:
        assert told(answer)["outputs"][0]["data"] == data


async def test_every_number_is_exact_in_json(stand: Stand) -> None:
    values: dict[str, list[Any]] = {
        "UINT8": [0, 255],
        "UINT16": [0, 2**16 - 1],
        "UINT32": [0, 2**32 - 1],
        "UINT64": [0, 2**64 - 1],
        "INT16": [-(2**15), 2**15 - 1],
        "INT32": [-(2**31), 2**31 - 1],
        "INT64": [-(2**63), 2**63 - 1],
        "FP32": [0.1, -1e-38],
        "FP64": [0.1, -1e-308],
    }
    inputs = [{"name": f"x-{name}", "shape": [1, 2], "datatype": name, "data": data} for name, data in values.items()]
    answer = await ask(stand, "POST", path_of("echo"), {"inputs": inputs})
    assert {output["datatype"]: output["data"] for output in told(answer)["outputs"]} == values


# What a body cannot say, or says by its form: typed contents are data in JSON, and those have tests of their own.
OTHERWISE = {
    "A17 mixed",
    "A18 two fields",
    "A19 other field",
    "A20 count",
    "A33 unset",
    "A11 zeros",  # larger than the JSON of such a request may be
    "B41 empty name",  # another path
}


@pytest.mark.parametrize("row", [row for row in REFUSED if row not in OTHERWISE])
async def test_what_grpc_refuses_is_refused_by_the_same_table(stand: Stand, row: str) -> None:
    code, request = REFUSED[row]
    path, body, headers = as_rest(request)
    for _ in range(2):
        answer = await ask(stand, "POST", path, body, headers)
        if answer.status in (414, 431):
            assert len(path) > 4096, "the path is too long for any model"
            return
        assert answer.status == HTTP_STATUS[code], answer.body
        assert answer.fields["content-type"] == "application/json"
        assert told(answer)["error"].isprintable()
        assert INTERNALS.search(told(answer)["error"]) is None, answer.body


async def test_an_error_says_which_request_it_was(stand: Stand) -> None:
    answer = await ask(stand, "POST", path_of("affine", "9"), rows(id="r 7"))
    assert (answer.status, answer.fields["x-gateway-request-id"]) == (404, "r 7")
    answer = await ask(stand, "POST", path_of("affine"), b'{"id":"r8","inputs":0}')
    assert (answer.status, answer.fields["x-gateway-request-id"]) == (400, "r8")


async def test_rules_read_headers_parameters_and_inputs_and_the_answer_says_what_served(stand: Stand) -> None:
    stand.rules.snapshot = Snapshot.of("tests", 3, (propose(ab(key=KEY), None),))
    try:
        served = set()
        for user in range(40):
            key = {"x-user-id": f"user-{user}"}
            answer = await ask(stand, "POST", path_of("affine"), rows(), key)
            call = stand.stub.ModelInfer(good(2, version=""), metadata=tuple(key.items()))
            trailers = {str(name): value for name, value in (await call.trailing_metadata() or ())}
            assert answer.fields["x-gateway-version"] == trailers["x-gateway-version"]
            assert answer.fields["x-gateway-arm"] == trailers["x-gateway-arm"]
            assert answer.fields["x-gateway-reason"] == trailers["x-gateway-reason"]
            assert answer.fields["x-gateway-token"]
            served.add(told(answer)["model_version"])
        assert served == {"1", "2"}
    finally:
        stand.rules.snapshot = Snapshot.of("tests", 0, ())


async def test_what_is_asked_for_is_sent_in_the_form_that_is_asked_for(stand: Stand) -> None:
    left, right = np.arange(16, dtype=np.int32), np.ones(16, np.int32)
    inputs = [
        {"name": name, "shape": [1, 16], "datatype": "INT32", "data": data.tolist()}
        for name, data in (("INPUT0", left), ("INPUT1", right))
    ]
    outputs = [{"name": "OUTPUT1", "parameters": {"binary_data": True}}, {"name": "OUTPUT0"}]
    answer = await ask(stand, "POST", path_of("simple"), {"inputs": inputs, "outputs": outputs})
    first, second = told(answer)["outputs"]
    assert (first["name"], second["name"], second["data"]) == ("OUTPUT1", "OUTPUT0", (left + right).tolist())
    assert answer.body[int(answer.fields[SIZE]) :] == (left - right).tobytes()
    classes = [{"name": "scores", "parameters": {"classification": 2}}]
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    answer = await ask(stand, "POST", path_of("classifier"), {"inputs": [tensor], "outputs": classes})
    (output,) = told(answer)["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 2])
    assert all(len(text.split(":")) == 3 for text in output["data"])


async def test_a_body_of_nothing_but_data(stand: Stand) -> None:
    answer = await ask(stand, "POST", path_of("affine", "1"), ROWS.tobytes(), {SIZE: "0"})
    assert data_of(answer) == [(ROWS * 2).tobytes()]
    answer = await ask(stand, "POST", path_of("simple"), ROWS.tobytes(), {SIZE: "0"})
    assert (answer.status, "2 inputs" in told(answer)["error"]) == (400, True)


@pytest.mark.parametrize("value", ["-1", "x", "", "1.5", "9" * 30])
async def test_a_length_of_the_json_that_is_none(stand: Stand, value: str) -> None:
    answer = await ask(stand, "POST", path_of("affine"), rows(), {SIZE: value})
    assert (answer.status, "Inference-Header-Content-Length" in told(answer)["error"]) == (400, True)


@pytest.mark.parametrize(("coding", "packed"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_bodies_may_be_compressed_both_ways(stand: Stand, coding: str, packed: Any) -> None:
    wide = np.zeros((1, 40_000), np.float32)
    head = json.dumps(
        {
            "inputs": [
                {"name": "x", "shape": [1, 40_000], "datatype": "FP32", "parameters": {"binary_data_size": wide.nbytes}}
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    headers = {SIZE: str(len(head)), "content-encoding": coding, "accept-encoding": f"br, {coding};q=0.5"}
    answer = await ask(stand, "POST", path_of("wide"), packed(head + wide.tobytes()), headers)
    assert (answer.status, answer.fields["content-encoding"]) == (200, coding)
    body = gzip.decompress(answer.body) if coding == "gzip" else zlib.decompress(answer.body)
    size = int(answer.fields[SIZE])
    assert (json.loads(body[:size])["model_name"], body[size:]) == ("wide", wide.tobytes())
    small = await ask(stand, "POST", path_of("affine"), rows(), {"accept-encoding": coding})
    assert "content-encoding" not in small.fields


async def test_kserve_predict(stand: Stand) -> None:
    for given in ({"instances": ROWS.tolist()}, {"inputs": {"x": ROWS.tolist()}}):
        answer = await ask(stand, "POST", "/v1/models/affine:predict", given, {"ce-id": "1", "ce-type": "a"})
        assert told(answer) == {"predictions": (ROWS * 3).tolist()}
    answer = await ask(stand, "POST", "/v1/models/affine/versions/1:predict", {"instances": ROWS.tolist()})
    assert told(answer) == {"predictions": (ROWS * 2).tolist()}
    answer = await ask(stand, "POST", "/v1/models/nobody:predict", {"instances": []})
    assert answer.status == 404
    answer = await ask(stand, "POST", "/v1/models/echo-FP16:predict", {"instances": [[1, 2]]})
    assert (answer.status, "FP16" in told(answer)["error"]) == (400, True)


async def test_an_event_is_answered_by_an_event(stand: Stand) -> None:
    event = {"ce-specversion": "1.0", "ce-id": "36077800", "ce-source": "io.kserve.client", "ce-type": "request"}
    path, given = "/v1/models/affine:predict", {"instances": ROWS.tolist()}
    first, second = [await ask(stand, "POST", path, given, event) for _ in range(2)]
    assert (told(first), first.fields["content-type"]) == ({"predictions": (ROWS * 3).tolist()}, "application/json")
    told_event = {name: value for name, value in first.fields.items() if name.startswith("ce-")}
    assert told_event.pop("ce-id") not in ("36077800", second.fields["ce-id"])
    assert datetime.fromisoformat(told_event.pop("ce-time")).utcoffset() == timedelta(0)
    assert told_event == {
        "ce-specversion": "1.0",
        "ce-type": "io.kserve.inference.response",
        "ce-source": "io.kserve.inference.affine",
    }
    for answer in (
        await ask(stand, "POST", path, given, {"ce-id": "1"}),  # no event without its version
        await ask(stand, "POST", path, {"instances": [["x"]]}, event),  # an error is none
    ):
        assert not any(name.startswith("ce-") for name in answer.fields)


async def test_each_protocol_has_its_own_answer_to_the_same_data(stand: Stand) -> None:
    five = np.ones((5, 4), np.float32)
    tensor = {"name": "x", "shape": [5, 4], "datatype": "FP32", "data": five.tolist()}
    for _ in range(2):
        answer = await ask(stand, "POST", "/v1/models/affine:predict", {"instances": five.tolist()})
        assert list(told(answer)) == ["predictions"]
        answer = await ask(stand, "POST", path_of("affine"), {"inputs": [tensor]})
        assert told(answer)["outputs"][0]["data"] == [3.0] * 20


async def test_requests_are_counted_and_timed_as_over_grpc(stand: Stand) -> None:
    def succeeded() -> int:
        arms = branch(stand.counters.snapshot(), "sums", "series", "affine", "1")
        return sum(int(str(branch(arm, "codes").get("0", 0))) for arm in arms.values() if isinstance(arm, dict))

    before = succeeded()
    for _ in range(3):
        await ask(stand, "POST", path_of("affine", "1"), rows())
    await until(lambda: succeeded() == before + 3)


async def test_a_timeout_of_a_request_is_kept(stand: Stand) -> None:
    answer = await ask(stand, "POST", path_of("affine"), rows(parameters={"timeout": True}))
    assert answer.status == HTTP_STATUS[Code.INVALID_ARGUMENT]
    answer = await ask(stand, "POST", path_of("affine"), rows(parameters={"timeout": 5_000_000, "priority": 1}))
    assert answer.status == 200


async def test_a_deadline_ends_a_running_request(stand: Stand) -> None:
    path, body, headers = as_rest(endless())
    answer = await ask(stand, "POST", path, body, {**headers, "grpc-timeout": "50m"})
    assert answer.status == HTTP_STATUS[Code.DEADLINE_EXCEEDED]
    await until(lambda: stand.engine.in_flight == 0)


async def test_a_client_that_goes_frees_the_places_of_its_requests(stand: Stand) -> None:
    """Of the one that runs, of one behind it in the pipeline, and of those that wait for a thread."""
    path, body, headers = as_rest(endless())
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body
    clients = [await asyncio.open_connection("127.0.0.1", stand.rest_port) for _ in range(3)]
    for _, writer in clients:
        writer.write(2 * request)
    await until(lambda: stand.engine.in_flight == 6)
    for _, writer in clients:
        writer.close()
    await until(lambda: stand.engine.in_flight == 0)


async def test_the_message_of_a_request_is_written_whole() -> None:
    path, body, headers = as_rest(pb.ModelInferRequest(model_name="a/b", model_version="1"))
    assert (path, headers[SIZE]) == ("/v2/models/a%2Fb/versions/1/infer", str(len(body)))
