"""Ensembles before they serve: ready with the models of their steps, and warmed up through all of them."""

from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

import pytest

from gateway.api.readiness import version_message
from gateway.api.repository_extension import index
from gateway.errors import Code, FailedPrecondition, GatewayError, InvalidArgument, Unavailable, VersionNotReady
from gateway.pb import inference_pb2
from gateway.routing.document.attributes import Attributes
from gateway.serving.call import Call
from gateway.serving.engine import Engine
from gateway.serving.ensemble_loads import check_ready
from gateway.serving.ensemble_warm_up import warm_ensemble
from gateway.serving.run_page import LOOP_SLOT, UnfinishedRun, VersionKey
from gateway.serving.run_quarantine import QuarantineFile, RunQuarantine
from gateway.serving.tracer import Tracer
from gateway.serving.version import Version, VersionState
from tests import models
from tests.serving.ensemble_floor import Floor
from tests.serving.ensembles import chain, config, tensor, write_ensemble
from tests.serving.stage import floats, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_ensemble_is_ready_once_the_models_of_its_steps_are(floor: Floor) -> None:
    write_ensemble(floor.repository, "early", config(*chain("double", "late")))
    await floor.stage.catalog.poll()
    state, reason = floor.state("early")
    assert state is VersionState.FAILED
    assert reason == "step 2 (model 'late'): Request for unknown model: 'late' is not found"
    with pytest.raises(VersionNotReady, match="step 2"):
        floor.stage.begin("early")
    models.write_version(floor.repository, "late", "1", models.affine(3.0))
    await floor.stage.catalog.poll()
    await until(lambda: floor.state("early")[0] is VersionState.AVAILABLE)
    assert await floor.answer("early", floats(1)) == [floats(9).tolist()]

    await floor.stage.catalog.unload("late")
    call = await floor.ask("early", floats(1))
    assert call.error is not None
    assert call.error.code is Code.UNAVAILABLE
    assert str(call.error).startswith(
        "step 2 (model 'late'): Request for unknown model: 'late' has no available versio"
    )
    catalog = floor.stage.catalog
    with pytest.raises(Unavailable, match=r"step 2 \(model 'late'\)"):
        check_ready(catalog, catalog.newest("early"))
    (status,) = catalog.states("early")
    told = version_message(catalog, status, {})
    assert (told.state, told.reason.partition("(")[0]) == ("AVAILABLE", "not ready: step 2 ")
    assert told.merging == "no: its steps are, each by the rules of its own model"
    listed = {entry.name: entry for entry in index(catalog, inference_pb2.RepositoryIndexRequest()).models}
    assert (listed["early"].state, listed["early"].reason) == ("UNAVAILABLE", told.reason)
    ready = index(catalog, inference_pb2.RepositoryIndexRequest(ready=True)).models
    assert "early" not in {entry.name for entry in ready}
    await floor.stage.catalog.load("late")
    check_ready(floor.stage.catalog, floor.stage.catalog.newest("early"))
    assert await floor.answer("early", floats(1)) == [floats(9).tolist()]


def warmup(dims: int) -> str:
    x = f'inputs {{ key: "x" value {{ data_type: TYPE_FP32 dims: {dims} random_data: true }} }}'
    return f'model_warmup {{ name: "w" batch_size: 2 count: 3 {x} }}'


async def test_a_warm_up_runs_through_all_steps_and_counts_for_nobody(floor: Floor) -> None:
    ran = dict(floor.stage.sums("series", "double", "2", "", "batches"))
    codes = dict(floor.stage.codes("double", "2", ""))
    await floor.ensemble("warm", config(*chain("double", "add"), more=warmup(4)))
    assert floor.stage.sums("series", "double", "2", "", "batches") != ran
    assert floor.stage.codes("double", "2", "") == codes
    assert floor.stage.idle()
    open_ = config(*chain("double"), inputs=[tensor("x", dims=[-1])], more=warmup(3))
    with pytest.raises(FailedPrecondition, match=r"model_warmup 'w': step 1 .*\[-1, 4\], tensor 'x' has \[2, 3\]"):
        await floor.ensemble("open", open_)
    assert floor.stage.idle()


async def test_a_warm_up_that_failed_of_what_may_pass_keeps_no_ensemble_from_serving(
    floor: Floor, caplog: pytest.LogCaptureFixture
) -> None:
    models.write_version(floor.repository, "ill", "1", models.affine(2.0))
    await floor.stage.catalog.load("ill")
    version = floor.stage.catalog.newest("ill")
    key = VersionKey("ill", "1", version.digest)
    file, quarantine = QuarantineFile(floor.repository.parent), RunQuarantine(60)
    for digest in range(9):
        quarantine.worker_died([UnfinishedRun(LOOP_SLOT, key, 1, 1, (digest,))], "killed", monotonic())
    file.write(quarantine.versions)
    await floor.ensemble("patient", config(*chain("double", "ill"), more=warmup(4)))
    assert caplog.text.count("warm-up failed: model=patient") == 1  # it is not repeated
    assert isinstance((await floor.ask("patient", floats(1))).error, VersionNotReady)
    file.write([])
    assert await floor.answer("patient", floats(1)) == [floats(6).tolist()]

    # Callers fall back; a warm-up has no chain.
    floor.stage.route("ill", arms={"old": {"version": "7"}, "new": {"version": "1"}}, fallback={"order": ["new"]})
    models.write_version(floor.repository, "ill", "7", b"not a model")
    with suppress(GatewayError):
        await floor.stage.catalog.load("ill")
    await floor.ensemble("chained", config(*chain("double", "ill"), more=warmup(4)))
    assert await floor.answer("chained", floats(1)) == [floats(6).tolist()]
    floor.stage.rules.snapshot = floor.stage.rules.snapshot.without_route("ill", 9)


async def test_calls_without_a_caller_go_where_a_route_sends_what_it_cannot_decide(floor: Floor) -> None:
    split = {"canary": {"stable": "old", "canary": "new", "steps": [{"weight": "50%", "hold": "1m"}]}}
    keyed = {"from": ["metadata:x-user"], "onMissing": "reject"}
    floor.stage.route("double", strategy=split, key=keyed)
    await floor.ensemble("keyed", config(*chain("double"), more=warmup(4)))
    assert isinstance((await floor.ask("keyed", floats(1))).error, InvalidArgument)  # a caller is refused as before
    assert floor.state("keyed")[0] is VersionState.AVAILABLE
    floor.stage.rules.snapshot = floor.stage.rules.snapshot.without_route("double", 9)


@dataclass
class Watched:
    """The engine as host of steps, with the first input of each of them."""

    engine: Engine
    tracer: Tracer | None = None
    inputs: list[object] = field(default_factory=list)

    def begin_step(self, call: Call, attributes: Attributes) -> Version:
        return self.engine.begin_step(call, attributes)

    def submit(self, call: Call) -> None:
        self.inputs.append(call.inputs[0])
        self.engine.submit(call)

    def cancel(self, call: Call, error: GatewayError | None = None) -> None:
        self.engine.cancel(call, error)

    def finish_step(self, call: Call, code: Code, *, logged: bool) -> None:
        self.engine.finish_step(call, code, logged=logged)

    def name(self, call: Call) -> str:
        return self.engine.name(call)


async def test_the_data_of_a_warm_up_are_made_once(floor: Floor) -> None:
    await floor.ensemble("thrice", config(*chain("double"), more=warmup(4)))
    host = Watched(floor.stage.engine)
    await warm_ensemble(host, "thrice", floor.stage.catalog.newest("thrice").config)
    assert len(host.inputs) == 3
    assert len({id(array) for array in host.inputs}) == 1


async def test_what_an_ensemble_does_not_do_is_a_warning_with_its_reason(floor: Floor) -> None:
    more = "response_cache { enable: true } instance_group { count: 2 }"
    await floor.ensemble("warned", config(*chain("double"), more=more))
    warnings = floor.stage.catalog.newest("warned").config.warnings
    for text in ("response_cache has no effect", "without effect on an ensemble"):
        assert sum(text in warning for warning in warnings) == 1, warnings


async def test_a_step_that_does_not_fit_leaves_the_ensemble_unready(floor: Floor) -> None:
    write_ensemble(floor.repository, "unfit", config(*chain("double", "echo")))
    with pytest.raises(FailedPrecondition, match=r"step 2 \(model 'echo'\): input 'x' is BYTES, output 'y' of step 1"):
        await floor.stage.catalog.load("unfit")
