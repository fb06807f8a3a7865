"""gateway status: routes, shares and workers on one page, once or as they change."""

from collections import deque
from collections.abc import Iterator
from queue import Empty, Queue
from threading import Thread
from time import monotonic, sleep
from typing import Annotated, Any

import grpc
import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from gateway.cli.client import control
from gateway.cli.printing import Format, console, line, printable, show, table
from gateway.cli.rollout import COLUMNS as ROLLOUT_COLUMNS
from gateway.cli.rollout import rollout_row, states_of
from gateway.cli.shared_options import DEFAULT_SERVER, Output, Server
from gateway.page.message_values import Value, document_value, entry_value, moment, worker_value
from gateway.page.route_words import also_decides, arms_text, in_force_text
from gateway.page.worker_words import worker_words
from gateway.pb import control_pb2, control_pb2_grpc

ROUTE_COLUMNS = ("MODEL", "STRATEGY", "REVISION", "ARMS", "ALSO", "COMMITTED")
WORKER_COLUMNS = ("WORKER", "STATE", "REVISION", "SEEN", "ERROR")
COPIES = ("agree", "differ", "error", "dropped")
MIRROR_COLUMNS = ("MODEL", "MIRROR", *map(str.upper, COPIES))  # of this host since its start
CHANGES_SHOWN = 8
RECONNECT_S = 30.0
PAUSE_S = 0.5
REDRAW_S = 1.0  # while a rollout is running


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Go on as things change, until Ctrl-C.")] = False,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Print routes with their shares, and workers with the revision that each serves.

    With -o json it is all that the operators' page shows: traffic by arm, models, drift, log, changes as well.
    With --watch the page is drawn anew at each change, and each second while a rollout is running; with -o json each
    change is a line.
    """
    with control(server) as stub:
        if not watch:
            if output is Format.TABLE:
                out = console()
                out.print(_Page(stub).drawn(out))
            else:
                overview = stub.GetOverview(control_pb2.GetOverviewRequest(), timeout=10)
                show(msgspec.json.decode(overview.overview_json), output)
            return
        try:
            if output is Format.TABLE:
                _redraw(stub)
            else:
                for event in _events(stub, backlog=0):
                    line(_event_value(event), output)
        except KeyboardInterrupt:
            return


def _redraw(stub: control_pb2_grpc.ControlStub) -> None:
    """Draws the page anew at each change, and each second while a rollout is running, whose numbers are no change.

    An output that is no terminal gets one page after another, at changes alone.
    """
    changes: deque[str] = deque(maxlen=CHANGES_SHOWN)
    out = console()
    away = ""
    settled = moving = False
    with Live(console=out, auto_refresh=False, screen=False) as live:
        for event in _paced(_events(stub, backlog=CHANGES_SHOWN)):
            if event is None:
                if not (moving and out.is_terminal):
                    continue
            else:
                kind = event.WhichOneof("event")
                if kind == "committed":
                    changes.append(_change_line(event.committed))
                away = event.store_away
                settled = settled or kind == "settled"
                if not settled and not away:
                    continue
            try:
                page = _Page(stub)
                moving, drawn = page.is_moving, page.drawn(out, changes, away)
            except grpc.RpcError as error:
                if not _is_away(error):
                    raise
                continue  # the page that stands is the newest that there is
            if out.is_terminal:
                live.update(drawn, refresh=True)
            else:
                out.print(drawn)


def _paced(events: Iterator[control_pb2.Event]) -> Iterator[control_pb2.Event | None]:
    """Yields the events as they come, and None after each second without one. Raises: what they raise."""
    told: Queue[control_pb2.Event | Exception] = Queue()

    def read() -> None:
        try:
            for event in events:
                told.put(event)
        except Exception as error:  # the boundary of a thread: it is raised where the events are taken
            told.put(error)

    Thread(target=read, name="watch", daemon=True).start()
    while True:
        try:
            one = told.get(timeout=REDRAW_S)
        except Empty:
            yield None
            continue
        if isinstance(one, Exception):
            raise one
        yield one


def _events(stub: control_pb2_grpc.ControlStub, *, backlog: int) -> Iterator[control_pb2.Event]:
    """Yields events without a gap: if a worker leaves or is away for a while, another one continues."""
    seen = 0
    told = False
    lost_at = 0.0
    while True:
        request = control_pb2.WatchRequest(backlog=0 if seen else backlog, after_revision=seen)
        stream = stub.Watch(request, timeout=None)
        try:
            for event in stream:
                told, lost_at = True, 0.0
                seen = max(seen, event.committed.revision)
                yield event
        except grpc.RpcError as error:
            lost_at = lost_at or monotonic()
            if not told or not _is_away(error) or monotonic() - lost_at > RECONNECT_S:
                raise
        finally:
            stream.cancel()
        sleep(PAUSE_S)


def _is_away(error: grpc.RpcError) -> bool:
    return isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAVAILABLE


class _Page:
    """Holds the routes and workers at one moment."""

    def __init__(self, stub: control_pb2_grpc.ControlStub) -> None:
        self._listed = stub.ListRoutes(control_pb2.ListRoutesRequest(), timeout=10)
        try:
            self._workers = stub.Workers(control_pb2.WorkersRequest(), timeout=10)
        except grpc.RpcError:
            if not self._listed.stale:
                raise
            self._workers = control_pb2.WorkersResponse()
        host = _host(stub)
        self._feed: list[dict[str, Any]] = host.get("feed") or []
        self._copies: list[dict[str, Any]] = host.get("copies") or []
        self._rollouts = [] if self._listed.stale else [state for state in states_of(stub) if state.phase != "stopped"]

    @property
    def is_moving(self) -> bool:
        """Returns whether the numbers of a rollout change by themselves."""
        return any(state.phase not in ("promoted", "stopped") for state in self._rollouts)

    def drawn(self, out: Console, changes: deque[str] | None = None, away: str = "") -> Group:
        routes = table(
            ROUTE_COLUMNS,
            [
                [
                    *(r.model, _strategy(r), r.revision, arms_text(r), "; ".join(also_decides(in_force_text(r)))),
                    moment(r.committed_at_us),
                ]
                for r in sorted(self._listed.routes, key=lambda route: route.model)
            ],
            out,
        )
        workers = table(
            WORKER_COLUMNS,
            [[w.id, w.state, w.revision, f"{w.seen_ms_ago / 1000:.1f} s ago", w.error] for w in self._workers.workers],
            out,
        )
        state = f"revision {self._listed.revision}, epoch {self._listed.epoch or 'none'}"
        if any(worker.state == "AHEAD" for worker in self._workers.workers):
            state += "; THE STORE LOST CHANGES: the last rules serve on, and none changes until `gateway heal`"
        elif self._listed.stale:
            state += "; THE STORE IS AWAY: these are the rules that the answering worker serves by"
        if away:
            state += f" ({printable(away)})"
        parts: list[RenderableType] = [Text(state), Text(""), routes]
        if self._rollouts:
            parts += [Text(""), table(ROLLOUT_COLUMNS, map(rollout_row, self._rollouts), out)]
        if self._copies:
            rows = [[one["model"], one["arm"], *map(one.get, COPIES)] for one in self._copies]
            parts += [Text(""), table(MIRROR_COLUMNS, rows, out)]
        parts += [Text(""), workers]
        words = [f"worker {feed['worker']}: {worker_words(feed)}" for feed in self._feed if worker_words(feed)]
        if words:
            parts += [Text(""), Text("\n".join(map(printable, words)))]
        if changes:
            parts += [Text(""), Text("\n".join(reversed(changes)))]
        return Group(*parts)


def _host(stub: control_pb2_grpc.ControlStub) -> dict[str, Any]:
    """Returns what the answering host says of itself; nothing where it cannot be had."""
    try:
        overview = stub.GetOverview(control_pb2.GetOverviewRequest(), timeout=10)
    except grpc.RpcError:
        return {}
    host: dict[str, Any] = msgspec.json.decode(overview.overview_json).get("host") or {}
    return host


def _strategy(route: control_pb2.Route) -> str:
    return str(next(iter(msgspec.json.decode(route.document_json)["spec"]["strategy"])))


def _change_line(entry: control_pb2.HistoryEntry) -> str:
    who = f"{entry.actor or 'somebody'} ({entry.source})" if entry.source else entry.actor or "somebody"
    reason = f": {entry.reason}" if entry.reason else ""
    return printable(
        f"{moment(entry.committed_at_us)}  r{entry.revision} {entry.operation} {entry.model} by {who}{reason}"
    )


def _event_value(event: control_pb2.Event) -> Value:
    value: dict[str, Value] = {"at": moment(event.at_us), "event": event.WhichOneof("event")}
    match event.WhichOneof("event"):
        case "committed":
            value |= {**entry_value(event.committed), **document_value(event.committed)}
        case "worker":
            value |= {"worker": worker_value(event.worker.worker), "gone": event.worker.gone}
        case "store_away":
            value |= {"reason": event.store_away}
    return value
