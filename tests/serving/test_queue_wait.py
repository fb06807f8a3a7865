"""Overload in the engine: how long a queue is, who is refused before he waits in vain, and who goes first."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from time import monotonic_ns

import pytest
import pytest_asyncio
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.access.priority import LADDER, Priority
from gateway.errors import DeadlineExceeded, ResourceExhausted
from gateway.runtime.build import is_compiled
from gateway.serving.admission import Admission
from gateway.serving.call import Call
from gateway.serving.call_queue import HEAD_START_NS, CallQueue
from gateway.serving.queue_wait import QueueWait
from gateway.serving.version_queue import VersionQueue
from gateway.serving.wait_check import WaitCheck, told_ms
from tests import models
from tests.serving.bench import Bench, row
from tests.serving.stage import Stage, floats, staged, until

MS = 1_000_000
SECOND = 1_000_000_000
INTERPRETED = pytest.mark.skipif(is_compiled(), reason="no class of a test derives from one that is compiled")


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(models.affine(), max_batch_size=1)
    yield made
    made.threads.shutdown()


# ---- the measure ----


@given(call_ns=st.integers(1000, 100 * MS), batch=st.integers(1, 16), queued=st.integers(1, 4096))
@example(call_ns=1000, batch=1, queued=1)
def test_the_wait_is_what_the_queue_took_for_those_before(call_ns: int, batch: int, queued: int) -> None:
    wait = QueueWait()
    now = SECOND
    for _ in range(100):
        wait.took(batch, 1, now)
        now += batch * call_ns
    assert wait.of(queued, now - batch * call_ns) == pytest.approx(queued * call_ns, rel=0.01)


def test_nothing_is_known_of_a_queue_that_was_empty_or_is_long_gone() -> None:
    wait = QueueWait()
    assert wait.of(100, SECOND) == 0
    wait.took(4, 0, SECOND)  # nobody stayed: the time to the next run is not the queue's
    wait.took(4, 5, 9 * SECOND)
    wait.took(4, 5, 9 * SECOND + 4 * MS)
    assert wait.of(100, 9 * SECOND + 4 * MS) == 0  # one time alone may be a pause
    wait.took(4, 5, 9 * SECOND + 8 * MS)
    assert wait.of(100, 9 * SECOND + 8 * MS) == 100 * MS
    assert wait.of(0, 9 * SECOND + 8 * MS) == 0
    assert wait.of(100, 11 * SECOND) == 0  # so a queue that stood still once does not refuse for ever


@pytest.mark.parametrize("known", [True, False])
def test_a_pause_makes_no_queue_long(known: bool) -> None:
    """Somebody stops the process for two seconds: nobody is refused for that."""
    wait, now = QueueWait(), SECOND
    for _ in range(20 if known else 1):
        wait.took(1, 9, now)
        now += MS
    now += 2 * SECOND
    wait.took(1, 9, now)
    assert wait.of(9, now) <= 9 * 2 * MS
    for _ in range(3):
        now += MS
        wait.took(1, 9, now)
        assert 0 < wait.of(9, now) <= 9 * 2 * MS


def test_a_queue_that_becomes_slow_is_measured_anew() -> None:
    wait, now = QueueWait(), SECOND
    for call_ns in [MS] * 20 + [50 * MS] * 60:
        now += call_ns
        wait.took(1, 9, now)
    assert wait.of(1, now) == pytest.approx(50 * MS, rel=0.1)


async def test_a_queue_that_its_callers_left_is_not_slow(bench: Bench) -> None:
    queue = CallQueue(bench.version, asyncio.get_running_loop(), fixed=True, draw=lambda: 0.5)
    left = [bench.call(row(1, 2, 3, 4)) for _ in range(3)]
    for call in left:
        queue.put(call)
    queue.take(1, merges=False)
    for call in left[1:]:  # as a batcher lets calls go whose clients have gone
        queue.size -= 1
        call.fail(DeadlineExceeded("gone"))
    for _ in range(2):  # however much later
        queue.put(bench.call(row(1, 2, 3, 4)))
    assert len(queue.take(1, merges=False)) == 1
    assert queue.wait_ns(0, monotonic_ns()) == bench.version.backlog == 0


# ---- refused before waiting in vain ----


@given(time_ns=st.integers(0, 3600 * SECOND))
@example(time_ns=0)
@example(time_ns=MS // 2)
@example(time_ns=4 * MS)
@example(time_ns=400_000 * SECOND)
def test_refusals_share_a_text_whose_figures_are_about_right(time_ns: int) -> None:
    assert abs(time_ns - told_ms(time_ns) * MS) <= max(MS / 2, time_ns / 4)
    assert told_ms(told_ms(time_ns) * MS) == told_ms(time_ns)
    assert told_ms(-time_ns) == 0


@INTERPRETED
async def test_refusals_have_few_texts_whatever_the_deadlines_are(bench: Bench) -> None:
    random = Random(1)
    check = WaitCheck(random.random)
    texts = set()
    for _ in range(4000):
        deadline_ms = int(100 * 100 ** random.random())  # 0.1 to 10 s, of each length as many
        wait_ms = random.randint(deadline_ms, 3 * deadline_ms)
        refusal = check.refusal(_Queue(wait_ms), bench.version, monotonic_ns() + deadline_ms * MS, 0, 0.5)
        assert refusal is not None
        texts.add(str(refusal))
    assert 10 < len(texts) < 128


@INTERPRETED
async def test_what_refusals_say_is_composed_once_and_when_to_come_again_is_each_ones_own(bench: Bench) -> None:
    draws = iter([0.9, 0.95, 0.0, 0.0])
    check, version = WaitCheck(lambda: next(draws)), bench.version
    deadline_ns = monotonic_ns() + 60 * SECOND
    for wait_ms, told in ((30_010, 30_000), (48_000, 50_000)):
        first, second = (check.refusal(_Queue(wait_ms), version, deadline_ns, 0, 0.5) for _ in range(2))
        assert first is not None
        assert second is not None
        assert str(first) is str(second)
        named = f"model {version.model!r} version {version.name!r}"
        assert str(first).startswith(f"{named} has a queue of about {told} ms, too long for a request whose ")
        assert str(first).endswith(" ms; retry in a moment, or with a longer deadline")
        if wait_ms == 30_010:
            assert (first.retry_after_ms, second.retry_after_ms) == (230, 240)
        else:  # not before there is room
            assert min(first.retry_after_ms or 0, second.retry_after_ms or 0) >= 10_000
    assert check.refusal(_Queue(200), version, deadline_ns, 0, 0.5) is None
    assert check.refusal(_Queue(200), version, 0, 0, 0.5) is None
    assert check.refusal(None, version, 1, 0, 0.5) is None


class _Queue(VersionQueue):
    """A queue that is as long as it says."""

    def __init__(self, wait_ms: int) -> None:
        self._wait_ms = wait_ms

    @property
    def queued(self) -> int:
        return 1

    def wait_ns(self, level: int, now_ns: int) -> int:
        return self._wait_ms * MS

    def put(self, call: Call) -> None:
        raise AssertionError("nothing is let in")

    def forget(self, call: Call) -> None:
        raise AssertionError("nothing was let in")

    def end(self) -> None:
        return


@pytest.mark.asyncio(loop_scope="module")
async def test_a_call_that_would_wait_in_vain_is_refused_at_once(stage: Stage) -> None:
    calls = [stage.submit(stage.begin("slow"), floats(1)) for _ in range(12)]
    foresee = stage.engine.foresight.foresee
    version = calls[0].version
    assert version is not None
    await until(lambda: version.backlog > 0)
    before = stage.codes("slow", "1", "")
    with pytest.raises(ResourceExhausted, match=r"has a queue of about \d+ ms, too long for a request") as refused:
        stage.begin("slow", deadline_ns=monotonic_ns() + 10 * MS)
    assert (refused.value.retry_after_ms or 0) >= 50
    with pytest.raises(ResourceExhausted, match="too long"):  # a long message is told so at its beginning
        foresee("slow", "", 1000, monotonic_ns() + 10 * MS)
    assert stage.codes("slow", "1", "") == before  # nothing of that is the version's
    coming = [foresee("slow", "", 1000, monotonic_ns() + 3600 * SECOND) for _ in range(1000)]
    with pytest.raises(ResourceExhausted, match="too long"):  # those on their way will be before it
        foresee("slow", "", 1000, monotonic_ns() + 1 * SECOND)
    assert all(arrival is not None and arrival.waits for arrival in coming)
    for arrival in coming:
        assert arrival is not None
        arrival.end()
    assert foresee("slow", "", 1000, monotonic_ns() + 10 * SECOND) is not None
    assert foresee("slow", "1", 1000, monotonic_ns() + 10 * MS) is not None  # decided when it is there
    foresee("slow", "", 1000, monotonic_ns() + 60 * SECOND)
    foresee("nothing", "", 1000, monotonic_ns() + 10 * MS)  # said when the request is there
    calls.append(stage.submit(stage.begin("slow", deadline_ns=monotonic_ns() + 60 * SECOND), floats(1)))
    for call in calls:
        assert (await stage.end(call)).error is None
    stage.submit(stage.begin("slow", deadline_ns=monotonic_ns() + 60 * SECOND), floats(1))
    await until(stage.idle)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    directory = tmp_path_factory.mktemp("overload")
    models.write_version(directory / "models", "slow", "1", models.slow(4_000, features=4))
    async with staged(directory, max_requests=64, max_bytes=100_000) as made:
        yield made


async def test_an_answer_that_comes_after_the_deadline_is_none() -> None:
    bench = Bench(models.affine(), run_us=5000)  # on a thread
    bench.session.costs = {1: 0.02}
    call = bench.put(row(1, 2, 3, 4), deadline_ns=monotonic_ns() + 60 * SECOND)
    await asyncio.to_thread(bench.session.began.wait)
    call.deadline_ns = monotonic_ns()  # while it runs
    with pytest.raises(DeadlineExceeded, match="while the model ran"):
        await bench.outputs(call)
    bench.threads.shutdown()


# ---- who goes first ----


async def test_the_queue_is_in_the_order_of_classes(bench: Bench) -> None:
    calls = []
    for level in (2, 1, 0, 2, 1, 0):
        call = bench.call(row(1, 2, 3, 4))
        call.level = level
        bench.batcher.put(call)
        calls.append(call)
    for call in calls:
        await bench.outputs(call)
    assert [calls.index(call) for call in bench.outcomes] == [2, 5, 1, 4, 0, 3]


async def test_no_class_waits_for_ever(bench: Bench) -> None:
    """Of a queue into which critical calls come without end, a sheddable one runs after its head start is over."""
    last = bench.call(row(1, 2, 3, 4))
    last.level = int(Priority.SHEDDABLE)
    bench.batcher.put(last)
    last.queued_ns -= 2 * HEAD_START_NS + 1  # it came so long ago
    await asyncio.gather(*(bench.outputs(bench.put(row(1, 2, 3, 4))) for _ in range(8)))
    assert bench.outcomes[0] is last


def _fill(admission: Admission, priority: Priority) -> None:
    for _ in range(200):
        admission.take(1, priority)


def test_admission_sheds_by_class_the_lowest_first() -> None:
    admission = Admission(max_requests=100, max_bytes=1000, ladder=tuple(LADDER.values()), draw=lambda: 0.0)
    admitted = {}
    for priority in sorted(Priority, reverse=True):
        before = admission.requests
        with pytest.raises(ResourceExhausted) as refused:
            _fill(admission, priority)
        admitted[priority] = admission.requests
        assert f"the limit is {admission.requests} for its class ({priority + 1} of 3)" in str(refused.value)
        assert admission.requests > before
    assert admitted == {Priority.SHEDDABLE: 90, Priority.DEFAULT: 95, Priority.CRITICAL: 100}
    assert admission.shed[:3] == [1, 1, 1]
    for _ in range(100):
        admission.give(1)
    admission.take(901 - 1, Priority.SHEDDABLE)
    with pytest.raises(ResourceExhausted, match=r"901 bytes never fits, the limit is 900 for its class") as never:
        admission.take(901, Priority.SHEDDABLE)
    assert never.value.retry_after_ms == -1


def test_a_class_has_room_for_one_call_at_least() -> None:
    admission = Admission(max_requests=1, max_bytes=10, ladder=tuple(LADDER.values()))
    admission.take(1, Priority.SHEDDABLE)
    with pytest.raises(ResourceExhausted):
        admission.take(1, Priority.CRITICAL)


async def test_while_others_wait_nothing_runs_that_would_be_too_late() -> None:
    bench = Bench(models.affine(), run_us=5000)  # on a thread
    bench.session.costs = {1: 0.02}
    await bench.outputs(bench.put(row(1, 2, 3, 4)))  # 20 ms at least: that is known now
    hopeless = bench.put(row(1, 2, 3, 4), deadline_ns=monotonic_ns() + 10 * MS)
    other = bench.put(row(1, 2, 3, 4), deadline_ns=monotonic_ns() + 60 * SECOND)
    assert "while the request was queued" in str(await bench.error(hopeless))
    await bench.outputs(other)
    assert bench.session.runs == [1, 1]
    bench.threads.shutdown()
