"""Medians over rounds, ratios of neighbours, runs that are repeated, options that are refused."""

import json
from dataclasses import replace
from itertools import count

import pytest
from rich.console import Console

from loadtests.bench.alone import Layout, layouts
from loadtests.bench.options import SYSTEMS, Options, read_options
from loadtests.bench.pairing import Turn, calmest, run_rounds, turn_count
from loadtests.bench.report import as_json, faults, summarize, table
from loadtests.bench.run import Row


def row(system: str = "gateway", **figures: object) -> Row:
    made = Row(
        system=system, model="tiny", concurrency=64, requests=100, seconds=1, requests_per_s=100, p50_ms=1, p99_ms=2,
        client_cores=0.1, loop_before_ms=10, loop_after_ms=10, other_cores=0.0,
    )  # fmt: skip
    return replace(made, **figures)  # type: ignore[arg-type]


def options(*arguments: str) -> Options:
    return read_options(arguments)


def test_ratios_are_those_of_neighbours_not_of_medians() -> None:
    rows = [
        row(round=0, cpu_us=10.0), row("floor", round=0, cpu_us=20.0),
        row(round=1, cpu_us=40.0), row("floor", round=1, cpu_us=20.0),
        row(round=2, cpu_us=12.0), row("floor", round=2, cpu_us=20.0),
    ]  # fmt: skip
    gateway, floor = summarize(rows, base="gateway")
    assert gateway.figures["cpu_us"] == 12.0
    assert gateway.ratios == {}
    assert floor.ratios["cpu_us"] == pytest.approx(0.6)


def test_a_run_with_a_fault_counts_for_nothing_but_is_told() -> None:
    rows = [row(round=0), row("floor", round=0, requests_per_s=1e9, fault="wrong"), row("floor", round=1)]
    _, floor = summarize(rows, base="gateway")
    assert floor.figures["requests_per_s"] == 100
    assert faults([floor]) == ["floor, tiny, 64 at a time: wrong"]


def test_unknown_figures_are_left_out_of_table_and_json() -> None:
    rows = [row(cpu_us=None, p50_ms=float("nan"))]
    summaries = summarize(rows, base="gateway")
    console = Console(width=190, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(summaries, base="gateway"))
    console.file.close()
    assert "tiny" in console.export_text()
    written = json.loads(json.dumps(as_json(rows, summaries, {})))
    assert written["runs"][0]["p50_ms"] is None
    assert "cpu_us" not in written["summaries"][0]["figures"]


def test_a_disturbed_run_is_repeated_and_the_calmest_is_kept() -> None:
    busy = iter([1.0, 0.6, 0.8])
    kept = calmest(lambda: row(other_cores=next(busy)), options("--tries", "3"))
    assert (kept.other_cores, kept.disturbed, kept.tries) == (0.6, True, 3)
    again = iter([1.0, 0.1])
    kept = calmest(lambda: row(other_cores=next(again)), options("--tries", "3"))
    assert (kept.other_cores, kept.disturbed, kept.tries) == (0.1, False, 2)


def test_a_machine_that_became_slower_disturbs_as_well() -> None:
    assert calmest(lambda: row(loop_after_ms=12), options("--tries", "1")).disturbed
    assert not calmest(lambda: row(loop_after_ms=10.5), options("--tries", "1")).disturbed


def test_a_fault_is_not_repeated() -> None:
    runs = count()
    kept = calmest(lambda: row(fault="wrong", other_cores=float(next(runs))), options())
    assert kept.tries == 1
    assert next(runs) == 1


def test_systems_take_turns() -> None:
    made = [Turn(name, lambda name=name: row(name)) for name in "AB"]  # type: ignore[misc]
    told: list[str] = []
    rows = list(run_rounds(made, options("--rounds", "3"), told.append))
    assert [row.system for row in rows] == ["A", "B"] * 3
    assert [row.round for row in rows] == [0, 0, 1, 1, 2, 2]
    assert told[-1] == "B (3/3)"


def test_the_number_of_runs_is_known() -> None:
    assert (
        turn_count(options("--models", "tiny,conv", "--concurrency", "1,64", "--rounds", "3"), 2) == 2 * 2 * 2 * 3 + 6
    )


def test_onnx_runtime_alone_serves_no_more_rows_at_a_time_than_there_are_calls() -> None:
    assert layouts(1, 2) == [Layout(1, 2, 1)]
    assert Layout(2, 1, 8) in layouts(16, 2)
    assert all(layout.threads * layout.batch <= 8 for layout in layouts(8, 2))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--models", "big"),
        ("--concurrency", "0"),
        ("--seconds", "0"),
        ("--feature-off", "tls"),
        ("--against", "nowhere"),
        ("--pid", "1"),
        ("--only-models",),
        ("--feature-off", "log", "--systems", "aio"),
    ],
)
def test_wrong_options_are_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options(*arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_systems_follow_from_what_is_asked() -> None:
    assert options().systems == SYSTEMS
    assert options("--feature-off", "log").systems == ("gateway",)
    assert options("--against", "h:1").systems == ()
    assert options("--against", "h:1", "--systems", "gateway").systems == ("gateway",)


def test_latencies_of_runs_are_not_compared_with_those_of_calls() -> None:
    _, alone = summarize([row(), row("ONNX Runtime", alone=True, requests_per_s=200)], base="gateway")
    assert alone.ratios == {"requests_per_s": 0.5}
