"""What the command line makes of a gateway's answers that a healthy gateway does not give."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    serving = grpc.server(ThreadPoolExecutor(2))
    add_ControlServicer_to_server(TroubledGateway(), serving)  # type: ignore[no-untyped-call]
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    yield f"127.0.0.1:{port}"
    serving.stop(None).wait()


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
