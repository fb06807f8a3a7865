"""The operators' page while no worker answers, and for those who may not see it."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from gateway.access.principal import ANONYMOUS, NOBODY, Grant, Principal, Role
from gateway.errors import Unauthenticated
from gateway.page.traffic import TrafficWindow
from gateway.runtime.control_bridge import CONTROL, ControlBridge
from gateway.runtime.operators_page import MOST_READERS, OperatorsPage
from gateway.runtime.operators_port import HttpRequest, HttpResponse
from gateway.runtime.peers import Payload, Peers, PeerServer, worker_socket
from tests.page.test_overview import host

LOCAL = {"host": "localhost:8002"}
OWN = LOCAL | {"content-type": "application/json", "x-gateway-client": "page"}
READER = Principal("ada", "", "token", (Grant(Role.READER, ("m",)),))


class Guard:
    """Knows one token."""

    def authorize(self, path: bytes, authorization: bytes | None, names: tuple[str, ...]) -> Principal:
        if authorization != b"Bearer good":
            raise Unauthenticated("no such token")
        return READER


def made(directory: Path, guard: Guard | None = None, **given: Any) -> OperatorsPage:
    traffic = TrafficWindow()
    for second in range(3):
        traffic.look({}, float(second))
    bridge = ControlBridge(Peers(directory, own_slot=-1, slots=1), workers=1)
    return OperatorsPage(bridge, traffic, host, guard, **given)


def asked(path: str, principal: Principal = ANONYMOUS, **query: str) -> HttpRequest:
    return HttpRequest("GET", path, LOCAL, query, principal=principal)


async def pieces(answer: HttpResponse, count: int) -> list[str]:
    """The first pieces of a stream."""
    assert isinstance(answer.then, AsyncGenerator)
    return [(await anext(answer.then)).decode() for _ in range(count)]


async def test_without_a_worker_the_page_shows_the_host(tmp_path: Path) -> None:
    page = made(tmp_path).pages()
    shown = (await page["/"](asked("/"))).body.decode()
    assert "no worker of this host answers" in shown
    assert "worker 0" in shown
    answer = await page["/page/stream"](asked("/page/stream"))
    first, *parts = await pieces(answer, 6)
    assert answer.body == b"retry: 1000\n\n"
    assert first.startswith("event: points\ndata: [")
    assert all(part.startswith('event: section\ndata: {"name":') for part in parts)


@pytest.mark.parametrize("path", ["/page/overview", "/page/predictions"])
async def test_what_nobody_answers_is_unavailable(tmp_path: Path, path: str) -> None:
    answer = await made(tmp_path).pages()[path](asked(path))
    assert (answer.status, json.loads(answer.body)) == (503, {"error": "no worker of this host answers"})


async def test_what_is_no_question_is_refused(tmp_path: Path) -> None:
    pages = made(tmp_path).pages()
    assert (await pages["/page/diff"](asked("/page/diff", model="m", to="x"))).status == 400
    assert (await pages["/page/explain"](asked("/page/explain", model="m"))).status == 503
    assert (await pages["/page/static"](asked("/page/static", name="../page.html"))).status == 404
    deep = HttpRequest("POST", "/page/rollback", OWN, body=b'{"a":' * 5000)
    assert (await made(tmp_path).forms()["/page/rollback"](deep)).status == 400


async def test_one_reader_too_many_ends_the_oldest(tmp_path: Path) -> None:
    stream = made(tmp_path).pages()["/page/stream"]
    answers = [await stream(asked("/page/stream")) for _ in range(MOST_READERS + 1)]
    for answer in answers:  # who reads nothing of it, as after HEAD, takes no place
        await pieces(answer, 1)
    oldest = answers[0].then
    assert oldest is not None
    said = [piece async for piece in oldest]
    assert said[-1].startswith(b"event: ended")
    for answer in answers[1:]:
        assert answer.then is not None
        await answer.then.aclose()


async def test_readers_of_one_name_take_no_place_of_another(tmp_path: Path) -> None:
    stream = made(tmp_path).pages()["/page/stream"]
    other = Principal("ops", "", "token", (Grant(Role.READER),))
    answers = [await stream(asked("/page/stream", who)) for who in (other, *[READER] * MOST_READERS)]
    for answer in answers:
        await pieces(answer, 1)
    first, flooded = answers[0].then, answers[1].then
    assert first is not None
    assert flooded is not None
    assert [piece async for piece in flooded][-1].startswith(b"event: ended")
    assert b"ended" not in await anext(first)
    for answer in (answers[0], *answers[2:]):
        assert answer.then is not None
        await answer.then.aclose()


async def test_who_is_unknown_logs_in(tmp_path: Path) -> None:
    page = made(tmp_path, Guard(), own_names=False)
    assert b"Log in" in (await page.pages()["/"](asked("/", NOBODY))).body
    login = page.forms()["/page/login"]
    good = await login(HttpRequest("POST", "/page/login", OWN, body=b'{"token": "good"}'))
    assert good.headers["Set-Cookie"] == "gateway_token=good; Path=/; HttpOnly; SameSite=Strict"
    for body, status in (
        (b'{"token": "bad"}', 401),
        (b'{"token": "a; b"}', 400),
        (b"[]", 400),
        (b"", 400),
        (b'{"\xff": 1}', 400),
    ):
        assert (await login(HttpRequest("POST", "/page/login", OWN, body=body))).status == status
    # Who may not read everything is not told of the processes.
    assert "worker 0" not in (await page.pages()["/"](asked("/", READER))).body.decode()


async def test_two_tokens_of_one_name_share_no_overview_that_one_may_not_see(tmp_path: Path) -> None:
    async def answer(payload: Payload) -> Payload:
        principal: Any = payload["principal"]
        models = [model for _, listed in principal["grants"] for model in listed]
        return {"messages": [{"overview_json": json.dumps(models)}]}

    async with PeerServer(worker_socket(tmp_path, 0), {CONTROL: answer}):
        overview = made(tmp_path).pages()["/page/overview"]
        for models in (("*",), ("m",), ("*",)):
            reader = Principal("ada", "", "token", (Grant(Role.READER, models),))
            assert json.loads((await overview(asked("/page/overview", reader))).body) == list(models)


async def test_where_operators_ask_elsewhere_the_page_is_closed(tmp_path: Path) -> None:
    page = made(tmp_path, closed="ask at the control port")
    for path, shown in page.pages().items():
        if path != "/page/static":
            assert (await shown(asked(path))).status == 403, path
    for path, form in page.forms().items():
        answer = await form(HttpRequest("POST", path, OWN, body=b"{}"))
        assert (answer.status, json.loads(answer.body)) == (403, {"error": "ask at the control port"})


async def test_another_name_is_not_answered(tmp_path: Path) -> None:
    page = made(tmp_path)
    for other in ("evil.example", "[::1", ""):
        assert (await page.pages()["/"](HttpRequest("GET", "/", {"host": other}))).status == 421
    elsewhere = OWN | {"host": "evil.example", "origin": "http://evil.example"}
    assert (await page.forms()["/page/rollback"](HttpRequest("POST", "/page/rollback", elsewhere))).status == 403
