"""A worker: one event loop that serves calls. The only place where the rooms are wired together.

Order of the making: counters, log, catalog, engine, feed, servicers, server. Order of the end: the reverse, so that
what answers calls goes before what it needs, and the log comes last and holds every call.
"""

import asyncio
import gc
import logging
import random
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from time import monotonic, monotonic_ns, process_time_ns
from typing import Final

import uvloop

from gateway.access.priority import LADDER
from gateway.api.control_service import ControlService
from gateway.api.feedback_intake import FeedbackIntake
from gateway.api.feedback_token import Tokens, load_key
from gateway.api.health import HealthService
from gateway.api.inference import InferenceService
from gateway.api.load_reports import LoadReports
from gateway.errors import GatewayError
from gateway.features.feature_stores import FeatureStores
from gateway.features.store_urls import store_urls
from gateway.records.worker.feedback_log import FeedbackLog
from gateway.routing.store.audit_witness import AuditWitness
from gateway.routing.store.editor import Editor
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.worker_status import FeedState
from gateway.runtime.alias_hand import ALIASES, LEAD, aliases_operation, lead_operation
from gateway.runtime.answering_worker import AnsweringWorker
from gateway.runtime.build import is_compiled
from gateway.runtime.callers import make_entrance, make_quota_file
from gateway.runtime.child import Settings, SupervisorLink, read_settings, supervisor_link
from gateway.runtime.control_bridge import CONTROL, FOLLOW, bridge_following, bridge_operation
from gateway.runtime.cpu_quota import cpu_quota, runs_at_once, threads_per_session
from gateway.runtime.edge import servicers_of
from gateway.runtime.followed_rules import FollowedRules, make_feed
from gateway.runtime.host import (
    HostCounts,
    HostFleet,
    HostQuotaUses,
    HostRepository,
    ReplacementRecorder,
    operations,
)
from gateway.runtime.log_settings import make_prediction_log
from gateway.runtime.peers import TRACES, Payload, Peers, PeerServer, ask, worker_socket
from gateway.runtime.rollout_counts import RolloutCounts
from gateway.runtime.rollout_hand import OPERATION, rollout_operation
from gateway.runtime.rules_gate import RulesGate
from gateway.runtime.worker_catalog import make_catalog
from gateway.runtime.worker_gauges import (
    tell_bounds,
    tell_features,
    tell_log,
    tell_rules,
    tell_traces,
    tell_versions,
    tell_work,
)
from gateway.runtime.worker_registration import deregister, host_name, worker_id
from gateway.runtime.worker_run_state import make_run_state
from gateway.runtime.worker_servers import WorkerServers
from gateway.serving.admission import Admission
from gateway.serving.engine import Engine
from gateway.serving.heap import settle_heap
from gateway.serving.model_kind import ModelKind
from gateway.serving.run_environment import note_present_environment
from gateway.serving.tracer import Tracer
from gateway.serving.version import Version, VersionState
from gateway.telemetry.counters import Counters
from gateway.telemetry.gone_versions import KEEP_S
from gateway.telemetry.keys import Gauge, Sum
from gateway.threads import started_threads

# So long a worker waits, before it serves, for versions that the host has to try first.
_START_PATIENCE_S: Final = 10.0
_RESTART_PATIENCE_S: Final = 2.0
_ASIDE_THREADS: Final = 8  # for what background loops do at the disk
_NEVER_S: Final = 1e7
_FORGET_S: Final = 1.5 * KEEP_S  # after the control process has ended its series, so that no sum goes back before
_log = logging.getLogger(__name__)


class Worker:
    """The parts of one worker, made in order; `serve` runs them."""

    def __init__(self, settings: Settings) -> None:
        config = settings.config
        self.settings = settings
        self.config = config
        self.id = worker_id(settings.slot, settings.boot)
        self.serving = False
        self._made_s = monotonic()
        self._start_s: dict[str, float] = {}  # what the start took, by what had come about then
        self._link: SupervisorLink | None = None
        self.counters = Counters()
        self.log = make_prediction_log(settings)
        self.labels = FeedbackLog(
            config.wal_dir, worker=f"worker-{settings.slot}", gateway=host_name(), boot=settings.boot
        )
        self.threads = config.models.intra_op_threads or threads_per_session(cpu_quota(), config.process.workers)
        self.catalog = make_catalog(config, self.threads)
        self.health = HealthService(self.catalog, ready=self.is_ready, admits=lambda: self.admission.is_open)
        self.run_state = make_run_state(config, settings.boot)
        self.run_state.judged.threads = self.threads
        self.rules = FollowedRules(
            self.catalog, self.log, self.health, self.counters, self.run_state.judged, log_rate=config.log.rate
        )
        self.feed = make_feed(settings, self.id, self.rules)
        self.quota_file = make_quota_file(config, self.counters.refused)
        self.admission = Admission(
            max_requests=config.limits.max_in_flight,
            max_bytes=config.limits.max_in_flight_bytes,
            ladder=tuple(LADDER.values()) if self.quota_file is not None else (1.0,),
        )
        self.rules_gate = RulesGate(self.admission, self.feed, optional=config.store.start_without_rules)
        self.log.load = lambda: self.admission.load
        traces = config.traces
        self.tracer = Tracer(traces.ratio, random.Random()) if traces.otlp_endpoint else None
        self.engine = Engine(
            self.catalog,
            self.feed,
            self.counters,
            self.log,
            self.admission,
            threads=runs_at_once(cpu_quota(), config.process.workers, self.threads),
            shared=self.run_state,
            tracer=self.tracer,
        )
        self.features = FeatureStores(store_urls(config.features.stores))
        self.catalog.describe_by(ModelKind.FEATURES, self.features.describe)
        self.engine.queue_by(ModelKind.FEATURES, self.features.queue_of)
        self.catalog.attach(self.engine.attach, self.engine.detach)
        self.catalog.subscribe(self._version_changed)
        self.peers = Peers(config.socket_dir, settings.slot, config.process.workers)
        self.fleet = HostFleet(self.peers)
        self.store = RedisStore(config.store.redis_url, config.store.environment)
        self.witness = AuditWitness(config.rules_file.with_name(f"audit-{settings.slot}"))
        self.catalog.record_replacements(ReplacementRecorder(self.store))
        self.rollouts = RolloutCounts(
            self.run_state.judged,
            config.store.redis_url,
            config.store.environment,
            self.id,
            cores=cpu_quota() / max(1, config.process.workers),
        )
        self.entrance = make_entrance(config)
        self.servers = self._servers()
        self._publish_gauges()

    def is_ready(self) -> bool:
        """Returns whether new calls are welcome: what was there at the start is loaded, and nothing drains."""
        return self.serving and self.catalog.ready()

    def describe(self) -> Payload:
        """Returns what this worker says of itself to the other processes of the host."""
        status = self.feed.status()
        return {
            "id": self.id,
            "slot": self.settings.slot,
            "boot": self.settings.boot,
            "pid": status.pid,
            "state": status.state,
            "revision": status.revision,
            "digest": status.digest,
            "error": status.all_errors(),
        }

    def count(self) -> Payload:
        """Returns its counts, and whose they are."""
        return {"slot": self.settings.slot, "boot": self.settings.boot, "counters": self.counters.snapshot()}

    async def take_traces(self, _: Payload) -> Payload:
        """Returns the traces that wait for the control process, which then wait no more."""
        return {"traces": self.tracer.take() if self.tracer is not None else []}  # a frame encodes them as they are

    def _version_changed(self, version: Version) -> None:
        self.health.changed()
        if "loaded" not in self._start_s and self.catalog.ready():
            self._note_start("loaded")
        self.feed.retry_pending()
        if version.state is VersionState.END:
            asyncio.get_running_loop().call_later(_FORGET_S, self._forget_counts, version.model, version.name)

    def _note_start(self, reached: str) -> None:
        self._start_s[reached] = monotonic() - self._made_s

    def _forget_counts(self, model: str, version: str) -> None:
        states = {status.version: status.state for status in self.catalog.states(model)}
        if states.get(version, VersionState.END) is VersionState.END:
            self.counters.forget(model, version)

    def _servers(self) -> WorkerServers:
        """Returns the servers, with all that they serve."""
        config = self.config
        timeout_s = config.limits.default_deadline_seconds
        tokens = Tokens(load_key(config.token_key_file))
        quotas = self.quota_file.quotas if self.quota_file is not None else None
        inference = InferenceService(
            self.engine,
            self.catalog,
            repository=HostRepository(self.catalog, self.peers, self.store, loaded=self._loaded_by_hand),
            counts=HostCounts(self.peers),
            max_answer_bytes=config.listen.max_message_bytes,
            default_timeout_s=timeout_s,
            ready=self.is_ready,
            admits=lambda: self.admission.is_open,
            tokens=tokens if config.listen.feedback_token else None,
            quotas=quotas,
            load_reports=self._load_reports() if config.listen.load_reports else None,
        )
        self.route_control = RouteControl(self.store, AnsweringWorker(self.catalog, self.feed, self.fleet))
        self.control = ControlService(
            self.route_control,
            self.catalog,
            self.fleet,
            feedback=FeedbackIntake(self.catalog, self.labels, tokens, config.lake_dir, self.run_state.judged),
            quotas=HostQuotaUses(self.peers),
            host=HostCounts(self.peers).view,
            log_dir=config.wal_dir,
            worker=self.id,
            transport=config.listen.transport,
            witness=self.witness,
        )
        servicers = servicers_of(config, inference, self.control, self.health, self.catalog)
        unread = self.admission.count_unread
        return WorkerServers(
            self.settings, servicers, self.entrance, quotas, on_unread=unread, on_progress=self._progress
        )

    def _load_reports(self) -> LoadReports:
        cpus = cpu_quota() / max(1, self.config.process.workers)
        return LoadReports(now_ns=monotonic_ns, cpu_ns=process_time_ns, cpus=cpus, admitted=lambda: self.admission.load)

    def _publish_gauges(self) -> None:
        counters = self.counters
        tell_log(counters, self.log, self.labels)
        tell_rules(counters, self.feed, self.witness)
        tell_versions(counters, self.catalog, self.engine, self.run_state)
        tell_features(counters, self.features)
        tell_work(counters, self.engine, self.admission, self.servers.of_applications(), self.is_ready)
        counters.add_sums(Sum.CONNECTIONS, self.servers.connections)
        counters.add_gauge(Gauge.START, lambda: dict(self._start_s))
        tell_bounds(counters, self.admission, self.quota_file, self.entrance)
        tell_traces(counters, self.tracer)

    # ---- its life ----

    async def serve(self, link: SupervisorLink) -> None:
        """Serves until it is told to stop; the calls that run then have the grace time to end.

        Raises: what a background loop raises, as an ExceptionGroup: a worker that has lost a part is no worker.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._end)
            answers = {
                **operations(
                    self.catalog,
                    count=self.count,
                    describe=self.describe,
                    in_force=self.rules.in_force,
                    quotas=self.quota_file.present if self.quota_file is not None else dict,
                ),
                OPERATION: rollout_operation(Editor(self.route_control)),
                ALIASES: aliases_operation(self.catalog.aliases),
                LEAD: lead_operation(self.route_control),
                CONTROL: bridge_operation(self.control),
                TRACES: self.take_traces,
            }
            group = await stack.enter_async_context(asyncio.TaskGroup())
            loops = [group.create_task(self.log.run(), name="log"), group.create_task(self.labels.run(), name="labels")]
            restarted = bool(self.settings.predecessor)
            patience_s = _RESTART_PATIENCE_S if restarted else _START_PATIENCE_S
            await self.catalog.start(patience_s, restarted=restarted)
            if self.catalog.ready():
                self._start_s.setdefault("loaded", monotonic() - self._made_s)
            await asyncio.to_thread(note_present_environment, self.config.log_dir, self.threads)
            loops.append(group.create_task(self.catalog.run(self.config.models.poll_seconds or _NEVER_S)))
            loops.append(group.create_task(self.catalog.copies.run(), name="content store"))
            if self.config.models.load_on_demand:
                loops.append(group.create_task(self.catalog.watch_use(), name="use of versions"))
            await self.feed.boot()
            loops.append(group.create_task(self.feed.run(), name="feed"))
            loops.append(group.create_task(self.rollouts.run(), name="rollout counts"))
            loops.append(group.create_task(self.witness.follow(self.store), name="audit witness"))
            await self.feed.prepared()
            if self.feed.state is FeedState.LIVE:
                self.catalog.release_unrouted(self.feed.snapshot.routes)
            # What the start made stays: the collector need not walk it again.
            gc.collect()
            gc.freeze()
            self.rules_gate.close_without_rules()
            if self.entrance is not None:
                await self.entrance.prepare()
                loops.append(group.create_task(self.entrance.follow(), name="entrance"))
            if self.quota_file is not None:
                loops.append(group.create_task(self.quota_file.follow(), name="quotas"))
            if await link.turn(self.settings):
                if restarted:
                    group.create_task(
                        deregister(self.config.store, self.settings.slot, self.settings.predecessor), name="deregister"
                    )
                await self.servers.start()
                await stack.enter_async_context(
                    PeerServer(
                        worker_socket(self.config.socket_dir, self.settings.slot),
                        answers,
                        {FOLLOW: bridge_following(self.control)},
                    )
                )
            if not link.stopping.is_set() and await self.rules_gate.passed(link.stopping):
                self.serving = True
                self._link = link
                self._note_start("serving")
                self.health.changed()
                link.ready()
                port, build = self.servers.grpc.port, "compiled" if is_compiled() else "not compiled"
                _log.info("serving on port %d, %s", port, build)
            await link.stopping.wait()
            await self._drain(link)
            for loop in loops:
                loop.cancel()

    def _progress(self) -> None:
        if self._link is not None:
            self._link.progress()

    def _loaded_by_hand(self, model: str) -> None:
        if self._link is not None:
            self._link.loaded(model)

    async def _drain(self, link: SupervisorLink) -> None:
        """Returns once no call is running any more."""
        link.draining()
        self.serving = False
        self.health.drain()
        self.servers.drain()
        grace_s = 0.0 if link.orphaned else self.config.process.grace_seconds
        await self._within(1.0, self.feed.leave(), "leaving the list of workers")
        self.control.drain()
        await self.servers.stop(grace_s)

    async def _end(self) -> None:
        """Lets go of what was made, whatever ended the worker; the log comes last, for it holds the calls up to now."""
        self.engine.close()
        await self._within(1.0, self.rollouts.aclose(), "telling what the arms of rollouts did")
        await self.store.aclose()
        await self.features.aclose()
        await self.catalog.close()
        await self.labels.close()
        await self.log.close()
        try:
            last = {**self.count(), **await self.take_traces({})}
            await ask(self.peers.control, "last_counts", last, timeout_s=0.5)
        except GatewayError as error:
            _log.info("the last counts were not told: %s", error)

    async def _within(self, limit_s: float, work: Awaitable[None], what: str) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await work
        except TimeoutError:
            _log.warning("%s took longer than %g s", what, limit_s)


async def run(settings: Settings) -> None:
    asyncio.get_running_loop().set_default_executor(started_threads(_ASIDE_THREADS, "aside"))
    async with supervisor_link() as link:
        await Worker(settings).serve(link)


def main() -> None:
    settle_heap()
    settings = read_settings()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings))


if __name__ == "__main__":
    main()
