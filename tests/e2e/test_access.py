"""The gateway as it is hardened: tokens, an address of its own for operators, revocation while it runs."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.pb import control_pb2
from gateway.pb.control_pb2_grpc import ControlStub
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceStub
from loadtests.samples import request as inference_request
from tests.e2e.conftest import Demo
from tests.e2e.product import Product, command, until

SEEN_S = 30.0
ROUTE = """
apiVersion: gateway/v1
kind: Route
metadata: {model: digits}
spec: {arms: {a: {version: "1"}}, strategy: {pinned: {arm: a}}}
"""


def token(file: Path, name: str, *words: str) -> str:
    """A new token that the file knows."""
    done = command("token", "new", "--name", name, "--file", str(file), *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def bearer(text: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {text}"),)


def page(product: Product, path: str, given: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {given}"} if given else {}
    request = urllib.request.Request(f"http://127.0.0.1:{product.port('metrics')}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def send(
    product: Product, path: str, fields: Mapping[str, object], headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """The status, and the cookie that is set."""
    own = {"Content-Type": "application/json", "X-Gateway-Client": "test"}
    address = f"http://127.0.0.1:{product.port('metrics')}{path}"
    request = urllib.request.Request(address, json.dumps(fields).encode(), own | dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers.get("Set-Cookie", "")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


@pytest.mark.long
def test_a_gateway_with_tokens_lets_nobody_in_who_shows_none(
    start_product: Callable[..., Product], demo: Demo, tmp_path: Path
) -> None:
    tokens, at = tmp_path / "tokens", tmp_path / "control.sock"
    reader = token(tokens, "scraper", "--role", "reader")
    operator = token(tokens, "olga", "--role", "operator", "--models", "dig*")
    batch = token(tokens, "batch", "--role", "infer", "--models", "dig*")
    assert not any(secret in tokens.read_text() for secret in (reader, operator, batch))
    product = start_product("access", "--access-tokens", str(tokens), "--control-socket", str(at))
    assert f"control              unix:{at}" in product.banner

    # Health for everybody, the rest for readers of all models.
    assert page(product, "/healthz")[0] == page(product, "/readyz")[0] == 200
    assert page(product, "/metrics")[0] == page(product, "/events?follow=false")[0] == 401
    assert page(product, "/metrics", operator)[0] == 403
    assert "gateway_access_denied_total" in page(product, "/metrics", reader)[1]

    # The page asks who somebody is, and shows each caller its models.
    assert "Log in" in page(product, "/")[1]
    assert page(product, "/page/overview")[0] == 401
    status, text = page(product, "/", operator)
    assert (status, "digits" in text, "flight_delay" in text) == (200, True, False)
    own = json.loads(page(product, "/page/overview", operator)[1])
    assert {one["model"] for one in own["models"]} == {"digits"}
    assert own["host"]["processes"] == []
    assert send(product, "/page/login", {"token": "gwt_wrong"})[0] == 401
    status, cookie = send(product, "/page/login", {"token": reader})
    assert (status, cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")) == (200, True)
    kept = {"Cookie": cookie.partition(";")[0]}
    assert send(product, "/page/rollback", {"model": "digits"}, kept)[0] == 403
    assert send(product, "/page/logout", {}, kept)[1].endswith("Max-Age=0")

    # Commands: the token from a file or the environment.
    def asked(*words: str, **variables: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*words, "--server", f"unix:{at}"], env=variables)
        return done.exit_code, done.output

    code, text = asked("models")
    assert (code, "UNAUTHENTICATED: no credential was sent" in text) == (1, True)
    (tmp_path / "mine").write_text(f"{operator}\n")
    code, text = asked("models", "-o", "json", GATEWAY_TOKEN_FILE=str(tmp_path / "mine"))
    assert (code, {one["model"] for one in json.loads(text)}) == (0, {"digits"})
    assert asked("models", GATEWAY_TOKEN=reader)[0] == 0
    code, text = asked("kill", "digits", "--reason", "drill", GATEWAY_TOKEN=reader)
    assert (code, "needs the role operator; 'scraper' holds reader" in text) == (1, True)

    # The proven name is the one in the history.
    (tmp_path / "route.yaml").write_text(ROUTE)
    code, text = asked("routes", "apply", "-f", str(tmp_path / "route.yaml"), GATEWAY_TOKEN=operator)
    assert code == 0, text
    code, text = asked("routes", "history", "digits", "-o", "json", GATEWAY_TOKEN=operator)
    assert [(entry["actor"], entry["source"]) for entry in json.loads(text)] == [("olga", "cli")]

    # The gRPC port has inference and feedback, and nothing of the operators'.
    with grpc.insecure_channel(product.server) as channel:
        inference, control = GRPCInferenceServiceStub(channel), ControlStub(channel)  # type: ignore[no-untyped-call]
        request = inference_request("digits", demo.rows("digits")[0], "r")
        assert inference.ModelInfer(request, metadata=bearer(batch), timeout=10).outputs
        with pytest.raises(grpc.RpcError) as caught:
            control.ListRoutes(control_pb2.ListRoutesRequest(), metadata=bearer(operator), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        feedback = control_pb2.SendFeedbackRequest()
        feedback.items.add(model="digits", request_id="r", number=1.0)
        assert control.SendFeedback(feedback, metadata=bearer(batch), timeout=10).accepted == 1

        # All workers are replaced, and the socket answers throughout; then a token is revoked.
        before = {child["pid"] for child in product.children("worker")}
        os.kill(product.state()["pid"], signal.SIGHUP)

        def replaced() -> bool:
            assert asked("workers", GATEWAY_TOKEN=reader)[0] == 0
            return not before & {child["pid"] for child in product.children("worker")}

        until(replaced, SEEN_S, "new workers")
        assert command("token", "revoke", "batch", "--file", str(tokens)).returncode == 0

        def refused() -> bool:
            try:
                inference.ModelInfer(request, metadata=bearer(batch), timeout=10)
            except grpc.RpcError as error:
                return error.code() is grpc.StatusCode.UNAUTHENTICATED
            return False

        until(refused, SEEN_S, "the revoked token being refused")

    def told() -> bool:
        return '"access.denied"' in page(product, "/events?follow=false", reader)[1]

    until(told, SEEN_S, "the event of the refusals")
    product.stop()
    assert not at.exists()
