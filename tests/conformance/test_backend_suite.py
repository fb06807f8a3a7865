"""What ONNX Runtime passes of the ONNX backend suite is served right over gRPC, or refused at load with a reason."""

from collections import Counter
from pathlib import Path

import grpc
import pytest

from gateway.serving.version import VersionState
from tests import models
from tests.api.stand import Stand, standing
from tests.conformance.backend_suite import (
    Case,
    cases,
    difference,
    expected_of,
    passes_in_process,
    request_of,
)

GROUP = 250  # models in one worker at a time


async def faults(stand: Stand, case: Case, model: str) -> str:
    (status,) = stand.catalog.states(model)
    if status.state is not VersionState.AVAILABLE:
        return f"refused: {status.reason}"
    for given, expected in case.data_sets:
        try:
            answer = await stand.stub.ModelInfer(request_of(case, given, model), timeout=20)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        wrong = difference(answer, list(expected_of(case, expected)), case)
        if wrong:
            return f"wrong: {wrong}"
    return ""


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_what_the_runtime_passes_of_the_backend_suite_is_served(tmp_path: Path) -> None:
    passed = [case for case in cases() if passes_in_process(case)]
    failed: dict[str, str] = {}
    for start in range(0, len(passed), GROUP):
        group = passed[start : start + GROUP]
        directory = tmp_path / str(start)
        repository = directory / "models"
        for place, case in enumerate(group):
            models.write_version(repository, f"m{place}", "1", case.model.SerializeToString())
        async with standing(repository, directory, probes=directory / "probes") as stand:
            for place, case in enumerate(group):
                fault = await faults(stand, case, f"m{place}")
                if fault:
                    failed[case.name] = fault
                    print(f"{case.name}: {fault}", flush=True)
    share = 1 - len(failed) / len(passed)
    print(f"{len(passed) - len(failed)} of {len(passed)} cases are served right")
    assert len(passed) > 1700
    assert share >= 0.98, Counter(failed.values())
