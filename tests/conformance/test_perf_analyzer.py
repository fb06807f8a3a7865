"""Triton's perf_analyzer against the gateway: the program itself where it runs, and always the requests it sends."""

import asyncio
import csv
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from gateway.pb import inference_pb2 as pb
from tests import models
from tests.api.stand import Stand, standing

pytestmark = pytest.mark.asyncio(loop_scope="module")
PERF_ANALYZER = shutil.which("perf_analyzer")
EMPTY_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["ngh2", "grpcio"])
async def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    data = tmp_path_factory.mktemp("perf")
    repository = data / "models"
    models.write_version(repository, "simple", "1", models.add_sub(), config="max_batch_size: 8")
    probes = tmp_path_factory.getbasetemp() / "probes"
    async with standing(repository, data, probes=probes, transport=request.param) as made:
        yield made


def request_of(number: int, *, final: bool, streamed: bool = False) -> pb.ModelInferRequest:
    """A request as perf_analyzer 2.60 sends it: no version, outputs by name, the parameter always, an id on streams."""
    request = pb.ModelInferRequest(model_name="simple", id=str(number) if streamed else "")
    request.parameters[EMPTY_FINAL].bool_param = final
    for name in ("INPUT0", "INPUT1"):
        request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
        request.raw_input_contents.append(np.full(16, number, np.int32).tobytes())
    for name in ("OUTPUT0", "OUTPUT1"):
        request.outputs.add(name=name)
    return request


def check(response: pb.ModelInferResponse, number: int) -> None:
    assert [output.name for output in response.outputs] == ["OUTPUT0", "OUTPUT1"]
    sums, differences = (np.frombuffer(raw, np.int32) for raw in response.raw_output_contents)
    assert (sums.tolist(), differences.tolist()) == ([2 * number] * 16, [0] * 16)


@pytest.mark.parametrize("final", [True, False])
async def test_its_unary_requests_are_answered(stand: Stand, final: bool) -> None:
    for number in range(4):  # the first is parsed, the others find its template
        check(await stand.stub.ModelInfer(request_of(number, final=final)), number)


@pytest.mark.parametrize("final", [True, False])
async def test_its_streamed_requests_are_answered_in_order_each_by_a_final_answer(stand: Stand, final: bool) -> None:
    async def sent() -> AsyncIterator[pb.ModelInferRequest]:
        for number in range(40):
            yield request_of(number, final=final, streamed=True)

    answers = [answer async for answer in stand.stub.ModelStreamInfer(sent())]
    assert len(answers) == 40
    for number, answer in enumerate(answers):
        assert not answer.error_message
        assert answer.infer_response.id == str(number)
        check(answer.infer_response, number)
        assert answer.infer_response.parameters[FINAL].bool_param


@pytest.mark.skipif(PERF_ANALYZER is None, reason="needs perf_analyzer: pip install perf-analyzer, glibc >= 2.38")
@pytest.mark.parametrize(
    "options",
    [[], ["--async"], ["--async", "--streaming"], ["-b", "4"], ["--request-rate-range", "200"]],
    ids=["unary", "asynchronous", "streamed", "batches", "rate"],
)
async def test_the_program_itself_measures(stand: Stand, options: Sequence[str], tmp_path: Path) -> None:
    assert PERF_ANALYZER is not None
    report = tmp_path / "report.csv"
    load = [] if "--request-rate-range" in options else ["--concurrency-range", "2"]
    process = await asyncio.create_subprocess_exec(
        PERF_ANALYZER, "-m", "simple", "-u", stand.address, "-i", "grpc", *load, *options,
        "--request-count", "200", "-f", str(report),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode == 0, output.decode()
    [row] = csv.DictReader(report.read_text().splitlines())
    assert float(row["Inferences/Second"]) > 0
    assert "rror" not in output.decode(), output.decode()
