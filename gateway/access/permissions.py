"""Which role every method and page needs: the one table. What is not in it is refused, and a server does not start.

Source: docs/security.md shows the same table; a test compares.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from gateway.access.principal import Role


class Scope(StrEnum):
    """Where a method's model is named, and so where the role is checked once more, for that model."""

    SERVER = "the server"  # no model: the role on any model is enough
    EVERYWHERE = "all models"  # the role on all models is needed
    FIELD = "the request's field"
    DOCUMENT = "the route document"
    DRAFT = "the draft"
    HANDLER = "each item"  # by the handler, for each request of a stream or item of a request


class Permission(NamedTuple):
    """What a method needs: one of the roles, on the models that its scope names. No roles: open to all.

    `field` names the model in the request, by a path with dots; an empty model means all models, of which the answer
    shows those that the caller knows. `listed` are the answer's lists of things that have a model each, with the path
    to its name. With a `prefix` the field names a model only where it begins so.
    `hidden` are texts of the answer that may name any model: only who knows all models is shown them.
    """

    roles: frozenset[Role]
    scope: Scope = Scope.SERVER
    field: str = ""
    listed: tuple[tuple[str, str], ...] = ()
    hidden: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def names_models(self) -> bool:
        """Whether a request or its answer names models, so that more is to be checked than the role."""
        return self.scope in (Scope.FIELD, Scope.DOCUMENT, Scope.DRAFT, Scope.HANDLER) or bool(
            self.listed or self.hidden
        )

    @property
    def is_open(self) -> bool:
        return not self.roles


def _need(
    *roles: Role,
    scope: Scope = Scope.SERVER,
    field: str = "",
    listed: tuple[tuple[str, str], ...] = (),
    hidden: tuple[str, ...] = (),
) -> Permission:
    return Permission(frozenset(roles), Scope.FIELD if field else scope, field, listed, hidden)


_INFER: Final = Role.INFER
_READER: Final = Role.READER
_OPERATOR: Final = Role.OPERATOR
_SERVICES: Final[Mapping[str, Mapping[str, Permission]]] = {
    "inference.GRPCInferenceService": {
        "ServerLive": _need(),
        "ServerReady": _need(),
        "ServerMetadata": _need(_INFER, _READER),
        "ModelReady": _need(_INFER, _READER, field="name"),
        "ModelMetadata": _need(_INFER, _READER, field="name"),
        "ModelConfig": _need(_INFER, _READER, field="name"),
        "ModelInfer": _need(_INFER, scope=Scope.HANDLER),
        "ModelStreamInfer": _need(_INFER, scope=Scope.HANDLER),
        "ModelStatistics": _need(_READER, field="name", listed=(("model_stats", "name"),)),
        "RepositoryIndex": _need(_READER, listed=(("models", "name"),)),
        "RepositoryModelLoad": _need(_OPERATOR, field="model_name"),
        "RepositoryModelUnload": _need(_OPERATOR, field="model_name"),
        # There is never any shared memory; Triton's clients ask for it all the same.
        "SystemSharedMemoryStatus": _need(_INFER, _READER),
        "SystemSharedMemoryRegister": _need(_INFER),
        "SystemSharedMemoryUnregister": _need(_INFER),
        "CudaSharedMemoryStatus": _need(_INFER, _READER),
        "CudaSharedMemoryRegister": _need(_INFER),
        "CudaSharedMemoryUnregister": _need(_INFER),
        "TraceSetting": _need(_READER, field="model_name"),
        "LogSettings": _need(_READER),
    },
    "tensorflow.serving.PredictionService": {
        "Classify": _need(_INFER, scope=Scope.HANDLER),
        "Regress": _need(_INFER, scope=Scope.HANDLER),
        "Predict": _need(_INFER, scope=Scope.HANDLER),
        "MultiInference": _need(_INFER),  # never served
        "GetModelMetadata": _need(_INFER, _READER, field="model_spec.name"),
    },
    "tensorflow.serving.ModelService": {
        "GetModelStatus": _need(_INFER, _READER, field="model_spec.name"),
    },
    "gateway.v1.Control": {
        "Apply": _need(_OPERATOR, scope=Scope.DOCUMENT),
        "GetRoute": _need(_READER, field="model"),
        "ListRoutes": _need(_READER, listed=(("routes", "model"),)),
        "DeleteRoute": _need(_OPERATOR, field="model"),
        "History": _need(_READER, field="model"),
        "Rollback": _need(_OPERATOR, field="model"),
        "Workers": _need(_READER, hidden=("workers.error",)),
        "Models": _need(
            _READER,
            field="model",
            listed=(("versions", "model"), ("passed_over", "path"), ("pins", "model")),
            hidden=("pins.ensemble", "pins.source", "trouble"),  # of whatever models and repositories
        ),
        "TailLog": _need(_READER, field="model", listed=(("", "model"),)),
        "SendFeedback": _need(_INFER, scope=Scope.HANDLER),
        "ServerVersion": _need(_INFER, _READER),
        "GetOverview": _need(_READER),  # each part holds what its own method shows the caller
        "Quotas": _need(_READER, scope=Scope.EVERYWHERE),
        "Plan": _need(_READER, scope=Scope.DOCUMENT),
        "ShowRevision": _need(_READER, field="model"),
        "Diff": _need(_READER, field="model"),
        "Flip": _need(_OPERATOR, field="model"),
        "SetWeights": _need(_OPERATOR, field="model"),
        "Pin": _need(_OPERATOR, field="model"),
        "Kill": _need(_OPERATOR, field="model"),
        "Unkill": _need(_OPERATOR, field="model"),
        "Promote": _need(_OPERATOR, field="model"),
        "SetLabels": _need(_OPERATOR, field="model"),
        "GetRollout": _need(_READER, field="model"),
        "ListRollouts": _need(_READER, listed=(("rollouts", "model"),)),
        "SteerRollout": _need(_OPERATOR, field="model"),
        "ApproveStep": _need(Role.APPROVER, field="model"),
        "Explain": _need(_READER, field="model"),
        "Simulate": _need(_READER, scope=Scope.DOCUMENT),
        "Watch": _need(
            _READER, field="model", listed=(("", "committed.model"),), hidden=("worker.worker.error", "store_away")
        ),
        "Audit": _need(_READER, field="model", listed=(("entries", "model"),)),
        "AuditChain": _need(_READER, scope=Scope.EVERYWHERE),
        # Who only approves may write drafts too, for others to approve: four eyes without any operator.
        "Draft": _need(_OPERATOR, Role.APPROVER, scope=Scope.DOCUMENT),
        "GetDraft": _need(_READER, scope=Scope.DRAFT),
        "ListDrafts": _need(_READER, listed=(("drafts", "model"),)),
        "Approve": _need(Role.APPROVER, scope=Scope.DRAFT),
        "Reject": _need(Role.APPROVER, _OPERATOR, scope=Scope.DRAFT),
        "Heal": _need(Role.ADMIN, scope=Scope.EVERYWHERE),
    },
    # Clients ask for it on their own, without a token.
    "xds.service.orca.v3.OpenRcaService": {"StreamCoreMetrics": _need()},
    # A model's own health, `model/NAME`, is told to those who know the model.
    "grpc.health.v1.Health": {
        "Check": Permission(frozenset(), Scope.FIELD, "service", prefix="model/"),
        "Watch": Permission(frozenset(), Scope.FIELD, "service", prefix="model/"),
    },
    "grpc.reflection.v1.ServerReflection": {"ServerReflectionInfo": _need(_READER)},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _need(_READER)},
}
RPCS: Final[Mapping[str, Permission]] = MappingProxyType(
    {
        f"/{service}/{method}": permission
        for service, methods in _SERVICES.items()
        for method, permission in methods.items()
    }
)
# The operators' port. What is read there names models of all tenants.
PAGES: Final[Mapping[str, Permission]] = MappingProxyType(
    {
        "/healthz": _need(),
        "/readyz": _need(),
        "/metrics": _need(_READER, scope=Scope.EVERYWHERE),
        "/events": _need(_READER, scope=Scope.EVERYWHERE),
        "/openapi.json": _need(),
        "/api/v1/drift": _need(_READER, scope=Scope.EVERYWHERE),
        # The operators' page: who has not logged in is asked to. What it shows and does is checked once more by the
        # control service, in the reader's name.
        "/": _need(),
        "/page/static": _need(),
        "/page/login": _need(),
        "/page/logout": _need(),
        "/page/stream": _need(_READER),
        "/page/overview": _need(_READER),
        "/page/predictions": _need(_READER),
        "/page/explain": _need(_READER),
        "/page/diff": _need(_READER),
        "/page/rollback": _need(_OPERATOR),
    }
)
PERMISSIONS: Final[Mapping[str, Permission]] = MappingProxyType({**RPCS, **PAGES})


def check_registered(paths: Iterable[str], table: Mapping[str, Permission]) -> None:
    """Checks that the table has a permission for everything that is served.

    Raises: TypeError naming what is missing, so that a server with a gap does not start.
    """
    if missing := sorted(set(paths) - table.keys()):
        raise TypeError(f"gateway/access/permissions.py says of none of these who may call it: {', '.join(missing)}")
