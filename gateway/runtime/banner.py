"""What the operator reads when everything is ready."""

import os
import shlex
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import gateway
from gateway.errors import InvalidArgument
from gateway.rpc.server_certificate import TlsFiles, lets_in, names
from gateway.runtime.build import is_compiled
from gateway.runtime.config import Config
from gateway.runtime.masking import masked_url
from gateway.runtime.options import BY_NAME


def banner(config: Config, ports: Mapping[str, int]) -> str:
    """Returns the addresses, and three commands that work as printed in the directory of the start.

    Where callers prove who they are by tokens, whoever types the commands names the file of a token.
    """
    host, listen = _connectable(config.listen.host), config.listen
    grpc_address = f"{host}:{ports['grpc']}"
    metrics_address = f"{_connectable(config.operators_host)}:{ports['metrics']}"
    scheme = "grpcs" if config.tls.files else "grpc"
    asked, services = grpc_address, f"  inference, control   {scheme}://{grpc_address}"
    if listen.control_apart:
        asked = f"unix:{listen.control_socket}" if listen.control_socket is not None else f"{host}:{ports['control']}"
        control = asked if listen.control_socket is not None else f"{scheme}://{asked}"
        services = f"  inference            {scheme}://{grpc_address}\n  control              {control}"
    services += _rest(config, host, ports)
    store = masked_url(config.store.redis_url) if config.store.redis_url else f"embedded Valkey, {config.valkey_dir}"
    command = _command()
    server = "" if asked == f"127.0.0.1:{BY_NAME['grpc-port'].default}" else f" --server {shlex.quote(asked)}"
    server += "" if listen.control_socket is not None else _tls_options(config.tls.files, host)
    if config.access.tokens or config.access.jwt_keys:
        server += " --token-file FILE"
    workers = config.process.workers
    build = "compiled" if is_compiled() else "not compiled: more CPU per request"
    return f"""
gateway {gateway.__version__} is ready with {workers} worker{"" if workers == 1 else "s"} ({build})
{services}
  page, metrics        http://{metrics_address}/
  models               {config.models.repository}
  rules                {store}
  prediction log       {config.log_dir}

Try next, from another shell in {Path.cwd()}:
  {command} models{server}
  {command} workers{server}
  {command} log tail{server}

Ctrl-C stops everything.
"""


def _rest(config: Config, host: str, ports: Mapping[str, int]) -> str:
    """Returns the line that says where REST is served, "" if it is not."""
    port = ports["grpc"] if config.listen.single_port else ports.get("http")
    scheme = "https" if config.tls.files else "http"
    return f"\n  REST inference       {scheme}://{host}:{port}" if port is not None else ""


def _tls_options(files: TlsFiles | None, host: str) -> str:
    """Returns the options by which a command on this host trusts the gateway and is let in.

    The gateway's own certificate is what it trusts, and what it shows where clients must show one and the gateway takes
    that one; who has another writes it in the place of the words in capitals.
    """
    if files is None:
        return ""
    options = {"--tls-ca": str(files.certificate)}
    try:
        if files.client_ca is not None:
            own = lets_in(files, files.certificate, files.key)
            options["--tls-cert"] = str(files.certificate) if own else "CERTIFICATE"
            options["--tls-key"] = str(files.key) if own else "KEY"
        known = names(files)
        if known and _plain(host) not in map(_plain, known):
            options["--tls-name"] = known[0].replace("*", "gateway", 1)
    except InvalidArgument as error:  # the files were sound a moment ago
        return f"   # {error}"
    return "".join(f" {option} {shlex.quote(value)}" for option, value in options.items())


def _plain(host: str) -> str:
    """Returns the host as it is compared: an address in its shortest form."""
    try:
        return str(ip_address(host.strip("[]")))
    except ValueError:
        return host


def _connectable(host: str) -> str:
    """Returns the address for a client on this host."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{shown}]" if ":" in shown else shown


def _command() -> str:
    """Returns the gateway command as it can be typed in this directory."""
    script = Path(sys.executable).with_name("gateway")
    if not script.exists():
        return f"{sys.executable} -c 'from gateway.cli.app import main; main()'"
    relative = os.path.relpath(script)
    return relative if not relative.startswith("..") else str(script)
