"""The calls of an ensemble: each runs the steps of the graph, every step as soon as its tensors are there.

1. A step is a call of its own on its model: decided by the rules of that model, by the attributes of the request; in
   the model's queue, with other requests; with its fallbacks, mirrors, cache and counts. It has no permit and no quota:
   the whole holds both.
2. Tensors go from step to step as they are, without a copy.
3. The first step that fails ends the call, with that step's code, and ends the steps that run. So do the deadline and
   the client who leaves.
"""

import logging
from collections.abc import Sequence
from time import monotonic_ns
from typing import Final, Protocol, cast

import numpy as np

from gateway.errors import Cancelled, Code, DeadlineExceeded, GatewayError, Internal
from gateway.pb import inference_pb2
from gateway.routing.document.attributes import Attributes
from gateway.serving.call import Call
from gateway.serving.ensemble_graph import EnsembleGraph, read_graph
from gateway.serving.ensemble_loads import logs_steps
from gateway.serving.ensemble_step import CallCount, EnsembleTensors, StepBinding, StepCall, at_step
from gateway.serving.tracer import Tracer
from gateway.serving.version import Version
from gateway.serving.version_queue import VersionQueue
from gateway.telemetry.finished_trace import STEP
from gateway.tensor import Array, Buffer, TensorSpec

logger = logging.getLogger(__name__)

_REMEMBERED: Final = 256  # versions of steps
# Metadata of a call are bounded as a whole, in many clients by 8 KiB.
_LONGEST_RAN: Final = 3000


class StepHost(Protocol):
    """The part of the engine that steps need."""

    tracer: Tracer | None

    def begin_step(self, call: Call, attributes: Attributes) -> Version: ...

    def submit(self, call: Call) -> None: ...

    def cancel(self, call: Call, error: GatewayError | None = None) -> None: ...

    def finish_step(self, call: Call, code: Code, *, logged: bool) -> None: ...

    def name(self, call: Call) -> str: ...


class EnsembleQueue(VersionQueue):
    """The calls of one version of an ensemble."""

    def __init__(self, version: Version, host: StepHost) -> None:
        message = inference_pb2.ModelConfig.FromString(version.config.message)
        self.version = version
        self.host = host
        self.graph: EnsembleGraph = read_graph(message)
        self.logged = logs_steps(version.config)
        self.needs = [len(set(step.inputs.values())) for step in self.graph.steps]
        # Where all outputs are of this form, an answer is bytes, as that of a session is.
        self.raw = version.batches and all(spec.shape[:1] == (-1,) and spec.row_bytes() > 0 for spec in version.outputs)
        self._runs: dict[Call, EnsembleRun] = {}
        self._bindings: dict[tuple[int, Version], StepBinding] = {}

    @property
    def queued(self) -> int:
        """Returns 0: the calls wait in the queues of the steps."""
        return 0

    def wait_ns(self, level: int, now_ns: int) -> int:
        return 0

    def put(self, call: Call) -> None:
        call.queued_ns = monotonic_ns()
        run = self._runs[call] = EnsembleRun(self, call)
        run.begin()

    def forget(self, call: Call) -> None:
        run = self._runs.pop(call, None)
        if run is not None:
            run.stop(call.error)

    def end(self) -> None:
        for call in [call for call in self._runs if call.answered]:
            self.forget(call)  # the call that was the last to hold the version: its steps run yet
        self._runs.clear()
        self._bindings.clear()

    def ended(self, call: Call) -> None:
        """Keeps nothing of a call that is about to be answered."""
        self._runs.pop(call, None)

    def binding(self, place: int, version: Version) -> StepBinding:
        """Returns what the step's maps mean for that version."""
        key = (place, version)
        binding = self._bindings.get(key)
        if binding is None:
            if len(self._bindings) >= _REMEMBERED:
                self._bindings.clear()
            binding = self._bindings[key] = StepBinding(self.graph.steps[place], version)
        return binding


class EnsembleRun:
    """One call of an ensemble, and the receiver of its steps."""

    __slots__ = (
        "_call",
        "_count",
        "_left",
        "_missing",
        "_over",
        "_pumping",
        "_queue",
        "_ran",
        "_ready",
        "_request_id",
        "_running",
        "_tensors",
    )

    def __init__(self, queue: EnsembleQueue, call: Call) -> None:
        steps = len(queue.graph.steps)
        self._queue = queue
        self._call = call
        self._count = call.start_over() if isinstance(call, StepCall) else CallCount()
        self._request_id = queue.host.name(call)
        self._tensors = EnsembleTensors(queue.graph, call, queue.version.inputs)
        self._missing = list(queue.needs)
        self._left = steps
        self._ran = [""] * steps
        self._ready = [place for place in range(steps) if not self._missing[place]]
        self._running: dict[StepCall, None] = {}
        self._over = False
        self._pumping = False

    def begin(self) -> None:
        """Starts the steps that need nothing but what the request brought."""
        for number in range(self._queue.graph.given):
            self._is_there(number)
        self._pump()

    def stop(self, error: GatewayError | None) -> None:
        """Ends the steps that run: the call was answered from outside."""
        self._over = True
        self._note_steps()
        for step in list(self._running):
            self._queue.host.cancel(step, error)

    def submitted(self, call: Call) -> None:
        pass

    def withdrawn(self, call: Call) -> None:
        pass

    def answered(self, call: Call) -> None:
        """Takes what a step answered, and starts those that waited for it."""
        step = cast(StepCall, call)
        self._running.pop(step, None)
        error = step.error
        binding = step.binding
        if error is None and binding is not None and not self._over:
            binding.take(step, self._tensors)
        self._note(step)
        self._tensors.let_go(step.step)
        self._finish(step, Code.OK if error is None else error.code)
        if self._over:
            return
        if error is not None:
            self._fail(at_step(error, step.step))
            return
        self._left -= 1
        for number in step.step.outputs.values():
            self._is_there(number)
        self._pump()

    def _is_there(self, number: int) -> None:
        missing = self._missing
        for place in self._queue.graph.readers[number]:
            missing[place] -= 1
            if not missing[place]:
                self._ready.append(place)

    def _pump(self) -> None:
        """Starts what is ready. A step that is answered at once adds to it, and does not start others by itself."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._ready and not self._over:
                self._start(self._ready.pop(0))
            if not self._over and not self._left:
                self._complete()
        except Exception as error:
            # The boundary of a request: a defect of ours must not leave it without an answer.
            logger.exception("ensemble %s failed on request %r", self._queue.version.model, self._request_id)
            if self._over:
                raise
            self._fail(error if isinstance(error, GatewayError) else Internal(self._request_id))
        finally:
            self._pumping = False

    def _start(self, place: int) -> None:
        queue, host, call = self._queue, self._queue.host, self._call
        step = queue.graph.steps[place]
        made = StepCall(place, step, call, call.attributes(), self._request_id, self, self._tensors, self._count)
        if call.trace is not None and host.tracer is not None:
            made.trace = host.tracer.child(call.trace, f"{STEP}{step.model}")
        try:
            made.check_extent()
            version = host.begin_step(made, made)
        except GatewayError as error:
            self._fail(at_step(error, step))
            return
        self._running[made] = None
        try:
            made.binding = queue.binding(place, version)
            made.binding.fill(made, self._tensors)
        except GatewayError as error:
            made.fail(error)
            return
        host.submit(made)

    def _finish(self, step: StepCall, code: Code) -> None:
        host = self._queue.host
        if step.trace is not None and host.tracer is not None:
            host.tracer.finish(step, code, self._request_id)
        host.finish_step(step, code, logged=self._queue.logged)

    def _note(self, step: StepCall) -> None:
        """Notes which version ran, as the answer's metadata tell it."""
        decision = step.decision
        if decision is None or step.version is None:
            return
        own = f"{step.model}:{step.version.name}:{decision.arm}"
        within = [f"{step.model}/{inner}" for inner in step.ran.split(",") if inner]
        self._ran[step.place] = ",".join((own, *within))

    def _note_steps(self) -> None:
        ran = ",".join([entry for entry in self._ran if entry])
        if len(ran) > _LONGEST_RAN:
            ran = ran[:_LONGEST_RAN].rpartition(",")[0] + ",..."
        self._call.ran = ran

    def _fail(self, error: GatewayError) -> None:
        self._over = True
        self._queue.ended(self._call)
        for step in list(self._running):
            self._queue.host.cancel(step, Cancelled("another step of the ensemble failed"))
        self._note_steps()
        self._call.fail(error)

    def _complete(self) -> None:
        queue, call = self._queue, self._call
        self._over = True
        queue.ended(call)
        self._note_steps()
        now_ns = monotonic_ns()
        call.infer_ns = now_ns - call.queued_ns
        if call.deadline_ns and now_ns > call.deadline_ns:
            call.fail(DeadlineExceeded("the deadline passed while the steps of the ensemble ran"))
            return
        arm = call.arm
        if arm is not None:
            arm.series.batch(call.rows if queue.version.batches else 1, call.infer_ns)
        call.answer(self._outputs())

    def _outputs(self) -> Sequence[Buffer]:
        """Returns the outputs that the call wants: as they are where all are bytes of their specs, else as arrays."""
        queue, call, tensors = self._queue, self._call, self._tensors
        numbers: Sequence[int] = queue.graph.answers
        specs: Sequence[TensorSpec] = queue.version.outputs
        if call.wanted is not None:
            numbers = [numbers[place] for place in call.wanted]
            specs = [specs[place] for place in call.wanted]
        buffers = [cast(Buffer, tensors.buffers[number]) for number in numbers]
        if queue.raw and call.wanted is None:
            for number, spec in zip(numbers, specs, strict=True):
                if type(tensors.buffers[number]) is not bytes or tensors.shapes[number] != (call.rows, *spec.shape[1:]):
                    break
            else:
                return buffers
        arrays: list[Array] = []
        for number, spec, buffer in zip(numbers, specs, buffers, strict=True):
            if isinstance(buffer, bytes | memoryview):
                arrays.append(np.frombuffer(buffer, spec.datatype.dtype).reshape(tensors.shapes[number]))
            else:
                arrays.append(buffer)
        return arrays
