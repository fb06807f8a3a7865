"""Quotas over both transports: who is refused, when, and what a refusal leaves behind."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from gateway.access.quota_file import QuotaFile
from gateway.access.quota_rules import parse_rules
from gateway.access.quotas import Quotas
from gateway.errors import InvalidArgument
from gateway.pb import control_pb2, inference_pb2
from gateway.telemetry.sums import branch, whole
from tests.access.guarded import Guarded, guarded, header, token_of
from tests.api.calls import good
from tests.api.operated import Operated
from tests.machine_load import as_loaded
from tests.rpc.raw import RawClient, message, request_headers
from tests.serving.stage import until
from tests.taken_threads import taken_threads

pytestmark = pytest.mark.asyncio(loop_scope="session")
METHOD = "/inference.GRPCInferenceService/ModelInfer"
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@asynccontextmanager
async def limited(
    worker: Operated, transport: str, scratch: Path, document: Mapping[str, object], *, workers: int = 1
) -> AsyncIterator[tuple[Guarded, Quotas]]:
    quotas = Quotas(parse_rules(document), workers=workers, refused=worker.stand.counters.refused)
    async with guarded(worker, transport, scratch, quotas) as port:
        yield port, quotas


def limits(**fields: object) -> Mapping[str, object]:
    return {"quotas": [{"name": "q", **fields}]}


@pytest.fixture(params=["ngh2", "grpcio"])
def transport(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


async def code_of(call: "grpc.aio.Call") -> grpc.StatusCode:
    return await call.code()


async def test_a_caller_over_the_quota_is_refused_and_told_when_to_come_again(
    worker: Operated, transport: str, tmp_path: Path
) -> None:
    document = limits(per="identity", **{"requests-per-second": 0.5, "burst": 2})
    async with limited(worker, transport, tmp_path, document) as (port, quotas):
        series = branch(worker.stand.counters.snapshot(), "sums", "series")
        refused_before = whole(worker.stand.counters.snapshot(), "sums", "refused", "8")
        calls = [port.inference.ModelInfer(good(), metadata=header("infer")) for _ in range(5)]
        codes = [await code_of(call) for call in calls]
        assert sorted(code.name for code in codes) == ["OK"] * 2 + ["RESOURCE_EXHAUSTED"] * 3
        refused = calls[codes.index(EXHAUSTED)]
        assert "quota 'q' of identity 'infer' is used up: 0.5 requests per second" in await refused.details()
        pushback = dict(await refused.trailing_metadata())["grpc-retry-pushback-ms"]
        assert 1000 < int(str(pushback)) <= 3000
        assert await code_of(port.inference.ModelInfer(good(), metadata=header("admin"))) is grpc.StatusCode.OK
        # The refusals are the caller's: no version has them.
        after = branch(worker.stand.counters.snapshot(), "sums", "series")
        assert errors_of(after) == errors_of(series)
        assert whole(worker.stand.counters.snapshot(), "sums", "refused", "8") == refused_before + 3
        size = len(good_bytes())
        counts = {"admitted": 3, "bytes": 3 * size, "refused": {"requests": 3}}
        assert quotas.sums() == {"q": {"other": counts}}  # a label of its own has who is named in the file


def errors_of(series: Mapping[str, object]) -> int:
    """How many calls of all arms ended with anything but OK."""
    total = 0
    for model in series:
        for version in branch(series, model):
            for arm in branch(series, model, version):
                codes = branch(series, model, version, arm, "codes")
                total += sum(count for code, count in codes.items() if code != "0" and isinstance(count, int))
    return total


async def test_the_refusal_comes_before_the_body_is_read(worker: Operated, transport: str, tmp_path: Path) -> None:
    document = limits(**{"requests-per-second": 0.001})
    async with limited(worker, transport, tmp_path, document) as (port, quotas):
        assert await code_of(port.inference.ModelInfer(good(), metadata=header("infer"))) is grpc.StatusCode.OK
        async with RawClient(port.server.port) as client:
            headers = request_headers(METHOD, (b"authorization", f"Bearer {token_of('infer')}".encode()))
            stream = await client.request(headers, (1 << 20).to_bytes(5, "big"), end=False)
            fields, body = await client.answer(stream)
            assert (fields[b"grpc-status"], body) == (b"8", b"")
            assert int(fields[b"grpc-retry-pushback-ms"]) > 1000
        assert quotas.in_use() == {"q": {"": 0}}


async def test_a_call_that_ends_in_any_way_gives_its_place_back(
    worker: Operated, transport: str, tmp_path: Path
) -> None:
    async with limited(worker, transport, tmp_path, limits(concurrency=1)) as (port, quotas):
        metadata = header("infer")
        for _ in range(3):
            assert await code_of(port.inference.ModelInfer(good(), metadata=metadata)) is grpc.StatusCode.OK
        bad = inference_pb2.ModelInferRequest(model_name="affine")
        refused = grpc.StatusCode.INVALID_ARGUMENT
        assert await code_of(port.inference.ModelInfer(bad, metadata=metadata)) is refused
        headers = request_headers(METHOD, (b"authorization", f"Bearer {token_of('infer')}".encode()))
        async with RawClient(port.server.port) as client:
            await client.request(headers, message(good_bytes())[:20], end=False)  # and it leaves
            await until(lambda: quotas.in_use() == {"q": {"": 1}})
            assert await code_of(port.inference.ModelInfer(good(), metadata=metadata)) is EXHAUSTED
        await until(lambda: quotas.in_use() == {"q": {"": 0}})
        assert await code_of(port.inference.ModelInfer(good(), metadata=metadata)) is grpc.StatusCode.OK


async def test_each_request_of_a_stream_counts_and_the_stream_goes_on(
    worker: Operated, transport: str, tmp_path: Path
) -> None:
    document = limits(concurrency=64, **{"requests-per-second": 0.001, "burst": 3})
    async with limited(worker, transport, tmp_path, document) as (port, quotas):
        answers = port.inference.ModelStreamInfer(iter([good()] * 5), metadata=header("infer"))
        errors = [answer.error_message async for answer in answers]
        assert [bool(error) for error in errors] == [False] * 3 + [True] * 2
        assert "quota 'q' is used up" in errors[-1]
        assert quotas.in_use() == {"q": {"": 0}}


async def test_a_models_quota_counts_once_its_name_is_known(worker: Operated, transport: str, tmp_path: Path) -> None:
    document = limits(models=["aff*"], **{"requests-per-second": 0.001})
    async with limited(worker, transport, tmp_path, document) as (port, quotas):
        other = good()
        other.model_name = "nothing"
        codes = [
            await code_of(port.inference.ModelInfer(request, metadata=header("admin")))
            for request in (good(), good(), other)
        ]
        assert codes == [grpc.StatusCode.OK, EXHAUSTED, grpc.StatusCode.NOT_FOUND]
        assert branch(quotas.sums(), "q", "", "refused") == {"requests": 1}


async def test_a_long_message_over_the_bytes_is_refused_at_its_beginning(worker: Operated, tmp_path: Path) -> None:
    document = limits(models=["affine"], **{"bytes-per-second": 1000})
    async with limited(worker, "ngh2", tmp_path, document) as (port, quotas):
        headers = request_headers(METHOD, (b"authorization", f"Bearer {token_of('infer')}".encode()))
        async with RawClient(port.server.port) as client:
            lead = (1 << 20).to_bytes(5, "big") + good_bytes()
            first = await client.request(headers, lead, end=False)  # fills the bucket, and a thousand times more
            second = await client.request(headers, lead, end=False)
            fields, _ = await client.answer(second)
            assert fields[b"grpc-status"] == b"8"
            assert b"bytes per second" in fields[b"grpc-message"]
            assert int(fields[b"grpc-retry-pushback-ms"]) > 1000_000
            client.h2.reset_stream(first)
            await client.send()
        assert branch(quotas.sums(), "q", "")["bytes"] == 1 << 20


async def test_operators_see_what_is_in_use(worker: Operated, transport: str, tmp_path: Path) -> None:
    document = limits(per="identity", concurrency=8)
    async with limited(worker, transport, tmp_path, document, workers=4) as (port, quotas):
        entered = quotas.enter("acme", "")
        entered.enter_model("affine", 1)
        answer = await port.control.Quotas(control_pb2.QuotasRequest(), metadata=header("overseer"))
        (quota,) = answer.quotas
        assert (answer.workers, quota.name, quota.per, quota.concurrency) == (1, "q", "identity", 8)
        assert [(user.who, user.in_flight) for user in quota.users] == [("acme", 1)]
        entered.release()
        # Whose calls these are is for those who may know all models.
        with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):
            await port.control.Quotas(control_pb2.QuotasRequest(), metadata=header("reader"))


async def test_without_quotas_that_is_said(worker: Operated, port: Guarded) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="started without --quotas"):
        await port.control.Quotas(control_pb2.QuotasRequest(), metadata=header("overseer"))


# ---- the file ----


async def test_a_changed_file_counts_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path, kept = tmp_path / "quotas.yaml", tmp_path / "state"
    path.write_text("quotas: [{name: a, concurrency: 1}]")
    file = QuotaFile(path, workers=1, refused=lambda code: None, kept=kept)
    running = file.quotas.enter("", "")
    running.enter_model("m", 1)
    path.write_text("quotas: [{name: a, concurrency: 2}, {name: b, concurrency: 5}]")
    assert [await file.step() for _ in range(3)] == [False, True, False]  # once it has been the same for two looks
    assert [quota.concurrency for quota in file.quotas.rules.quotas] == [2, 5]
    assert file.status() == {"trouble": "", "in_flight": {"a": {"": 1}, "b": {}}}
    for broken, why in (
        ("quotas: [{name: a}]", "no limit"),
        ("quotas: [", "quotas"),
        ("a: 1\n---\na: 2", "the file holds 2 documents, allowed: one"),
    ):
        path.write_text(broken)
        assert [await file.step() for _ in range(2)] == [False, False]
        assert why in file.trouble
        assert len(file.quotas.rules.quotas) == 2
    path.unlink()
    await file.step()
    assert "cannot be read" in file.trouble
    again = QuotaFile(path, workers=1, refused=lambda code: None, kept=kept)
    assert [quota.name for quota in again.quotas.rules.quotas] == ["a", "b"]
    with pytest.raises(InvalidArgument, match="cannot be read"):
        QuotaFile(path, workers=1, refused=lambda code: None)
    other = tmp_path / "other.yaml"
    with pytest.raises(InvalidArgument, match="cannot be read"):
        QuotaFile(other, workers=1, refused=lambda code: None, kept=kept)  # what was kept is of another file
    (kept / "quotas").write_text("quotas: []")  # as a release before kept it
    (kept / "intents").touch()
    other.write_text("quotas: []")
    QuotaFile(other, workers=1, refused=lambda code: None, kept=kept)
    assert sorted(one.name.partition("-")[0] for one in kept.iterdir()) == ["intents", "quotas"]
    with pytest.raises(InvalidArgument, match="cannot be read"):
        QuotaFile(path, workers=1, refused=lambda code: None, kept=kept)
    path.write_text("")
    with taken_threads():  # nor does it wait for what else reads
        async with asyncio.timeout(as_loaded(5.0)):
            assert [await file.step() for _ in range(2)] == [False, True]
    assert (file.trouble, file.quotas.rules.quotas) == ("", ())


def good_bytes() -> bytes:
    content: bytes = good().SerializeToString()
    return content


async def test_a_flood_of_one_tenant_costs_another_no_call(worker: Operated, transport: str, tmp_path: Path) -> None:
    """The short form of `python -m loadtests tenants`: it counts, and leaves time to the long one."""
    document = limits(per="identity", concurrency=16, **{"requests-per-second": 20, "burst": 20})
    async with limited(worker, transport, tmp_path, document) as (port, quotas):
        flood = [port.inference.ModelInfer(good(), metadata=header("infer")) for _ in range(200)]
        steady = [await code_of(port.inference.ModelInfer(good(), metadata=header("admin"))) for _ in range(10)]
        assert steady == [grpc.StatusCode.OK] * 10
        codes = [await code_of(call) for call in flood]
        assert set(codes) == {grpc.StatusCode.OK, EXHAUSTED}
        assert codes.count(EXHAUSTED) >= 100  # some more are let in while the flood lasts
        assert branch(quotas.sums(), "q", "other")["admitted"] == 10 + codes.count(grpc.StatusCode.OK)
