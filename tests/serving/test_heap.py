"""The heap while models are loaded: buffers are used again, and what was freed goes back to the system."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import helper

from gateway.serving.probe_request import ProbeRequest, ProbeResult
from gateway.serving.verification import verify
from gateway.tensor import Datatype
from tests import models
from tests.serving.catalogs import Fetch
from tests.serving.prepared_models import preparer, weights

_BUFFERS = 6
_BUFFER_BYTES = 40 << 20  # malloc maps each one, unless it is told otherwise

_PROGRAM = f"""
import json, resource, sys
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

from gateway.serving.heap import reused_buffers, settle_heap

settle_heap()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def fill(buffers: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(buffers):
        b"x" * {_BUFFER_BYTES}
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def loads() -> None:
    fill(1)
    said["before"] = resident()
    said["mapped"] = fill({_BUFFERS})
    with ExitStack() as first:
        with reused_buffers():
            first.enter_context(reused_buffers())
            said["reused"] = fill({_BUFFERS})
        said["reused in the other"] = fill({_BUFFERS})
        kept = b"x" * (1 << 20)  # above what was freed: the heap's end cannot move below it
        said["held"] = resident()
    said["after"] = resident()
    said["mapped again"] = fill({_BUFFERS})
    del kept


said: dict[str, int] = {{}}
thread = Thread(target=loads)  # as loads are: not on the main thread
thread.start()
thread.join()
print(json.dumps(said))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_buffers_are_used_again_until_the_last_load_ends_and_given_back_then() -> None:
    said = json.loads(subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True).stdout)
    pages = _BUFFER_BYTES // 4096
    assert min(said["mapped"], said["mapped again"]) >= _BUFFERS * pages
    assert said["reused"] < 2 * pages, said
    assert said["reused in the other"] < pages, said
    assert said["held"] - said["before"] > _BUFFER_BYTES // 2, said
    assert abs(said["after"] - said["before"]) < 8 << 20, said


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
async def test_a_prepared_version_is_loaded_without_a_fault_for_each_page_that_is_packed(
    fetch: Fetch, tmp_path: Path
) -> None:
    """Every layer packs the same weights, of more than 32 MiB, into a buffer of its own."""
    layers, width = 20, 2944
    request = ProbeRequest(fetch(_stacked(layers, width)))
    result = ProbeResult(ok=True, facts=verify(request.local), batches=True, repeatable=True)
    worker = preparer(tmp_path)
    assert await worker.prepare(request, result) == ""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert worker.opened(request, result, lambda session: len(session.outputs)) == 1
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < layers / 2 * width * width * 4 / resource.getpagesize()


def _stacked(layers: int, width: int) -> bytes:
    names = ["x", *(f"hidden_{layer}" for layer in range(1, layers)), "y"]
    model = models.model_of(
        [helper.make_node("MatMul", [names[layer], "w"], [names[layer + 1]]) for layer in range(layers)],
        [models.tensor_value("x", Datatype.FP32, (-1, width))],
        [models.tensor_value("y", Datatype.FP32, (-1, width))],
        [models.weight("w", weights(width, width) / width)],
    )
    return bytes(model.SerializeToString())
