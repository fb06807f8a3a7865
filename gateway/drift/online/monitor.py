"""Monitors drift: counts what the compactor writes to the lake, and assesses the counts from time to time.

Everything that is decided is in pure modules; here it meets time and the disk. Whatever goes wrong here is counted and
keeps no row from the lake.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gateway.drift.arrow_columns import any_true, without
from gateway.drift.online.assessment import Schedule, assess_pairs, assess_split, assess_version, compare_arms
from gateway.drift.online.counting import LoggedArm, VersionRows, agreement, count, count_split
from gateway.drift.online.drift_publication import Assessments, MonitorHealth, publish_all
from gateway.drift.online.new_categories import NewCategories
from gateway.drift.online.tally_store import Book, Part, Subject, TallyStore
from gateway.drift.online.windows import DAY_S, CellLayout, Tally, agreement_vector
from gateway.drift.profile_files import ProfileFiles
from gateway.drift.statistics.reference_profile import Profile
from gateway.drift.statistics.split import bucket_feature
from gateway.drift.statistics.verdict import DriftRule, Verdict
from gateway.errors import GatewayError
from gateway.records.worker.sampling import CHOSEN_COPY

_LOOK_S: Final = 5.0  # between two looks at the clock, the profiles and what was counted
_PUBLISH_S: Final = 15.0  # where nothing is new: it says that somebody looks
_SAVE_S: Final = 60.0
_SILENT_S: Final = 60 * DAY_S
_VERSION: Final = "version/"  # begins the subject of a version
_ARMS: Final = "arms"
_PAIRS: Final = "pairs"
_SPLIT: Final = "split"
_NO_FEATURES: Final = CellLayout("pairs", ())
_NOT_COUNTED: Final = (ValueError, TypeError, KeyError, IndexError, ArithmeticError, GatewayError)


class Monitor:
    """Counts each segment exactly once, even if the process is killed; `tally_store` says how.

    `is_done` says whether a segment was done before this process began. `published` is where metrics and the report go.
    """

    def __init__(
        self,
        profiles: ProfileFiles,
        store: TallyStore,
        published: Path | None,
        *,
        is_done: Callable[[str], bool],
        schedule: Schedule | None = None,
        rule: DriftRule | None = None,
    ) -> None:
        self._files = profiles
        self._store = store
        self._published = published
        self._schedule = schedule or Schedule()
        self._rule = rule or DriftRule()
        self._profiles: dict[tuple[str, str], Profile] = {}
        self._layouts: dict[Subject, CellLayout] = {}
        self._pending: dict[str, list[Part]] = {}
        self._assessments: dict[Subject, Any] = {}
        self._new: dict[Subject, NewCategories] = {}
        self._closed_s = 0
        self._looked_at = self._published_at = self._saved_at = 0.0
        self.failures: Counter[str] = Counter()
        self.rows = 0
        self._books: dict[Subject, Book] = {}
        self._read_profiles()
        self._books = store.recover(self._layout_of, is_done)

    # ---- a segment ----

    def prepare(self, segment: str, tables: Sequence[tuple[str, str, Any]]) -> None:
        """Counts the rows of a segment that is about to be done: model, version and Arrow table of each file."""
        parts: list[Part] = []
        by_model: dict[str, list[tuple[str, VersionRows]]] = defaultdict(list)
        mirrored = {model for model, _, table in tables if any_true(table, "is_shadow")}
        for model, version, whole in tables:
            table = without(whole, "reason", CHOSEN_COPY)
            # Mirrors are compared with those who serve even where no version has a profile.
            if table.num_rows and (model in mirrored or Subject(model, _SPLIT) in self._layouts):
                try:
                    by_model[model].append((version, VersionRows(table)))
                except _NOT_COUNTED:
                    self.failures["count"] += 1
        for model, of_versions in by_model.items():
            for subject, layout, tallies in self._tallied(model, of_versions):
                parts.append(Part(subject, layout, tallies))
        self._pending[segment] = parts
        if parts:
            try:
                self._store.prepare(segment, parts)
            except OSError:
                self.failures["disk"] += 1

    def commit(self, segment: str) -> None:
        """Adds what was prepared of a segment that is done."""
        for part in self._pending.pop(segment, ()):
            layout = self._layout_of(part.subject)
            if layout is None or layout.key != part.layout.key:
                continue  # the profile was replaced meanwhile
            book = self._books.get(part.subject)
            if book is None or book.layout.key != layout.key:
                book = self._books[part.subject] = Book(part.subject, layout)
            for (arm, minute_s), tally in part.tallies.items():
                book.add(arm, minute_s, tally)
                if part.subject.name.startswith(_VERSION):
                    self.rows += tally.rows

    # ---- from time to time ----

    def tend(self, now_s: float, *, last: bool) -> None:
        """Reads new profiles, assesses and publishes the counts, and saves them."""
        if last or not 0 <= now_s - self._looked_at < _LOOK_S:
            self._looked_at = now_s
            self._read_profiles()
            if self._assess(now_s) or last or not 0 <= now_s - self._published_at < _PUBLISH_S:
                self._published_at = now_s
                self._publish(now_s)
        if last or not 0 <= now_s - self._saved_at < _SAVE_S:
            self._saved_at = now_s
            self._save(now_s)
        if last:
            self._store.close()

    def _tallied(
        self, model: str, of_versions: Sequence[tuple[str, VersionRows]]
    ) -> list[tuple[Subject, CellLayout, Mapping[tuple[LoggedArm, int], Tally]]]:
        by_subject: dict[Subject, tuple[CellLayout, dict[tuple[LoggedArm, int], Tally]]] = {}
        for version, rows in of_versions:
            for subject in (Subject(model, name) for name in (f"{_VERSION}{version}", _ARMS, _SPLIT, _PAIRS)):
                layout = self._layout_of(subject)
                if layout is not None:
                    try:
                        counted = _counted(subject, version, rows, layout, of_versions)
                    except _NOT_COUNTED:
                        self.failures["count"] += 1
                    else:
                        if subject.name.startswith(_VERSION) and counted:
                            newest_s = max(minute_s for _, minute_s in counted)
                            self._new.setdefault(subject, NewCategories()).add(rows, layout, counted, newest_s)
                        _merge(by_subject.setdefault(subject, (layout, {}))[1], counted)
        return [(subject, layout, tallies) for subject, (layout, tallies) in by_subject.items() if tallies]

    def _layout_of(self, subject: Subject) -> CellLayout | None:
        return _NO_FEATURES if subject.name == _PAIRS else self._layouts.get(subject)

    def _read_profiles(self) -> None:
        profiles: dict[tuple[str, str], Profile] = {}
        for model, version in self._files.versions():
            known = self._profiles.get((model, version))
            newest = max(self._files.revisions(model, version), default=0)
            if known is not None and known.revision == newest:
                profiles[model, version] = known
                continue
            try:
                profiles[model, version] = self._files.load(model, version)
            except (GatewayError, OSError):
                self.failures["profile"] += 1
                if known is not None:
                    profiles[model, version] = known
        if profiles == self._profiles:
            return
        self._profiles = profiles
        self._layouts = _layouts(profiles)
        for subject, book in list(self._books.items()):
            layout = self._layout_of(subject)
            if layout is None or layout.key != book.layout.key:  # what is in other bins cannot be compared
                del self._books[subject]
                self._assessments.pop(subject, None)
                self._new.pop(subject, None)
                self._store.forget(subject)

    def _assess(self, now_s: float) -> bool:
        """Assesses what has changed. Returns whether anything has."""
        news = False
        closed_s = self._schedule.closed_s(now_s)
        for subject in [subject for subject in self._assessments if subject not in self._books]:
            del self._assessments[subject]
        for subject, book in self._books.items():
            if closed_s == self._closed_s and book.oldest_s >= closed_s and subject in self._assessments:
                continue
            book.oldest_s = float("inf")
            news = True
            try:
                self._assessments[subject] = self._assessed(subject, book, now_s)
            except _NOT_COUNTED:
                self.failures["assess"] += 1
        self._closed_s = closed_s
        return news

    def _assessed(self, subject: Subject, book: Book, now_s: float) -> list[Any]:
        if subject.name == _PAIRS:
            return list(assess_pairs(book, self._schedule, now_s=now_s))
        if subject.name == _SPLIT:
            return list(assess_split(book, self._schedule, self._rule, now_s=now_s))
        if subject.name == _ARMS:
            return list(compare_arms(book, self._schedule, self._rule, now_s=now_s))
        profile = self._profiles[subject.model, subject.name.removeprefix(_VERSION)]
        return [
            replace(one, verdicts=tuple(self._named(subject, verdict, one.start_s) for verdict in one.verdicts))
            for one in assess_version(book, profile, self._schedule, self._rule, now_s=now_s)
        ]

    def _named(self, subject: Subject, verdict: Verdict, start_s: int) -> Verdict:
        return self._new[subject].named(verdict, start_s) if subject in self._new else verdict

    def _publish(self, now_s: float) -> None:
        if self._published is None:
            return
        whole = Assessments(
            versions=self._all(_VERSION), arms=self._all(_ARMS), pairs=self._all(_PAIRS), splits=self._all(_SPLIT)
        )
        health = MonitorHealth(now_s, self.rows, dict(self.failures), len(self._profiles), self._store.damaged)
        try:
            publish_all(self._published, whole, health, self._schedule.base_s)
        except (OSError, ValueError):
            self.failures["disk"] += 1

    def _all(self, begin: str) -> list[Any]:
        return [one for subject, own in self._assessments.items() if subject.name.startswith(begin) for one in own]

    def _save(self, now_s: float) -> None:
        for book in self._books.values():
            book.drop_silent(now_s - _SILENT_S)
        try:
            self._store.checkpoint(list(self._books.values()), self._pending)
        except OSError:
            self.failures["disk"] += 1


def _layouts(profiles: Mapping[tuple[str, str], Profile]) -> dict[Subject, CellLayout]:
    """The bins of each version; of each model those of its split, and for its arms those of the outputs of the oldest
    profile that has outputs."""
    layouts = {
        Subject(model, f"{_VERSION}{version}"): CellLayout(str(profile.revision), profile.watched, profile.embeddings)
        for (model, version), profile in profiles.items()
    }
    for model in {model for model, _ in profiles}:
        layouts[Subject(model, _SPLIT)] = CellLayout("split", (bucket_feature(),))
    oldest: dict[str, Profile] = {}
    for (model, _), profile in profiles.items():
        if profile.outputs and (model not in oldest or profile.created_at < oldest[model].created_at):
            oldest[model] = profile
    for model, profile in oldest.items():
        layouts[Subject(model, _ARMS)] = CellLayout(f"{profile.version}/{profile.revision}", profile.outputs)
    return layouts


def _counted(
    subject: Subject,
    version: str,
    rows: VersionRows,
    layout: CellLayout,
    of_versions: Sequence[tuple[str, VersionRows]],
) -> dict[tuple[LoggedArm, int], Tally]:
    """Returns what the rows of a version add to a subject."""
    if subject.name == _PAIRS:
        return _paired(version, rows, of_versions)
    return count_split(rows, layout) if subject.name == _SPLIT else count(rows, version, layout)


def _paired(
    version: str, shadows: VersionRows, of_versions: Sequence[tuple[str, VersionRows]]
) -> dict[tuple[LoggedArm, int], Tally]:
    """Returns how far the mirror agreed with the answers of the segment, counted in its first minute."""
    copies = [(arm, minute_s) for arm, minute_s, _ in shadows.groups(version) if arm.shadow]
    tally = Tally.empty(_NO_FEATURES)
    for _, primaries in of_versions if copies else ():
        tally.agreement += agreement_vector(agreement(primaries, shadows))
    tally.sums[0] = tally.agreement[0]  # its rows are the pairs
    return {copies[0]: tally} if tally.sums[0] else {}


def _merge(into: dict[tuple[LoggedArm, int], Tally], more: Mapping[tuple[LoggedArm, int], Tally]) -> None:
    for key, tally in more.items():
        if key in into:
            into[key].add(tally)
        else:
            into[key] = tally
