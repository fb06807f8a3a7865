"""Inputs that a gateway has logged: read from the Parquet files of its data directory, on its host."""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.span import Span
from gateway.errors import GatewayError, InvalidArgument
from gateway.replay.logged_request import logged_requests
from gateway.replay.run_message import as_logged
from gateway.tensor import TensorSpec
from loadtests.job.model_signature import ModelSignature
from loadtests.job.request_tensor import Inputs, tensor_from


def read_logged(data_dir: Path, signature: ModelSignature, most: int) -> list[Inputs]:
    """Returns the inputs of the model's logged requests, at most so many. Raises: InvalidArgument.

    Requests whose inputs the log does not have whole (digests of large ones, redacted ones) are left out.
    """
    directory = data_dir / "log" / "lake"
    if not directory.is_dir():
        raise InvalidArgument(f"no prediction log at {directory}: name the gateway's own data directory, on its host")
    specs = [TensorSpec(one.name, one.datatype, one.shape) for one in signature.inputs]
    selection = Selection(signature.model, Span(0, int(time.time() * 1e6)))
    try:
        with Lake(directory) as lake:
            made: list[Inputs] = []
            for batches in (True, False):  # the log has them otherwise where the version does not batch
                made = list(islice(_inputs(lake, selection, as_logged(specs, batches=batches)), most))
                if made:
                    break
    except GatewayError as error:
        raise InvalidArgument(f"{directory}: {error}") from None
    if not made:
        raise InvalidArgument(
            f"{directory} has no request of model {signature.model!r} with all its inputs: rows are there a minute "
            "after their request, and large inputs are logged as digests"
        )
    return made


def _inputs(lake: Lake, selection: Selection, specs: tuple[TensorSpec, ...]) -> Iterator[Inputs]:
    for request in logged_requests(lake, selection, specs, ()):
        arrays = request.tensors(specs, "in")
        if request.whole and not isinstance(arrays, str):
            yield tuple(tensor_from(spec.name, spec.datatype, arrays[spec.name]) for spec in specs)
