"""A sender against real servers: protocols, datatypes, TLS, tokens, slow answers, wrong ones, a server that goes."""

import asyncio
import socket
from dataclasses import replace
from time import monotonic

import pytest

from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from loadtests.job.arrivals import steady
from loadtests.job.figures import Figures, figures_of
from loadtests.job.scenario_plan import PROTOCOLS, KeyPlan, PayloadPlan, Protocol, TrafficPlan
from loadtests.job.sender import Sender, SenderOrder
from loadtests.job.tally import Tally
from loadtests.job.target import LoadTarget, TargetFailed
from tests.api.stand import Stand
from tests.loadtests.foreign import Foreign, abrupt, echoed, foreign
from tests.rpc.serving import CERTIFICATES

pytestmark = pytest.mark.asyncio(loop_scope="session")
SECONDS = 0.25
CALLS = TrafficPlan("calls", steady(100, "constant"), model="m", payload=PayloadPlan(distinct=3))


async def sent(order: SenderOrder) -> Tally:
    """What became of an order's calls."""
    sender, tally = Sender(order), Tally()
    try:
        await sender.prepare()
        await sender.run(monotonic() + order.warm_up_s, tally.merge, asyncio.Event())
    finally:
        await sender.close()
    return tally


async def figures(target: LoadTarget, plan: TrafficPlan = CALLS) -> Figures:
    return figures_of(await sent(SenderOrder(target, (plan,), SECONDS)), SECONDS)


def at(stand: Stand) -> LoadTarget:
    return LoadTarget(stand.address, f"127.0.0.1:{stand.rest_port}")


@pytest.mark.parametrize("model", ["echo", "flags", "wide"])
async def test_every_protocol_carries_every_datatype(stand: Stand, model: str) -> None:
    plans = tuple(replace(CALLS, name=protocol, model=model, protocol=protocol) for protocol in PROTOCOLS)
    tally = await sent(SenderOrder(at(stand), plans, SECONDS))
    for protocol in PROTOCOLS:
        made = figures_of(tally, SECONDS, protocol)
        assert (made.offered, made.right, dict(made.failures)) == (25, 25, {})
        assert dict(made.versions) == {"1": 25}
        assert made.latencies.total == 25


async def test_what_json_cannot_say_is_refused_before_anything_is_sent(stand: Stand) -> None:
    plan = replace(CALLS, model="halves")
    with pytest.raises(InvalidArgument, match="JSON has no FP16; use rest-binary or grpc"):
        await figures(at(stand), replace(plan, protocol="rest-json"))
    made = await figures(at(stand), replace(plan, protocol="rest-binary"))
    assert made.offered == made.right == 25


@pytest.mark.parametrize("protocol", ["grpc", "rest-binary"])
async def test_a_request_of_a_mebibyte_arrives(stand: Stand, protocol: Protocol) -> None:
    plan = replace(CALLS, model="wide", protocol=protocol, payload=PayloadPlan(size_bytes=1 << 20, distinct=1))
    made = await figures(at(stand), replace(plan, arrivals=steady(16, "constant")))
    assert (made.right, made.failures.total()) == (4, 0)
    assert made.received_bytes > 4 << 20


async def test_what_the_server_refuses_is_a_failure_with_its_words(stand: Stand) -> None:
    """Whole numbers are drawn from 0 to 9; the model takes those below 5."""
    plans = tuple(replace(CALLS, name=one, model="gather", protocol=one, payload=PayloadPlan()) for one in PROTOCOLS)
    tally = await sent(SenderOrder(at(stand), plans, SECONDS))
    for protocol in PROTOCOLS:
        made = figures_of(tally, SECONDS, protocol)
        assert 0 < made.failures.total() < made.offered == made.right + made.failures.total()
        assert made.latencies.total == made.right  # a refusal is no answer, however quick
        assert all("internal error" in text for text in made.failures), made.failures


async def test_each_sender_has_its_share_and_the_warm_up_is_not_measured(stand: Stand) -> None:
    orders = [
        SenderOrder(at(stand), (replace(CALLS, model="affine"),), SECONDS, 0.1, index, 2, watching=True)
        for index in range(2)
    ]
    tallies = await asyncio.gather(*(sent(order) for order in orders))
    assert [figures_of(one, SECONDS).offered for one in tallies] == [13, 12]
    assert [sum(second < 0 for second in one.moments["calls"]) for one in tallies] == [1, 1]
    assert len(tallies[0].sightings) == 13 + tallies[0].moments["calls"][-1].right
    assert tallies[0].lags.total == 13
    for model, version, sent_s, received_s in tallies[0].sightings:
        assert (model, version) == ("affine", "1")
        assert sent_s < received_s


def pem(name: str) -> str:
    return str(CERTIFICATES / name)


@pytest.mark.parametrize("protocol", ["grpc", "grpc-stream"])
async def test_another_server_of_the_protocol_is_driven_with_tls_and_a_token(protocol: Protocol) -> None:
    async with foreign(Foreign(token="secret"), tls=True) as server:
        target = LoadTarget(
            server.address,
            secure=True,
            ca=pem("ca.pem"),
            certificate=pem("client.pem"),
            key=pem("client.key"),
            name="localhost",
            token="secret",
        )
        plan = replace(CALLS, protocol=protocol, key=KeyPlan("x-user-id", 5), headers={"X-Team": "a"}, connections=1)
        made = await figures(target, replace(plan, arrivals=steady(80, "constant")))
        assert (made.right, dict(made.failures)) == (20, {})
        assert dict(made.versions) == {"7": 20}
        assert {headers.get("x-team") for headers in server.headers[1:]} == {"a"}
        assert all(headers["x-user-id"].startswith("user-") for headers in server.headers[1:])
        with pytest.raises(TargetFailed, match="UNAUTHENTICATED: who are you"):
            await figures(replace(target, token="wrong"), plan)
        stranger = replace(target, certificate=pem("stranger.pem"), key=pem("stranger.key"))
        with pytest.raises(TargetFailed, match="UNAVAILABLE"):
            await figures(stranger, plan)


async def test_slow_answers_are_not_hidden() -> None:
    """Nothing is answered until the twentieth call has come: who waited for the first answer would wait for ever."""
    async with foreign(Foreign(held=20)) as server:
        made = await figures(LoadTarget(server.address))
    assert made.right == 25
    assert made.latencies.at(1.0) > 0.18  # the first of them waited for nineteen more, 10 ms apart
    assert made.latencies.at(0.6) > 0.09


async def test_a_call_that_nobody_answers_counts_with_its_deadline() -> None:
    async with foreign(Foreign(held=1000)) as server:
        plan = replace(CALLS, deadline_s=0.1, arrivals=steady(20, "constant"))
        made = await figures(LoadTarget(server.address), plan)
    assert (made.right, made.failures.total()) == (0, 5)
    assert all(text.startswith("DEADLINE_EXCEEDED") for text in made.failures), made.failures
    assert made.latencies.total == 5
    assert made.latencies.at(0.5) > 0.1


def another_id(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    answer = echoed(request)
    answer.id = "another"
    return answer


def nothing(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    return pb.ModelInferResponse(id=request.id)


async def test_an_answer_to_another_request_is_wrong() -> None:
    for answering, text in ((another_id, "has the id of another request"), (nothing, "has no outputs")):
        async with foreign(Foreign(answering=answering)) as server:
            made = await figures(LoadTarget(server.address))
        assert made.right == 0
        assert dict(made.failures) == {f"WRONG: the answer {text}": 25}
    async with foreign(Foreign()) as server:
        made = await figures(LoadTarget(server.address), replace(CALLS, version="8"))
    assert dict(made.failures) == {"WRONG: version '7' answered, '8' was asked for": 25}


async def test_a_stream_of_another_message_is_wrong_and_says_so() -> None:
    async with foreign(Foreign(streams_inferences=True)) as server:
        made = await figures(LoadTarget(server.address), replace(CALLS, protocol="grpc-stream"))
    assert dict(made.failures) == {"WRONG: an answer on the stream is no ModelStreamInferResponse": 25}


async def test_a_rest_server_that_ends_connections_unasked_is_told_by_its_status() -> None:
    """Each connection is opened anew, and no call waits for the last of them to go."""
    async with abrupt() as address:
        plan = replace(CALLS, protocol="rest-json", connections=4)
        made = await figures(LoadTarget(address, address), plan)
    assert made.right == 0
    assert made.failures["HTTP 500 oops"] > 0
    assert {text.split(":")[0] for text in made.failures} <= {"HTTP 500 oops", "UNAVAILABLE"}
    assert made.failures.total() == 25


async def test_a_server_that_goes_is_failures_and_no_end() -> None:
    service = Foreign()
    async with foreign(service) as server:
        sender, tally = Sender(SenderOrder(LoadTarget(server.address), (CALLS,), SECONDS)), Tally()
        await sender.prepare()
    await sender.run(monotonic(), tally.merge, asyncio.Event())
    await sender.close()
    made = figures_of(tally, SECONDS)
    assert (made.offered, made.right) == (25, 0)
    assert all(text.startswith("UNAVAILABLE") for text in made.failures), made.failures


async def test_who_is_not_there_is_said(stand: Stand) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        nobody = f"127.0.0.1:{bound.getsockname()[1]}"
    with pytest.raises(TargetFailed, match=rf"model 'm' at {nobody}: "):
        await figures(LoadTarget(nobody))
    with pytest.raises(TargetFailed, match=rf"model 'm' at {nobody}: "):
        await figures(LoadTarget(nobody, nobody), replace(CALLS, protocol="rest-json"))
    for protocol in PROTOCOLS:
        with pytest.raises(TargetFailed, match="'nosuch'"):
            await figures(at(stand), replace(CALLS, model="nosuch", protocol=protocol))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server": "nohost"}, "--server: 'nohost' is no host:port"),
        ({"certificate": "a"}, "--tls-cert and --tls-key need each other"),
        ({"ca": "/nosuch"}, "--tls-ca: there is no file '/nosuch'"),
        ({"server": "10.1.1.1:1", "token": "t"}, "the token would be sent in plain text to 10.1.1.1:1: use TLS"),
    ],
)
async def test_a_target_that_cannot_work_is_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        replace(LoadTarget("127.0.0.1:1"), **changes)  # type: ignore[arg-type]
    assert "secret" not in repr(LoadTarget("127.0.0.1:1", token="secret"))
