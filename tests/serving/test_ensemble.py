"""Ensembles over real models: what they answer, which versions answer, and what ends them."""

import asyncio
from contextlib import suppress
from time import monotonic_ns

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.errors import Code, DeadlineExceeded, FailedPrecondition
from gateway.routing.document.attributes import NO_ATTRIBUTES
from gateway.serving.call import Call
from gateway.serving.ensemble_loads import check_ready
from gateway.serving.ensemble_queue import EnsembleQueue
from gateway.serving.ensemble_step import CallCount, EnsembleTensors, StepCall
from tests import models
from tests.machine_load import as_loaded
from tests.serving.ensemble_floor import Floor
from tests.serving.ensembles import Step, chain, config, tensor, write_ensemble
from tests.serving.stage import Nobody, floats, indices, until
from tests.serving.stage import given as outputs_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK = str(Code.OK.value)
CANCELLED = str(Code.CANCELLED.value)


async def test_a_chain_answers_what_its_models_answer_one_after_the_other(
    floor: Floor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "gateway.serving"):
        await floor.ensemble("chain", config(*chain("double", "add", "double")))
    assert "weights=none" in caplog.text
    call = await floor.ask("chain", floats(1, 2))
    assert [type(output) for output in call.outputs] == [bytes]
    assert outputs_of(call)[0].tolist() == floats(18, 27).tolist()  # the newest version of "double" is 2
    assert call.ran == "double:2:,add:1:,double:2:"
    assert floor.stage.codes("chain", "1", "") == {OK: 1}
    assert floor.stage.codes("double", "2", "")[OK] == 2
    assert floor.stage.sums("series", "chain", "1", "", "batches")["2"][0] == 1  # type: ignore[index]


async def test_steps_that_need_the_same_run_side_by_side(floor: Floor) -> None:
    left, right = Step("double", {"x": "x"}, {"y": "left"}, version=1), Step("add", {"x": "x"}, {"y": "right"})
    join = Step("pair", {"INPUT0": "left", "INPUT1": "right"}, {"OUTPUT0": "y", "OUTPUT1": "difference"})
    text = config(join, left, right, outputs=[tensor("difference"), tensor("y"), tensor("left")])
    await floor.ensemble("diamond", text)
    rows = floats(1, 5)
    difference, total, doubled = await floor.answer("diamond", rows)
    assert doubled == (rows * 2).tolist()
    assert total == (rows * 3 + 3).tolist()
    assert difference == (rows - 3).tolist()

    call = floor.stage.begin("diamond")
    call.wanted = (1,)
    await floor.stage.end(floor.stage.submit(call, rows))
    assert [array.tolist() for array in outputs_of(call)] == [(rows * 3 + 3).tolist()]


async def test_requests_of_an_ensemble_and_of_others_share_runs_of_a_step(floor: Floor) -> None:
    await floor.ensemble("alone", config(*chain("double", "add")))
    before = floor.stage.sums("series", "double", "2", "", "batches")
    calls = [floor.stage.submit(floor.stage.begin(name), floats(7)) for name in ("alone", "double", "alone")]
    for call in calls:
        await floor.stage.end(call)
    after = floor.stage.sums("series", "double", "2", "", "batches")
    assert after["3"][0] == (before["3"][0] if "3" in before else 0) + 1  # type: ignore[index]


async def test_strings_go_from_step_to_step(floor: Floor) -> None:
    text = tensor("x", "TYPE_STRING", (2,)), tensor("y", "TYPE_STRING", (2,))
    await floor.ensemble("texts", config(*chain("echo", "echo"), inputs=text[:1], outputs=text[1:]))
    words = np.array([["grüß", "dich"], ["", "\n"]], object)
    encoded = np.vectorize(str.encode, otypes=[object])(words)
    call = floor.stage.begin("texts")
    call.inputs, call.shapes, call.rows = [encoded], [encoded.shape], 2
    floor.stage.engine.submit(call)
    await floor.stage.end(call)
    assert call.error is None
    assert outputs_of(call)[0].tolist() == encoded.tolist()


async def test_a_step_that_fails_ends_the_others_and_is_named(floor: Floor) -> None:
    inputs = [tensor("x", dims=(1, 64)), tensor("n", "TYPE_INT64", (1,)), tensor("i", "TYPE_INT64", (1,))]
    bad, long = Step("fragile", {"i": "i"}, {"y": "row"}), Step("turns", {"x": "x", "n": "n"})
    outputs = [tensor("y", dims=(1, 64)), tensor("row", dims=(1,))]
    await floor.ensemble("failing", config(long, bad, inputs=inputs, outputs=outputs, batch=0))
    call = await floor.ask("failing", np.ones((1, 64), np.float32), indices(1_000_000), indices(99))
    assert call.error is not None
    assert call.error.code is Code.INTERNAL
    assert str(call.error) == "step 2 (model 'fragile'): internal error (request r)"
    assert floor.stage.codes("fragile", "1", "") == {str(Code.INTERNAL.value): 1}
    assert floor.stage.codes("turns", "1", "") == {str(Code.CANCELLED.value): 1}
    assert floor.stage.codes("failing", "1", "") == {str(Code.INTERNAL.value): 1}


async def test_a_version_serves_on_where_one_answer_of_a_run_ends_another_step_of_it(floor: Floor) -> None:
    """Both steps are in one run; what the answer of the first brings about cancels the second, which waits no more."""
    left, right = Step("double", {"x": "x"}, {"y": "left"}), Step("double", {"x": "x"}, {"y": "right"})
    models.write_version(floor.repository, "leaving", "1", models.affine(1.0))
    await floor.stage.catalog.load("leaving")
    text = config(left, right, Step("leaving", {"x": "left"}), outputs=[tensor("y"), tensor("right")])
    await floor.ensemble("twins", text)
    assert (await floor.ask("twins", floats(1))).error is None
    await floor.stage.catalog.unload("leaving")
    before = floor.stage.codes("double", "2", "")
    call = await floor.ask("twins", floats(1))
    assert "step 3 (model 'leaving')" in str(call.error)
    codes = floor.stage.codes("double", "2", "")
    assert int(str(codes[CANCELLED])) == int(str(before.get(CANCELLED, 0))) + 1
    assert floor.stage.engine.queued(floor.stage.catalog.newest("double")) == 0
    async with asyncio.timeout(as_loaded(5)):
        assert (await floor.ask("double", floats(1))).error is None


async def test_the_deadline_of_the_whole_ends_the_step_that_runs(floor: Floor) -> None:
    inputs = [tensor("x", dims=(1, 64)), tensor("n", "TYPE_INT64", (1,))]
    text = config(Step("turns", {"x": "x", "n": "n"}), inputs=inputs, outputs=[tensor("y", dims=(1, 64))], batch=0)
    await floor.ensemble("long", text)
    before = floor.stage.codes("turns", "1", "").get(str(Code.DEADLINE_EXCEEDED.value), 0)
    call = floor.stage.submit(floor.stage.begin("long"), np.ones((1, 64), np.float32), indices(10_000_000))
    await asyncio.sleep(0)
    began_ns = monotonic_ns()
    floor.stage.engine.cancel(call, DeadlineExceeded("the deadline passed before the request was answered"))
    await floor.stage.end(call)
    assert isinstance(call.error, DeadlineExceeded)
    await until(floor.stage.idle)
    assert monotonic_ns() - began_ns < 5e9  # ten million turns take twenty seconds
    assert floor.stage.codes("turns", "1", "")[str(Code.DEADLINE_EXCEEDED.value)] == int(str(before)) + 1


async def test_a_client_that_leaves_an_ensemble_that_is_unloaded_ends_the_step_that_runs(floor: Floor) -> None:
    """Its call is the last that holds the version, so that the version ends before the steps are told."""
    inputs = [tensor("x", dims=(1, 64)), tensor("n", "TYPE_INT64", (1,))]
    text = config(Step("turns", {"x": "x", "n": "n"}), inputs=inputs, outputs=[tensor("y", dims=(1, 64))], batch=0)
    await floor.ensemble("leaving", text)
    call = floor.stage.submit(floor.stage.begin("leaving"), np.ones((1, 64), np.float32), indices(10_000_000))
    await until(lambda: floor.stage.catalog.states("turns")[0].in_flight == 2)
    await floor.stage.catalog.unload("leaving")
    began_ns = monotonic_ns()
    floor.stage.engine.cancel(call)
    await floor.stage.end(call)
    await until(floor.stage.idle)
    assert monotonic_ns() - began_ns < 5e9  # ten million turns take twenty seconds


async def test_a_step_is_decided_by_the_rules_of_its_model_or_pinned_by_its_number(floor: Floor) -> None:
    await floor.ensemble("routed", config(*chain("double", "add")))
    pinned = [Step("double", {"x": "x"}, {"y": "mid"}, version=1), Step("add", {"x": "mid"})]
    await floor.ensemble("numbered", config(*pinned))
    floor.stage.route("double", strategy={"pinned": {"arm": "new"}}, clientPin={"deny": True})
    assert (await floor.ask("routed", floats(1))).ran == "double:2:new,add:1:"
    call = await floor.ask("numbered", floats(1))
    assert (call.error, call.ran) == (None, "double:1:,add:1:")
    assert outputs_of(call)[0].tolist() == floats(5).tolist()
    floor.stage.rules.snapshot = floor.stage.rules.snapshot.without_route("double", 2)


async def test_a_step_falls_back_and_is_mirrored_as_its_route_says(floor: Floor) -> None:
    stage = floor.stage
    broken = [tensor("i", "TYPE_INT64", (-1,))], [tensor("y", dims=(-1,))]
    step = Step("fragile", {"i": "i"}, {"y": "y"})
    await floor.ensemble("saved", config(step, inputs=broken[0], outputs=broken[1], batch=0))
    models.write_version(floor.repository, "fragile", "2", models.fragile(1000))
    await stage.catalog.load("fragile")
    stage.route("fragile", fallback={"order": ["new"], "on": ["INTERNAL"], "breaker": {"consecutive": 1}})
    call = await floor.ask("saved", indices(99))
    assert (call.error, call.ran) == (None, "fragile:2:new")
    assert stage.gauge("breakers") == [  # the step's model is blamed, and not the ensemble
        {"model": "fragile", "arm": "old", "state": "open"},
        {"model": "fragile", "arm": "new", "state": "closed"},
    ]

    stage.route("fragile", mirrors=[{"arm": "new", "percent": "100%"}])
    assert (await floor.ask("saved", indices(1))).ran == "fragile:1:old"
    await until(lambda: bool(stage.sums("shadows", "fragile", "new", "outcomes").get("agree")))
    stage.rules.snapshot = stage.rules.snapshot.without_route("fragile", 3)


async def test_an_ensemble_mirrors_another_version_of_itself(floor: Floor) -> None:
    stage = floor.stage
    write_ensemble(floor.repository, "mirrored", config(*chain("double", "add")), "2")
    await floor.ensemble("mirrored", config(*chain("double", "add")))
    stage.route("mirrored", mirrors=[{"arm": "new", "percent": "100%"}])
    assert (await floor.ask("mirrored", floats(1))).error is None
    await until(lambda: stage.sums("shadows", "mirrored", "new", "outcomes") == {"agree": 1})
    await until(stage.idle)


async def test_steps_of_a_mirrored_ensemble_are_nobodys(floor: Floor) -> None:
    """The rollout of their model, its breakers, mirrors and log see what callers see."""
    stage, judged = floor.stage, floor.shared.judged
    log_steps = 'parameters { key: "log_steps" value { string_value: "true" } }'
    write_ensemble(floor.repository, "quiet", config(*chain("double", "add")), "2")
    await floor.ensemble("quiet", config(*chain("double", "add"), more=log_steps))
    stage.route("quiet", mirrors=[{"arm": "new", "percent": "100%"}])
    canary = {"stable": "old", "canary": "new", "analysis": {}, "steps": [{"weight": "50%", "hold": "1m"}]}
    mirrors = [{"arm": "new", "percent": "100%"}]
    stage.route("double", strategy={"canary": canary}, mirrors=mirrors, fallback={"order": ["old"], "breaker": {}})
    judged.follow(stage.rules.snapshot)
    rows = len(await stage.rows())
    codes = [stage.codes("double", version, arm) for version, arm in (("1", "old"), ("2", "new"))]
    call = await floor.ask("quiet", floats(1))
    assert call.error is None
    await until(lambda: bool(stage.sums("shadows", "quiet", "new", "outcomes")))
    await until(stage.idle)
    [tallies] = judged.by_revision.values()
    assert sum(tally.completed for tally in tallies.values()) == 1
    assert sum(sum(histogram) for tally in tallies.values() for histogram in tally.runs) == 1
    now = [stage.codes("double", version, arm) for version, arm in (("1", "old"), ("2", "new"))]
    assert sum(before != after for before, after in zip(codes, now, strict=True)) == 1
    assert call.ran.startswith("double:")
    arm = 0 if ":old" in call.ran else 1
    assert now[arm].get(OK) == int(str(codes[arm].get(OK, 0))) + 1
    assert [row.model for row in (await stage.rows())[rows:]].count("double") == 1
    for model in ("double", "quiet"):
        stage.rules.snapshot = stage.rules.snapshot.without_route(model, 9)
    judged.follow(stage.rules.snapshot)


async def test_what_ran_is_told_as_far_as_metadata_have_room(floor: Floor) -> None:
    name = "m" * 120
    models.write_version(floor.repository, name, "1", models.affine(1.0))
    await floor.stage.catalog.load(name)
    await floor.ensemble("many", config(*chain(*[name] * 40)))
    call = await floor.ask("many", floats(1))
    assert call.error is None
    entries = call.ran.split(",")
    assert len(call.ran) < 3100
    assert entries == [f"{name}:1:"] * (len(entries) - 1) + ["..."]


async def test_an_answer_that_a_step_keeps_is_given_again(floor: Floor) -> None:
    await floor.ensemble("kept", config(*chain("double", "add")))
    rows = floats(123)
    first = await floor.answer("kept", rows)
    hits = floor.stage.sums("series", "add", "1", "", "cache")["hit"]
    assert await floor.answer("kept", rows) == first
    assert floor.stage.sums("series", "add", "1", "", "cache")["hit"] == int(str(hits)) + 1


async def test_steps_are_logged_where_the_configuration_asks(floor: Floor) -> None:
    more = 'parameters { key: "log_steps" value { string_value: "true" } }'
    await floor.ensemble("logged", config(*chain("double", "add"), more=more))
    before = len(await floor.stage.rows())
    await floor.answer("logged", floats(1))
    rows = (await floor.stage.rows())[before:]
    assert sorted((row.model, row.version, row.request_id) for row in rows) == [
        ("add", "1", "r"),
        ("double", "2", "r"),
        ("logged", "1", "r"),
    ]


async def test_ensembles_within_ensembles_run_and_tell_all_steps(floor: Floor) -> None:
    await floor.ensemble("inner", config(*chain("double", "add")))
    await floor.ensemble("outer", config(*chain("inner", "double")))
    call = await floor.ask("outer", floats(1))
    assert outputs_of(call)[0].tolist() == floats(18).tolist()
    assert call.ran == "inner:1:,inner/double:2:,inner/add:1:,double:2:"
    write_ensemble(floor.repository, "inner", config(*chain("double", "outer")))
    with pytest.raises(FailedPrecondition, match="step within itself: inner > outer > inner"):
        await floor.stage.catalog.load("inner")
    assert (await floor.ask("outer", floats(1))).error is None  # what served goes on serving


async def test_ensembles_within_ensembles_make_a_bounded_number_of_calls(floor: Floor) -> None:
    wide = ["double"] * 16
    await floor.ensemble("wide1", config(*chain(*wide)))
    await floor.ensemble("wide2", config(*chain(*["wide1"] * 16)))
    with pytest.raises(FailedPrecondition, match=r"one request would make 4368 calls, .*: 512 at most"):
        await floor.ensemble("wide3", config(*chain(*["wide2"] * 16)))
    assert (await floor.ask("wide2", floats(1))).ran.startswith("wide1:1:,wide1/double:2:")
    # What is within an ensemble may grow when that has been loaded; each look at it stays cheap.
    write_ensemble(floor.repository, "wide1", config(*chain(*["double"] * 64)))
    await floor.stage.catalog.load("wide1")
    call = await floor.ask("wide2", floats(1))
    assert isinstance(call.error, FailedPrecondition)
    assert "one request makes 512 calls at most" in str(call.error)
    check_ready(floor.stage.catalog, floor.stage.catalog.newest("wide2"))


async def test_the_calls_of_an_attempt_that_failed_count_no_more(floor: Floor) -> None:
    await floor.ensemble("twice", config(*chain("double", "add")))
    version = floor.stage.catalog.newest("twice")
    queue, count = EnsembleQueue(version, floor.stage.engine), CallCount()
    whole = Call("outer", "", "r", Nobody())
    whole.inputs, whole.shapes = [floats(1)], [(1, 4)]
    tensors = EnsembleTensors(queue.graph, whole, version.inputs)
    step = StepCall(0, queue.graph.steps[0], whole, NO_ATTRIBUTES, "r", Nobody(), tensors, count)
    step.check_extent()
    made = []
    for _ in range(2):
        step.inputs, step.shapes, step.rows = whole.inputs, whole.shapes, 1
        queue.put(step)
        await until(lambda: step.answered)
        assert step.error is None
        made.append(count.made)
        step.renew()  # as a chain does before it asks another version
    assert made == [3, 3]


async def test_many_ways_through_ensembles_are_looked_at_once(floor: Floor) -> None:
    below = ["double"] * 2
    for level in range(8):
        names = [f"ladder{level}{side}" for side in "lr"]
        for name in names:
            with suppress(FailedPrecondition):  # their calls double with each level
                await floor.ensemble(name, config(*chain(*below)))
        below = names
    with pytest.raises(FailedPrecondition, match="8 deep at most: top > ladder7l > ladder6l"):
        await floor.ensemble("top", config(*chain(*below)))


async def test_another_contract_behind_a_route_is_refused_by_the_step(floor: Floor) -> None:
    await floor.ensemble("steady", config(*chain("double", "add")))
    models.write_version(floor.repository, "double", "3", models.affine(2.0, features=3))
    await floor.stage.catalog.poll()
    call = await floor.ask("steady", floats(1))
    assert call.error is not None
    assert call.error.code is Code.INVALID_ARGUMENT
    assert "step 1 (model 'double'): input 'x' has shape [-1, 3], tensor 'x' has [1, 4]" in str(call.error)
    await floor.stage.catalog.load("double", '{"version_policy": {"specific": {"versions": [1, 2]}}}')
    assert await floor.answer("steady", floats(1)) == [floats(6).tolist()]


async def test_no_request_is_lost_while_a_step_is_swapped(floor: Floor) -> None:
    models.write_version(floor.repository, "swapped", "1", models.affine(2.0))
    await floor.stage.catalog.load("swapped")
    await floor.ensemble("during", config(*chain("add", "swapped", "add")))
    models.write_version(floor.repository, "swapped", "1", models.affine(3.0))
    swap = asyncio.create_task(floor.stage.catalog.load("swapped"))
    answers = set()
    while not swap.done():
        for answer in await asyncio.gather(*(floor.stage.infer("during", floats(1)) for _ in range(4))):
            assert answer.error is None
            answers.add(float(outputs_of(answer)[0][0, 0]))
    await swap
    answers.add(float(outputs_of(await floor.ask("during", floats(1)))[0][0, 0]))
    assert answers == {11.0, 15.0}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[str, list[tuple[str, tuple[str, ...], str]]]:
    """An ensemble of affine steps, and what it computes: (model, the tensors that it reads, the one it writes)."""
    names, steps, done = ["x"], [], []
    for place in range(draw(st.integers(1, 8))):
        model = draw(st.sampled_from(("double", "add", "pair")))
        reads = tuple(draw(st.sampled_from(names)) for _ in range(2 if model == "pair" else 1))
        written = f"t{place}"
        if model == "pair":
            steps.append(Step("pair", {"INPUT0": reads[0], "INPUT1": reads[1]}, {"OUTPUT0": written}))
        else:
            steps.append(Step(model, {"x": reads[0]}, {"y": written}, version=1))
        done.append((model, reads, written))
        names.append(written)
    read = {name for _, reads, _ in done for name in reads}
    ends = [name for name in names[1:] if name not in read]
    order = draw(st.permutations(steps))
    if "x" not in read:
        ends.append("x")
    return config(*order, outputs=[tensor(name) for name in ends]), done


@given(drawn=graphs(), rows=st.integers(1, 3))
@example(drawn=(config(Step("add"), outputs=[tensor("y")]), [("add", ("x",), "y")]), rows=1)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_graph_of_affine_models_gives_what_numpy_gives(
    floor: Floor, drawn: tuple[str, list[tuple[str, tuple[str, ...], str]]], rows: int
) -> None:
    text, done = drawn
    await floor.ensemble("drawn", text)
    values = {"x": np.arange(rows * 4, dtype=np.float32).reshape(rows, 4) / 4}
    for model, reads, written in done:
        first = values[reads[0]]
        values[written] = {"double": first * 2, "add": first + 3, "pair": first + values[reads[-1]]}[model]
    call = await floor.ask("drawn", values["x"])
    assert call.error is None
    assert call.version is not None
    for spec, output in zip(call.version.outputs, outputs_of(call), strict=True):
        assert output.tolist() == values[spec.name].tolist()
