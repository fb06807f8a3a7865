"""Triton's perf_analyzer with `-i http`: the program itself where it runs, and always the requests that it sends."""

import asyncio
import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.api.stand import Stand
from tests.conformance.test_perf_analyzer import EMPTY_FINAL, PERF_ANALYZER
from tests.rest.asking import SIZE, ask, data_of, path_of, told

pytestmark = pytest.mark.asyncio(loop_scope="session")
# As libcurl sends them for Triton's C++ client.
HEADERS = {"user-agent": "libcurl-agent/1.0", "accept": "*/*", "content-type": "application/octet-stream"}


def request_of(number: int, *, parameters: dict[str, bool]) -> tuple[bytes, dict[str, str]]:
    """A request as the C++ client writes it: an id that is always there, tensors with sizes, outputs in binary."""
    raw = np.full(16, number, np.int32).tobytes()
    described = {
        "id": "",
        **({"parameters": parameters} if parameters else {}),
        "inputs": [
            {"name": name, "shape": [1, 16], "datatype": "INT32", "parameters": {"binary_data_size": len(raw)}}
            for name in ("INPUT0", "INPUT1")
        ],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in ("OUTPUT0", "OUTPUT1")],
    }
    head = json.dumps(described, separators=(",", ":")).encode()
    return head + raw + raw, {**HEADERS, SIZE: str(len(head))}


@pytest.mark.parametrize("parameters", [{}, {EMPTY_FINAL: True}, {EMPTY_FINAL: False}])
async def test_its_requests_are_answered(stand: Stand, parameters: dict[str, bool]) -> None:
    for number in range(4):  # the first is parsed, the others are found among those kept
        body, headers = request_of(number, parameters=parameters)
        answer = await ask(stand, "POST", path_of("simple"), body, headers)
        sums, differences = (np.frombuffer(data, np.int32) for data in data_of(answer))
        assert (sums.tolist(), differences.tolist()) == ([2 * number] * 16, [0] * 16)


async def test_what_it_asks_first_is_answered(stand: Stand) -> None:
    server = told(await ask(stand, "GET", "/v2", headers=HEADERS))
    model = told(await ask(stand, "GET", "/v2/models/simple", headers=HEADERS))
    config = told(await ask(stand, "GET", "/v2/models/simple/config", headers=HEADERS))
    statistics = told(await ask(stand, "GET", "/v2/models/simple/stats", headers=HEADERS))
    assert "statistics" in server["extensions"]
    assert [tensor["shape"] for tensor in model["inputs"]] == [[-1, 16]] * 2
    assert (config["max_batch_size"], config["input"][0]["data_type"]) == (8, "TYPE_INT32")
    assert statistics["model_stats"][0]["name"] == "simple"


@pytest.mark.skipif(PERF_ANALYZER is None, reason="perf_analyzer does not run here")
async def test_the_program_itself(stand: Stand, tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    child = await asyncio.create_subprocess_exec(
        *(str(PERF_ANALYZER), "-m", "simple", "-i", "http", "-u", f"127.0.0.1:{stand.rest_port}", "-b", "2"),
        *("--request-count", "200", "--concurrency-range", "4", "-f", str(report)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await child.communicate())[0].decode()
    assert child.returncode == 0, said
    [row] = csv.DictReader(report.open())
    assert float(row["Inferences/Second"]) > 0
