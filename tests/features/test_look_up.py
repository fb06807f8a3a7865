"""Look-ups over gRPC in a real store: what clients get, what is kept, and what happens while it does not answer."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import redis

from gateway.errors import Code
from gateway.features.feature_queue import MAX_ROWS
from gateway.features.feature_store import MAX_WAITING, FeatureStore, RowRequest
from gateway.pb import inference_pb2 as pb
from gateway.serving.version import VersionState
from gateway.telemetry.sums import Tree, branch
from gateway.tensor import BY_NAME, Datatype
from tests import models
from tests.api.calls import fails, until
from tests.api.stand import Stand, standing
from tests.features.views import USERS, write_view
from tests.routing.fault_proxy import FaultProxy
from tests.serving.ensembles import Step, config, tensor, write_ensemble
from tests.valkey import Valkey

FEATURES = (
    ("score", Datatype.FP32, 1),
    ("visits", Datatype.INT64, 1),
    ("embedding", Datatype.FP32, 2),
    ("status", Datatype.UINT8, 3),
    ("age", Datatype.FP32, 1),
)
PATIENT = {**USERS, "deadline_ms": "1000"}
PARAMETERS = {**PATIENT, "default.score": "-1", "default.visits": "7", "default.embedding": "[0.5, 0.25]"}
TOLD = {**PARAMETERS, "timestamp_field": "at", "status_output": "status", "age_output": "age"}
HOUR = {**TOLD, "max_age_seconds": "3600"}
V, M, S, U, A = range(5)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("store"), append_only=False).start()
    yield server
    server.stop()


@pytest.fixture
def store(valkey: Valkey) -> Iterator["redis.Redis"]:
    with redis.Redis(unix_socket_path=str(valkey.socket_path)) as client:
        client.flushall()
        client.hset("user:1", mapping={"score": "0.25", "visits": "3", "embedding": "[1, 2]", "at": "100"})
        client.hset("user:2", mapping={"score": "much", "visits": "4"})
        client.set("user:3", "no hash")
        yield client


@asynccontextmanager
async def view(
    tmp_path: Path,
    url: str,
    parameters: Mapping[str, str],
    features: Sequence[tuple[str, Datatype, int]] = FEATURES,
) -> AsyncIterator[Stand]:
    """A worker that serves the feature view `users`."""
    write_view(tmp_path / "models", "users", parameters, features=features)
    async with standing(
        tmp_path / "models", tmp_path, probes=tmp_path / "probes", feature_stores={"default": url}
    ) as stand:
        yield stand


def asking(*users: int, outputs: Sequence[str] = ()) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="users")
    request.inputs.add(name="user_id", datatype="INT64", shape=[len(users), 1])
    request.raw_input_contents.append(np.array(users, "<i8").tobytes())
    for name in outputs:
        request.outputs.add(name=name)
    return request


async def ask(
    stand: Stand, *users: int, outputs: Sequence[str] = (), limit_s: float = 10
) -> dict[str, list[list[float]]]:
    answer = await stand.stub.ModelInfer(asking(*users, outputs=outputs), timeout=10)
    return {
        output.name: np.frombuffer(raw, BY_NAME[output.datatype].dtype).reshape(output.shape).tolist()
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def counted(stand: Stand) -> Tree:
    return branch(stand.counters.snapshot(), "sums", "features", "users")


async def test_a_request_has_a_row_of_features_for_each_key(
    valkey: Valkey, store: "redis.Redis", tmp_path: Path
) -> None:
    async with view(tmp_path, valkey.url, TOLD) as stand:
        answer = await ask(stand, 1, 404, 2, 1, 3)
        assert answer["score"] == [[0.25], [-1.0], [-1.0], [0.25], [-1.0]]
        assert answer["visits"] == [[3], [7], [4], [3], [7]]
        assert answer["embedding"] == [[1, 2], [0.5, 0.25], [0.5, 0.25], [1, 2], [0.5, 0.25]]
        assert answer["status"] == [[V, V, V], [M, M, M], [U, V, M], [V, V, V], [U, U, U]]
        assert np.isnan(answer["age"]).ravel().tolist() == [False, True, True, False, True]
        assert (await ask(stand, 1, outputs=["visits"])) == {"visits": [[3]]}
        assert counted(stand) == {
            "rows": {"fetched": 6, "cached": 0, "shared": 0},
            "values": {"value": 10, "missing": 4, "stale": 0, "unreadable": 4, "unavailable": 0},
            "defaults": 8,
        }
        metadata = await stand.stub.ModelMetadata(pb.ModelMetadataRequest(name="users"))
        assert metadata.platform == "features"
        assert [tensor.name for tensor in metadata.outputs] == [name for name, _, _ in FEATURES]
        statistics = (await stand.stub.ModelStatistics(pb.ModelStatisticsRequest(name="users"))).model_stats[0]
        assert (statistics.inference_count, statistics.execution_count) == (6, 2)


async def test_what_was_answered_is_in_the_log(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    async with view(tmp_path, valkey.url, PARAMETERS, FEATURES[:3]) as stand:
        await ask(stand, 1, 404)
        assert stand.log.counts().seen == 1
    text = b"".join(path.read_bytes() for path in (tmp_path / "wal").rglob("*") if path.is_file())
    assert np.array([0.25, -1.0], "<f4").tobytes() in text


async def test_an_empty_request_has_an_empty_answer(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    async with view(tmp_path, valkey.url, PARAMETERS, FEATURES[:3]) as stand:
        assert (await ask(stand))["embedding"] == []


async def test_texts_are_keys_and_features(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    store.hset("city:Köln:de", mapping={"motto": "Et kütt", "size": "3"})
    write_view(
        tmp_path / "models",
        "cities",
        {"key": "city:{name}:{land}", "default.size": "0", "deadline_ms": "1000"},
        keys=[("land", Datatype.BYTES), ("name", Datatype.BYTES)],
        features=[("motto", Datatype.BYTES, 1), ("size", Datatype.INT32, 1)],
    )
    async with standing(
        tmp_path / "models", tmp_path, probes=tmp_path / "probes", feature_stores={"default": valkey.url}
    ) as stand:
        request = pb.ModelInferRequest(model_name="cities")
        for name, text in (("name", "Köln"), ("land", "de")):
            tensor = request.inputs.add(name=name, datatype="BYTES", shape=[1, 1])
            tensor.contents.bytes_contents.append(text.encode())
        answer = await stand.stub.ModelInfer(request, timeout=10)
        assert list(answer.outputs[0].contents.bytes_contents) == ["Et kütt".encode()]
        assert list(answer.outputs[1].contents.int_contents) == [3]
        request.inputs[0].contents.bytes_contents[0] = b"x" * 1025
        assert await fails(stand, request) == (
            Code.INVALID_ARGUMENT,
            "input 'name': a key of 1025 bytes exceeds the limit of 1024",
        )


async def test_without_a_default_a_call_fails_and_no_other_does(
    valkey: Valkey, store: "redis.Redis", tmp_path: Path
) -> None:
    async with view(tmp_path, valkey.url, PATIENT, FEATURES[:2]) as stand:
        answers = await asyncio.gather(
            ask(stand, 1), fails(stand, asking(1, 404)), fails(stand, asking(2)), ask(stand, 2, outputs=["visits"])
        )
        assert answers[0] == {"score": [[0.25]], "visits": [[3]]}
        assert answers[1] == (
            Code.NOT_FOUND,
            "model 'users': row 1: the store has no row of that key, and feature 'score' has no default",
        )
        assert answers[2] == (
            Code.FAILED_PRECONDITION,
            "model 'users': row 0: feature 'score' is not of its declared data_type and dims, and nothing takes its "
            "place",
        )
        assert answers[3] == {"visits": [[4]]}


async def test_a_row_that_is_too_old_has_its_defaults(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    async with view(tmp_path, valkey.url, HOUR) as stand:
        answer = await ask(stand, 1)
        assert (answer["score"], answer["status"]) == ([[-1.0]], [[S, S, S]])
        assert counted(stand)["values"] == {"value": 0, "missing": 0, "stale": 3, "unreadable": 0, "unavailable": 0}


async def test_a_row_that_is_too_old_may_be_served(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    async with view(tmp_path, valkey.url, {**HOUR, "stale": "serve"}) as stand:
        answer = await ask(stand, 1)
        assert (answer["score"], answer["status"]) == ([[0.25]], [[S, S, S]])


async def test_rows_are_kept_those_that_are_missing_too(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    async with view(tmp_path, valkey.url, {**PARAMETERS, "cache_seconds": "3600"}, FEATURES[:3]) as stand:
        first = await ask(stand, 1, 404)
        store.flushall()
        store.hset("user:404", mapping={"score": "1"})
        answer = await ask(stand, 404, 1, 1)
        assert answer == {name: [rows[1], rows[0], rows[0]] for name, rows in first.items()}
        assert counted(stand)["rows"] == {"fetched": 2, "cached": 3, "shared": 0}
        gauges = branch(stand.counters.snapshot(), "gauges", "features")
        assert 0 < branch(gauges, "cache_bytes")["users"] < 2000  # type: ignore[operator]


async def test_calls_of_one_turn_are_one_pipeline(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    async with view(tmp_path, valkey.url, PARAMETERS, FEATURES[:3]) as stand:
        await ask(stand, 1)
        before = branch(stand.counters.snapshot(), "sums", "feature_stores")["default"]
        commands = int(store.info("commandstats")["cmdstat_hmget"]["calls"])
        await asyncio.gather(*(ask(stand, 1, 2) for _ in range(40)))
        after = branch(stand.counters.snapshot(), "sums", "feature_stores")["default"]
        rows = counted(stand)["rows"]
        assert isinstance(rows, dict)
        asked = int(store.info("commandstats")["cmdstat_hmget"]["calls"]) - commands
        assert asked + rows["shared"] == 80
        assert asked < 80
        assert isinstance(before, dict)
        assert isinstance(after, dict)
        assert after["pipelines"] - before["pipelines"] <= asked / 2
        assert stand.engine.in_flight == 0


# ---- while the store does not answer ----


def reason(stand: Stand) -> str:
    (status,) = [status for status in stand.catalog.states() if status.model == "users"]
    assert status.state is VersionState.AVAILABLE
    return status.reason


async def test_a_store_that_is_away_costs_no_time(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    proxy = FaultProxy(valkey.socket_path)
    async with proxy.running(), view(tmp_path, proxy.url, TOLD) as stand:
        assert (await ask(stand, 1))["score"] == [[0.25]]
        assert reason(stand) == ""
        proxy.put("cut")
        answer = await ask(stand, 1)
        assert (answer["score"], answer["status"]) == ([[-1.0]], [[A, A, A]])
        assert reason(stand).startswith("features: the feature store 'default' is not reachable")
        assert branch(stand.counters.snapshot(), "gauges", "features", "away") == {"default": 1}
        began = asyncio.get_running_loop().time()
        for _ in range(50):
            assert (await ask(stand, 1))["score"] == [[-1.0]]
        assert asyncio.get_running_loop().time() - began < 5  # a tenth of what waiting for it would take
        proxy.put("none")
        await until(lambda: not reason(stand))
        assert (await ask(stand, 1))["score"] == [[0.25]]


async def answered(stand: Stand) -> None:
    """The store's own value was answered, within the view's deadline."""
    async with asyncio.timeout(20):
        while (await ask(stand, 1))["score"] != [[0.25]]:
            pass


async def test_a_store_that_hangs_is_waited_for_once(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    proxy = FaultProxy(valkey.socket_path)
    async with proxy.running(), view(tmp_path, proxy.url, {**TOLD, "deadline_ms": "200"}) as stand:
        await answered(stand)
        proxy.put("stall")
        assert (await ask(stand, 1))["status"] == [[A, A, A]]
        began = asyncio.get_running_loop().time()
        for _ in range(50):
            assert (await ask(stand, 1))["status"] == [[A, A, A]]
        assert asyncio.get_running_loop().time() - began < 5  # half of what fifty deadlines would take
        proxy.put("none")
        await answered(stand)
        assert [queue["calls"] for queue in stand.engine.queues()] == [0]


async def test_without_defaults_a_store_that_is_away_is_said_at_once(valkey: Valkey, tmp_path: Path) -> None:
    async with view(
        tmp_path, f"unix://{tmp_path / 'nothing.sock'}", {**PARAMETERS, "unavailable": "error"}, FEATURES[:3]
    ) as stand:
        code, text = await fails(stand, asking(1))
        assert code is Code.UNAVAILABLE
        assert (
            "feature 'score' is unavailable: the feature store 'default' is not reachable: no socket at its path"
            in text
        )
        await until(lambda: "no socket" in reason(stand))


async def test_a_call_s_own_deadline_ends_its_look_up(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    proxy = FaultProxy(valkey.socket_path)
    async with proxy.running(), view(tmp_path, proxy.url, TOLD) as stand:
        await ask(stand, 1)
        proxy.put("stall")
        code, _ = await fails(stand, asking(1), 0.05)
        assert code is Code.DEADLINE_EXCEEDED
        await until(lambda: stand.engine.in_flight == 0)
        call = stand.stub.ModelInfer(asking(1))
        await until(lambda: stand.engine.in_flight == 1)
        call.cancel()
        await until(lambda: stand.engine.in_flight == 0)


async def test_a_view_without_its_store_does_not_load(tmp_path: Path) -> None:
    async with view(tmp_path, "redis://127.0.0.1:1", {**PARAMETERS, "store": "shop"}, FEATURES[:3]) as stand:
        (status,) = [status for status in stand.catalog.states() if status.model == "users"]
        assert status.state is VersionState.FAILED
        assert (
            "without a feature store 'shop' (it has 'default'); name its address with --feature-store shop="
            in status.reason
        )


async def test_the_rows_of_a_request_are_bounded(valkey: Valkey, tmp_path: Path) -> None:
    write_view(tmp_path / "models", "users", PARAMETERS, features=FEATURES[:3], rows=1 << 20)
    async with standing(
        tmp_path / "models", tmp_path, probes=tmp_path / "probes", feature_stores={"default": valkey.url}
    ) as stand:
        code, said = await fails(stand, asking(*range(MAX_ROWS + 1)))
        assert (code, "a look-up of 8193 rows exceeds the limit of 8192" in said) == (Code.INVALID_ARGUMENT, True)


async def test_the_values_of_a_request_are_bounded_and_come_in_many_pipelines(
    valkey: Valkey, store: "redis.Redis", tmp_path: Path
) -> None:
    features = [(f"f{place}", Datatype.FP32, 1) for place in range(511)]
    parameters = {**PATIENT, **{f"default.f{place}": "1" for place in range(511)}}
    write_view(
        tmp_path / "models", "users", parameters, features=[*features, ("list", Datatype.FP32, 16)], rows=1 << 20
    )
    async with standing(
        tmp_path / "models", tmp_path, probes=tmp_path / "probes", feature_stores={"default": valkey.url}
    ) as stand:
        code, said = await fails(stand, asking(*range(256)))
        assert code is Code.INVALID_ARGUMENT
        assert "a look-up of 256 rows of 513 values exceeds the limit of 255: ask for fewer at a time" in said
        assert await ask(stand, *range(4, 68), outputs=["f510"]) == {"f510": [[1.0]] * 64}
        stores = branch(stand.counters.snapshot(), "sums", "feature_stores")
        assert branch(stores, "default")["pipelines"] == 4


async def test_what_may_wait_is_bounded_and_what_nobody_waits_for_is_not_asked(
    valkey: Valkey, store: "redis.Redis"
) -> None:
    told: dict[bytes, tuple[object, str]] = {}
    everything = asyncio.Event()

    def tell(key: bytes, reply: object, why: str) -> None:
        told[key] = (reply, why)
        if len(told) == 2:
            everything.set()

    asked = FeatureStore("shop", valkey.url)
    await asked.looked()
    assert asked.refusal(MAX_WAITING, 1_000_000_000) == ""
    assert asked.refusal(MAX_WAITING + 1, 1_000_000_000) == "0 rows wait for the feature store 'shop' already"
    asked.ask(RowRequest(b"user:1", (b"visits",), tell, lambda _: True))
    asked.ask(RowRequest(b"user:2", (b"visits",), tell, lambda _: False))
    async with asyncio.timeout(10):
        await everything.wait()
    assert told == {b"user:1": ([b"3"], ""), b"user:2": (None, "nobody waits for it")}
    assert asked.counts()["pipelines"] == 1
    await asked.aclose()


async def test_whoever_waits_at_the_end_is_told(valkey: Valkey, tmp_path: Path) -> None:
    proxy = FaultProxy(valkey.socket_path)
    told: dict[bytes, str] = {}

    def tell(key: bytes, _: object, why: str) -> None:
        told[key] = why

    async with proxy.running():
        asked = FeatureStore("shop", proxy.url)
        await asked.looked()
        proxy.put("stall")
        asked.ask(RowRequest(b"user:1", (b"visits",), tell, lambda _: True))
        await asyncio.sleep(0)
        asked.ask(RowRequest(b"user:2", (b"visits",), tell, lambda _: True))
        await asked.aclose()
    assert told == {b"user:1": "the worker stops", b"user:2": "the worker stops"}


async def test_what_has_no_effect_in_a_view_is_said(valkey: Valkey, tmp_path: Path) -> None:
    write_view(tmp_path / "models", "users", PARAMETERS, features=FEATURES[:3])
    path = tmp_path / "models" / "users" / "config.pbtxt"
    path.write_text(path.read_text() + "response_cache { enable: true }\ndynamic_batching { }\n")
    async with standing(
        tmp_path / "models", tmp_path, probes=tmp_path / "probes", feature_stores={"default": valkey.url}
    ) as stand:
        version = stand.engine.find("users", "1")
        assert version.config.warnings == ("fields without effect in a feature view: dynamic_batching, response_cache",)
        assert not version.config.caches


# ---- as a step ----


async def test_an_ensemble_looks_features_up_for_its_model(
    valkey: Valkey, store: "redis.Redis", tmp_path: Path
) -> None:
    """The second step's input is put together from the store; the caller knows nothing but whom it is about."""
    repository = tmp_path / "models"
    store.hset("user:1", mapping={"embedding": "[1, 2, 3, 4]"})
    parameters = {**PATIENT, "default.embedding": "[0, 0, 0, 0]"}
    write_view(repository, "users", parameters, features=[("embedding", Datatype.FP32, 4)])
    models.write_version(repository, "affine", "1", models.affine(), config="max_batch_size: 64")
    steps = (Step("users", {"user_id": "who"}, {"embedding": "found"}), Step("affine", {"x": "found"}, {"y": "y"}))
    write_ensemble(repository, "scored", config(*steps, inputs=[tensor("who", "TYPE_INT64", (1,))]))
    proxy = FaultProxy(valkey.socket_path)
    async with (
        proxy.running(),
        standing(repository, tmp_path, probes=tmp_path / "probes", feature_stores={"default": proxy.url}) as stand,
    ):
        request = pb.ModelInferRequest(model_name="scored")
        request.inputs.add(name="who", datatype="INT64", shape=[2, 1])
        request.raw_input_contents.append(np.array([1, 404], "<i8").tobytes())
        answer = await stand.stub.ModelInfer(request, timeout=10)
        assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [2, 4, 6, 8, 0, 0, 0, 0]
        assert (await ask(stand, 1)) == {"embedding": [[1, 2, 3, 4]]}
        proxy.put("cut")
        answer = await stand.stub.ModelInfer(request, timeout=10)
        assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [0] * 8
        request.inputs[0].datatype = "INT32"
        code, _ = await fails(stand, request)
        assert code is Code.INVALID_ARGUMENT
        await until(lambda: stand.engine.in_flight == 0)


async def test_an_ensemble_names_the_look_up_that_failed(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    repository = tmp_path / "models"
    write_view(repository, "users", PATIENT, features=[("score", Datatype.FP32, 1)])
    step = Step("users", {"user_id": "who"}, {"score": "y"})
    text = config(step, inputs=[tensor("who", "TYPE_INT64", (1,))], outputs=[tensor("y", dims=(1,))])
    write_ensemble(repository, "scored", text)
    async with standing(
        repository, tmp_path, probes=tmp_path / "probes", feature_stores={"default": valkey.url}
    ) as stand:
        request = pb.ModelInferRequest(model_name="scored", raw_input_contents=[np.array([404], "<i8").tobytes()])
        request.inputs.add(name="who", datatype="INT64", shape=[1, 1])
        code, said = await fails(stand, request)
        assert code is Code.NOT_FOUND
        assert "users" in said
        assert "the store has no row of that key, and feature 'score' has no default" in said


# ---- who may read ----


async def test_a_user_reads_what_the_page_allows_and_nothing_else(
    valkey: Valkey, store: "redis.Redis", tmp_path: Path
) -> None:
    """One view that the user may not read fails by itself, and takes nothing from another one of the same store."""
    rights = ("+hmget", "+ping", "+client|setname", "%R~user:*")
    store.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">s3cret", *rights)  # type: ignore[no-untyped-call]
    repository = tmp_path / "models"
    write_view(repository, "users", PATIENT, features=[("score", Datatype.FP32, 1)])
    write_view(repository, "secrets", {**PATIENT, "key": "secret:{user_id}"}, features=[("score", Datatype.FP32, 1)])
    url = f"{valkey.url}?username=reader&password=s3cret"
    async with standing(repository, tmp_path, probes=tmp_path / "probes", feature_stores={"default": url}) as stand:
        other = asking(1)
        other.model_name = "secrets"
        for _ in range(3):
            answer, refused = await asyncio.gather(ask(stand, 1), fails(stand, other))
            assert answer == {"score": [[0.25]]}
            assert refused[0] is Code.UNAVAILABLE
            assert "the feature store 'default' refused permission to this user" in refused[1]
    wrong = f"{valkey.url}?username=reader&password=other"
    async with standing(repository, tmp_path, probes=tmp_path / "probes", feature_stores={"default": wrong}) as stand:
        code, said = await fails(stand, asking(1))
        assert (code, "refused the credentials" in said, "other" in said) == (Code.UNAVAILABLE, True, False)
