"""What the command line makes of a gateway's answers that a healthy gateway does not give."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.pb import control_pb2 as pb
from gateway.pb.control_pb2_grpc import ControlServicer, add_ControlServicer_to_server

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "pinned.yaml"
LATE = pb.ChangeResponse(model="digits", revision=7, applied_us=1500, applied_by=["one"], laggards=["two", "three"])


class TroubledGateway(ControlServicer):  # type: ignore[misc, unused-ignore]
    """Commits, but two workers do not follow; refuses what it is asked about `none`; is too slow for lists."""

    def Apply(self, request: pb.ApplyRequest, context: grpc.ServicerContext) -> pb.ApplyResponse:
        return pb.ApplyResponse(change=LATE, moved_buckets=1_000_000)

    def Rollback(self, request: pb.RollbackRequest, context: grpc.ServicerContext) -> pb.ChangeResponse:
        if request.model == "none":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nothing to roll back to")
        return LATE

    def ListRoutes(self, request: pb.ListRoutesRequest, context: grpc.ServicerContext) -> pb.ListRoutesResponse:
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the store did not answer in time")
        raise AssertionError("abort raises")


class EmptiedStore(ControlServicer):  # type: ignore[misc, unused-ignore]
    """Answers by the rules of a worker whose store lost changes, and asks everybody who they are about models."""

    def ListRoutes(self, request: pb.ListRoutesRequest, context: grpc.ServicerContext) -> pb.ListRoutesResponse:
        return pb.ListRoutesResponse(revision=7, epoch="e", stale=True)

    def Workers(self, request: pb.WorkersRequest, context: grpc.ServicerContext) -> pb.WorkersResponse:
        return pb.WorkersResponse(workers=[pb.Worker(id="w", state="AHEAD", error="the store is empty")])

    def GetOverview(self, request: pb.GetOverviewRequest, context: grpc.ServicerContext) -> pb.GetOverviewResponse:
        copies = [{"model": "digits", "arm": "new", "agree": 997, "differ": 3, "error": 0, "dropped": 41}]
        return pb.GetOverviewResponse(overview_json=json.dumps({"host": {"copies": copies}}))

    def Models(self, request: pb.ModelsRequest, context: grpc.ServicerContext) -> pb.ModelsResponse:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        raise AssertionError("abort raises")

    def TailLog(self, request: pb.TailLogRequest, context: grpc.ServicerContext) -> Iterator[pb.LogRow]:
        if request.model == "digits":
            yield pb.LogRow(model="digits", version="1", code="OK", request_id="r1")


@contextmanager
def served(servicer: ControlServicer) -> Iterator[str]:
    serving = grpc.server(ThreadPoolExecutor(2))
    add_ControlServicer_to_server(servicer, serving)  # type: ignore[no-untyped-call]
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    yield f"127.0.0.1:{port}"
    serving.stop(None).wait()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served(TroubledGateway()) as address:
        yield address


@pytest.fixture(scope="module")
def emptied() -> Iterator[str]:
    with served(EmptiedStore()) as address:
        yield address


@pytest.mark.parametrize("words", [["rollback", "digits"], ["routes", "apply", "-f", str(EXAMPLE)]])
def test_workers_that_do_not_follow_end_with_four(server: str, words: list[str]) -> None:
    result = CliRunner().invoke(app, [*words, "--server", server])
    assert result.exit_code == 4
    assert "1.5 ms" in result.stdout
    assert "these workers had not followed in time: two, three" in result.stderr


def test_a_server_that_is_too_slow_ends_with_four(server: str) -> None:
    result = CliRunner().invoke(app, ["routes", "list", "--server", server])
    assert (result.exit_code, result.stdout) == (4, "")
    assert "the store did not answer in time" in result.stderr


def test_a_refusal_ends_with_one_and_its_text(server: str) -> None:
    result = CliRunner().invoke(app, ["rollback", "none", "--server", server])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "FAILED_PRECONDITION: nothing to roll back to" in result.stderr


def test_a_store_that_lost_changes_is_not_said_to_be_away(emptied: str) -> None:
    result = CliRunner().invoke(app, ["status", "--server", emptied])
    assert "THE STORE LOST CHANGES" in result.stdout
    assert "gateway heal" in result.stdout
    assert "AWAY" not in result.stdout


def test_the_status_counts_the_copies_of_mirrors(emptied: str) -> None:
    result = CliRunner().invoke(app, ["status", "--server", emptied])
    assert re.search(r"MODEL +MIRROR +AGREE +DIFFER +ERROR +DROPPED", result.stdout)
    assert re.search(r"digits +new +997 +3 +0 +41", result.stdout)


def test_who_sends_no_token_is_told_how_a_command_sends_one(emptied: str) -> None:
    result = CliRunner().invoke(app, ["models", "--server", emptied])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "UNAUTHENTICATED: who are you?; a command sends the token of --token-file, or of GATEWAY" in result.stderr
    refused = CliRunner().invoke(app, ["models", "--server", emptied], env={"GATEWAY_TOKEN": "gwt_wrong"})
    assert refused.stderr.strip().endswith("UNAUTHENTICATED: who are you?")


def test_a_log_without_a_new_prediction_says_so(emptied: str) -> None:
    shown = CliRunner().invoke(app, ["log", "tail", "digits", "--no-follow", "--server", emptied])
    assert ("digits/1" in shown.stdout, shown.stderr) == (True, "")
    none = CliRunner().invoke(app, ["log", "tail", "nosuch", "--no-follow", "--server", emptied])
    assert (none.exit_code, none.stdout) == (0, "")
    assert "no prediction of model 'nosuch' was logged in the newest minutes; `gateway log query`" in none.stderr
