"""Operators' methods over HTTP: the one table of methods and paths of `gateway.v1.Control`.

A method that is not named here is served all the same, at `POST /api/v1/<name-in-lower-case>`; one that streams is not,
but for what the table collects or follows. Who may call what is said by `access.permissions`, as for gRPC.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from gateway.api.naming import shown
from gateway.errors import InvalidArgument
from gateway.pb import control_pb2
from gateway.rest.json_text import read_object
from gateway.rest.message_json import fill

CONTROL_SERVICE: Final = control_pb2.DESCRIPTOR.services_by_name["Control"]
_ROOT: Final = "/api/v1"
_NAME: Final = re.compile(r"\{(\w+)\}")
_CAPITAL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


class ControlPath(NamedTuple):
    """One row. `{names}` in the path are fields of the request; those of a GET that are not in it go into the query.

    `collects`: the method streams and ends by itself; its messages are sent as a list of this name. `fixed`: fields
    that are set to let it end. `follows`: it streams and goes on; its messages are sent as server-sent events.
    """

    method: str
    path: str
    rpc: str
    collects: str = ""
    fixed: tuple[tuple[str, Any], ...] = ()
    follows: bool = False

    @property
    def permission(self) -> str:
        return f"/{CONTROL_SERVICE.full_name}/{self.rpc}"

    @property
    def names(self) -> tuple[str, ...]:
        """The fields of the request that the path names, in its order."""
        return tuple(_NAME.findall(self.path))

    @property
    def input(self) -> Any:
        return CONTROL_SERVICE.methods_by_name[self.rpc].input_type

    @property
    def output(self) -> Any:
        return CONTROL_SERVICE.methods_by_name[self.rpc].output_type

    @property
    def fields(self) -> tuple[Any, ...]:
        """What is given in the query of a GET, and in the body of the others."""
        taken = {*self.names, *(name for name, _ in self.fixed)}
        return tuple(field for field in self.input.fields if field.name not in taken)

    def request(self, names: tuple[str, ...], query: str, body: bytes | memoryview) -> Any:
        """Returns the method's request. Raises: InvalidArgument."""
        if self.method == "GET":
            if len(body):
                raise InvalidArgument("a GET has no body: give fields in the query")
            given = self._of_query(query)
        else:
            if query:
                raise InvalidArgument("give fields in the body, not in the query")
            given = read_object(body)
        message = getattr(control_pb2, self.input.name)()
        for name, value in (*zip(self.names, names, strict=True), *self.fixed):
            if given.setdefault(name, value) != value:
                raise InvalidArgument(f"{name} is {shown(str(given[name]))} and {shown(str(value))} in the path")
        fill(message, given)
        return message

    def _of_query(self, query: str) -> dict[str, Any]:
        allowed = {field.name: field for field in self.fields}
        given: dict[str, Any] = {}
        for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=64):
            field = allowed.get(name)
            if field is None:
                raise InvalidArgument(f"unknown field {shown(name)}: {', '.join(allowed) or 'none'} can be given")
            if name in given:
                raise InvalidArgument(f"{name} is given twice")
            given[name] = value if field.cpp_type == field.CPPTYPE_STRING else _scalar(name, field, value)
        return given


def _scalar(name: str, field: Any, value: str) -> Any:
    if field.cpp_type == field.CPPTYPE_BOOL:
        if value not in ("true", "false"):
            raise InvalidArgument(f"{name} is {shown(value)}: true or false is expected")
        return value == "true"
    if re.fullmatch(r"-?[0-9]{1,20}", value) is None:
        raise InvalidArgument(f"{name} is {shown(value)}: a whole number is expected")
    return int(value)


_ROWS: Final = (
    ControlPath("GET", "/routes", "ListRoutes"),
    ControlPath("POST", "/routes", "Apply"),
    ControlPath("GET", "/routes/{model}", "GetRoute"),
    ControlPath("DELETE", "/routes/{model}", "DeleteRoute"),
    ControlPath("GET", "/routes/{model}/history", "History"),
    ControlPath("GET", "/routes/{model}/revisions/{revision}", "ShowRevision"),
    ControlPath("GET", "/routes/{model}/diff", "Diff"),
    ControlPath("POST", "/routes/{model}/rollback", "Rollback"),
    ControlPath("POST", "/routes/{model}/flip", "Flip"),
    ControlPath("POST", "/routes/{model}/weights", "SetWeights"),
    ControlPath("POST", "/routes/{model}/pin", "Pin"),
    ControlPath("POST", "/routes/{model}/kill", "Kill"),
    ControlPath("POST", "/routes/{model}/unkill", "Unkill"),
    ControlPath("POST", "/routes/{model}/promote", "Promote"),
    ControlPath("POST", "/routes/{model}/labels", "SetLabels"),
    ControlPath("POST", "/routes/{model}/explain", "Explain"),
    ControlPath("POST", "/plan", "Plan"),
    ControlPath("POST", "/simulate", "Simulate"),
    ControlPath("GET", "/rollouts", "ListRollouts"),
    ControlPath("GET", "/rollouts/{model}", "GetRollout"),
    ControlPath("POST", "/rollouts/{model}/steer", "SteerRollout"),
    ControlPath("POST", "/rollouts/{model}/approve", "ApproveStep"),
    ControlPath("GET", "/drafts", "ListDrafts"),
    ControlPath("POST", "/drafts", "Draft"),
    ControlPath("GET", "/drafts/{id}", "GetDraft"),
    ControlPath("POST", "/drafts/{id}/approve", "Approve"),
    ControlPath("POST", "/drafts/{id}/reject", "Reject"),
    ControlPath("GET", "/audit", "Audit"),
    ControlPath("GET", "/audit/chain", "AuditChain"),
    ControlPath("GET", "/models", "Models"),
    ControlPath("GET", "/workers", "Workers"),
    ControlPath("GET", "/watch", "Watch", follows=True),
    ControlPath("GET", "/version", "ServerVersion"),
    ControlPath("GET", "/quotas", "Quotas"),
    ControlPath("GET", "/log", "TailLog", "rows", (("follow", False),)),
    ControlPath("POST", "/feedback", "SendFeedback"),
    ControlPath("POST", "/heal", "Heal"),
)


def _every() -> Iterator[ControlPath]:
    """Raises: TypeError (the table names a method that the proto has not, or collects one that does not stream)."""
    methods = CONTROL_SERVICE.methods_by_name
    named = {row.rpc for row in _ROWS}
    for row in _ROWS:
        method = methods.get(row.rpc)
        if method is None or method.server_streaming != (bool(row.collects) or row.follows):
            raise TypeError(f"{row.rpc} is not a method of {CONTROL_SERVICE.full_name} of this kind")
        yield row._replace(path=_ROOT + row.path)
    for name, method in methods.items():
        if name not in named and not method.server_streaming:
            yield ControlPath("POST", f"{_ROOT}/{_CAPITAL.sub('-', name).lower()}", name)


CONTROL_PATHS: Final = tuple(_every())
