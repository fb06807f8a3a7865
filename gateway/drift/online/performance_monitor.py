"""Performance as labels come: sees the rows and labels that the compactor puts into the lake, and says how good they
were and, without labels, probably are.

It works on bounded samples; a kill loses at most what was seen in the last minute. Whatever goes wrong here is counted
and keeps no row from the lake.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np

from gateway.drift.arrow_columns import without
from gateway.drift.online.counting import LoggedArm
from gateway.drift.online.performance_assessment import ArmPerformance, assess_arm
from gateway.drift.online.performance_publication import publish_performance
from gateway.drift.online.performance_rows import answer_rows, label_rows, read_outputs, required
from gateway.drift.online.performance_sample import PerformanceSample, below, pack, row_keys, unpack
from gateway.drift.profile_files import ProfileFiles
from gateway.drift.statistics.answers import Outputs
from gateway.drift.statistics.baseline import Baseline
from gateway.errors import GatewayError
from gateway.records.worker.label import Label
from gateway.records.worker.sampling import CHOSEN_COPY

MAX_MODELS: Final = 100  # those with the newest rows or labels
MOST_ROWS: Final = 20_000  # of an arm; fewer where there are many arms:
ALL_ROWS: Final = 1_000_000  # of all arms, of 61 bytes and 4 for each score
_MOST_RECENT: Final = 20_000  # labels of a model that wait for their rows
_AGAIN_S: Final = 60.0  # between two looks at an arm that changes all the time
_PACE_S: Final = 2.0  # between two looks at any arm
_LABELS_AT_ONCE: Final = 4096
_PROFILES_S: Final = 5.0
_PUBLISH_S: Final = 15.0
_FIRST_PUBLISH_S: Final = 60.0  # after a start, at most: until then what was published before holds
_SAVE_S: Final = 60.0
_QUIET_US: Final = 86_400_000_000  # an arm without a row for so long is told no more
_MOST_AT_LAST: Final = 8  # arms, before the process ends
_SUFFIX: Final = ".sample"
_NOT_DONE: Final = (ValueError, TypeError, KeyError, IndexError, ArithmeticError, GatewayError)


@dataclass(slots=True)
class _Known:
    """Holds the last assessment of an arm (None if it failed), its time, and the revision of the profile."""

    performance: ArmPerformance | None
    at_s: float
    revision: int


_NEVER: Final = _Known(None, 0.0, -1)


class PerformanceMonitor:
    """Observes the compactor. `state` is its own folder of the lake; `published` where metrics and report go.

    One arm is assessed every two seconds at most: 0.1 to 0.2 s, so that segments do not wait for it.
    """

    def __init__(self, profiles: ProfileFiles, state: Path, published: Path | None, *, seed: int = 0) -> None:
        self._profiles = profiles
        self._state = state
        self._published = published
        self._seed = seed
        self._baselines: dict[tuple[str, str], tuple[int, Baseline | None]] = {}
        self._outputs: dict[tuple[str, str, tuple[str, ...]], Outputs] = {}
        self._known: dict[tuple[str, LoggedArm], _Known] = {}
        self._unsaved: set[str] = set()
        self._revisions: dict[tuple[str, str], int] = {}
        self._labels: list[Label] = []
        self._begun_s = self._profiles_at = self._assessed_at = self._published_at = self._saved_at = 0.0
        self.failures: Counter[str] = Counter()
        self._models: dict[str, PerformanceSample] = {}
        self._restore()

    # ---- what the compactor shows ----

    def saw_rows(self, model: str, version: str, rows: Any) -> None:
        try:
            sample = without(rows, "reason", CHOSEN_COPY)
            if sample.num_rows:
                self._take(model, version, sample)
        except _NOT_DONE:
            self.failures["performance_rows"] += 1

    def saw_labels(self, labels: Sequence[Label]) -> None:
        self._labels += [label for label in labels if label.number is not None or label.text is not None]
        if len(self._labels) >= _LABELS_AT_ONCE:
            self._give_labels()

    def tend(self, now_s: float, *, last: bool) -> None:
        """Assesses the arm that has waited longest, publishes what is known, and saves the samples."""
        if not self._begun_s:
            self._begun_s = now_s
        self._give_labels()
        if last or not 0 <= now_s - self._profiles_at < _PROFILES_S:
            self._profiles_at = now_s
            self._read_profiles()
        if last or not 0 <= now_s - self._assessed_at < _PACE_S:
            for _, model, arm in self._waiting(now_s, at_once=last)[: _MOST_AT_LAST if last else 1]:
                self._assessed_at = now_s
                self._assess(model, arm, now_s)
        if self._may_publish(now_s) or last:
            self._published_at = now_s
            self._publish(now_s)
        if last or not 0 <= now_s - self._saved_at < _SAVE_S:
            self._saved_at = now_s
            self._forget(now_s)
            self._save()

    def _give_labels(self) -> None:
        """Joins labels to rows, many at once: most calls bring a single label."""
        by_model: dict[str, list[Label]] = {}
        for label in self._labels:
            by_model.setdefault(label.model, []).append(label)
        self._labels = []
        for model, own in by_model.items():
            try:
                sample = self._of(model)
                sample.label(label_rows(sample, own), limit=_MOST_RECENT)
            except _NOT_DONE:
                self.failures["performance_labels"] += 1

    def _take(self, model: str, version: str, table: Any) -> None:
        arms, served = required(table, "arm"), required(table, "status").values == 0
        shadows = required(table, "is_shadow").values != 0
        keys = row_keys(*(required(table, name).values for name in ("request_hash", "row_index")))
        outputs = self._outputs_of(model, version, table)
        sample = self._of(model)
        for code, name in enumerate(arms.texts or ("",)):
            for shadow in (False, True):
                arm = LoggedArm(version, name, shadow)
                level = sample.arms[arm].level if arm in sample.arms else 0
                chosen = np.flatnonzero((arms.values == code) & (shadows == shadow) & served & below(keys, level))
                if len(chosen):
                    answered = answer_rows(sample, table, outputs, keys, chosen)
                    sample.add(arm, answered, limit=self._limit())

    def _outputs_of(self, model: str, version: str, table: Any) -> Outputs:
        columns = tuple(name for name in table.column_names if name.startswith("out."))
        known = self._outputs.get((model, version, columns))
        if known is None:
            if len(self._outputs) > MAX_MODELS:
                self._outputs.clear()
            known = self._outputs[model, version, columns] = read_outputs(table)
        return known

    def _of(self, model: str) -> PerformanceSample:
        """The sample of that model, which is from here on the newest; the oldest gives way beyond the bound."""
        sample = self._models.pop(model, None) or PerformanceSample()
        self._models[model] = sample
        self._unsaved.add(model)
        if len(self._models) > MAX_MODELS:
            self._drop(next(iter(self._models)))
        return sample

    def _limit(self) -> int:
        """Returns how many rows an arm may hold now."""
        arms = sum(len(sample.arms) for sample in self._models.values())
        return min(MOST_ROWS, ALL_ROWS // max(arms, 1))

    # ---- what is made of it ----

    def _waiting(self, now_s: float, *, at_once: bool) -> list[tuple[float, str, LoggedArm]]:
        """Returns the arms to assess, each with the time of its last assessment, the longest ago first; 0 for never."""
        again_s = 0.0 if at_once else _AGAIN_S
        waiting = []
        for model, sample in self._models.items():
            for arm, rows in sample.arms.items():
                revision = self._revisions.get((model, arm.version))
                known = self._known.get((model, arm)) or _NEVER
                if revision is None:  # soon: whether it has a profile was not looked at yet
                    continue
                if revision != known.revision or (rows.changed and not 0 <= now_s - known.at_s < again_s):
                    waiting.append((known.at_s, model, arm))
        return sorted(waiting)

    def _assess(self, model: str, arm: LoggedArm, now_s: float) -> None:
        sample = self._models[model]
        one = sample.arms[arm]
        one.changed = False
        revision, baseline = self._baseline(model, arm.version)
        try:
            with np.errstate(all="ignore"):  # of numbers that overflow there is no metric
                assessment = assess_arm(
                    model, arm, one.rows, list(sample.texts), baseline, has_profile=revision > 0,
                    rng=np.random.default_rng(self._seed),
                )  # fmt: skip
        except _NOT_DONE:
            self.failures["performance"] += 1
            assessment = None
        self._known[model, arm] = _Known(assessment, now_s, revision)

    def _read_profiles(self) -> None:
        versions = {(model, arm.version) for model, sample in self._models.items() for arm in sample.arms}
        self._revisions = {one: max(self._profiles.revisions(*one), default=0) for one in versions}
        self._baselines = {one: known for one, known in self._baselines.items() if one in versions}

    def _baseline(self, model: str, version: str) -> tuple[int, Baseline | None]:
        """The newest profile's revision, 0 where there is none, and its baseline; of a damaged one the one before."""
        revision, known = self._revisions.get((model, version), 0), self._baselines.get((model, version))
        if known is None or known[0] != revision:
            try:
                baseline = self._profiles.load(model, version, revision).baseline if revision else None
            except (GatewayError, OSError):
                self.failures["performance_profile"] += 1
                baseline = known[1] if known is not None else None
            known = self._baselines[model, version] = (revision, baseline)
        return known

    def _may_publish(self, now_s: float) -> bool:
        """Returns whether every arm was assessed since the start: publishing replaces all that was there before."""
        if not self._published_at:
            behind = any(
                (model, arm) not in self._known for model, sample in self._models.items() for arm in sample.arms
            )
            return not behind or not 0 <= now_s - self._begun_s < _FIRST_PUBLISH_S
        return not 0 <= now_s - self._published_at < _PUBLISH_S

    def _publish(self, now_s: float) -> None:
        if self._published is None:
            return
        assessments = []
        for (model, arm), known in self._known.items():
            sample = self._models[model].arms.get(arm) if model in self._models else None
            if sample is not None and known.performance is not None and sample.newest_us > now_s * 1e6 - _QUIET_US:
                assessments.append(known.performance)
        try:
            publish_performance(self._published, assessments, self.failures, now_s=now_s)
        except (OSError, ValueError):
            self.failures["performance_disk"] += 1

    # ---- what is kept ----

    def _forget(self, now_s: float) -> None:
        limit = self._limit()
        for model, sample in self._models.items():
            had = len(sample.arms)
            sample.forget(int(now_s * 1e6), limit=limit)
            if had != len(sample.arms):
                self._unsaved.add(model)
        there = {(model, arm) for model, sample in self._models.items() for arm in sample.arms}
        self._known = {key: known for key, known in self._known.items() if key in there}

    def _drop(self, model: str) -> None:
        del self._models[model]
        self._unsaved.discard(model)
        try:
            self._path(model).unlink(missing_ok=True)
        except OSError:
            self.failures["performance_disk"] += 1

    def _save(self) -> None:
        for model in list(self._unsaved):
            path = self._path(model)
            staged = path.with_name(f"{path.name}.new")
            try:
                self._state.mkdir(parents=True, exist_ok=True)
                staged.write_bytes(pack(model, self._models[model]))
                os.replace(staged, path)
            except OSError:
                self.failures["performance_disk"] += 1
            else:
                self._unsaved.discard(model)

    def _restore(self) -> None:
        for path in sorted(self._state.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)[-MAX_MODELS:]:
            try:
                model, sample = unpack(path.read_bytes())
                self._models[model] = sample
            except (OSError, ValueError):
                self.failures["performance_damaged"] += 1

    def _path(self, model: str) -> Path:
        return self._state / f"model={quote(model, safe='')}{_SUFFIX}"
