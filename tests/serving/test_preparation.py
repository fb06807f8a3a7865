"""Prepared models: the same answers to the bit, made once per host, never half there, bounded."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from onnx import helper

from gateway.errors import FailedPrecondition
from gateway.serving.preparation_child import Unprepared, prepare
from gateway.serving.preparation_request import PreparationRequest, objection
from gateway.serving.prepared_store import MODEL_FILENAME, PreparedStore, Refusal, preparation_key
from gateway.serving.probe_request import ProbeRequest, ProbeResult, from_json, to_json
from gateway.serving.run_environment import present_environment
from gateway.serving.session import WEIGHTS_FILENAME, Session
from gateway.serving.verification import verify
from gateway.tensor import Datatype
from loaders.loader import LocalVersion
from loadtests.bench.models import MODELS
from tests import models
from tests.autogroups import session_niceness
from tests.serving.catalogs import Fetch
from tests.serving.prepared_models import WIDTH, entries, multiplied, preparer, weights

COMMAND = (sys.executable, "-P", "-m", "gateway.serving.preparation_child")


def quantized() -> bytes:
    """`y = x @ weights` of eight bits, which the runtime packs in its own way."""
    whole = np.random.default_rng(2).integers(-100, 100, (WIDTH, WIDTH)).astype(np.int8)
    model = models.model_of(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            helper.make_node("MatMulInteger", ["q", "w", "zero"], ["product"]),
            helper.make_node("Cast", ["product"], ["floats"], to=1),
            helper.make_node("Mul", ["floats", "scale"], ["y"]),
        ],
        [models.tensor_value("x", Datatype.FP32, (-1, WIDTH))],
        [models.tensor_value("y", Datatype.FP32, (-1, WIDTH))],
        [models.weight("w", whole)],
    )
    return bytes(model.SerializeToString())


def table() -> bytes:
    """`y = weights[x]`: a table of rows, which no kernel packs."""
    model = models.model_of(
        [helper.make_node("Gather", ["w", "x"], ["y"])],
        [models.tensor_value("x", Datatype.INT64, (-1,))],
        [models.tensor_value("y", Datatype.FP32, (-1, WIDTH))],
        [models.weight("w", weights(WIDTH, WIDTH))],
    )
    return bytes(model.SerializeToString())


def branching() -> bytes:
    """`y = x @ weights` or `x @ -weights`, chosen by the sum of x: the weights lie in the branches."""

    def branch(name: str, sign: float) -> object:
        return helper.make_graph(
            [helper.make_node("MatMul", ["x", f"w_{name}"], [f"y_{name}"])],
            name,
            [],
            [models.tensor_value(f"y_{name}", Datatype.FP32, (-1, WIDTH))],
            [models.weight(f"w_{name}", weights(WIDTH, WIDTH) * np.float32(sign))],
        )

    model = models.model_of(
        [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Greater", ["sum", "nothing"], ["positive"]),
            helper.make_node("If", ["positive"], ["y"], then_branch=branch("yes", 1), else_branch=branch("no", -1)),
        ],
        [models.tensor_value("x", Datatype.FP32, (-1, WIDTH))],
        [models.tensor_value("y", Datatype.FP32, (-1, WIDTH))],
        [models.weight("nothing", np.array(0, np.float32))],
    )
    return bytes(model.SerializeToString())


PREPARABLE: dict[str, Callable[[], bytes]] = {
    "matrix product": multiplied,
    "eight bits": quantized,
    "table": table,
    "branches": branching,
    "recurrent": lambda: models.recurrent(features=32, hidden=32),
    "dense layers": lambda: MODELS["mlp"].serialized("1"),
    "convolutions": lambda: MODELS["conv"].serialized("1"),
}


def probed(request: ProbeRequest) -> ProbeResult:
    """What a probe says of a model that batches and repeats itself."""
    return ProbeResult(ok=True, facts=verify(request.local), batches=True, repeatable=True)


def preparation(local: LocalVersion, directory: Path, *, file_limit: int = 1 << 30) -> PreparationRequest:
    directory.mkdir(exist_ok=True)
    return PreparationRequest(ProbeRequest(local), verify(local), True, "key", directory, file_limit, False)


@pytest.mark.parametrize("kind", PREPARABLE)
def test_prepared_answers_are_those_of_the_model_to_the_bit(kind: str, fetch: Fetch, tmp_path: Path) -> None:
    local = fetch(PREPARABLE[kind]())
    prepare(preparation(local, tmp_path / "prepared"))
    plain = Session(local.model_file(), intra_threads=1)
    prepared = Session(tmp_path / "prepared" / MODEL_FILENAME, intra_threads=1, prepared=True)
    assert (prepared.inputs, prepared.outputs) == (plain.inputs, plain.outputs)
    random = np.random.default_rng(7)
    for rows in (1, 2, 3, 8, 33):
        shapes = {spec.name: [rows, *(3 if size < 0 else size for size in spec.shape[1:])] for spec in plain.inputs}
        feeds = {
            spec.name: random.integers(0, WIDTH, shapes[spec.name])
            if spec.datatype is Datatype.INT64
            else random.normal(0, 1, shapes[spec.name]).astype(np.float32)
            for spec in plain.inputs
        }
        for left, right in zip(plain.run(None, feeds), prepared.run(None, feeds), strict=True):
            assert left.dtype == right.dtype
            assert left.tobytes() == right.tobytes()


def test_weights_that_are_no_initializers_are_not_prepared(fetch: Fetch, tmp_path: Path) -> None:
    request = preparation(fetch(models.affine()), tmp_path / "prepared")
    with pytest.raises(Unprepared, match="its weights are no initializers"):
        prepare(request)


def test_content_that_changed_is_not_prepared(fetch: Fetch, tmp_path: Path) -> None:
    local = fetch(multiplied())
    request = preparation(local, tmp_path / "prepared")
    model = local.model_file()
    model.chmod(0o600)
    with model.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")
    with pytest.raises(FailedPrecondition, match=r"model\.onnx changed since it was fetched"):
        prepare(request)


def test_who_is_not_prepared_and_why(fetch: Fetch) -> None:
    request = ProbeRequest(fetch(multiplied()))
    good = probed(request)
    assert good.facts is not None
    by_chance = replace(good, facts=replace(good.facts, chance="RandomNormal"))

    def why(result: ProbeResult, *, on_cpu: bool = True, min_bytes: int = 1, max_bytes: int = 1 << 20) -> str:
        return objection(request, result, on_cpu=on_cpu, min_bytes=min_bytes, max_bytes=max_bytes)

    assert why(good) == ""
    assert "--prepared-models-bytes 0" in why(good, max_bytes=0)
    assert "fewer than 16385 (--prepare-min-bytes)" in why(good, min_bytes=WIDTH * WIDTH * 4 + 1)
    assert "more than 100 (--prepared-models-bytes)" in why(good, max_bytes=100)
    assert "CPU alone" in why(good, on_cpu=False)
    assert "by chance" in why(by_chance)
    assert "by chance" in why(replace(good, repeatable=False))
    assert "no inputs are known" in why(replace(good, repeatable=None))
    assert "nothing is known" in why(replace(good, facts=None))


def test_the_key_depends_on_all_that_a_prepared_model_depends_on(fetch: Fetch) -> None:
    request, environment = ProbeRequest(fetch(multiplied())), present_environment(0, 0)
    keys = {
        preparation_key(request, environment),
        preparation_key(request, structs.replace(environment, features=("sse4",))),
        preparation_key(request, structs.replace(environment, cpu="another")),
        preparation_key(replace(request, options={"graph_level": "basic"}), environment),
        preparation_key(replace(request, intra_threads=2), environment),
        preparation_key(replace(request, filename="other.onnx"), environment),
        preparation_key(replace(request, local=replace(request.local, digest="0" * 64)), environment),
    }
    assert len(keys) == 7
    assert preparation_key(replace(request, timeout_s=1.0), environment) in keys


async def test_workers_prepare_once(fetch: Fetch, prepared_store: PreparedStore, tmp_path: Path) -> None:
    request = ProbeRequest(fetch(multiplied()))
    result = probed(request)
    workers = [preparer(tmp_path) for _ in range(3)]
    begun: list[int] = []
    watching = asyncio.ensure_future(_note_children(begun))
    assert await asyncio.gather(*(worker.prepare(request, result) for worker in workers)) == ["", "", ""]
    watching.cancel()
    assert len(set(begun)) == 1
    x = weights(3, WIDTH)
    (entry,) = entries(tmp_path / "prepared")
    answer = workers[1].opened(request, result, lambda session: session.run(None, {"x": x})[0])
    assert answer is not None
    assert answer.tobytes() == Session(multiplied(), intra_threads=1).run(None, {"x": x})[0].tobytes()
    assert [oct(entry.stat().st_mode & 0o777), oct((entry / WEIGHTS_FILENAME).stat().st_mode & 0o777)] == [
        "0o700",
        "0o400",
    ]


async def test_a_killed_preparation_leaves_nothing_and_is_not_repeated_soon(
    fetch: Fetch, prepared_store: PreparedStore, tmp_path: Path
) -> None:
    request = ProbeRequest(fetch(multiplied()))
    result = probed(request)
    task = asyncio.ensure_future(preparer(tmp_path).prepare(request, result))
    os.kill(await _child(), signal.SIGKILL)
    assert "ended early (code -9)" in await task
    assert "ended early (code -9)" in await preparer(tmp_path).prepare(request, result)
    task = asyncio.ensure_future(preparer(tmp_path).prepare(request, result, again=True))
    child = await _child()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not _command(child)
    assert not entries(tmp_path / "prepared")


_STEPS_BACK = """
import os, sys
from gateway.serving.preparation_child import step_back

stepped_back = step_back(idle=sys.argv[1] == "idle")
print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), int(stepped_back), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="a scheduler of Linux")
@pytest.mark.parametrize(("how", "niceness", "of_session"), [("idle", 19, 19), ("busy", 10, 0)])
async def test_a_preparation_gets_what_nobody_else_wants(how: str, niceness: int, of_session: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _STEPS_BACK, how), stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    assert process.stdout is not None
    try:
        stands = (await process.stdout.readline()).split()
        # In the idle class it would hold up others' threads that wake, where the CPU is shared among sessions.
        assert int(stands[0]) == os.SCHED_BATCH
        assert int(stands[1]) >= niceness
        # The CPU is shared among sessions first: without its session's niceness its own would say nothing to workers.
        # Once there is less time the share is that of others again.
        session = session_niceness(process.pid)
        assert session in (of_session if int(stands[2]) else 0, None)
        assert int(stands[2]) or how == "idle"
    finally:
        process.kill()
        await process.wait()


async def test_a_machine_that_is_always_busy_prepares_all_the_same(
    fetch: Fetch, prepared_store: PreparedStore, tmp_path: Path
) -> None:
    request = ProbeRequest(fetch(multiplied()))
    task = asyncio.ensure_future(preparer(tmp_path, idle_s=0.02).prepare(request, probed(request)))
    first = await _child()
    assert await task == ""
    assert not _command(first)
    late = preparer(tmp_path, timeout_s=0.02).prepare(
        replace(request, options={"graph_level": "basic"}), probed(request)
    )
    assert await late == "preparing it did not end within 0.02 s"


async def test_what_a_killed_worker_left_is_cleared_away(
    fetch: Fetch, prepared_store: PreparedStore, tmp_path: Path
) -> None:
    (prepared_store.stage() / WEIGHTS_FILENAME).write_bytes(b"half")
    request = ProbeRequest(fetch(multiplied()))
    assert await preparer(tmp_path).prepare(request, probed(request)) == ""


async def test_a_disk_without_room_is_named(fetch: Fetch, prepared_store: PreparedStore, tmp_path: Path) -> None:
    request = ProbeRequest(fetch(multiplied()))
    result = probed(request)
    assert result.facts is not None
    huge = replace(result, facts=replace(result.facts, weight_bytes=1 << 60))
    assert "bytes free" in await preparer(tmp_path, max_bytes=1 << 62).prepare(request, huge)


async def test_files_that_cannot_be_written_are_no_entry(
    fetch: Fetch, prepared_store: PreparedStore, tmp_path: Path
) -> None:
    local = fetch(MODELS["mlp"].serialized("1"))
    # The kernel refuses more, as on a full disk.
    request = preparation(local, prepared_store.stage(), file_limit=100_000)
    try:
        process = await asyncio.create_subprocess_exec(*COMMAND, stdin=PIPE, stdout=PIPE)
        answer, _ = await process.communicate(to_json(request) + b"\n")
    finally:
        prepared_store.unstage()
    refusal = from_json(answer, Refusal)
    assert "Failed to write external initializers" in refusal.reason
    assert str(tmp_path) not in refusal.reason
    assert not refusal.lasting


async def _child() -> int:
    begun: list[int] = []
    async with asyncio.timeout(20):
        while not begun:
            begun += _children()
            await asyncio.sleep(0.005)
    return begun[0]


async def _note_children(begun: list[int]) -> None:
    while True:
        begun += _children()
        await asyncio.sleep(0.01)


def _children() -> list[int]:
    """The ids of the preparations that this process has under way."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in map(int, children) if b"preparation_child" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
