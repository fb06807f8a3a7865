"""Look-ups over gRPC in a real store: what clients get, what is kept, and what happens while it does not answer."""

import asyncio
from pathlib import Path

import numpy as np
import redis

from gateway.errors import Code
from gateway.features.feature_queue import MAX_BYTES, MAX_ROWS
from gateway.features.feature_store import MAX_WAITING, FeatureStore, RowRequest
from gateway.pb import inference_pb2 as pb
from gateway.telemetry.sums import branch
from gateway.tensor import Datatype
from tests import models
from tests.api.calls import fails, until
from tests.api.stand import standing
from tests.features.look_ups import FEATURES, HOUR, PARAMETERS, PATIENT, TOLD, M, S, U, V, ask, asking, counted, view
from tests.features.views import write_view
from tests.routing.fault_proxy import FaultProxy
from tests.serving.ensembles import Step, config, tensor, write_ensemble
from tests.valkey import Valkey


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


async def test_the_rows_of_a_request_are_bounded(valkey: Valkey, tmp_path: Path) -> None:
    write_view(tmp_path / "models", "users", PARAMETERS, features=FEATURES[:3], rows=1 << 20)
    async with standing(
        tmp_path / "models", tmp_path, probes=tmp_path / "probes", feature_stores={"default": valkey.url}
    ) as stand:
        code, said = await fails(stand, asking(*range(MAX_ROWS + 1)))
        assert (code, "a look-up of 8193 rows exceeds the limit of 8192" in said) == (Code.INVALID_ARGUMENT, True)


async def test_rows_of_one_key_do_not_make_an_answer_of_any_size(
    valkey: Valkey, store: "redis.Redis", tmp_path: Path
) -> None:
    """They share what the store holds, of which each would be written once more."""
    store.hset("user:1", mapping={"about": "a" * 600_000, "motto": "b" * 600_000})
    write_view(
        tmp_path / "models", "users", PATIENT, features=[(name, Datatype.BYTES, 1) for name in ("about", "motto")]
    )
    async with standing(
        tmp_path / "models", tmp_path, probes=tmp_path / "probes", feature_stores={"default": valkey.url}
    ) as stand:
        code, said = await fails(stand, asking(*[1] * 64))
        assert (code, said) == (
            Code.RESOURCE_EXHAUSTED,
            f"model 'users': the features of 64 rows have more than {MAX_BYTES} bytes, the limit of an answer: ask for "
            "fewer rows or outputs at a time",
        )
        code, said = await fails(stand, asking(*[1] * 64, outputs=["motto"]))
        assert (code, "the response has 38400" in said) == (Code.RESOURCE_EXHAUSTED, True)
        assert len((await stand.stub.ModelInfer(asking(1, 1), timeout=10)).raw_output_contents) == 2


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
