"""The options of the commands that send load, and what they make of a scenario."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gateway.cli.credential import read_credential
from gateway.cli.exits import Failure
from gateway.errors import InvalidArgument
from loadtests.job.budget import Budget, parse_budget
from loadtests.job.quantity import bytes_of, seconds_of
from loadtests.job.scenario_plan import (
    PROTOCOLS,
    InputPlan,
    KeyPlan,
    PayloadPlan,
    Scenario,
    TrafficPlan,
)
from loadtests.job.target import LoadTarget

_REST_PORT: Final = 8000


def add_target(parser: Any) -> None:
    """Adds where the server is and how it is reached."""
    group = parser.add_argument_group("server")
    group.add_argument("--server", default="127.0.0.1:8001", help="host:port of gRPC [127.0.0.1:8001].")
    group.add_argument("--rest", default="", help="host:port of REST [the host of --server, port 8000].")
    group.add_argument(
        "--control", default="", help="host:port of the control service, where it has its own [--server]."
    )
    group.add_argument("--tls", action="store_true", help="TLS, by the system's authorities.")
    for name, what in (("ca", "authorities to trust"), ("cert", "certificate to show"), ("key", "key of --tls-cert")):
        group.add_argument(
            f"--tls-{name}",
            default=os.environ.get(f"GATEWAY_CLI_TLS_{name.upper()}", ""),
            help=f"PEM file: {what}; or GATEWAY_CLI_TLS_{name.upper()} in the environment.",
        )
    group.add_argument(
        "--tls-name",
        default=os.environ.get("GATEWAY_CLI_TLS_NAME", ""),
        help="The name in the server's certificate, where it is another; or GATEWAY_CLI_TLS_NAME.",
    )
    group.add_argument(
        "--token-file",
        type=Path,
        default=os.environ.get("GATEWAY_TOKEN_FILE") or None,
        help="Holds a token; or GATEWAY_TOKEN in the environment.",
    )
    group.add_argument("--insecure", action="store_true", help="Send the token in plain text to another host, too.")


def target_from(options: argparse.Namespace, server: str = "", rest: str = "") -> LoadTarget:
    """Returns the server that the options name. Raises: InvalidArgument."""
    try:
        token = read_credential(options.token_file, insecure=options.insecure).token
    except Failure as error:
        raise InvalidArgument(f"--token-file: {error}") from None
    address = server or options.server
    rest = rest or (options.rest if not server else "") or f"{address.rpartition(':')[0]}:{_REST_PORT}"
    return LoadTarget(
        server=address,
        rest=rest,
        control=options.control if not server else "",
        secure=options.tls or bool(options.tls_ca or options.tls_cert),
        ca=options.tls_ca,
        certificate=options.tls_cert,
        key=options.tls_key,
        name=options.tls_name,
        token=token,
        insecure=options.insecure,
    )


def add_load(parser: Any) -> None:
    """Adds what changes a scenario: model, rate, time, payload, budgets."""
    group = parser.add_argument_group("load")
    group.add_argument("--model", action="append", default=[], help="The model; again for a scenario of several.")
    group.add_argument("--version", default="", help="Ask for this version, past every route.")
    group.add_argument("--protocol", choices=PROTOCOLS, help="Of all traffic.")
    group.add_argument("--rate", type=float, help="Highest calls per second of all traffic; its course stays.")
    group.add_argument("--seconds", type=float, help="Measured time.")
    group.add_argument("--warm-up", type=float, help="Seconds before that are not measured.")
    group.add_argument("--connections", type=int, help="Of each traffic.")
    group.add_argument("--deadline", help="Of a call, such as 500ms.")
    group.add_argument("--header", action="append", default=[], metavar="NAME=VALUE", help="Sent with every call.")
    group.add_argument("--key", metavar="NAME[=COUNT]", help="Metadata with a routing key, one of COUNT [100000].")
    group.add_argument("--versions", metavar="OLD,NEW", help="Between which routes change [the newest two].")
    group.add_argument("--processes", type=int, default=1, help="Sender processes on this host [1].")
    group.add_argument("--seed", type=int, default=1, help="The same seed sends the same calls at the same times.")
    group = parser.add_argument_group("payload")
    group.add_argument("--inputs", type=Path, help="File of inputs: .npz, .json, .jsonl.")
    group.add_argument("--log", type=Path, metavar="DATA_DIR", help="Inputs from a gateway's prediction log.")
    group.add_argument("--rows", type=int, help="Rows of a request.")
    group.add_argument("--bytes", help="Make requests at least so long, such as 1MiB.")
    group.add_argument(
        "--shape", action="append", default=[], metavar="INPUT=1,128", help="Of an input with free axes."
    )
    group = parser.add_argument_group("verdict")
    group.add_argument(
        "--budget", action="append", default=[], metavar="NAME=VALUE", help="failures=0.1%%, p99=50ms, ..."
    )
    group.add_argument("--baseline", type=Path, help="report.json of an earlier run of the same job.")
    group.add_argument(
        "--undecided", choices=["pass", "fail"], default="pass", help="What noise makes of a budget [pass]."
    )


def scenario_from(scenario: Scenario, options: argparse.Namespace) -> Scenario:
    """Returns the scenario as the options change it. Raises: InvalidArgument, naming the option."""
    if options.seconds is not None:
        if options.seconds < 1:
            raise InvalidArgument("--seconds: 1 or more")
        scenario = replace(scenario, seconds=options.seconds)
    if options.warm_up is not None:
        scenario = replace(scenario, warm_up_s=max(0.0, options.warm_up))
    if options.processes < 1:
        raise InvalidArgument("--processes: 1 or more")
    scenario = replace(scenario, traffic=tuple(_traffic(one, options) for one in scenario.traffic))
    scenario = scenario.for_models(options.model)
    if options.rate is not None:
        if options.rate <= 0:
            raise InvalidArgument("--rate: more than 0")
        scenario = scenario.at_rate(options.rate)
    if options.versions is not None:
        versions = tuple(options.versions.split(","))
        if scenario.change is None or len(set(versions)) != 2:
            raise InvalidArgument("--versions: two different ones, of a scenario that changes routes")
        scenario = replace(scenario, change=replace(scenario.change, versions=versions))
    return replace(scenario, budgets=_budgets(scenario.budgets, options.budget))


def _traffic(traffic: TrafficPlan, options: argparse.Namespace) -> TrafficPlan:
    changes: dict[str, Any] = {"payload": _payload(traffic.payload, options)}
    if options.version:
        changes["version"] = options.version
    if options.protocol:
        changes["protocol"] = options.protocol
    if options.connections is not None:
        if options.connections < 1:
            raise InvalidArgument("--connections: 1 or more")
        changes["connections"] = options.connections
    if options.deadline:
        changes["deadline_s"] = seconds_of(options.deadline, "--deadline")
    if options.header:
        pairs = [_pair(text, "--header") for text in options.header]
        changes["headers"] = dict(traffic.headers) | dict(pairs)
    if options.key:
        name, _, count = options.key.partition("=")
        if count and not count.isdigit():
            raise InvalidArgument(f"--key: {count!r} is no number of keys")
        changes["key"] = KeyPlan(name, int(count or 100_000))
    return replace(traffic, **changes)


def _payload(payload: PayloadPlan, options: argparse.Namespace) -> PayloadPlan:
    if options.inputs and options.log:
        raise InvalidArgument("--inputs and --log: one of them")
    if options.rows is not None:
        if options.rows < 1:
            raise InvalidArgument("--rows: 1 or more")
        payload = replace(payload, rows=options.rows)
    if options.inputs:
        return replace(payload, source="file", path=str(options.inputs.absolute()))
    if options.log:
        return replace(payload, source="log", path=str(options.log.absolute()), distinct=10_000)
    if options.bytes:
        payload = replace(payload, size_bytes=bytes_of(options.bytes, "--bytes"))
    inputs = dict(payload.inputs)
    for text in options.shape:
        name, sizes = _pair(text, "--shape")
        if not all(size.isdigit() for size in sizes.split(",")):
            raise InvalidArgument(f"--shape: {sizes!r} is not sizes with commas between")
        shape = tuple(int(size) for size in sizes.split(","))
        inputs[name] = replace(inputs.get(name, InputPlan()), shape=shape)
    return replace(payload, inputs=inputs)


def _budgets(budgets: Sequence[Budget], texts: Sequence[str]) -> tuple[Budget, ...]:
    """Returns the budgets with those of the command line in place of those that limit the same."""
    given = [parse_budget(name, value, "--budget") for name, value in (_pair(text, "--budget") for text in texts)]
    replaced = {(one.name, one.relative) for one in given}
    return (*(one for one in budgets if one.traffic or (one.name, one.relative) not in replaced), *given)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise InvalidArgument(f"{option}: {text!r} is not NAME=VALUE")
    return name, value
