"""Other servers beside the gateway: how they are started, that only right answers are measured, and the table."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.bench import h2load
from loadtests.bench.cases import Case
from loadtests.bench.report import Summary
from loadtests.bench.rivals.comparison import NOT_MEASURED, Contender, Pace, markdown, measure, ours, theirs
from loadtests.bench.rivals.mlserver_start import settings
from loadtests.bench.rivals.roster import RIVALS, Rival
from loadtests.bench.rivals.scorer import MODEL, WIDTH, OnnxScorer
from loadtests.bench.rivals.start_order import StartOrder
from loadtests.bench.rivals.triton_start import model_config
from loadtests.bench.run import Driver
from loadtests.bench.servers import Server

KSERVE = Path(sys.prefix) / "kserve"
PORTS = st.integers(1, 65_535)
QUICK = Pace((2, 1), 0.2, 1, most_other_cores=1e9, most_drift=1e9)
needs_h2load = pytest.mark.skipif(not h2load.installed(), reason=h2load.MISSING)


@pytest.mark.parametrize("rival", RIVALS.values(), ids=RIVALS.keys())
def test_a_rival_has_a_start_script_and_one_version(rival: Rival) -> None:
    assert find_spec(rival.start) is not None
    assert all("==" in requirement for requirement in rival.requirements)
    assert rival.requirements[0].split("==")[0].split("[")[0] == rival.distribution
    assert rival.processes.format(workers=7) != rival.processes or "{" not in rival.processes
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    assert f"| {rival.title} | {rival.protocol} | {rival.processes.format(workers=2)} |" in page


@given(st.integers(1, 99), PORTS, st.tuples(PORTS, PORTS))
def test_a_start_script_is_told_the_whole_order(workers: int, port: int, spare_ports: tuple[int, int]) -> None:
    order = StartOrder(Path("/with space/models"), Path("own"), workers, port, spare_ports)
    assert StartOrder.of(order.arguments) == order


def test_triton_runs_the_cases_model_in_so_many_processes(tiny: Case) -> None:
    config = model_config(tiny.model.config(), workers=3)
    assert 'backend: "python"' in config
    assert "count: 3 " in config
    assert "dynamic_batching" in config
    with pytest.raises(ValueError, match="platform"):
        model_config(config, workers=3)


@pytest.mark.parametrize(("workers", "parallel"), [(1, 0), (2, 2)])
def test_mlserver_has_no_pool_for_one_worker(workers: int, parallel: int, tmp_path: Path) -> None:
    assert settings(StartOrder(tmp_path, tmp_path, workers, 1, (2, 3)))["parallel_workers"] == parallel


def test_rivals_run_the_model_that_the_gateway_serves(tiny: Case) -> None:
    assert (tiny.model.name, tiny.model.row.shape) == (MODEL, (1, WIDTH))
    scorer = OnnxScorer(tiny.repository)
    assert scorer.output == tiny.model.output
    assert scorer.score(tiny.model.row).tolist() == tiny.expected["1"].tolist()


@contextmanager
def http_server(answer: bytes) -> Iterator[Server]:
    """A server that has HTTP and nothing else, and always says the same."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Server("http", "", rest="json", rest_address=f"127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()


def answer_of(values: Sequence[float]) -> bytes:
    return f'{{"model_version": "1", "outputs": [{{"data": {list(values)}}}]}}'.encode()


@needs_h2load
def test_a_server_without_grpc_is_measured_over_rest(tiny: Case) -> None:
    with http_server(answer_of(tiny.expected["1"].ravel().tolist())) as server:
        row = Driver(0.1, "one").run(server, tiny, 2)
    assert row.fault == ""
    assert row.requests > 2


@needs_h2load
def test_a_wrong_answer_is_not_measured(tiny: Case) -> None:
    with http_server(answer_of([0.1, 0.2, 0.7])) as server:
        row = Driver(0.1, "one").run(server, tiny, 2)
    assert row.requests == 0
    assert "version 1 answered" in row.fault


def test_one_that_is_not_installed_is_told_and_the_others_go_on(tiny: Case, tmp_path: Path) -> None:
    absent = [theirs(RIVALS[name], tmp_path / "none", tiny, 2) for name in ("kserve", "bentoml")]
    rows = list(measure(absent, tiny, QUICK, tmp_path, lambda _: None))
    assert [(row.system, row.concurrency) for row in rows] == [
        ("KServe", 2), ("KServe", 1), ("BentoML", 2), ("BentoML", 1)
    ]  # fmt: skip
    assert all("is not installed" in row.fault and "--install" in row.fault for row in rows)


def test_the_table_is_ranked_and_says_who_was_not_measured(tiny: Case, tmp_path: Path) -> None:
    names = ("ray", "kserve", "bentoml")
    made: list[Contender] = [ours(tiny, 2, rest=False), *(theirs(RIVALS[name], tmp_path, tiny, 2) for name in names)]
    rates = {"gateway": 40_000.0, "Ray Serve": 300.0, "KServe": 2_000.0}
    summaries = [
        Summary(
            one.title, MODEL, calls, 1, 0, (),
            {"requests_per_s": rates[one.title], "p50_ms": 1.5} if one.title in rates else {}, {},
        )
        for one in made
        for calls in (64, 1)
    ]  # fmt: skip
    heading, rule, *lines = markdown(made, summaries, (64, 1)).splitlines()
    assert heading.count("|") == rule.count("|") == lines[0].count("|") == 12
    assert [line.split(" | ")[0].strip("| ") for line in lines] == ["gateway", "KServe", "Ray Serve", "BentoML"]
    assert "| 40,000 | 1.50 |" in lines[0]
    assert lines[-1].count(NOT_MEASURED) == 8
    assert "bentoml==" in lines[-1]


@pytest.mark.long
@needs_h2load
@pytest.mark.skipif(not KSERVE.is_dir(), reason="no KServe on this platform")
def test_kserve_answers_rightly_and_is_measured(tiny: Case, tmp_path: Path) -> None:
    python = tmp_path / "kserve" / "bin" / "python"
    python.parent.mkdir(parents=True)
    path = os.pathsep.join((str(Path(__file__).parents[2]), str(KSERVE)))
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o700)
    contender = theirs(RIVALS["kserve"], tmp_path, tiny, 2)
    rows = list(measure([contender], tiny, QUICK, tmp_path / "work", lambda _: None))
    assert [row.fault for row in rows] == ["", ""]
    assert all(row.requests >= 2 and (row.cpu_us or 0) > 0 for row in rows)
