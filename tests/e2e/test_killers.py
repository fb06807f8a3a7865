"""Requests that kill a worker, sent to the running product by a client that retries, as docs/examples has it."""

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from gateway.pb import inference_pb2 as pb
from gateway.tensor import Array, Datatype
from tests import models
from tests.control_group import ControlGroup, group_if_any, program_in
from tests.e2e.calls import stub
from tests.e2e.conftest import OWN_CONNECTION
from tests.e2e.product import GATEWAY, Product, until
from tests.machine_load import as_loaded

SERVICE_CONFIG = (Path(__file__).parents[2] / "docs" / "examples" / "service-config.json").read_text()
RETRYING = [*OWN_CONNECTION, ("grpc.service_config", SERVICE_CONFIG)]
REPLACED_WITHIN_S = 3.0
LOWEST = -(2**63)
MERGED = "max_batch_size: 64\ndynamic_batching { max_queue_delay_microseconds: 50000 }\n"
ALL = "max_batch_size: 8\nversion_policy { all {} }\n"


# What the transport has no part in: what is refused once a worker has died, and what the version is charged with.
ONE_TRANSPORT = pytest.mark.parametrize(
    "product", ["ngh2", pytest.param("grpcio", marks=pytest.mark.long)], indirect=True, scope="module"
)


@pytest.fixture(scope="module")
def groups() -> Iterator[dict[str, ControlGroup]]:
    """The control groups that the gateway runs in; none where this user, or this kernel, may have none."""
    with group_if_any("memory") as memory, group_if_any("pids") as pids:
        # Of version 2 a process is in one group alone.
        both = {"memory": memory, "pids": pids if memory is None or memory.is_first else None}
        yield {name: group for name, group in both.items() if group is not None}


@pytest.fixture(scope="module", params=["ngh2", "grpcio"])
def product(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, groups: dict[str, ControlGroup]
) -> Iterator[Product]:
    directory = tmp_path_factory.mktemp(f"killers-{request.param}")
    repository = directory / "models"
    for name in ("div", "other", "again"):
        models.write_version(repository, name, "1", models.divide())
    models.write_version(repository, "merged", "1", models.divide(), config=MERGED)
    for operator in ("LSTM", "GRU"):
        models.write_version(repository, operator.lower(), "1", models.recurrent(operator))
    models.write_version(repository, "nms", "1", models.non_maximum_suppression())
    models.write_version(repository, "affine", "1", models.affine(2.0))
    models.write_version(repository, "chain", "1", models.divide())
    models.write_version(
        repository, "chain", "2", models.divide(), config="max_batch_size: 8\nversion_policy { all {} }\n"
    )
    models.write_version(repository, "filled", "1", models.filled())
    program = program_in(groups.values(), GATEWAY, directory / "gateway")
    settings = ("--transport", request.param, "--quarantine-seconds", "3600")
    running = Product(directory, repository, *settings, program=program).start()
    try:
        yield running
        running.stop()
    finally:
        running.kill()


@pytest.fixture
def channel(product: Product) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(product.server, options=RETRYING) as opened:
        yield opened


def division(model: str, x: int, d: int, *, version: str = "") -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    for name, value in (("x", x), ("d", d)):
        message.inputs.add(name=name, datatype=Datatype.INT64.wire_name, shape=[1, 1])
        message.raw_input_contents.append(np.array([value], np.int64).tobytes())
    return message


def code(channel: grpc.Channel, message: pb.ModelInferRequest) -> tuple[grpc.StatusCode, str]:
    call = stub(channel).ModelInfer.future(message, timeout=20, wait_for_ready=True)
    call.exception()
    return call.code(), call.details() or ""


def restarts(product: Product) -> int:
    return sum(child["restarts"] for child in product.children("worker"))


def settle(product: Product) -> None:
    until(lambda: all(one["state"] == "READY" for one in product.children("worker")), 60, "all workers are back")


def settle_after(product: Product, restarted: int) -> None:
    """Waits until so many restarts are counted in all, and no more, and all workers are back.

    What killed a worker may be refused, and the worker be told as READY, before its end is seen.
    """
    until(lambda: restarts(product) >= restarted, 10, "the death is counted")
    settle(product)
    assert restarts(product) == restarted


def array_of(message: pb.ModelInferResponse) -> Array:
    return np.frombuffer(message.raw_output_contents[0], np.int64)


def test_a_worker_that_somebody_stops_blames_no_request(product: Product, channel: grpc.Channel) -> None:
    # The first test of the file: what died a moment ago starts again by a back-off.
    before = restarts(product)
    settle(product)
    victim = product.children("worker")[0]
    stopped_s = time.monotonic()
    os.kill(victim["pid"], signal.SIGSTOP)
    until(lambda: restarts(product) == before + 1, 30, "the stopped worker is replaced")
    settle(product)
    assert time.monotonic() - stopped_s <= as_loaded(REPLACED_WITHIN_S)
    assert code(channel, boxes(10))[0] is grpc.StatusCode.OK
    assert "hung: silent for" in str([child["reason"] for child in product.children("worker")])


def test_a_request_that_kills_takes_one_worker_and_is_refused(product: Product, channel: grpc.Channel) -> None:
    before = restarts(product)
    status, text = code(channel, division("div", LOWEST, -1))
    assert status is grpc.StatusCode.FAILED_PRECONDITION, text
    assert "this request is refused: a worker was killed by SIGFPE while it ran these inputs on model 'div'" in text
    settle_after(product, before + 1)
    for _ in range(20):  # in every worker, at once
        with grpc.insecure_channel(product.server, options=OWN_CONNECTION) as other:
            assert code(other, division("div", LOWEST, -1))[0] is grpc.StatusCode.FAILED_PRECONDITION
            assert code(other, division("div", 6, 3))[0] is grpc.StatusCode.OK  # other inputs run
            assert code(other, division("other", 6, 3))[0] is grpc.StatusCode.OK
    assert restarts(product) == before + 1
    assert "while it ran model=div version=1 input=" in product.events()
    metrics = product.metrics()
    assert metrics['gateway_refused_inputs{model="div",version="1",worker="0"}'] == 1.0
    assert metrics['gateway_version_quarantined{model="div",version="1",worker="0"}'] == 0.0
    until(lambda: '"input.refused"' in product.page("/events?follow=false"), 10, "the event")


@ONE_TRANSPORT
def test_a_killer_that_is_repeated_at_once_takes_one_worker(product: Product) -> None:
    """Before the supervisor has looked: a sibling reads itself what the dead worker was running."""
    before = restarts(product)
    codes: list[grpc.StatusCode] = []
    while not codes or codes[-1] is grpc.StatusCode.UNAVAILABLE:  # a connection for each, and no wait between them
        with grpc.insecure_channel(product.server, options=[*OWN_CONNECTION, ("grpc.enable_retries", 0)]) as channel:
            codes.append(code(channel, division("again", LOWEST, -1))[0])
        assert len(codes) < 50
    until(lambda: restarts(product) > before, 10, "the death is counted")
    settle(product)
    assert codes[0] is grpc.StatusCode.UNAVAILABLE
    assert codes[-1] is grpc.StatusCode.FAILED_PRECONDITION
    assert restarts(product) == before + 1


@ONE_TRANSPORT
def test_of_those_that_ran_with_a_killer_all_are_answered_and_it_alone_is_refused(
    product: Product, channel: grpc.Channel
) -> None:
    """Nobody knows which it was until it has run alone. That costs a second worker, and the version is not charged."""
    before = restarts(product)
    with ThreadPoolExecutor(8) as threads:
        inputs = [(LOWEST, -1)] + [(6 * number, 3) for number in range(1, 8)]
        answers = list(threads.map(lambda pair: code(channel, division("merged", *pair)), inputs))
    assert [status for status, _ in answers[1:]] == [grpc.StatusCode.OK] * 7
    assert answers[0][0] is grpc.StatusCode.FAILED_PRECONDITION
    assert "this request is refused" in answers[0][1]
    settle(product)
    assert 1 <= restarts(product) - before <= 2
    assert code(channel, division("merged", 8, 2))[0] is grpc.StatusCode.OK
    assert code(channel, division("merged", LOWEST, -1))[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert restarts(product) - before <= 2


@ONE_TRANSPORT
def test_the_second_death_within_a_minute_quarantines_until_the_model_is_loaded(
    product: Product, channel: grpc.Channel
) -> None:
    before = restarts(product)
    assert code(channel, division("other", LOWEST, -1))[0] is grpc.StatusCode.FAILED_PRECONDITION
    settle_after(product, before + 1)
    huge = division("other", LOWEST, -1)
    huge.inputs[0].shape[0] = huge.inputs[1].shape[0] = 2
    huge.raw_input_contents[0] += np.array([7], np.int64).tobytes()
    huge.raw_input_contents[1] += np.array([7], np.int64).tobytes()
    status, text = code(channel, huge)
    assert status is grpc.StatusCode.FAILED_PRECONDITION
    settle_after(product, before + 2)
    status, text = code(channel, division("other", 6, 3))
    assert status is grpc.StatusCode.FAILED_PRECONDITION
    assert "quarantined for another" in text
    assert "2 workers died of it within a minute (killed by SIGFPE)" in text
    ones = pb.ModelInferRequest(model_name="affine")
    ones.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    ones.raw_input_contents.append(np.ones(4, np.float32).tobytes())
    assert code(channel, ones)[0] is grpc.StatusCode.OK
    until(lambda: '"version.quarantined"' in product.page("/events?follow=false"), 10, "the event")

    def reason() -> str:
        index = stub(channel).RepositoryIndex(pb.RepositoryIndexRequest(), timeout=10)
        return str(next(one.reason for one in index.models if one.name == "other"))

    until(lambda: reason().startswith("quarantined: 2 workers died of it"), 10, "the reason in the list of versions")
    stub(channel).RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="other"), timeout=30)
    until(lambda: code(channel, division("other", 6, 3))[0] is grpc.StatusCode.OK, 5, "it runs again")
    until(lambda: not reason(), 10, "no reason any more")


@ONE_TRANSPORT
def test_of_a_quarantined_version_the_chain_answers_but_not_what_killed_it(
    product: Product, channel: grpc.Channel
) -> None:
    route = """
apiVersion: gateway/v1
kind: Route
metadata: {model: chain}
spec:
  arms: {bad: {version: "1"}, good: {version: "2"}}
  strategy: {pinned: {arm: bad}}
  fallback: {order: [bad, good]}
"""
    assert product.cli("routes", "apply", "-f", "-", text=route).exit_code == 0
    before = restarts(product)
    for divisor in (1, 2):  # two different ones
        killer = division("chain", LOWEST, -1)
        for _ in range(divisor):
            killer.raw_input_contents[0] += np.array([3], np.int64).tobytes()
            killer.raw_input_contents[1] += np.array([3], np.int64).tobytes()
        killer.inputs[0].shape[0] = killer.inputs[1].shape[0] = divisor + 1
        assert code(channel, killer)[0] is grpc.StatusCode.FAILED_PRECONDITION
        settle_after(product, before + divisor)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: code(channel, division("chain", number, 1)), range(64)))
    assert {status for status, _ in answers} == {grpc.StatusCode.OK}
    message, call = stub(channel).ModelInfer.with_call(division("chain", 6, 3), timeout=10)
    assert array_of(message).tolist() == [2]
    assert dict(call.trailing_metadata())["x-gateway-version"] == "2"
    assert restarts(product) == before + 2


@ONE_TRANSPORT
@pytest.mark.parametrize("model", ["lstm", "gru"])
def test_a_model_that_dies_without_rows_refuses_them(product: Product, channel: grpc.Channel, model: str) -> None:
    before = restarts(product)
    message = pb.ModelInferRequest(model_name=model)
    message.inputs.add(name="x", datatype="FP32", shape=[0, 5, 4])
    message.raw_input_contents.append(b"")
    for _ in range(4):
        status, text = code(channel, message)
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        assert text == f"model '{model}' version '1' takes no inputs without rows or elements"
    message.inputs[0].shape[0] = 2
    message.raw_input_contents[0] = np.ones((2, 5, 4), np.float32).tobytes()
    assert code(channel, message)[0] is grpc.StatusCode.OK
    assert restarts(product) == before


def boxes(count: int) -> pb.ModelInferRequest:
    """So many boxes that do not overlap: what a run costs grows with the square."""
    place = np.arange(count, dtype=np.float32) * 2
    values = {
        "boxes": np.stack([place, place, place + 1, place + 1], axis=1)[None],
        "scores": np.linspace(1, 0.5, count, dtype=np.float32)[None, None],
    }
    message = pb.ModelInferRequest(model_name="nms")
    for name, value in values.items():
        message.inputs.add(name=name, datatype="FP32", shape=value.shape)
        message.raw_input_contents.append(value.tobytes())
    return message


@ONE_TRANSPORT
def test_a_run_that_hangs_the_loop_takes_one_worker_and_is_refused(product: Product, channel: grpc.Channel) -> None:
    """One operator that does not end cannot be interrupted: the worker is killed when its loop has been silent."""
    assert code(channel, boxes(10))[0] is grpc.StatusCode.OK
    before = restarts(product)
    assert code(channel, boxes(150_000))[0] is grpc.StatusCode.UNAVAILABLE  # too large for gRPC to keep and repeat
    # On another connection: gRPC may still give a call to the one that has just broken, and cannot repeat it either.
    with grpc.insecure_channel(product.server, options=RETRYING) as other:
        status, text = code(other, boxes(150_000))
    assert status is grpc.StatusCode.FAILED_PRECONDITION, text
    assert "a worker was killed because it hung while it ran these inputs on model 'nms'" in text
    settle_after(product, before + 1)
    assert code(channel, boxes(10))[0] is grpc.StatusCode.OK


def ones(count: int) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="filled")
    message.inputs.add(name="x", datatype=Datatype.INT64.wire_name, shape=[1])
    message.raw_input_contents.append(np.array([count], np.int64).tobytes())
    return message


@ONE_TRANSPORT
def test_a_worker_that_the_kernel_kills_for_want_of_memory_costs_its_own_calls_and_suspects_what_it_ran(
    product: Product, channel: grpc.Channel, groups: dict[str, ControlGroup]
) -> None:
    if "memory" not in groups:
        pytest.skip("no control group with a limit of memory can be made here")
    memory_group = groups["memory"]
    settle(product)
    before = restarts(product)
    memory_group.limit(memory_group.use() + (64 << 20))
    try:
        with grpc.insecure_channel(product.server, options=[*OWN_CONNECTION, ("grpc.enable_retries", 0)]) as once:
            assert code(once, ones(1 << 26))[0] is grpc.StatusCode.UNAVAILABLE
    finally:
        memory_group.limit(None)
    assert code(channel, boxes(10))[0] is grpc.StatusCode.OK  # by the other worker
    settle_after(product, before + 1)  # by a back-off: others died a moment ago
    [said] = re.findall("killed for want of memory while it ran model=filled version=1 input=.*", product.events())
    assert said.endswith("run alone from now on")
    assert code(channel, ones(1 << 26))[0] is grpc.StatusCode.OK  # there was another cause


@ONE_TRANSPORT
def test_a_host_that_starts_no_more_processes_and_threads_is_served_on_and_recovers(
    product: Product, channel: grpc.Channel, groups: dict[str, ControlGroup]
) -> None:
    if "pids" not in groups:
        pytest.skip("no control group with a limit of processes can be made here")
    settle(product)
    before = restarts(product)
    load = pb.RepositoryModelLoadRequest(model_name="late")
    models.write_version(product.repository, "late", "1", models.affine(3.0))
    groups["pids"].limit(1)
    try:
        with pytest.raises(grpc.RpcError) as refused:
            stub(channel).RepositoryModelLoad(load, timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "the system starts no more threads" in str(refused.value.details())
        os.kill(product.children("worker")[0]["pid"], signal.SIGKILL)
        until(lambda: restarts(product) == before + 1, 10, "the death is counted")
        until(lambda: "cannot be started: Resource temporarily" in str(product.children("worker")), 60, "the reason")
        for model in ("affine", "nms"):  # on the loop, and on a thread
            for _ in range(8):
                assert code(channel, ones_of(model))[0] is grpc.StatusCode.OK
    finally:
        groups["pids"].limit(None)
    stub(channel).RepositoryModelLoad(load, timeout=30)
    assert code(channel, ones_of("late"))[0] is grpc.StatusCode.OK
    settle_after(product, before + 1)


def ones_of(model: str) -> pb.ModelInferRequest:
    if model == "nms":
        return boxes(3000)
    message = pb.ModelInferRequest(model_name=model)
    message.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    message.raw_input_contents.append(np.ones(4, np.float32).tobytes())
    return message
