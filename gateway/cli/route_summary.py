"""A summary of a route in a line or two: its shares, and everything else that decides."""

import grpc

from gateway.page.route_words import also_decides, arms_text, in_force_text
from gateway.pb import control_pb2, control_pb2_grpc

_UNREADABLE = "not readable by this command"  # a newer gateway wrote it: the rest of the page is shown all the same


def summary(route: control_pb2.Route) -> str:
    """Returns the whole route in one line."""
    return "; ".join([arms_text(route), *also_decides(in_force_text(route))])


def in_force(route: control_pb2.Route, *, dry_run: bool = False) -> str:
    """Returns the shares after a change, or those that it would give."""
    return f"{route.model}: {'would be in force' if dry_run else 'in force now'}: {summary(route)}"


def in_force_of(stub: control_pb2_grpc.ControlStub, model: str) -> str:
    """Asks the server what is in force for a model. If it does not answer, the change was made all the same."""
    try:
        return in_force(stub.GetRoute(control_pb2.GetRouteRequest(model=model), timeout=10))
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
        if code is grpc.StatusCode.NOT_FOUND:
            return f"{model}: in force now: no route; its newest ready version answers"
        return f"{model}: what is in force now could not be asked ({code.name}): gateway routes get {model}"
