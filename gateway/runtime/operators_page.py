"""The operators' page on the metrics port: the page, its stream, and the few things that it does.

What is shown is what GetOverview tells the reader; what is done is done by the control service in the reader's name.
Templates are loaded when somebody opens the page for the first time.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.access.audience import party
from gateway.access.principal import Principal, Role
from gateway.errors import GatewayError, InvalidArgument
from gateway.page.host_view import HostView
from gateway.page.message_values import row_value
from gateway.page.overview import unanswered
from gateway.page.traffic import TrafficPoint, TrafficWindow
from gateway.pb import control_pb2 as pb
from gateway.rest.http_refusal import HttpRefusal, refusal_of
from gateway.rest.open_api import EVENTS_TYPE
from gateway.rpc.authorizer import Authorizer
from gateway.runtime.control_api import by_own_name, unsafe_write
from gateway.runtime.control_bridge import ControlBridge
from gateway.runtime.operators_port import TOKEN_COOKIE, HttpRequest, HttpResponse, Page

if TYPE_CHECKING:
    from gateway.page.page_renderer import PageRenderer

LOOK_S: Final = 1.0
MOST_READERS: Final = 16
SHOWN_PREDICTIONS: Final = 20
SOURCE: Final = "page"  # of changes, in the history
_SHARED_S: Final = 0.8
_MOST_SHARED: Final = 64
_HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"
_POLICY: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class OperatorsPage:
    """Answers the requests of browsers. With an `authorizer` a reader has to log in.

    At most `MOST_READERS` streams are open; one more ends the oldest of those who have the most. With `closed` nobody
    sees anything but why. With `own_names` it has to be asked for by a name that is this host's own.
    """

    def __init__(
        self,
        bridge: ControlBridge,
        traffic: TrafficWindow,
        host: Callable[[], HostView],
        authorizer: Authorizer | None,
        *,
        closed: str = "",
        own_names: bool = True,
    ) -> None:
        self._closed = closed
        self._own_names = own_names
        self._bridge = bridge
        self._host = host
        self._traffic = traffic
        self._authorizer = authorizer
        self._readers: list[tuple[tuple[str, str], asyncio.Event]] = []  # the oldest first, by whom they belong to
        self._asked: dict[Hashable, tuple[float, asyncio.Task[bytes]]] = {}  # by what the reader may see

    def pages(self) -> dict[str, Page]:
        """Returns what is read, by path."""
        open_to_readers = {
            "/": self._page,
            "/page/stream": self._stream,
            "/page/overview": self._overview_json,
            "/page/predictions": self._predictions,
            "/page/explain": self._explain,
            "/page/diff": self._diff,
        }
        return {**{path: self._shown(page) for path, page in open_to_readers.items()}, "/page/static": self._static}

    def forms(self) -> dict[str, Page]:
        """Returns what is done, by path."""
        return {
            "/page/rollback": self._guarded(self._rollback),
            "/page/login": self._guarded(self._login),
            "/page/logout": self._guarded(self._logout),
        }

    @cached_property
    def _renderer(self) -> "PageRenderer":
        from gateway.page.page_renderer import PageRenderer

        return PageRenderer()

    def _shown(self, page: Page) -> Page:
        """Returns the page as those may see it whom this port is open to, asked for by a name of this host."""

        async def shown(request: HttpRequest) -> HttpResponse:
            if self._closed:
                return _refused(self._closed, HTTPStatus.FORBIDDEN)
            return await page(request)

        return by_own_name(shown) if self._own_names else shown

    # ---- what is read ----

    async def _page(self, request: HttpRequest) -> HttpResponse:
        principal = request.principal
        if self._authorizer is not None and not principal.name:
            return HttpResponse(self._renderer.login(), _HTML, headers=_POLICY)
        sections = await self._sections(principal)
        caller = principal.name if self._authorizer is not None else ""
        return HttpResponse(self._renderer.page(sections, caller), _HTML, headers=_POLICY)

    async def _overview_json(self, request: HttpRequest) -> HttpResponse:
        return await self._told(lambda: self._overview(request.principal), _JSON)

    async def _predictions(self, request: HttpRequest) -> HttpResponse:
        model = request.query.get("model", "")

        async def rows() -> bytes:
            asked = pb.TailLogRequest(model=model, backlog=SHOWN_PREDICTIONS)
            newest = (await self._bridge.messages("TailLog", asked, request.principal))[::-1]
            shown = [_prediction(row_value(row)) for row in newest]
            return self._renderer.part("predictions", shown, model)

        return await self._told(rows, _HTML)

    async def _explain(self, request: HttpRequest) -> HttpResponse:
        async def explained() -> bytes:
            model, request_id = (request.query.get(name, "") for name in ("model", "request_id"))
            asked = pb.ExplainRequest(model=model, request_id=request_id)
            answer = await self._bridge.call("Explain", asked, request.principal)
            decision = answer.decision if answer.HasField("decision") else None
            served = answer.served if answer.HasField("served") else None
            told = {"error": answer.error, "steps": answer.steps, "decision": decision, "served": served}
            return self._renderer.part("explained", told | {"agrees": answer.agrees})

        return await self._told(explained, _HTML)

    async def _diff(self, request: HttpRequest) -> HttpResponse:
        async def differences() -> bytes:
            before, after = (_whole(request.query.get(name, ""), name) for name in ("from", "to"))
            asked = pb.DiffRequest(model=request.query.get("model", ""), from_revision=before, to_revision=after)
            return self._renderer.part("differences", await self._bridge.call("Diff", asked, request.principal))

        return await self._told(differences, _HTML)

    async def _static(self, request: HttpRequest) -> HttpResponse:
        from gateway.page.page_assets import ASSETS

        asset = ASSETS.get(request.query.get("name", ""))
        if asset is None:
            return _refused("there is no such file", HTTPStatus.NOT_FOUND)
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return HttpResponse(asset.compressed, asset.content_type, headers=headers | {"Content-Encoding": "gzip"})
        return HttpResponse(asset.content, asset.content_type, headers=headers)

    # ---- the stream ----

    async def _stream(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(b"retry: 1000\n\n", EVENTS_TYPE, then=self._follow(request.principal))

    async def _follow(self, principal: Principal) -> AsyncGenerator[bytes, None]:
        """Yields the parts that changed and the newest traffic, once a second, until somebody else takes the place."""
        known: dict[str, str] = {}
        if len(self._readers) >= MOST_READERS:
            self._end_one()
        reader = party(principal), asyncio.Event()
        _, ended = reader
        self._readers.append(reader)
        try:
            yield _event("points", [_seen(point, principal) for point in self._traffic.points])
            newest = self._traffic.now
            while not ended.is_set():
                sections = await self._sections(principal)
                for name, html in sections.items():
                    if known.get(name) != html:
                        known[name] = html
                        yield _event("section", {"name": name, "html": html})
                if self._traffic.now is not newest and self._traffic.now is not None:
                    newest = self._traffic.now
                    yield _event("point", _seen(newest, principal))
                else:
                    yield b": nothing new\n\n"
                try:
                    async with asyncio.timeout(LOOK_S):
                        await ended.wait()
                except TimeoutError:
                    pass
            yield _event("ended", "Too many pages are open: reload to follow here again")
        finally:
            if reader in self._readers:
                self._readers.remove(reader)

    def _end_one(self) -> None:
        """Ends the oldest stream of those who have the most: nobody takes the place of others by many of its own."""
        held = Counter(who for who, _ in self._readers)
        most = max(held.values())
        oldest = next(reader for reader in self._readers if held[reader[0]] == most)
        self._readers.remove(oldest)
        oldest[1].set()

    async def _overview(self, principal: Principal) -> bytes:
        """Returns what the reader may see. Pages of one reader share an answer, so that many of them cost as one."""
        loop = asyncio.get_running_loop()
        reader = principal.rights
        at_s, asked = self._asked.get(reader, (0.0, None))
        if asked is None or loop.time() - at_s > _SHARED_S:
            if len(self._asked) >= _MOST_SHARED:
                self._asked.clear()
            asked = loop.create_task(self._ask_overview(principal))
            asked.add_done_callback(lambda task: task.cancelled() or task.exception())  # also where nobody waits
            self._asked[reader] = loop.time(), asked
        return await asyncio.shield(asked)

    async def _ask_overview(self, principal: Principal) -> bytes:
        answer = await self._bridge.call("GetOverview", pb.GetOverviewRequest(), principal)
        return str(answer.overview_json).encode()

    async def _sections(self, principal: Principal) -> dict[str, str]:
        try:
            view = json.loads(await self._overview(principal))
        except GatewayError as error:
            # No worker answers: why is what this process knows, so it is shown.
            everything = Role.READER in principal.roles_everywhere()
            view = msgspec.to_builtins(unanswered(self._host() if everything else None, str(error)))
        return self._renderer.sections(view, lambda model: Role.OPERATOR in principal.roles_on(model))

    # ---- what is done ----

    def _guarded(self, act: Callable[[HttpRequest, Mapping[str, Any]], Any]) -> Page:
        """Returns the form that refuses what another site made a browser send. Source: OWASP, CSRF prevention."""

        async def form(request: HttpRequest) -> HttpResponse:
            refusal = unsafe_write(request, self._own_names)
            if refusal is not None or self._closed:
                refusal = refusal or HttpRefusal(HTTPStatus.FORBIDDEN, self._closed)
                return _refused(refusal.text, HTTPStatus(refusal.status))
            try:
                fields = msgspec.json.decode(request.body, type=dict[str, Any])
                answer = await act(request, fields)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                return _refused(f"the body is no JSON object: {error}", HTTPStatus.BAD_REQUEST)
            except GatewayError as error:
                return _failure(error)
            assert isinstance(answer, HttpResponse)
            return answer

        return form

    async def _rollback(self, request: HttpRequest, fields: Mapping[str, Any]) -> HttpResponse:
        change = pb.Change(
            reason=str(fields.get("reason", ""))[:200],
            source=SOURCE,
            actor=request.principal.name or "page",
        )
        asked = pb.RollbackRequest(model=str(fields.get("model", "")), change=change)
        if fields.get("expected_revision") is not None:
            asked.expected_revision = _whole(str(fields["expected_revision"]), "expected_revision")
        answer = await self._bridge.call("Rollback", asked, request.principal)
        return HttpResponse(msgspec.json.encode({"told": _told_rollback(answer)}), _JSON)

    async def _login(self, _: HttpRequest, fields: Mapping[str, Any]) -> HttpResponse:
        token = str(fields.get("token", "")).strip()
        if self._authorizer is None:
            raise InvalidArgument("nobody has to log in here")
        if not token or not token.isascii() or not token.isprintable() or set(token) & set(' ;,"\\'):
            raise InvalidArgument("token: that is none")
        self._authorizer.authorize(b"/page/overview", f"Bearer {token}".encode(), ())
        cookie = f"{TOKEN_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict"
        return HttpResponse(b"{}", _JSON, headers={"Set-Cookie": cookie})

    async def _logout(self, _: HttpRequest, fields: Mapping[str, Any]) -> HttpResponse:
        cookie = f"{TOKEN_COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"
        return HttpResponse(b"{}", _JSON, headers={"Set-Cookie": cookie})

    async def _told(self, act: Callable[[], Any], content_type: str) -> HttpResponse:
        try:
            return HttpResponse(await act(), content_type)
        except GatewayError as error:
            return _failure(error)


def _told_rollback(answer: Any) -> str:
    """Returns what became of a rollback, in a sentence."""
    if answer.HasField("already"):
        who = answer.already.actor or "somebody"
        return f"{answer.model} was rolled back by {who} already, {answer.already_ms_ago} ms ago."
    if answer.unchanged:
        return f"{answer.model} is as it was: there is nothing to go back to."
    count = len(answer.applied_by)
    took = f"{answer.applied_us / 1000:.0f} ms" if answer.applied_us else "an unknown time"
    if answer.laggards:
        return (
            f"{answer.model} is at revision {answer.revision}. {count} workers followed; these have not yet: "
            f"{', '.join(answer.laggards)}."
        )
    followed = "The worker" if count == 1 else f"All {count} workers"
    return f"{answer.model} is rolled back, at revision {answer.revision}. {followed} followed within {took}."


def _seen(point: TrafficPoint, principal: Principal) -> dict[str, Any]:
    arms = point.arms
    if Role.READER not in principal.roles_everywhere():
        arms = tuple(arm for arm in arms if Role.READER in principal.roles_on(arm.model))
    return {"at_s": point.at_s, "arms": msgspec.to_builtins(arms)}


def _prediction(row: Any) -> dict[str, Any]:
    return {**row, "outputs": json.dumps(row["outputs"], ensure_ascii=False), "total_ms": row["total_us"] / 1000}


def _event(kind: str, data: object) -> bytes:
    """Source: WHATWG HTML, "Server-sent events"; the JSON is one line."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(data))


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidArgument(f"{name} is {text[:40]!r}, allowed: a whole number")
    return int(text)


def _failure(error: GatewayError) -> HttpResponse:
    refusal = refusal_of(error, "the page")
    return _refused(refusal.text, HTTPStatus(refusal.status))


def _refused(text: str, status: HTTPStatus) -> HttpResponse:
    return HttpResponse(msgspec.json.encode({"error": text}), _JSON, status)
