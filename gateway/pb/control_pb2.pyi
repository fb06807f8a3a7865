from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Route(_message.Message):
    __slots__ = ("model", "revision", "document_json", "table", "digest", "committed_at_us", "in_force_json")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_US_FIELD_NUMBER: _ClassVar[int]
    IN_FORCE_JSON_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: int
    document_json: str
    table: _containers.RepeatedCompositeFieldContainer[Interval]
    digest: str
    committed_at_us: int
    in_force_json: str
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[int] = ..., document_json: _Optional[str] = ..., table: _Optional[_Iterable[_Union[Interval, _Mapping]]] = ..., digest: _Optional[str] = ..., committed_at_us: _Optional[int] = ..., in_force_json: _Optional[str] = ...) -> None: ...

class Interval(_message.Message):
    __slots__ = ("start", "end", "arm")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    arm: str
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., arm: _Optional[str] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("actor", "reason", "source", "idempotency_key", "given_ms_ago")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    GIVEN_MS_AGO_FIELD_NUMBER: _ClassVar[int]
    actor: str
    reason: str
    source: str
    idempotency_key: str
    given_ms_ago: int
    def __init__(self, actor: _Optional[str] = ..., reason: _Optional[str] = ..., source: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., given_ms_ago: _Optional[int] = ...) -> None: ...

class WaitFor(_message.Message):
    __slots__ = ("applied", "timeout_ms")
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    applied: bool
    timeout_ms: int
    def __init__(self, applied: _Optional[bool] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("document_json", "expected_revision", "change", "wait", "dry_run", "override")
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    document_json: str
    expected_revision: int
    change: Change
    wait: WaitFor
    dry_run: bool
    override: bool
    def __init__(self, document_json: _Optional[str] = ..., expected_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., dry_run: _Optional[bool] = ..., override: _Optional[bool] = ...) -> None: ...

class ApplyResponse(_message.Message):
    __slots__ = ("change", "route", "moved_buckets")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    MOVED_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    change: ChangeResponse
    route: Route
    moved_buckets: int
    def __init__(self, change: _Optional[_Union[ChangeResponse, _Mapping]] = ..., route: _Optional[_Union[Route, _Mapping]] = ..., moved_buckets: _Optional[int] = ...) -> None: ...

class ChangeResponse(_message.Message):
    __slots__ = ("model", "revision", "previous_revision", "epoch", "commit_us", "applied_us", "applied_by", "laggards", "unchanged", "restored_revision", "replicas", "already", "already_ms_ago", "flows", "moved_buckets", "version_buckets", "warnings")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    COMMIT_US_FIELD_NUMBER: _ClassVar[int]
    APPLIED_US_FIELD_NUMBER: _ClassVar[int]
    APPLIED_BY_FIELD_NUMBER: _ClassVar[int]
    LAGGARDS_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    RESTORED_REVISION_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    ALREADY_FIELD_NUMBER: _ClassVar[int]
    ALREADY_MS_AGO_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    MOVED_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    VERSION_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: int
    previous_revision: int
    epoch: str
    commit_us: int
    applied_us: int
    applied_by: _containers.RepeatedScalarFieldContainer[str]
    laggards: _containers.RepeatedScalarFieldContainer[str]
    unchanged: bool
    restored_revision: int
    replicas: Replicas
    already: HistoryEntry
    already_ms_ago: int
    flows: _containers.RepeatedCompositeFieldContainer[Flow]
    moved_buckets: int
    version_buckets: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[int] = ..., previous_revision: _Optional[int] = ..., epoch: _Optional[str] = ..., commit_us: _Optional[int] = ..., applied_us: _Optional[int] = ..., applied_by: _Optional[_Iterable[str]] = ..., laggards: _Optional[_Iterable[str]] = ..., unchanged: _Optional[bool] = ..., restored_revision: _Optional[int] = ..., replicas: _Optional[_Union[Replicas, _Mapping]] = ..., already: _Optional[_Union[HistoryEntry, _Mapping]] = ..., already_ms_ago: _Optional[int] = ..., flows: _Optional[_Iterable[_Union[Flow, _Mapping]]] = ..., moved_buckets: _Optional[int] = ..., version_buckets: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class Replicas(_message.Message):
    __slots__ = ("known", "confirmed")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    known: int
    confirmed: int
    def __init__(self, known: _Optional[int] = ..., confirmed: _Optional[int] = ...) -> None: ...

class GetRouteRequest(_message.Message):
    __slots__ = ("model", "revision")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: int
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class ListRoutesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRoutesResponse(_message.Message):
    __slots__ = ("routes", "epoch", "revision", "stale")
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    epoch: str
    revision: int
    stale: bool
    def __init__(self, routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., epoch: _Optional[str] = ..., revision: _Optional[int] = ..., stale: _Optional[bool] = ...) -> None: ...

class DeleteRouteRequest(_message.Message):
    __slots__ = ("model", "expected_revision", "change", "wait", "dry_run", "override")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    model: str
    expected_revision: int
    change: Change
    wait: WaitFor
    dry_run: bool
    override: bool
    def __init__(self, model: _Optional[str] = ..., expected_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., dry_run: _Optional[bool] = ..., override: _Optional[bool] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("model", "limit")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    model: str
    limit: int
    def __init__(self, model: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("revision", "previous_revision", "operation", "actor", "reason", "source", "committed_at_us", "digest", "document_json", "model", "restored_revision", "sequence", "detail", "in_force_json")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_REVISION_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_US_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESTORED_REVISION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    IN_FORCE_JSON_FIELD_NUMBER: _ClassVar[int]
    revision: int
    previous_revision: int
    operation: str
    actor: str
    reason: str
    source: str
    committed_at_us: int
    digest: str
    document_json: str
    model: str
    restored_revision: int
    sequence: int
    detail: str
    in_force_json: str
    def __init__(self, revision: _Optional[int] = ..., previous_revision: _Optional[int] = ..., operation: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., source: _Optional[str] = ..., committed_at_us: _Optional[int] = ..., digest: _Optional[str] = ..., document_json: _Optional[str] = ..., model: _Optional[str] = ..., restored_revision: _Optional[int] = ..., sequence: _Optional[int] = ..., detail: _Optional[str] = ..., in_force_json: _Optional[str] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ...) -> None: ...

class ShowRevisionRequest(_message.Message):
    __slots__ = ("model", "revision")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: int
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class ShowRevisionResponse(_message.Message):
    __slots__ = ("entry", "route")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    entry: HistoryEntry
    route: Route
    def __init__(self, entry: _Optional[_Union[HistoryEntry, _Mapping]] = ..., route: _Optional[_Union[Route, _Mapping]] = ...) -> None: ...

class DiffRequest(_message.Message):
    __slots__ = ("model", "from_revision", "to_revision")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    TO_REVISION_FIELD_NUMBER: _ClassVar[int]
    model: str
    from_revision: int
    to_revision: int
    def __init__(self, model: _Optional[str] = ..., from_revision: _Optional[int] = ..., to_revision: _Optional[int] = ...) -> None: ...

class DiffResponse(_message.Message):
    __slots__ = ("from_revision", "to_revision", "differences", "flows", "moved_buckets", "version_buckets")
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    TO_REVISION_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    MOVED_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    VERSION_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    from_revision: int
    to_revision: int
    differences: _containers.RepeatedCompositeFieldContainer[Difference]
    flows: _containers.RepeatedCompositeFieldContainer[Flow]
    moved_buckets: int
    version_buckets: int
    def __init__(self, from_revision: _Optional[int] = ..., to_revision: _Optional[int] = ..., differences: _Optional[_Iterable[_Union[Difference, _Mapping]]] = ..., flows: _Optional[_Iterable[_Union[Flow, _Mapping]]] = ..., moved_buckets: _Optional[int] = ..., version_buckets: _Optional[int] = ...) -> None: ...

class Difference(_message.Message):
    __slots__ = ("path", "before_json", "after_json")
    PATH_FIELD_NUMBER: _ClassVar[int]
    BEFORE_JSON_FIELD_NUMBER: _ClassVar[int]
    AFTER_JSON_FIELD_NUMBER: _ClassVar[int]
    path: str
    before_json: str
    after_json: str
    def __init__(self, path: _Optional[str] = ..., before_json: _Optional[str] = ..., after_json: _Optional[str] = ...) -> None: ...

class Flow(_message.Message):
    __slots__ = ("from_arm", "from_version", "to_arm", "to_version", "size")
    FROM_ARM_FIELD_NUMBER: _ClassVar[int]
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    TO_ARM_FIELD_NUMBER: _ClassVar[int]
    TO_VERSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    from_arm: str
    from_version: str
    to_arm: str
    to_version: str
    size: int
    def __init__(self, from_arm: _Optional[str] = ..., from_version: _Optional[str] = ..., to_arm: _Optional[str] = ..., to_version: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("document_json",)
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    document_json: str
    def __init__(self, document_json: _Optional[str] = ...) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ("model", "base_revision", "unchanged", "differences", "flows", "moved_buckets", "version_buckets", "versions", "obstacles", "laggards", "workers", "carried", "warnings")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BASE_REVISION_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    MOVED_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    VERSION_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    OBSTACLES_FIELD_NUMBER: _ClassVar[int]
    LAGGARDS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    CARRIED_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    model: str
    base_revision: int
    unchanged: bool
    differences: _containers.RepeatedCompositeFieldContainer[Difference]
    flows: _containers.RepeatedCompositeFieldContainer[Flow]
    moved_buckets: int
    version_buckets: int
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersionState]
    obstacles: _containers.RepeatedScalarFieldContainer[str]
    laggards: _containers.RepeatedScalarFieldContainer[str]
    workers: int
    carried: _containers.RepeatedScalarFieldContainer[str]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., base_revision: _Optional[int] = ..., unchanged: _Optional[bool] = ..., differences: _Optional[_Iterable[_Union[Difference, _Mapping]]] = ..., flows: _Optional[_Iterable[_Union[Flow, _Mapping]]] = ..., moved_buckets: _Optional[int] = ..., version_buckets: _Optional[int] = ..., versions: _Optional[_Iterable[_Union[ModelVersionState, _Mapping]]] = ..., obstacles: _Optional[_Iterable[str]] = ..., laggards: _Optional[_Iterable[str]] = ..., workers: _Optional[int] = ..., carried: _Optional[_Iterable[str]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class FlipRequest(_message.Message):
    __slots__ = ("model", "expected_revision", "change", "wait", "dry_run", "arm", "override")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    model: str
    expected_revision: int
    change: Change
    wait: WaitFor
    dry_run: bool
    arm: str
    override: bool
    def __init__(self, model: _Optional[str] = ..., expected_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., dry_run: _Optional[bool] = ..., arm: _Optional[str] = ..., override: _Optional[bool] = ...) -> None: ...

class SetWeightsRequest(_message.Message):
    __slots__ = ("model", "expected_revision", "change", "wait", "dry_run", "weights")
    class WeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    expected_revision: int
    change: Change
    wait: WaitFor
    dry_run: bool
    weights: _containers.ScalarMap[str, str]
    def __init__(self, model: _Optional[str] = ..., expected_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., dry_run: _Optional[bool] = ..., weights: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PinRequest(_message.Message):
    __slots__ = ("model", "expected_revision", "change", "wait", "dry_run", "arm")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    model: str
    expected_revision: int
    change: Change
    wait: WaitFor
    dry_run: bool
    arm: str
    def __init__(self, model: _Optional[str] = ..., expected_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., dry_run: _Optional[bool] = ..., arm: _Optional[str] = ...) -> None: ...

class KillRequest(_message.Message):
    __slots__ = ("model", "expected_revision", "change", "wait", "dry_run", "arm")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    model: str
    expected_revision: int
    change: Change
    wait: WaitFor
    dry_run: bool
    arm: str
    def __init__(self, model: _Optional[str] = ..., expected_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., dry_run: _Optional[bool] = ..., arm: _Optional[str] = ...) -> None: ...

class UnkillRequest(_message.Message):
    __slots__ = ("model", "expected_revision", "change", "wait", "dry_run")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    model: str
    expected_revision: int
    change: Change
    wait: WaitFor
    dry_run: bool
    def __init__(self, model: _Optional[str] = ..., expected_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("model", "expected_revision", "change", "wait", "dry_run", "full", "override")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    model: str
    expected_revision: int
    change: Change
    wait: WaitFor
    dry_run: bool
    full: bool
    override: bool
    def __init__(self, model: _Optional[str] = ..., expected_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., dry_run: _Optional[bool] = ..., full: _Optional[bool] = ..., override: _Optional[bool] = ...) -> None: ...

class GetRolloutRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ListRolloutsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRolloutsResponse(_message.Message):
    __slots__ = ("rollouts",)
    ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    rollouts: _containers.RepeatedCompositeFieldContainer[RolloutState]
    def __init__(self, rollouts: _Optional[_Iterable[_Union[RolloutState, _Mapping]]] = ...) -> None: ...

class SteerRolloutRequest(_message.Message):
    __slots__ = ("model", "verb", "change")
    class Verb(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERB_UNSPECIFIED: _ClassVar[SteerRolloutRequest.Verb]
        PAUSE: _ClassVar[SteerRolloutRequest.Verb]
        RESUME: _ClassVar[SteerRolloutRequest.Verb]
        ABORT: _ClassVar[SteerRolloutRequest.Verb]
        RETRY: _ClassVar[SteerRolloutRequest.Verb]
    VERB_UNSPECIFIED: SteerRolloutRequest.Verb
    PAUSE: SteerRolloutRequest.Verb
    RESUME: SteerRolloutRequest.Verb
    ABORT: SteerRolloutRequest.Verb
    RETRY: SteerRolloutRequest.Verb
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    model: str
    verb: SteerRolloutRequest.Verb
    change: Change
    def __init__(self, model: _Optional[str] = ..., verb: _Optional[_Union[SteerRolloutRequest.Verb, str]] = ..., change: _Optional[_Union[Change, _Mapping]] = ...) -> None: ...

class ApproveStepRequest(_message.Message):
    __slots__ = ("model", "step", "change")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    model: str
    step: int
    change: Change
    def __init__(self, model: _Optional[str] = ..., step: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ...) -> None: ...

class RolloutState(_message.Message):
    __slots__ = ("model", "id", "phase", "step", "steps", "revision", "told", "left_ms", "paused_by", "approved_by", "approvers", "evidence", "bound", "harmed", "started_at_us", "judged_at_us", "findings", "stable_version", "canary_version", "capacity", "costs", "strategy", "arms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TOLD_FIELD_NUMBER: _ClassVar[int]
    LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_BY_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    APPROVERS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    HARMED_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_US_FIELD_NUMBER: _ClassVar[int]
    JUDGED_AT_US_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    STABLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CANARY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    model: str
    id: str
    phase: str
    step: int
    steps: int
    revision: int
    told: str
    left_ms: int
    paused_by: str
    approved_by: str
    approvers: _containers.RepeatedScalarFieldContainer[str]
    evidence: float
    bound: float
    harmed: float
    started_at_us: int
    judged_at_us: int
    findings: _containers.RepeatedCompositeFieldContainer[RolloutFinding]
    stable_version: str
    canary_version: str
    capacity: RolloutCapacity
    costs: _containers.RepeatedCompositeFieldContainer[ArmCost]
    strategy: str
    arms: _containers.RepeatedCompositeFieldContainer[BanditArm]
    def __init__(self, model: _Optional[str] = ..., id: _Optional[str] = ..., phase: _Optional[str] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., revision: _Optional[int] = ..., told: _Optional[str] = ..., left_ms: _Optional[int] = ..., paused_by: _Optional[str] = ..., approved_by: _Optional[str] = ..., approvers: _Optional[_Iterable[str]] = ..., evidence: _Optional[float] = ..., bound: _Optional[float] = ..., harmed: _Optional[float] = ..., started_at_us: _Optional[int] = ..., judged_at_us: _Optional[int] = ..., findings: _Optional[_Iterable[_Union[RolloutFinding, _Mapping]]] = ..., stable_version: _Optional[str] = ..., canary_version: _Optional[str] = ..., capacity: _Optional[_Union[RolloutCapacity, _Mapping]] = ..., costs: _Optional[_Iterable[_Union[ArmCost, _Mapping]]] = ..., strategy: _Optional[str] = ..., arms: _Optional[_Iterable[_Union[BanditArm, _Mapping]]] = ...) -> None: ...

class BanditArm(_message.Message):
    __slots__ = ("arm", "version", "percent", "rewards", "counted", "mean", "out")
    ARM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    OUT_FIELD_NUMBER: _ClassVar[int]
    arm: str
    version: str
    percent: float
    rewards: int
    counted: float
    mean: float
    out: str
    def __init__(self, arm: _Optional[str] = ..., version: _Optional[str] = ..., percent: _Optional[float] = ..., rewards: _Optional[int] = ..., counted: _Optional[float] = ..., mean: _Optional[float] = ..., out: _Optional[str] = ...) -> None: ...

class RolloutCapacity(_message.Message):
    __slots__ = ("cores", "now", "at_next", "after_rollback", "next_percent", "assumed")
    CORES_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    AT_NEXT_FIELD_NUMBER: _ClassVar[int]
    AFTER_ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    NEXT_PERCENT_FIELD_NUMBER: _ClassVar[int]
    ASSUMED_FIELD_NUMBER: _ClassVar[int]
    cores: float
    now: float
    at_next: float
    after_rollback: float
    next_percent: float
    assumed: bool
    def __init__(self, cores: _Optional[float] = ..., now: _Optional[float] = ..., at_next: _Optional[float] = ..., after_rollback: _Optional[float] = ..., next_percent: _Optional[float] = ..., assumed: _Optional[bool] = ...) -> None: ...

class ArmCost(_message.Message):
    __slots__ = ("arm", "cpu_seconds_per_1000")
    ARM_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_PER_1000_FIELD_NUMBER: _ClassVar[int]
    arm: str
    cpu_seconds_per_1000: float
    def __init__(self, arm: _Optional[str] = ..., cpu_seconds_per_1000: _Optional[float] = ...) -> None: ...

class RolloutFinding(_message.Message):
    __slots__ = ("kind", "action", "verdict", "evidence", "pass_evidence", "canary", "stable", "canary_events", "stable_events", "ratio_low", "ratio_high", "text")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    PASS_EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    STABLE_FIELD_NUMBER: _ClassVar[int]
    CANARY_EVENTS_FIELD_NUMBER: _ClassVar[int]
    STABLE_EVENTS_FIELD_NUMBER: _ClassVar[int]
    RATIO_LOW_FIELD_NUMBER: _ClassVar[int]
    RATIO_HIGH_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    action: str
    verdict: str
    evidence: float
    pass_evidence: float
    canary: int
    stable: int
    canary_events: int
    stable_events: int
    ratio_low: float
    ratio_high: float
    text: str
    def __init__(self, kind: _Optional[str] = ..., action: _Optional[str] = ..., verdict: _Optional[str] = ..., evidence: _Optional[float] = ..., pass_evidence: _Optional[float] = ..., canary: _Optional[int] = ..., stable: _Optional[int] = ..., canary_events: _Optional[int] = ..., stable_events: _Optional[int] = ..., ratio_low: _Optional[float] = ..., ratio_high: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class SetLabelsRequest(_message.Message):
    __slots__ = ("model", "expected_revision", "change", "wait", "dry_run", "labels", "override")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    model: str
    expected_revision: int
    change: Change
    wait: WaitFor
    dry_run: bool
    labels: _containers.ScalarMap[str, str]
    override: bool
    def __init__(self, model: _Optional[str] = ..., expected_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., dry_run: _Optional[bool] = ..., labels: _Optional[_Mapping[str, str]] = ..., override: _Optional[bool] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("model", "request_id", "key", "metadata", "parameters", "inputs", "id", "requested_version", "bucket", "tenant", "identity", "revision", "method", "record")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Parameter
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Parameter, _Mapping]] = ...) -> None: ...
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    model: str
    request_id: str
    key: str
    metadata: _containers.ScalarMap[str, str]
    parameters: _containers.MessageMap[str, Parameter]
    inputs: _containers.ScalarMap[str, str]
    id: str
    requested_version: str
    bucket: int
    tenant: str
    identity: str
    revision: int
    method: str
    record: LogRow
    def __init__(self, model: _Optional[str] = ..., request_id: _Optional[str] = ..., key: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., parameters: _Optional[_Mapping[str, Parameter]] = ..., inputs: _Optional[_Mapping[str, str]] = ..., id: _Optional[str] = ..., requested_version: _Optional[str] = ..., bucket: _Optional[int] = ..., tenant: _Optional[str] = ..., identity: _Optional[str] = ..., revision: _Optional[int] = ..., method: _Optional[str] = ..., record: _Optional[_Union[LogRow, _Mapping]] = ...) -> None: ...

class Parameter(_message.Message):
    __slots__ = ("text", "whole", "number", "flag")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    text: str
    whole: int
    number: float
    flag: bool
    def __init__(self, text: _Optional[str] = ..., whole: _Optional[int] = ..., number: _Optional[float] = ..., flag: _Optional[bool] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("steps", "decision", "error", "error_code", "served", "row", "agrees", "searched")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    AGREES_FIELD_NUMBER: _ClassVar[int]
    SEARCHED_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    decision: Outcome
    error: str
    error_code: str
    served: Outcome
    row: LogRow
    agrees: bool
    searched: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ..., decision: _Optional[_Union[Outcome, _Mapping]] = ..., error: _Optional[str] = ..., error_code: _Optional[str] = ..., served: _Optional[_Union[Outcome, _Mapping]] = ..., row: _Optional[_Union[LogRow, _Mapping]] = ..., agrees: _Optional[bool] = ..., searched: _Optional[_Iterable[str]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("stage", "outcome", "detail")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    stage: str
    outcome: str
    detail: str
    def __init__(self, stage: _Optional[str] = ..., outcome: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("arm", "version", "revision", "reason", "bucket", "fallbacks", "mirrors")
    ARM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    MIRRORS_FIELD_NUMBER: _ClassVar[int]
    arm: str
    version: str
    revision: int
    reason: str
    bucket: int
    fallbacks: _containers.RepeatedScalarFieldContainer[str]
    mirrors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, arm: _Optional[str] = ..., version: _Optional[str] = ..., revision: _Optional[int] = ..., reason: _Optional[str] = ..., bucket: _Optional[int] = ..., fallbacks: _Optional[_Iterable[str]] = ..., mirrors: _Optional[_Iterable[str]] = ...) -> None: ...

class SimulateRequest(_message.Message):
    __slots__ = ("document_json", "keys", "logged")
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    LOGGED_FIELD_NUMBER: _ClassVar[int]
    document_json: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    logged: int
    def __init__(self, document_json: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ..., logged: _Optional[int] = ...) -> None: ...

class SimulateResponse(_message.Message):
    __slots__ = ("model", "base_revision", "counted", "moved", "other_version", "flows", "left_out", "searched")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BASE_REVISION_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    OTHER_VERSION_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    SEARCHED_FIELD_NUMBER: _ClassVar[int]
    model: str
    base_revision: int
    counted: int
    moved: int
    other_version: int
    flows: _containers.RepeatedCompositeFieldContainer[Flow]
    left_out: int
    searched: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., base_revision: _Optional[int] = ..., counted: _Optional[int] = ..., moved: _Optional[int] = ..., other_version: _Optional[int] = ..., flows: _Optional[_Iterable[_Union[Flow, _Mapping]]] = ..., left_out: _Optional[int] = ..., searched: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("model", "backlog", "after_revision")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    model: str
    backlog: int
    after_revision: int
    def __init__(self, model: _Optional[str] = ..., backlog: _Optional[int] = ..., after_revision: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("at_us", "committed", "worker", "settled", "store_away")
    AT_US_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    STORE_AWAY_FIELD_NUMBER: _ClassVar[int]
    at_us: int
    committed: HistoryEntry
    worker: WorkerChange
    settled: bool
    store_away: str
    def __init__(self, at_us: _Optional[int] = ..., committed: _Optional[_Union[HistoryEntry, _Mapping]] = ..., worker: _Optional[_Union[WorkerChange, _Mapping]] = ..., settled: _Optional[bool] = ..., store_away: _Optional[str] = ...) -> None: ...

class WorkerChange(_message.Message):
    __slots__ = ("worker", "gone")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    worker: Worker
    gone: bool
    def __init__(self, worker: _Optional[_Union[Worker, _Mapping]] = ..., gone: _Optional[bool] = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ("limit", "model", "actor")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    limit: int
    model: str
    actor: str
    def __init__(self, limit: _Optional[int] = ..., model: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class ChainedEntry(_message.Message):
    __slots__ = ("sequence", "operation", "model", "revision", "previous_revision", "restored_revision", "document", "actor", "reason", "source", "at_us", "detail", "before", "hash", "unreadable")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_REVISION_FIELD_NUMBER: _ClassVar[int]
    RESTORED_REVISION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AT_US_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    operation: str
    model: str
    revision: int
    previous_revision: int
    restored_revision: int
    document: str
    actor: str
    reason: str
    source: str
    at_us: int
    detail: str
    before: str
    hash: str
    unreadable: str
    def __init__(self, sequence: _Optional[int] = ..., operation: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[int] = ..., previous_revision: _Optional[int] = ..., restored_revision: _Optional[int] = ..., document: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., source: _Optional[str] = ..., at_us: _Optional[int] = ..., detail: _Optional[str] = ..., before: _Optional[str] = ..., hash: _Optional[str] = ..., unreadable: _Optional[str] = ...) -> None: ...

class AuditChainRequest(_message.Message):
    __slots__ = ("after", "limit")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: int
    limit: int
    def __init__(self, after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class AuditChainResponse(_message.Message):
    __slots__ = ("entries", "trimmed_sequence", "trimmed_hash", "head_sequence", "head_hash", "routes", "noted_sequence", "noted_hash")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    TRIMMED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TRIMMED_HASH_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEAD_HASH_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    NOTED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NOTED_HASH_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[ChainedEntry]
    trimmed_sequence: int
    trimmed_hash: str
    head_sequence: int
    head_hash: str
    routes: _containers.RepeatedCompositeFieldContainer[RecordedRoute]
    noted_sequence: int
    noted_hash: str
    def __init__(self, entries: _Optional[_Iterable[_Union[ChainedEntry, _Mapping]]] = ..., trimmed_sequence: _Optional[int] = ..., trimmed_hash: _Optional[str] = ..., head_sequence: _Optional[int] = ..., head_hash: _Optional[str] = ..., routes: _Optional[_Iterable[_Union[RecordedRoute, _Mapping]]] = ..., noted_sequence: _Optional[int] = ..., noted_hash: _Optional[str] = ...) -> None: ...

class RecordedRoute(_message.Message):
    __slots__ = ("model", "revision", "document")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: int
    document: str
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[int] = ..., document: _Optional[str] = ...) -> None: ...

class DraftRequest(_message.Message):
    __slots__ = ("id", "document_json", "change", "approvals", "edit")
    ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    EDIT_FIELD_NUMBER: _ClassVar[int]
    id: str
    document_json: str
    change: Change
    approvals: int
    edit: int
    def __init__(self, id: _Optional[str] = ..., document_json: _Optional[str] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., approvals: _Optional[int] = ..., edit: _Optional[int] = ...) -> None: ...

class DraftState(_message.Message):
    __slots__ = ("id", "edit", "model", "base_revision", "document_json", "author", "reason", "approvals_needed", "approvals", "state", "edited_at_us", "decided_by", "decision_reason", "revision")
    ID_FIELD_NUMBER: _ClassVar[int]
    EDIT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BASE_REVISION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EDITED_AT_US_FIELD_NUMBER: _ClassVar[int]
    DECIDED_BY_FIELD_NUMBER: _ClassVar[int]
    DECISION_REASON_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    id: str
    edit: int
    model: str
    base_revision: int
    document_json: str
    author: str
    reason: str
    approvals_needed: int
    approvals: _containers.RepeatedScalarFieldContainer[str]
    state: str
    edited_at_us: int
    decided_by: str
    decision_reason: str
    revision: int
    def __init__(self, id: _Optional[str] = ..., edit: _Optional[int] = ..., model: _Optional[str] = ..., base_revision: _Optional[int] = ..., document_json: _Optional[str] = ..., author: _Optional[str] = ..., reason: _Optional[str] = ..., approvals_needed: _Optional[int] = ..., approvals: _Optional[_Iterable[str]] = ..., state: _Optional[str] = ..., edited_at_us: _Optional[int] = ..., decided_by: _Optional[str] = ..., decision_reason: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class GetDraftRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ListDraftsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDraftsResponse(_message.Message):
    __slots__ = ("drafts",)
    DRAFTS_FIELD_NUMBER: _ClassVar[int]
    drafts: _containers.RepeatedCompositeFieldContainer[DraftState]
    def __init__(self, drafts: _Optional[_Iterable[_Union[DraftState, _Mapping]]] = ...) -> None: ...

class ApproveRequest(_message.Message):
    __slots__ = ("id", "edit", "change", "wait", "dry_run", "expected_revision", "override")
    ID_FIELD_NUMBER: _ClassVar[int]
    EDIT_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    id: str
    edit: int
    change: Change
    wait: WaitFor
    dry_run: bool
    expected_revision: int
    override: bool
    def __init__(self, id: _Optional[str] = ..., edit: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., dry_run: _Optional[bool] = ..., expected_revision: _Optional[int] = ..., override: _Optional[bool] = ...) -> None: ...

class ApproveResponse(_message.Message):
    __slots__ = ("draft", "applied")
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    draft: DraftState
    applied: ApplyResponse
    def __init__(self, draft: _Optional[_Union[DraftState, _Mapping]] = ..., applied: _Optional[_Union[ApplyResponse, _Mapping]] = ...) -> None: ...

class RejectRequest(_message.Message):
    __slots__ = ("id", "change")
    ID_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    id: str
    change: Change
    def __init__(self, id: _Optional[str] = ..., change: _Optional[_Union[Change, _Mapping]] = ...) -> None: ...

class HealRequest(_message.Message):
    __slots__ = ("accept_store", "change", "wait", "dry_run", "expected_revision")
    ACCEPT_STORE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    accept_store: bool
    change: Change
    wait: WaitFor
    dry_run: bool
    expected_revision: int
    def __init__(self, accept_store: _Optional[bool] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., dry_run: _Optional[bool] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class HealResponse(_message.Message):
    __slots__ = ("epoch", "revision", "applied_by", "laggards", "replicas", "findings")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_BY_FIELD_NUMBER: _ClassVar[int]
    LAGGARDS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    revision: int
    applied_by: _containers.RepeatedScalarFieldContainer[str]
    laggards: _containers.RepeatedScalarFieldContainer[str]
    replicas: Replicas
    findings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, epoch: _Optional[str] = ..., revision: _Optional[int] = ..., applied_by: _Optional[_Iterable[str]] = ..., laggards: _Optional[_Iterable[str]] = ..., replicas: _Optional[_Union[Replicas, _Mapping]] = ..., findings: _Optional[_Iterable[str]] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("model", "to_revision", "change", "wait", "expected_revision", "dry_run")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TO_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    model: str
    to_revision: int
    change: Change
    wait: WaitFor
    expected_revision: int
    dry_run: bool
    def __init__(self, model: _Optional[str] = ..., to_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., expected_revision: _Optional[int] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class WorkersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Worker(_message.Message):
    __slots__ = ("id", "state", "revision", "digest", "seen_ms_ago", "error", "pid", "boot")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SEEN_MS_AGO_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: str
    revision: int
    digest: str
    seen_ms_ago: int
    error: str
    pid: int
    boot: str
    def __init__(self, id: _Optional[str] = ..., state: _Optional[str] = ..., revision: _Optional[int] = ..., digest: _Optional[str] = ..., seen_ms_ago: _Optional[int] = ..., error: _Optional[str] = ..., pid: _Optional[int] = ..., boot: _Optional[str] = ...) -> None: ...

class WorkersResponse(_message.Message):
    __slots__ = ("workers", "revision")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    revision: int
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class GetOverviewRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetOverviewResponse(_message.Message):
    __slots__ = ("overview_json",)
    OVERVIEW_JSON_FIELD_NUMBER: _ClassVar[int]
    overview_json: str
    def __init__(self, overview_json: _Optional[str] = ...) -> None: ...

class QuotasRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class QuotaUser(_message.Message):
    __slots__ = ("who", "in_flight", "requests_per_second", "requests_left", "bytes_left")
    WHO_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_LEFT_FIELD_NUMBER: _ClassVar[int]
    BYTES_LEFT_FIELD_NUMBER: _ClassVar[int]
    who: str
    in_flight: int
    requests_per_second: int
    requests_left: float
    bytes_left: float
    def __init__(self, who: _Optional[str] = ..., in_flight: _Optional[int] = ..., requests_per_second: _Optional[int] = ..., requests_left: _Optional[float] = ..., bytes_left: _Optional[float] = ...) -> None: ...

class QuotaState(_message.Message):
    __slots__ = ("name", "per", "identities", "tenants", "models", "requests_per_second", "burst", "concurrency", "bytes_per_second", "refused", "users")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PER_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    per: str
    identities: _containers.RepeatedScalarFieldContainer[str]
    tenants: _containers.RepeatedScalarFieldContainer[str]
    models: _containers.RepeatedScalarFieldContainer[str]
    requests_per_second: float
    burst: float
    concurrency: int
    bytes_per_second: float
    refused: int
    users: _containers.RepeatedCompositeFieldContainer[QuotaUser]
    def __init__(self, name: _Optional[str] = ..., per: _Optional[str] = ..., identities: _Optional[_Iterable[str]] = ..., tenants: _Optional[_Iterable[str]] = ..., models: _Optional[_Iterable[str]] = ..., requests_per_second: _Optional[float] = ..., burst: _Optional[float] = ..., concurrency: _Optional[int] = ..., bytes_per_second: _Optional[float] = ..., refused: _Optional[int] = ..., users: _Optional[_Iterable[_Union[QuotaUser, _Mapping]]] = ...) -> None: ...

class QuotasResponse(_message.Message):
    __slots__ = ("quotas", "workers", "trouble")
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    quotas: _containers.RepeatedCompositeFieldContainer[QuotaState]
    workers: int
    trouble: str
    def __init__(self, quotas: _Optional[_Iterable[_Union[QuotaState, _Mapping]]] = ..., workers: _Optional[int] = ..., trouble: _Optional[str] = ...) -> None: ...

class ModelsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ModelVersionState(_message.Message):
    __slots__ = ("model", "version", "state", "reason", "digest", "workers", "in_flight", "newest_ready", "max_batch_size", "merging", "source", "size_bytes", "run_us", "routed", "signature", "publisher", "published_at", "lineage", "trial_memory_bytes", "weights")
    class WorkersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LineageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    NEWEST_READY_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MERGING_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RUN_US_FIELD_NUMBER: _ClassVar[int]
    ROUTED_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PUBLISHER_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_AT_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    TRIAL_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    state: str
    reason: str
    digest: str
    workers: _containers.ScalarMap[str, str]
    in_flight: int
    newest_ready: bool
    max_batch_size: int
    merging: str
    source: str
    size_bytes: int
    run_us: float
    routed: bool
    signature: str
    publisher: str
    published_at: float
    lineage: _containers.ScalarMap[str, str]
    trial_memory_bytes: int
    weights: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., digest: _Optional[str] = ..., workers: _Optional[_Mapping[str, str]] = ..., in_flight: _Optional[int] = ..., newest_ready: _Optional[bool] = ..., max_batch_size: _Optional[int] = ..., merging: _Optional[str] = ..., source: _Optional[str] = ..., size_bytes: _Optional[int] = ..., run_us: _Optional[float] = ..., routed: _Optional[bool] = ..., signature: _Optional[str] = ..., publisher: _Optional[str] = ..., published_at: _Optional[float] = ..., lineage: _Optional[_Mapping[str, str]] = ..., trial_memory_bytes: _Optional[int] = ..., weights: _Optional[str] = ...) -> None: ...

class PassedOver(_message.Message):
    __slots__ = ("path", "reason")
    PATH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    path: str
    reason: str
    def __init__(self, path: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class StepPin(_message.Message):
    __slots__ = ("model", "version", "ensemble", "step", "source")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ENSEMBLE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    ensemble: str
    step: int
    source: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., ensemble: _Optional[str] = ..., step: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class ModelsResponse(_message.Message):
    __slots__ = ("versions", "passed_over", "pins", "trouble")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PASSED_OVER_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersionState]
    passed_over: _containers.RepeatedCompositeFieldContainer[PassedOver]
    pins: _containers.RepeatedCompositeFieldContainer[StepPin]
    trouble: str
    def __init__(self, versions: _Optional[_Iterable[_Union[ModelVersionState, _Mapping]]] = ..., passed_over: _Optional[_Iterable[_Union[PassedOver, _Mapping]]] = ..., pins: _Optional[_Iterable[_Union[StepPin, _Mapping]]] = ..., trouble: _Optional[str] = ...) -> None: ...

class TailLogRequest(_message.Message):
    __slots__ = ("model", "backlog", "follow")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    model: str
    backlog: int
    follow: bool
    def __init__(self, model: _Optional[str] = ..., backlog: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class LogRow(_message.Message):
    __slots__ = ("ts_us", "model", "version", "arm", "revision", "reason", "request_id", "code", "queue_us", "infer_us", "total_us", "rows", "inputs_json", "outputs_json", "worker", "bucket")
    TS_US_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    INFER_US_FIELD_NUMBER: _ClassVar[int]
    TOTAL_US_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_JSON_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_JSON_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    ts_us: int
    model: str
    version: str
    arm: str
    revision: int
    reason: str
    request_id: str
    code: str
    queue_us: int
    infer_us: int
    total_us: int
    rows: int
    inputs_json: str
    outputs_json: str
    worker: str
    bucket: int
    def __init__(self, ts_us: _Optional[int] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., arm: _Optional[str] = ..., revision: _Optional[int] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ..., code: _Optional[str] = ..., queue_us: _Optional[int] = ..., infer_us: _Optional[int] = ..., total_us: _Optional[int] = ..., rows: _Optional[int] = ..., inputs_json: _Optional[str] = ..., outputs_json: _Optional[str] = ..., worker: _Optional[str] = ..., bucket: _Optional[int] = ...) -> None: ...

class SendFeedbackRequest(_message.Message):
    __slots__ = ("items", "source")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[FeedbackItem]
    source: str
    def __init__(self, items: _Optional[_Iterable[_Union[FeedbackItem, _Mapping]]] = ..., source: _Optional[str] = ...) -> None: ...

class FeedbackItem(_message.Message):
    __slots__ = ("token", "model", "request_id", "row_index", "number", "text", "reward", "label_time_us", "source")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ROW_INDEX_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    LABEL_TIME_US_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    token: str
    model: str
    request_id: str
    row_index: int
    number: float
    text: str
    reward: float
    label_time_us: int
    source: str
    def __init__(self, token: _Optional[str] = ..., model: _Optional[str] = ..., request_id: _Optional[str] = ..., row_index: _Optional[int] = ..., number: _Optional[float] = ..., text: _Optional[str] = ..., reward: _Optional[float] = ..., label_time_us: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class SendFeedbackResponse(_message.Message):
    __slots__ = ("accepted", "received_at_us")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_US_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    received_at_us: int
    def __init__(self, accepted: _Optional[int] = ..., received_at_us: _Optional[int] = ...) -> None: ...

class ServerVersionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerVersionResponse(_message.Message):
    __slots__ = ("version", "worker", "python", "onnxruntime", "transport")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    ONNXRUNTIME_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    version: str
    worker: str
    python: str
    onnxruntime: str
    transport: str
    def __init__(self, version: _Optional[str] = ..., worker: _Optional[str] = ..., python: _Optional[str] = ..., onnxruntime: _Optional[str] = ..., transport: _Optional[str] = ...) -> None: ...
