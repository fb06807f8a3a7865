"""What OpenTelemetry's own variables in the environment say of the way to a collector, and of who tells.

Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter" and "Resource SDK".
"""

import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import gateway
from gateway.errors import InvalidArgument

SERVICE: Final = "model-serving-gateway"
_PREFIXES: Final = ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_")  # that of traces alone goes first
_COMPRESSIONS: Final = ("", "none", "gzip", "deflate")


@dataclass(frozen=True, slots=True, repr=False)
class OtlpSettings:
    """Holds what is set; headers may be secrets. `resource` is what every span is said to come from."""

    headers: Mapping[str, str]
    compression: str
    certificate: str
    client_certificate: str
    client_key: str
    resource: Mapping[str, str]

    def context(self) -> ssl.SSLContext:
        """Returns what TLS is made by. Raises: InvalidArgument naming the variable."""
        try:
            context = ssl.create_default_context(cafile=self.certificate or None)
        except OSError as error:  # ssl.SSLError is one
            raise InvalidArgument(_unusable("CERTIFICATE", self.certificate, error)) from None
        if self.client_certificate:
            try:
                context.load_cert_chain(self.client_certificate, self.client_key or None)
            except OSError as error:
                raise InvalidArgument(_unusable("CLIENT_CERTIFICATE", self.client_certificate, error)) from None
        return context


def read_otlp_settings(environment: Mapping[str, str] | None = None) -> OtlpSettings:
    """Returns what the variables say, this process' own by default. Raises: InvalidArgument naming the variable."""
    environment = os.environ if environment is None else environment
    compression = _said(environment, "COMPRESSION").lower()
    if compression not in _COMPRESSIONS:
        raise InvalidArgument(f"OTEL_EXPORTER_OTLP_COMPRESSION is {compression!r}: gzip, deflate and none are known")
    settings = OtlpSettings(
        headers={name.lower(): value for name, value in _pairs(_said(environment, "HEADERS"))},
        compression="" if compression == "none" else compression,
        certificate=_said(environment, "CERTIFICATE"),
        client_certificate=_said(environment, "CLIENT_CERTIFICATE"),
        client_key=_said(environment, "CLIENT_KEY"),
        resource=_resource(environment),
    )
    for name, value in settings.headers.items():
        if not (name.isascii() and name.isprintable() and value.isprintable()):
            raise InvalidArgument(f"OTEL_EXPORTER_OTLP_HEADERS: {name!r} is no header, or has a value that is none")
    for suffix, file in (
        ("CERTIFICATE", settings.certificate),
        ("CLIENT_CERTIFICATE", settings.client_certificate),
        ("CLIENT_KEY", settings.client_key),
    ):
        if file and not Path(file).is_file():
            raise InvalidArgument(f"OTEL_EXPORTER_OTLP_{suffix}: there is no file {file!r}")
    return settings


def _resource(environment: Mapping[str, str]) -> Mapping[str, str]:
    own = {
        "service.name": SERVICE,
        "service.version": gateway.__version__,
        "service.instance.id": socket.gethostname(),
    }
    own |= dict(_pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", "")))
    name = environment.get("OTEL_SERVICE_NAME", "").strip()
    return own | {"service.name": name} if name else own


def _said(environment: Mapping[str, str], suffix: str) -> str:
    return next((environment[name].strip() for name in _names(suffix) if environment.get(name, "").strip()), "")


def _names(suffix: str) -> Iterator[str]:
    return (prefix + suffix for prefix in _PREFIXES)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yields the pairs of `key=value,key=value`, percent-decoded; what is none is left out."""
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if equals and key.strip():
            yield unquote(key.strip()), unquote(value.strip())


def _unusable(suffix: str, file: str, error: OSError) -> str:
    return f"OTEL_EXPORTER_OTLP_{suffix}: {file!r} cannot be used: {error.strerror or error}"
