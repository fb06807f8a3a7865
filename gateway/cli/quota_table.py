"""gateway quotas: the limits of the quota file, and what is in use of them now."""

from gateway.cli.client import control
from gateway.cli.printing import Format, counted, show
from gateway.cli.shared_options import DEFAULT_SERVER, Output, Server
from gateway.page.message_values import Value
from gateway.pb import control_pb2

COLUMNS = ("QUOTA", "WHO", "MODELS", "LIMIT", "SHARE", "IN FLIGHT", "PER SECOND", "LEFT", "REFUSED")


def quotas(server: Server = DEFAULT_SERVER, output: Output = Format.TABLE) -> None:
    """Print each quota of the host, each worker's share of it, and what is in use now, summed over the workers."""
    with control(server) as stub:
        answer = stub.Quotas(control_pb2.QuotasRequest(), timeout=10)
    value: Value = {"workers": answer.workers, "trouble": answer.trouble, "quotas": list(map(_value, answer.quotas))}
    trouble = [f"{answer.trouble}; what was in force stays"] if answer.trouble else []
    show(
        value,
        output,
        columns=COLUMNS,
        rows=[row for quota in answer.quotas for row in _rows(quota, answer.workers)],
        note=[f"summed over {counted(answer.workers, 'worker')}; SHARE is what each of them enforces", *trouble],
    )


def _rows(quota: control_pb2.QuotaState, workers: int) -> list[tuple[str, ...]]:
    """Returns a row for each of those who use the quota, and one for a quota that nobody uses."""
    users = list(quota.users) or [control_pb2.QuotaUser(who="", requests_left=1, bytes_left=1)]
    limits, share = _limits(quota, 1), _limits(quota, max(1, workers))
    return [
        (
            quota.name,
            f"{quota.per} {user.who}" if quota.per and user.who else _who(quota),
            " ".join(quota.models) or "all",
            limits,
            share,
            str(user.in_flight),
            str(user.requests_per_second),
            f"{100 * min(user.requests_left, user.bytes_left):.0f} %",
            str(quota.refused) if not position else "",
        )
        for position, user in enumerate(users)
    ]


def _who(quota: control_pb2.QuotaState) -> str:
    return " ".join([*quota.identities, *quota.tenants]) or "everybody"


def _limits(quota: control_pb2.QuotaState, workers: int) -> str:
    limits = []
    if quota.requests_per_second:
        limits.append(f"{quota.requests_per_second / workers:g}/s")
    if quota.concurrency:
        limits.append(f"{max(1, quota.concurrency // workers)} at a time")
    if quota.bytes_per_second:
        limits.append(f"{quota.bytes_per_second / workers:g} bytes/s")
    return ", ".join(limits)


def _value(quota: control_pb2.QuotaState) -> Value:
    return {
        "name": quota.name,
        "per": quota.per,
        "identities": list(quota.identities),
        "tenants": list(quota.tenants),
        "models": list(quota.models),
        "requests_per_second": quota.requests_per_second,
        "burst": quota.burst,
        "concurrency": quota.concurrency,
        "bytes_per_second": quota.bytes_per_second,
        "refused": quota.refused,
        "users": [
            {
                "who": user.who,
                "in_flight": user.in_flight,
                "requests_per_second": user.requests_per_second,
                "requests_left": round(user.requests_left, 3),
                "bytes_left": round(user.bytes_left, 3),
            }
            for user in quota.users
        ],
    }
