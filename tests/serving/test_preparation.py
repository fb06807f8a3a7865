"""Prepared models: the same answers to the bit, made once per host, never half there, bounded."""

import asyncio
import os
import signal
import sys
import threading
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import structs
from onnx import helper

from gateway.errors import FailedPrecondition
from gateway.serving.preparation_child import Unprepared, prepare, step_back
from gateway.serving.preparation_request import PreparationRequest, objection
from gateway.serving.prepared_store import (
    MODEL_FILENAME,
    REFUSAL_REMEMBERED_S,
    PreparedManifest,
    PreparedStore,
    Refusal,
    preparation_key,
    seal,
)
from gateway.serving.preparer import Preparer
from gateway.serving.probe_request import ProbeRequest, ProbeResult, from_json, to_json
from gateway.serving.run_environment import present_environment
from gateway.serving.session import WEIGHTS_FILENAME, Session
from gateway.serving.verification import verify
from gateway.tensor import Datatype
from loaders.filesystem import FilesystemLoader
from loaders.loader import LocalVersion
from loaders.model_signature import TrustedKeys
from loaders.store import ContentStore
from loadtests.bench.models import MODELS
from tests import models
from tests.serving.catalogs import OpenCatalog, opened

Fetch = Callable[[bytes], LocalVersion]
Floats = npt.NDArray[np.float32]

WIDTH = 64
COMMAND = (sys.executable, "-P", "-m", "gateway.serving.preparation_child")


def weights(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def multiplied(*, by: float = 1.0) -> bytes:
    """`y = x @ weights`; x, y: FP32 [-1, WIDTH]."""
    model = models.model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [models.tensor_value("x", Datatype.FP32, (-1, WIDTH))],
        [models.tensor_value("y", Datatype.FP32, (-1, WIDTH))],
        [models.weight("w", weights(WIDTH, WIDTH) * np.float32(by))],
    )
    return bytes(model.SerializeToString())


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


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    loader = FilesystemLoader(tmp_path / "repository", ContentStore(tmp_path / "content"))

    def fetch(content: bytes) -> LocalVersion:
        models.write_version(tmp_path / "repository", "m", "1", content)
        return loader.fetch("m", "1")

    return fetch


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PreparedStore]:
    store = PreparedStore(tmp_path / "prepared", max_bytes=1 << 30)
    store.make()
    yield store
    assert not (tmp_path / "prepared" / "staging").exists()
    assert not list((tmp_path / "prepared").glob("removed.*"))


def probed(request: ProbeRequest) -> ProbeResult:
    """What a probe says of a model that batches and repeats itself."""
    return ProbeResult(ok=True, facts=verify(request.local), batches=True, repeatable=True)


def preparation(local: LocalVersion, directory: Path, *, file_limit: int = 1 << 30) -> PreparationRequest:
    directory.mkdir(exist_ok=True)
    return PreparationRequest(ProbeRequest(local), verify(local), True, "key", directory, file_limit, False)


def put(store: PreparedStore, key: str, size: int = 1000) -> None:
    """Publishes an entry of about that many bytes, which is no model."""
    staging = store.stage()
    (staging / MODEL_FILENAME).write_bytes(key.encode())
    (staging / WEIGHTS_FILENAME).write_bytes(bytes(size))
    seal(staging, key)
    assert store.publish(key, staging)


def entries(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if len(path.name) == 64]


# ---- the contract ----


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


# ---- the store ----


@pytest.mark.parametrize("name", [MODEL_FILENAME, WEIGHTS_FILENAME, "prepared.json"])
@pytest.mark.parametrize("harm", ["cut", "flipped", "gone"])
def test_a_damaged_entry_is_removed(name: str, harm: str, store: PreparedStore, tmp_path: Path) -> None:
    put(store, "key")
    with store.opened("key") as entry:
        assert entry is not None
    file = entries(tmp_path / "prepared")[0] / name
    file.chmod(0o600)
    content = file.read_bytes()
    if harm == "cut":
        os.truncate(file, len(content) - 1)
    elif harm == "flipped":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        file.unlink()
    with store.opened("key") as entry:
        assert entry is None
    assert not entries(tmp_path / "prepared")


def test_an_entry_of_another_key_is_not_opened(store: PreparedStore, tmp_path: Path) -> None:
    put(store, "key")
    put(store, "other")
    with store.opened("other") as entry:
        assert entry is not None
        place = entry.model.parent
    with store.opened("key") as entry:
        assert entry is not None
        os.rename(place, tmp_path / "away")
        os.rename(entry.model.parent, place)
    with store.opened("other") as entry:
        assert entry is None


def test_a_directory_that_others_may_write_to_is_not_used(store: PreparedStore, tmp_path: Path) -> None:
    put(store, "key")
    (tmp_path / "prepared").chmod(0o770)
    with pytest.raises(PermissionError), store.opened("key"):
        pass


def test_the_least_recently_used_entries_make_room(tmp_path: Path) -> None:
    directory = tmp_path / "prepared"
    store = PreparedStore(directory, max_bytes=1 << 20)
    store.make()
    for count, key in enumerate("abc"):
        put(store, key, 300_000)
        os.utime(max(entries(directory), key=lambda path: path.stat().st_mtime), (count, count))
    with store.opened("a") as entry:  # used last
        assert entry is not None
    put(store, "d", 300_000)
    assert [store.has(key) for key in "abcd"] == [True, False, True, True]
    assert store.bytes() <= store.max_bytes
    staging = store.stage()
    (staging / WEIGHTS_FILENAME).write_bytes(bytes(2 << 20))
    assert not store.publish("e", staging)
    assert [store.has(key) for key in "abcde"] == [True, False, True, True, False]


async def test_what_a_worker_serves_from_is_in_use(tmp_path: Path) -> None:
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
        (entry,) = entries(tmp_path / "prepared")
        os.utime(entry, (0, 0))
        await live.catalog.copies.tend(time.time())
        assert entry.stat().st_mtime > 0


def test_an_entry_that_is_removed_stays_with_who_has_opened_it(store: PreparedStore) -> None:
    put(store, "key")
    with store.opened("key") as entry:
        assert entry is not None
        held = (entry.model.parent / WEIGHTS_FILENAME).open("rb")
    store.remove("key")
    with held:
        assert len(held.read()) == 1000


def test_reasons_are_remembered_for_as_long_as_they_hold(store: PreparedStore) -> None:
    for lasting in (True, False):
        store.refuse("key", Refusal("full", lasting=lasting))
        noted_s = store._refused("key").stat().st_mtime
        later_s = noted_s + REFUSAL_REMEMBERED_S + 1
        assert store.refusal("key", asked_at=noted_s) is not None
        assert (store.refusal("key", asked_at=later_s) is not None) is lasting
        assert (store.refusal("key", asked_at=noted_s + 1, again=True) is not None) is lasting
    assert store.refusal("key", asked_at=noted_s - 1, again=True) is not None  # found while this one waited
    put(store, "key")
    assert store.refusal("key", asked_at=noted_s) is None


# ---- the process ----


def preparer(directory: Path, *, max_bytes: int = 1 << 30, timeout_s: float = 300.0, idle_s: float = 0.0) -> Preparer:
    return Preparer(directory / "prepared", min_bytes=1, max_bytes=max_bytes, timeout_s=timeout_s, idle_s=idle_s)


async def test_workers_prepare_once(fetch: Fetch, store: PreparedStore, tmp_path: Path) -> None:
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
    fetch: Fetch, store: PreparedStore, tmp_path: Path
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


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="a scheduler of Linux")
@pytest.mark.parametrize("idle", [True, False])
def test_a_preparation_gets_what_nobody_else_wants(idle: bool) -> None:
    stands: list[tuple[int, int]] = []

    def step() -> None:  # of a thread, as its settings are that thread's alone
        step_back(idle=idle)
        stands.append((os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)))

    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    ((policy, niceness),) = stands
    assert policy == (os.SCHED_IDLE if idle else os.SCHED_OTHER)
    assert niceness >= 10


async def test_a_machine_that_is_always_busy_prepares_all_the_same(
    fetch: Fetch, store: PreparedStore, tmp_path: Path
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


async def test_what_a_killed_worker_left_is_cleared_away(fetch: Fetch, store: PreparedStore, tmp_path: Path) -> None:
    (store.stage() / WEIGHTS_FILENAME).write_bytes(b"half")
    request = ProbeRequest(fetch(multiplied()))
    assert await preparer(tmp_path).prepare(request, probed(request)) == ""


async def test_a_disk_without_room_is_named(fetch: Fetch, store: PreparedStore, tmp_path: Path) -> None:
    request = ProbeRequest(fetch(multiplied()))
    result = probed(request)
    assert result.facts is not None
    huge = replace(result, facts=replace(result.facts, weight_bytes=1 << 60))
    assert "bytes free" in await preparer(tmp_path, max_bytes=1 << 62).prepare(request, huge)


async def test_files_that_cannot_be_written_are_no_entry(fetch: Fetch, store: PreparedStore, tmp_path: Path) -> None:
    local = fetch(MODELS["mlp"].serialized("1"))
    request = preparation(local, store.stage(), file_limit=100_000)  # the kernel refuses more, as on a full disk
    try:
        process = await asyncio.create_subprocess_exec(*COMMAND, stdin=PIPE, stdout=PIPE)
        answer, _ = await process.communicate(to_json(request) + b"\n")
    finally:
        store.unstage()
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


# ---- versions ----


def weights_of(live: OpenCatalog) -> dict[str, str]:
    return {f"{status.model}/{status.version}": status.weights for status in live.catalog.states()}


async def test_a_version_is_served_from_its_prepared_form_which_is_remade_when_damaged(tmp_path: Path) -> None:
    x = weights(3, WIDTH, seed=3)
    expected = Session(multiplied(), intra_threads=1).run(None, {"x": x})[0].tobytes()
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
        version = live.catalog.version("m", "1")
        assert version.weights == "shared"
        assert version.run_us > 0
        assert version.session is not None
        assert version.session.run(None, {"x": x})[0].tobytes() == expected
    file = entries(tmp_path / "prepared")[0] / WEIGHTS_FILENAME
    made_ns = file.stat().st_ctime_ns
    for harmed in (False, True):
        if harmed:
            file.chmod(0o600)
            os.truncate(file, 100)
        async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
            await live.catalog.poll()
            version = live.catalog.version("m", "1")
            assert version.weights == "shared"
            assert version.session is not None
            assert version.session.run(None, {"x": x})[0].tobytes() == expected
        assert (file.stat().st_ctime_ns == made_ns) is not harmed
        assert file.stat().st_size > WIDTH * WIDTH * 4


async def test_a_prepared_version_is_loaded_without_its_own_files_being_read(tmp_path: Path) -> None:
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
        digest = live.catalog.version("m", "1").digest
    copy = tmp_path / "data" / "store" / digest / "model.onnx"
    copy.chmod(0o600)
    copy.write_bytes(b"damaged meanwhile")
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        await live.catalog.poll()
        version = live.catalog.version("m", "1")
        assert (version.weights, version.digest) == ("shared", digest)
        assert copy.read_bytes() == b"damaged meanwhile"
        models.write_version(live.root, "m", "1", multiplied(by=2))  # what lies there is looked at all the same
        await live.catalog.poll()
        version = live.catalog.version("m", "1")
        x = weights(3, WIDTH, seed=3)
        assert version.session is not None
        expected = Session(multiplied(by=2), intra_threads=1).run(None, {"x": x})[0]
        assert version.session.run(None, {"x": x})[0].tobytes() == expected.tobytes()
        assert version.weights == "shared"
        assert len(entries(tmp_path / "prepared")) == 2


async def test_what_was_prepared_of_an_unsigned_version_serves_nobody_who_asks_for_signatures(tmp_path: Path) -> None:
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
        assert live.catalog.version("m", "1").weights == "shared"
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "keys.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    trusted = TrustedKeys(tmp_path / "keys.pem")
    async with opened(tmp_path, preparer=preparer(tmp_path), trusted_keys=trusted) as live:
        await live.catalog.poll()
        assert "the version is not signed, and a signature is required" in live.reason("m", "1")


def test_a_note_of_another_content_is_none(store: PreparedStore, fetch: Fetch) -> None:
    local = fetch(multiplied())
    store.note_copy("place", local)
    assert store.noted_copy("place") == local
    assert store.noted_copy("elsewhere") is None
    store.note_copy("place", replace(local, files=(replace(local.files[0], sha256="0" * 64),)))
    assert store.noted_copy("place") is None
    store.note_copy("place", replace(local, path=local.path / "gone"))
    assert store.noted_copy("place") is None


async def test_a_whole_entry_that_the_runtime_refuses_is_not_made_again_and_again(tmp_path: Path) -> None:
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
    entry = entries(tmp_path / "prepared")[0]
    manifest = (entry / "prepared.json").read_bytes()
    (entry / WEIGHTS_FILENAME).chmod(0o600)
    (entry / MODEL_FILENAME).chmod(0o600)
    (entry / MODEL_FILENAME).write_bytes(b"no model")
    key = from_json(manifest, PreparedManifest).key
    seal(entry, key)
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        await live.catalog.poll()
        assert "could not be loaded" in live.catalog.version("m", "1").weights
    assert not entries(tmp_path / "prepared")


async def test_what_is_not_prepared_says_why(tmp_path: Path) -> None:
    small = Preparer(tmp_path / "prepared", min_bytes=1 << 20, max_bytes=1 << 30)
    async with opened(tmp_path, preparer=small) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
        assert weights_of(live) == {
            "m/1": "its own: its weights have 16384 bytes, fewer than 1048576 (--prepare-min-bytes)"
        }
    assert not (tmp_path / "prepared").exists()


async def test_a_prepared_form_that_cannot_be_kept_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "prepared").write_text("no directory")
    async with opened(tmp_path, preparer=preparer(tmp_path)) as live:
        models.write_version(live.root, "m", "1", multiplied())
        await live.catalog.poll()
        assert live.catalog.version("m", "1").weights == "its own: prepared models cannot be kept: File exists"
