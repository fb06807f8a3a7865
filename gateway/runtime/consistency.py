"""What single values of a configuration cannot show: combinations, and what the operator should know of them."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Final

from gateway.errors import InvalidArgument
from gateway.records.sinks.target import KAFKA_INSTALL, S3_INSTALL, parse_targets
from gateway.routing.store.store_address import parse_address
from gateway.runtime.config import Config
from gateway.runtime.protection import check_protection, exposure
from gateway.runtime.sections import is_reachable

_CLIENTS: Final = {"kafka": ("confluent_kafka", KAFKA_INSTALL), "s3": ("botocore", S3_INSTALL)}


def check_consistency(config: Config) -> Config:
    """Returns the configuration with the warnings that it deserves.

    Raises: InvalidArgument for values that exclude each other, or that need what is not installed.
    """
    listen = config.listen
    config.access.check(certificates=config.tls.mutual)
    option, host = ("host", listen.host) if listen.reachable else ("metrics-address", config.operators_host)
    check_protection(
        config.tls,
        option,
        host,
        reachable=is_reachable(host),
        insecure=listen.insecure,
        tokens=config.access.configured,
    )
    _check_sinks(config)
    config = replace(config, warnings=(*config.warnings, *_trust_warnings(config)))
    _check_ports(config)
    if listen.single_port and listen.transport != "ngh2":
        raise InvalidArgument(f"single-port is served by the transport ngh2 alone, not by {listen.transport}")
    if listen.control_port >= 0 and listen.control_socket is not None:
        raise InvalidArgument("control-port and control-socket exclude each other")
    return config


def _check_ports(config: Config) -> None:
    """Raises: InvalidArgument (two options name one port)."""
    taken: dict[int, str] = {}
    for option, port in config.ports.items():
        if port and port in taken:
            raise InvalidArgument(f"{option} {port} is {taken[port]} as well: they must differ")
        taken[port] = option


def _check_sinks(config: Config) -> None:
    """Raises: InvalidArgument (a sink that is the routing store, or whose client is not installed)."""
    rules = parse_address(config.store.redis_url).nodes if config.store.redis_url else ()
    for target in parse_targets(config.log.sinks):
        if target.kind == "redis" and set(parse_address(target.address).nodes) & set(rules):
            raise InvalidArgument(
                f"sink {target.name} is the Redis of redis-url: a log there could evict the rules, give it its own"
            )
        module, install = _CLIENTS.get(target.kind, ("", ""))
        if module and find_spec(module) is None:
            raise InvalidArgument(f"sink {target.name} needs a client that is not installed: {install}")


def _trust_warnings(config: Config) -> tuple[str, ...]:
    warnings = []
    listen = config.listen
    at_metrics = config.operators_host if is_reachable(config.operators_host) else ""
    if listen.reachable or at_metrics:
        told = exposure(config.tls, listen.host, at_metrics, listen.metrics_port, tokens=config.access.configured)
        warnings += [told] if told else []
    if "ssl_cert_reqs=none" in config.store.redis_url:
        warnings.append("redis-url: with ssl_cert_reqs=none whoever takes the connection is believed to be the store")
    if config.events.webhook_url.startswith("http://"):
        warnings.append("webhook-url: over http:// events can be read on their way; the signature only tells forgeries")
    return tuple(warnings)
