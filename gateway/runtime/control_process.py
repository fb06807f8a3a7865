"""The control process: sums what the workers count, and answers operators on the metrics port.

It holds nothing that serving needs; when it dies the supervisor starts it again, and it goes on from its own file.
"""

import asyncio
import logging
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec

import gateway
from gateway.access.entrance import Entrance
from gateway.errors import GatewayError, InvalidArgument
from gateway.loopback import is_this_host
from gateway.page.host_view import HostView, host_view
from gateway.page.traffic import TrafficWindow
from gateway.rest.other_sites import is_own_name
from gateway.runtime.alias_watch import AliasWatch
from gateway.runtime.callers import make_entrance
from gateway.runtime.child import Settings, SupervisorLink, read_settings, supervisor_link
from gateway.runtime.config import Config
from gateway.runtime.control_api import ControlApi, by_own_name, closed_by
from gateway.runtime.control_bridge import ControlBridge
from gateway.runtime.event_publisher import EventPublisher
from gateway.runtime.instance import STATE_FILE
from gateway.runtime.joint_run import JointRun
from gateway.runtime.judging import Judging
from gateway.runtime.operators_page import OperatorsPage
from gateway.runtime.operators_port import HttpRequest, HttpResponse, OperatorsPort, Page, served_pages
from gateway.runtime.peers import CONTROL_SOCKET, TRACES, Payload, Peers, PeerServer
from gateway.runtime.process_figures import collections, process_figures
from gateway.runtime.rollout_hand import PeerRolloutHand
from gateway.runtime.route_files import RouteFiles
from gateway.runtime.trace_export import TraceExport, make_trace_export
from gateway.telemetry.drift_states import REPORT_FILE as DRIFT_FILE
from gateway.telemetry.exposition import HostMetrics, format_of, text
from gateway.telemetry.gone_versions import GoneVersions, Key
from gateway.telemetry.keys import Gauge, Sum
from gateway.telemetry.published import PERFORMANCE_FILE, PublishedReport, published, versions_of
from gateway.telemetry.sums import Tree, listed
from gateway.telemetry.totals import KeptTotals, Totals

POLL_SECONDS: Final = 1.0
_ANSWER_LIMIT_S: Final = 1.0
_OWN_SLOT: Final = -1  # no worker's
_FRESH_S: Final = 5.0  # a worker that was not heard for so long has no gauges
_KEPT_FILE: Final = "totals.json"
_log = logging.getLogger(__name__)


class _Kept(msgspec.Struct):
    """What a control process leaves to its successor."""

    instance: str
    totals: KeptTotals


class ControlProcess:
    """Counts of the host's workers, polled; and what is made of them."""

    def __init__(
        self, config: Config, instance: str, clock: Callable[[], float], wall_s: Callable[[], float] = time.time
    ) -> None:
        self._wall_s = wall_s
        self._run_dir = config.run_dir
        self._asks_callers = config.access.configured
        # From other hosts it may be asked for by any name; on loopback another name is a trick (DNS rebinding).
        self.own_names = not config.access.configured and is_this_host(f"{config.operators_host}:0")
        self._published_dir = config.published_dir
        self._drift = PublishedReport(config.published_dir / DRIFT_FILE)
        self._performance = PublishedReport(config.published_dir / PERFORMANCE_FILE)
        self.traffic = TrafficWindow()
        self._instance = instance
        self._clock = clock
        self.peers = Peers(config.socket_dir, own_slot=_OWN_SLOT, slots=config.process.workers)
        self._totals = Totals()
        self._gone = GoneVersions()
        self._published_versions: set[Key] = set()
        self._publisher: EventPublisher | None = None
        self._traces: TraceExport | None = None
        self._entrance: Entrance | None = None
        self._boot = uuid.uuid4().hex
        self._polls: JointRun[None] = JointRun(self._poll)
        self._scrapes: dict[str, JointRun[HttpResponse]] = {}  # by format

    def attach(self, publisher: EventPublisher) -> None:
        """Tells the publisher every state that is polled from now on."""
        self._publisher = publisher

    def count_callers(self, entrance: Entrance) -> None:
        """Counts, and tells of, whom this port refuses as whom the workers do."""
        self._entrance = entrance

    def export_traces(self, traces: TraceExport) -> None:
        """Gives it the traces that workers tell as they end, and shows what became of all."""
        self._traces = traces

    async def fetch_traces(self) -> Mapping[int, Payload | GatewayError]:
        """Returns the traces that each worker has, which then has them no more."""
        return await self.peers.ask_all(TRACES, {}, timeout_s=_ANSWER_LIMIT_S)

    def restore(self) -> None:
        """Goes on from the totals of an earlier control process of this run of the gateway."""
        try:
            kept = msgspec.json.decode(self._kept.read_bytes(), type=_Kept)
            if kept.instance == self._instance:
                self._totals.restore(kept.totals, self._clock())
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.warning("%s cannot be read, counts start from zero: %s", _KEPT_FILE, error)

    async def run(self) -> None:
        """Polls until it is cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(POLL_SECONDS)

    async def step(self) -> None:
        """Polls once, and keeps the totals on disk for a successor."""
        await self.poll()
        self.traffic.look(self._totals.sums(), self._wall_s())
        self._keep()
        if self._publisher is not None:
            own: Tree = {Gauge.ACCESS: self._entrance.status()} if self._entrance is not None else {}
            self._publisher.observe(self._gauges(), self._children(), self._drift.read(), own)

    async def poll(self) -> None:
        """Brings the totals up to date with what the workers that answer have counted."""
        await self._polls.outcome()

    async def _poll(self) -> None:
        answers = await self.peers.ask_all("counters", {}, timeout_s=_ANSWER_LIMIT_S)
        for slot, answer in answers.items():
            if not isinstance(answer, GatewayError):
                self._take(slot, answer)
        if self._entrance is not None:
            own = {"sums": {Sum.ACCESS: dict(self._entrance.denied())}, "gauges": {}}
            self._totals.heard(_OWN_SLOT, self._boot, own, self._clock())
        self._totals.fold(self._clock())
        self._end_series()

    async def counters(self, _: Payload) -> Payload:
        """Returns the sums over all workers, dead ones included, as of now."""
        await self.poll()
        return self._totals.sums()

    async def last_counts(self, payload: Payload) -> Payload:
        """Takes the last counts of a worker that ends, which no poll would find."""
        slot = payload.get("slot")
        if not isinstance(slot, int):
            raise InvalidArgument(f"slot is {slot!r}, allowed: a whole number")
        self._take(slot, payload)
        if self._traces is not None:
            self._traces.take(payload)
        return {}

    async def host_view(self, _: Payload) -> Payload:
        """Returns what this host does now, as JSON can hold it."""
        view: Payload = msgspec.to_builtins(self.view())
        return view

    def view(self) -> HostView:
        """Returns what this host does now, as of the last look."""
        point = self.traffic.now
        events = self._publisher.events.after()[0] if self._publisher is not None else []
        return host_view(
            at_s=self._wall_s(),
            release=gateway.__version__,
            host=socket.gethostname(),
            traffic=None if point is None else point.arms,
            sums=self._totals.sums(),
            gauges=self._gauges(),
            processes=self._children(),
            drift=self._drift.read(),
            performance=self._performance.read(),
            events=events,
        )

    async def state(self, _: Payload) -> Payload:
        """Returns the supervisor's state file, whole."""
        return self._state()

    async def metrics(self, request: HttpRequest) -> HttpResponse:
        """Answers what is counted. Scrapes at one time are one: workers are asked, and the page is made, for all."""
        accept = request.headers.get("accept", "")
        kind = format_of(accept)
        if kind not in self._scrapes:
            self._scrapes[kind] = JointRun(partial(self._scrape, accept))
        return await self._scrapes[kind].outcome()

    async def _scrape(self, accept: str) -> HttpResponse:
        await self.poll()
        return HttpResponse(*text(self._host_metrics(), accept))

    async def drift(self, _: HttpRequest) -> HttpResponse:
        """Answers what the drift monitor found last; an empty object where it has found nothing yet."""
        return HttpResponse(msgspec.json.encode(self._drift.read()), "application/json")

    async def live(self, _: HttpRequest) -> HttpResponse:
        return HttpResponse(b"ok\n")

    async def ready(self, request: HttpRequest) -> HttpResponse:
        """Answers 200 while a worker serves; the body says which ones do, where nobody has to prove who asks.

        Probes ask by any name, but no page of a site whose name was pointed at this host is told of the workers.
        """
        workers = [child for child in self._children() if child.get("role") == "worker"]
        serving = any(worker.get("state") == "READY" for worker in workers)
        renamed = self.own_names and not is_own_name(request.headers.get("host", ""))
        told = {"ready": serving, **({} if self._asks_callers or renamed else {"workers": workers})}
        body = msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n"
        status = HTTPStatus.OK if serving else HTTPStatus.SERVICE_UNAVAILABLE
        return HttpResponse(body, "application/json", status)

    @property
    def _kept(self) -> Path:
        return self._run_dir / _KEPT_FILE

    def _take(self, slot: int, answer: Payload) -> None:
        boot, snapshot = answer.get("boot"), answer.get("counters")
        if isinstance(boot, str) and isinstance(snapshot, dict):
            self._totals.heard(slot, boot, snapshot, self._clock())

    def _end_series(self) -> None:
        """Ends the series of versions that have been gone for long, as far as metrics tell of them.

        While no worker answers nobody is gone.
        """
        gauges = self._gauges()
        if not gauges:
            return
        versions = [one for values in gauges.values() for one in listed(values, Gauge.VERSIONS)]
        there = {(str(one.get("model")), str(one.get("version"))) for one in versions if one.get("state") != "END"}
        told = self._totals.versions() | self._published_versions
        self._gone.look(there | {(model, "") for model, _ in there}, told, self._clock())
        self._totals.forget(self._gone.over)

    def _host_metrics(self) -> HostMetrics:
        events = self._publisher.counts() if self._publisher is not None else {}
        own = published(self._published_dir)
        self._published_versions = versions_of(own)
        self._end_series()
        state = self._state()
        return HostMetrics(
            self._totals.sums(),
            self._gauges(),
            tuple(listed(state, "children")),
            gateway.__version__,
            events,
            own,
            self._gone.over,
            tuple(_figures(state)),
            dict(self._traces.counts) if self._traces is not None else {},
        )

    def _gauges(self) -> Mapping[int, Tree]:
        """Returns what each worker that answers says now, by slot."""
        told = self._totals.gauges(self._clock(), _FRESH_S)
        return {slot: values for slot, values in told.items() if slot != _OWN_SLOT}

    def _children(self) -> tuple[Tree, ...]:
        children = self._state().get("children")
        return tuple(children) if isinstance(children, list) else ()

    def _state(self) -> dict[str, object]:
        try:
            return msgspec.json.decode((self._run_dir / STATE_FILE).read_bytes(), type=dict[str, object])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}

    def _keep(self) -> None:
        staged = self._kept.with_name(_KEPT_FILE + ".next")
        try:
            staged.write_bytes(msgspec.json.encode(_Kept(self._instance, self._totals.kept())))
            staged.replace(self._kept)
        except OSError as error:
            _log.warning("%s was not written: %s", _KEPT_FILE, error.strerror)


def _figures(state: Tree) -> Iterator[Tree]:
    """Yields what the kernel says of the supervisor and of each of its children that runs."""
    supervisor = {"role": "supervisor", "slot": 0, "pid": state.get("pid")}
    for process in (supervisor, *listed(state, "children")):
        pid = process.get("pid")
        if isinstance(pid, int) and pid > 0:
            own = {"collections": collections()} if pid == os.getpid() else {}
            yield {"role": process.get("role"), "slot": process.get("slot"), **own, **process_figures(pid)}


async def serve(settings: Settings, link: SupervisorLink) -> None:
    """Runs the control process until it is told to stop."""
    config = settings.config
    control = ControlProcess(config, settings.instance, asyncio.get_running_loop().time)
    control.restore()
    publisher = EventPublisher(config, settings.instance, wall_s=time.time, draw=random.random)
    control.attach(publisher)
    operations = {
        "counters": control.counters,
        "last_counts": control.last_counts,
        "state": control.state,
        "host_view": control.host_view,
    }
    # Nobody shows a certificate here: where callers prove themselves by that alone, the port is as open as its address.
    entrance = make_entrance(config) if config.access.configured else None
    authorizer = entrance.gatekeeper if entrance is not None else None
    bridge = ControlBridge(control.peers, config.process.workers)
    closed, own_names = closed_by(config), control.own_names
    api = ControlApi(bridge, closed=closed, own_names=own_names)
    page = OperatorsPage(bridge, control.traffic, control.view, authorizer, closed=closed, own_names=own_names)
    read: dict[str, Page] = {"/metrics": control.metrics, "/events": publisher.page.answer}
    read |= {"/openapi.json": api.document, "/api/v1/drift": control.drift}
    if own_names:
        read = {path: by_own_name(one) for path, one in read.items()}
    pages = {"/healthz": control.live, "/readyz": control.ready, **read, **page.pages()}
    table = {**served_pages(pages, page.forms(), ("/events", "/page/stream")), **api.table()}
    inherited = settings.inherited("metrics-port")
    http = OperatorsPort(config.operators_host, config.listen.metrics_port, table, authorizer, inherited)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(PeerServer(config.socket_dir / CONTROL_SOCKET, operations))
        if entrance is not None:
            control.count_callers(entrance)
            await entrance.prepare()
        await http.start()
        stack.push_async_callback(http.close)
        hand = PeerRolloutHand(control.peers, config.process.workers)
        judge = Judging(config, hand, settings.instance, publisher)
        traces = None
        if config.traces.otlp_endpoint:
            traces = make_trace_export(config.traces, control.fetch_traces)
            control.export_traces(traces)
            stack.push_async_callback(traces.close)
        async with asyncio.TaskGroup() as group:
            url, environment = config.store.redis_url, config.store.environment
            aliases = AliasWatch(url, environment, control.peers, config.process.workers, publisher.tell)
            loops = [group.create_task(one.run()) for one in (control, publisher, judge, aliases)]
            if traces is not None:
                loops.append(group.create_task(traces.run()))
            if config.store.routes_dir is not None:
                files = RouteFiles(config.store.routes_dir, url, environment, publisher.tell)
                loops.append(group.create_task(files.run()))
            if entrance is not None:
                loops.append(group.create_task(entrance.follow()))
            link.ready()
            await link.stopping.wait()
            link.draining()
            for loop in loops:
                loop.cancel()


async def run(settings: Settings) -> None:
    async with supervisor_link() as link:
        await serve(settings, link)


def main() -> None:
    asyncio.run(run(read_settings()))


if __name__ == "__main__":
    main()
