from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Route(_message.Message):
    __slots__ = ("model", "revision", "document_json", "table", "digest", "committed_at_us")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_US_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: int
    document_json: str
    table: _containers.RepeatedCompositeFieldContainer[Interval]
    digest: str
    committed_at_us: int
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[int] = ..., document_json: _Optional[str] = ..., table: _Optional[_Iterable[_Union[Interval, _Mapping]]] = ..., digest: _Optional[str] = ..., committed_at_us: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("actor", "reason", "source", "idempotency_key")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    actor: str
    reason: str
    source: str
    idempotency_key: str
    def __init__(self, actor: _Optional[str] = ..., reason: _Optional[str] = ..., source: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class WaitFor(_message.Message):
    __slots__ = ("applied", "timeout_ms")
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    applied: bool
    timeout_ms: int
    def __init__(self, applied: _Optional[bool] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("document_json", "expected_revision", "change", "wait", "dry_run")
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    document_json: str
    expected_revision: int
    change: Change
    wait: WaitFor
    dry_run: bool
    def __init__(self, document_json: _Optional[str] = ..., expected_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

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
    __slots__ = ("model", "revision", "previous_revision", "epoch", "commit_us", "applied_us", "applied_by", "laggards", "unchanged", "restored_revision")
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
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[int] = ..., previous_revision: _Optional[int] = ..., epoch: _Optional[str] = ..., commit_us: _Optional[int] = ..., applied_us: _Optional[int] = ..., applied_by: _Optional[_Iterable[str]] = ..., laggards: _Optional[_Iterable[str]] = ..., unchanged: _Optional[bool] = ..., restored_revision: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("model", "expected_revision", "change", "wait")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    model: str
    expected_revision: int
    change: Change
    wait: WaitFor
    def __init__(self, model: _Optional[str] = ..., expected_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("model", "limit")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    model: str
    limit: int
    def __init__(self, model: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("revision", "previous_revision", "operation", "actor", "reason", "source", "committed_at_us", "digest", "document_json")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_REVISION_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_US_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    revision: int
    previous_revision: int
    operation: str
    actor: str
    reason: str
    source: str
    committed_at_us: int
    digest: str
    document_json: str
    def __init__(self, revision: _Optional[int] = ..., previous_revision: _Optional[int] = ..., operation: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., source: _Optional[str] = ..., committed_at_us: _Optional[int] = ..., digest: _Optional[str] = ..., document_json: _Optional[str] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("model", "to_revision", "change", "wait")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TO_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    model: str
    to_revision: int
    change: Change
    wait: WaitFor
    def __init__(self, model: _Optional[str] = ..., to_revision: _Optional[int] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., wait: _Optional[_Union[WaitFor, _Mapping]] = ...) -> None: ...

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

class ModelsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ModelVersionState(_message.Message):
    __slots__ = ("model", "version", "state", "reason", "digest", "workers", "in_flight", "newest_ready", "max_batch_size")
    class WorkersEntry(_message.Message):
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
    model: str
    version: str
    state: str
    reason: str
    digest: str
    workers: _containers.ScalarMap[str, str]
    in_flight: int
    newest_ready: bool
    max_batch_size: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., digest: _Optional[str] = ..., workers: _Optional[_Mapping[str, str]] = ..., in_flight: _Optional[int] = ..., newest_ready: _Optional[bool] = ..., max_batch_size: _Optional[int] = ...) -> None: ...

class ModelsResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersionState]
    def __init__(self, versions: _Optional[_Iterable[_Union[ModelVersionState, _Mapping]]] = ...) -> None: ...

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
    __slots__ = ("ts_us", "model", "version", "arm", "revision", "reason", "request_id", "code", "queue_us", "infer_us", "total_us", "rows", "inputs_json", "outputs_json", "worker")
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
    def __init__(self, ts_us: _Optional[int] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., arm: _Optional[str] = ..., revision: _Optional[int] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ..., code: _Optional[str] = ..., queue_us: _Optional[int] = ..., infer_us: _Optional[int] = ..., total_us: _Optional[int] = ..., rows: _Optional[int] = ..., inputs_json: _Optional[str] = ..., outputs_json: _Optional[str] = ..., worker: _Optional[str] = ...) -> None: ...

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
