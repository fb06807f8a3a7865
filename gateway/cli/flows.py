"""Flows of keys between arms, as tables and for machines."""

from collections.abc import Iterable

from gateway.page.message_values import Value
from gateway.pb import control_pb2

ABSENT = "-"
FLOW_COLUMNS = ("FROM ARM", "VERSION", "TO ARM", "VERSION", "SHARE")


def flow_rows(flows: Iterable[control_pb2.Flow], total: int = 1_000_000) -> list[list[Value]]:
    """Returns the flows under FLOW_COLUMNS. Units: sizes are shares of `total`."""
    return [
        [
            flow.from_arm or ABSENT,
            flow.from_version or ABSENT,
            flow.to_arm or ABSENT,
            flow.to_version or ABSENT,
            f"{100 * flow.size / max(total, 1):g} %",
        ]
        for flow in flows
    ]


def flows_value(flows: Iterable[control_pb2.Flow]) -> list[Value]:
    """Returns the flows for machines."""
    return [
        {
            "from_arm": flow.from_arm,
            "from_version": flow.from_version,
            "to_arm": flow.to_arm,
            "to_version": flow.to_version,
            "size": flow.size,
        }
        for flow in flows
    ]


def moved_text(
    answer: control_pb2.PlanResponse | control_pb2.DiffResponse | control_pb2.ChangeResponse,
) -> str:
    """Returns how many keys move, for people."""
    return (
        f"{answer.moved_buckets / 10_000:g} % of the keys change their arm, "
        f"{answer.version_buckets / 10_000:g} % their version"
    )
