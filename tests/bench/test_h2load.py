"""What h2load is asked for, what is understood of its words, and that a failed call is no success."""

from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.bench import body, h2load
from loadtests.bench.cases import Case
from loadtests.bench.h2load import LoadFailed, Order, connections_for, drive, parse
from loadtests.bench.run import Driver
from loadtests.bench.servers import Server

needs_h2load = pytest.mark.skipif(not h2load.installed(), reason=h2load.MISSING)

PRINTED = """\
starting benchmark...
progress: 100% done

finished in 826.16ms, 24208.31 req/s, 3.42MB/s
requests: 20000 total, 20000 started, 20000 done, 19990 succeeded, 10 failed, 4 errored, 0 timeout
status codes: 19990 2xx, 0 3xx, 0 4xx, 10 5xx
traffic: 2.82MB (2961108) total, 39.26KB (40201) headers (space savings 97.35%), 2.25MB (2358820) data
"""


def test_the_words_of_h2load_are_understood() -> None:
    load = parse(PRINTED)
    assert (load.succeeded, load.failed, load.good_status) == (19990, 10, 19990)
    assert load.data_bytes == 2358820
    assert load.seconds == pytest.approx(0.82616)
    assert "10 calls failed" in load.fault(118)


def test_missing_bytes_are_a_fault() -> None:
    load = replace(parse(PRINTED), failed=0)
    assert load.fault(118) == ""
    assert "2358820 bytes together" in load.fault(119)


@pytest.mark.parametrize("text", ["", "h2load: option requires an argument", PRINTED.replace("finished", "went on")])
def test_other_words_are_an_error(text: str) -> None:
    with pytest.raises(LoadFailed):
        parse(text)


@pytest.mark.parametrize(("concurrency", "connections"), [(1, 1), (2, 1), (16, 4), (64, 8), (256, 16)])
def test_few_connections_with_many_streams(concurrency: int, connections: int) -> None:
    assert connections_for(concurrency) == connections
    order = Order("h:1", Path("b"), ("k",), concurrency)
    (command,) = order.commands(1000, [])
    assert command[command.index("-c") + 1] == str(connections)
    assert command[command.index("-m") + 1] == str(concurrency // connections)


def test_keys_of_two_arms_share_the_calls() -> None:
    commands = Order("h:1", Path("b"), ("k", "l"), 64).commands(1000, [])
    assert [command[command.index("-n") + 1] for command in commands] == ["500", "500"]
    assert [command[command.index("-c") + 1] for command in commands] == ["4", "4"]
    assert [command[command.index("-m") + 1] for command in commands] == ["8", "8"]
    assert ["x-user-id: k" in command for command in commands] == [True, False]
    assert len(Order("h:1", Path("b"), ("k", "l"), 1).commands(10, [])) == 1


@needs_h2load
def test_a_run_counts_calls_and_logs_their_latencies(bare: Server, tiny: Case) -> None:
    ticks: list[int] = []
    order = Order(bare.address, tiny.body, ("user-0", "user-1"), 4)
    load = drive(order, 100, limit_s=30, logged=True, tick=lambda: ticks.append(1))
    assert load.succeeded == load.good_status == len(load.latencies_ms) == 100
    assert 0 < load.percentile_ms(50) <= load.percentile_ms(99)
    assert load.data_bytes % 100 == 0
    assert ticks


@needs_h2load
def test_a_grpc_error_is_a_fault_though_h2load_counts_it_as_good(bare: Server, tiny: Case, tmp_path: Path) -> None:
    body.write(replace(tiny.model, name="nobody"), tmp_path / "nobody.bin")
    order = Order(bare.address, tmp_path / "nobody.bin", ("user-0",), 4)
    load = drive(order, 20, limit_s=30, logged=False, tick=lambda: None)
    assert load.good_status == 20
    assert load.fault(50) == "the answers have 0 bytes together, 20 right ones have 1000"


@needs_h2load
def test_a_server_that_answers_wrongly_is_a_row_with_a_fault(bare: Server, tiny: Case) -> None:
    wrong = {version: values + 0.01 for version, values in tiny.expected.items()}
    row = Driver(0.1, "one").run(bare, replace(tiny, expected=wrong), 4)
    assert "version 1 answered" in row.fault
    assert row.requests == 0
