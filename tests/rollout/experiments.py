"""Experiments for the tests of results: a history of splits, and requests of keys that go the whole way of the log."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.retention import RetentionLimits
from gateway.records.worker.prediction_log import PredictionLog
from gateway.records.worker.record import Record
from gateway.records.worker.sampling import Sampling
from gateway.rollout.results.experiment import RevisionSplit
from gateway.routing.decision.route import Route, propose
from gateway.routing.document.document import parse
from tests.drift.lakes import START_US, lake_of, spec_of, write_labels

Array = npt.NDArray[Any]
MODEL = "shop"
HOUR_US = 3_600_000_000
X = np.zeros((1, 1), "<f4")


def split_document(weights: Mapping[str, float], **spec: object) -> dict[str, Any]:
    """An A/B route; `spec` has what is to be in `ab` beside the weights."""
    ab = {"control": "a", "weights": {arm: f"{weight}%" for arm, weight in weights.items()}, **spec}
    return {
        "apiVersion": "gateway/v1",
        "kind": "Route",
        "metadata": {"model": MODEL},
        "spec": {
            "arms": {arm: {"version": str(number)} for number, arm in enumerate(sorted(weights), 1)},
            "key": {"from": ["metadata:x-user-id"]},
            "strategy": {"ab": ab},
        },
    }


def history(*documents: dict[str, Any], hours: int = 24) -> list[RevisionSplit]:
    """The history of these documents, newest first: revisions 1, 2, ... so many hours apart."""
    made: list[RevisionSplit] = []
    active: Route | None = None
    for number, value in enumerate(documents, 1):
        active = propose(parse(value), active)
        starts = tuple(interval.start for interval in active.table.intervals)
        arms = tuple(interval.arm for interval in active.table.intervals)
        since_us = START_US + (number - 1) * hours * HOUR_US
        made.insert(0, RevisionSplit(number, since_us, active.document, starts, arms))
    return made


@dataclass
class Requests:
    """Requests of one revision, one row each. Shapes: [requests]; `rewards` NaN: nobody told it."""

    split: RevisionSplit
    buckets: Array
    rewards: Array | None = None
    scores: Array | None = None
    features: Array | None = None
    codes: Array | None = None
    total_us: Array | None = None
    reasons: Sequence[str] | None = None
    prefix: str = "r"  # of request ids
    spread_us: int = 20 * HOUR_US  # over which they came
    said: Sequence[str] | None = None  # texts that are answered instead of scores
    labels: Sequence[float | str | None] | None = None
    served: Sequence[str] | None = None  # the arm that answered, where it is not that of the bucket

    def arms(self) -> list[str]:
        places = np.searchsorted(self.split.starts, self.buckets, side="right") - 1
        return [self.split.arms[place] for place in places]


def write_requests(data_dir: Path, parts: Sequence[Requests], *, sampling: Sampling | None = None) -> None:
    """Logs and compacts the requests, spread over the hours of their revision, and tells their rewards."""
    rewarded: list[tuple[str, float, int]] = []
    labelled: list[tuple[str, float | str | None, int]] = []

    async def go(directory: Path) -> None:
        log = PredictionLog(directory, worker="w0", gateway="gw", boot=str(uuid.uuid4()), sampling=sampling)
        said = any(part.said is not None for part in parts)
        output = spec_of("kind", np.array(["a"], object)) if said else spec_of("score", np.zeros(1, "<f4"))
        specs = (spec_of("x", X),), (output,)
        count = 0
        for part in parts:
            document = part.split.document
            assert document is not None
            served = part.served or part.arms()
            streams = {
                arm: log.stream(document.model, document.version_of(arm), arm, *specs, "sha256:aa")
                for arm in set(served)
            }
            size = len(part.buckets)
            moments = (part.split.since_us + np.arange(size) * part.spread_us // max(size, 1)).tolist()
            scores = np.zeros(size, "<f4") if part.scores is None else part.scores.astype("<f4")
            features = np.zeros(size, "<f4") if part.features is None else part.features.astype("<f4")
            codes = [0] * size if part.codes is None else part.codes.tolist()
            took = [1000] * size if part.total_us is None else part.total_us.tolist()
            for index, (arm, bucket) in enumerate(zip(served, part.buckets.tolist(), strict=True)):
                name = f"{part.prefix}{part.split.revision}-{index}"
                reason = part.reasons[index] if part.reasons is not None else "SPLIT"
                outputs: list[Array] = [] if codes[index] else [scores[index : index + 1]]
                if part.said is not None:
                    outputs = [np.array([part.said[index].encode()], object)]
                inputs = [features[index : index + 1].reshape(1, 1)]
                streams[arm].append(
                    Record(
                        moments[index], name, codes[index], reason, part.split.revision, bucket, 1, 5, 7, took[index],
                        [inputs[0].shape], inputs, outputs,
                    )
                )  # fmt: skip
                if part.rewards is not None and np.isfinite(part.rewards[index]):
                    rewarded.append((name, float(part.rewards[index]), moments[index]))
                if part.labels is not None:
                    labelled.append((name, part.labels[index], moments[index]))
                count += 1
                if count % 50_000 == 0:
                    await log.flush()
        await log.close()

    with TemporaryDirectory() as wal:
        asyncio.run(go(Path(wal)))
        kept = RetentionLimits(max_age_s=1e9)
        clock = (START_US + 90 * 24 * HOUR_US) / 1e6
        Compactor(CompactorConfig(wal, str(lake_of(data_dir)), retention=kept), clock=lambda: clock).step()
    if rewarded:
        model = parts[0].split.document.model if parts[0].split.document is not None else MODEL
        names, rewards, moments = zip(*rewarded, strict=True)
        write_labels(data_dir, names, [None] * len(names), moments, model=model, rewards=rewards)
    if labelled:
        names, labels, at = zip(*labelled, strict=True)
        write_labels(data_dir, names, labels, at, model=MODEL)


EVEN = {"a": 50, "b": 50}
