"""Where a configuration comes from: arguments, environment and file, checked value by value."""

import math
import os
import time
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.access.quota_file import watched_rules
from gateway.errors import InvalidArgument
from gateway.runtime.config import Config
from gateway.runtime.consistency import check_consistency
from gateway.runtime.cpu_quota import cpu_quota
from gateway.runtime.option import CONFIG_OPTION, ENVIRONMENT_PREFIX
from gateway.runtime.options import IGNORED, OPTIONS, SECTIONS, nearest, option_named, read_value
from gateway.runtime.otlp_settings import read_otlp_settings
from gateway.runtime.redaction_config import KEY_VARIABLE as REDACTION_KEY
from gateway.runtime.redaction_config import SECTION as REDACTION
from gateway.runtime.redaction_config import parse_redaction
from gateway.runtime.sections import CallLimits, EventOptions
from gateway.telemetry.webhooks import secret_bytes

WEBHOOK_SECRET: Final = ENVIRONMENT_PREFIX + "WEBHOOK_SECRET"


def parse(
    options: Mapping[str, object], environ: Mapping[str, str], file: Mapping[str, object], *, cpus: int = 1
) -> Config:
    """Returns the configuration: argument before environment before file before default.

    An argument that is None was not given. Pure: paths stay as they are given, `cpus` is what `workers` 0 means.

    Raises: InvalidArgument naming the source, the key, the value and what is allowed.
    """
    given = {option.name: (option.default, "default") for option in OPTIONS}
    ignored: list[str] = []

    def take(key: str, value: object, source: str, shown: str) -> None:
        option = option_named(key, source)
        if option is None:
            ignored.append(f"{source}, {shown}: {IGNORED[key.replace('_', '-')]}")
        else:
            given[option.name] = (value, f"{source}, {shown}")

    for key, value in file.items():
        if key != REDACTION:
            take(str(key), value, "file", str(key))
    for name in (*(option.name for option in OPTIONS), *IGNORED):
        variable = ENVIRONMENT_PREFIX + name.replace("-", "_").upper()
        if variable in environ:
            take(name, environ[variable], "environment", variable)
    for key, value in options.items():
        if value is not None:
            take(key, value, "argument", "--" + key.replace("_", "-"))
    values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for option in OPTIONS:
        value, source = given[option.name]
        values[option.section][option.field] = read_value(option, value, source)
    values["events"]["webhook_secret"] = environ.get(WEBHOOK_SECRET, "")
    values["process"]["workers"] = values["process"]["workers"] or max(1, cpus)
    sections = {name: section(**values[name]) for name, section in SECTIONS.items()}
    redaction = parse_redaction(file.get(REDACTION), environ.get(REDACTION_KEY, ""))
    warnings = (*ignored, *_environment_warnings(environ))
    return check_consistency(Config(**sections, redaction=redaction, warnings=warnings))


def load(options: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Config:
    """Returns the configuration of this process, its file read and its paths made absolute.

    Raises: InvalidArgument for a value that is not allowed or a file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    arguments = dict(options)
    file_name = arguments.pop(CONFIG_OPTION, None) or environ.get(ENVIRONMENT_PREFIX + "CONFIG")
    file = read_file(Path(str(file_name))) if file_name else {}
    config = parse(arguments, environ, file, cpus=math.ceil(cpu_quota()))
    if config.traces.otlp_endpoint:
        read_otlp_settings(environ).context()
    return replace(
        config,
        events=_with_secret(config.events),
        models=config.models.proven(),
        listen=config.listen.proven(),
        process=replace(config.process, data_dir=config.process.data_dir.absolute()),
        tls=config.tls.proven(time.time()),
        access=config.access.proven(),
        limits=_with_quotas(config.limits),
        redaction=config.redaction.proven(),
    )


def _with_quotas(limits: CallLimits) -> CallLimits:
    """Returns the limits with an absolute path of the quota file, once that was read.

    Raises: InvalidArgument naming the file and what is wrong with it.
    """
    if limits.quotas is None:
        return limits
    watched = watched_rules(None)
    watched.look(limits.quotas, first=True)
    if watched.trouble:
        raise InvalidArgument(watched.trouble)
    return replace(limits, quotas=limits.quotas.absolute())


def _with_secret(events: EventOptions) -> EventOptions:
    """Returns the events with the secret that the file holds, checked.

    Raises: InvalidArgument if there is a webhook and no secret fit to sign for it, or a secret that is not fit.
    """
    if not events.webhook_url and not events.webhook_secret and events.webhook_secret_file is None:
        return events
    try:
        path = events.webhook_secret_file
        secret = path.read_text(encoding="utf-8") if path is not None else events.webhook_secret
        secret_bytes(secret)
    except OSError as error:
        raise InvalidArgument(f"webhook-secret-file {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidArgument(
            f"webhook-url needs a secret in the file webhook-secret-file or in {WEBHOOK_SECRET}: {error}"
            if events.webhook_url
            else f"webhook-secret-file or {WEBHOOK_SECRET}: {error}"
        ) from None
    return replace(events, webhook_secret=secret)


def read_file(path: Path) -> Mapping[str, object]:
    """Returns the options in a TOML (`.toml`) or YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise InvalidArgument(f"config file {str(path)!r} cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:  # its text quotes the line, which may hold a password
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise InvalidArgument(f"config file {str(path)!r} does not parse: {error.problem}{where}") from None
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"config file {str(path)!r} does not parse: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidArgument(
            f"config file {str(path)!r} holds a {type(content).__name__}, allowed: option: value pairs"
        )
    return content


def _environment_warnings(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Returns a warning for each name that looks like a misspelt option.

    Others are left alone: a container platform puts GATEWAY_PORT and GATEWAY_SERVICE_HOST there by itself.
    """
    known = {option.environment_name for option in OPTIONS} | {
        ENVIRONMENT_PREFIX + "CONFIG",
        ENVIRONMENT_PREFIX + "SERVER",
        *(f"{ENVIRONMENT_PREFIX}CLI_TLS_{name}" for name in ("CA", "CERT", "KEY", "NAME")),
        *(ENVIRONMENT_PREFIX + name for name in ("TOKEN", "TOKEN_FILE")),
        ENVIRONMENT_PREFIX + "CLI_CONNECT_TIMEOUT",
        WEBHOOK_SECRET,
        *(ENVIRONMENT_PREFIX + name.replace("-", "_").upper() for name in IGNORED),
        REDACTION_KEY,
    }
    warnings = []
    for name in sorted(environ):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known:
            hint = nearest(name.removeprefix(ENVIRONMENT_PREFIX))
            if "did you mean" in hint:
                warnings.append(f"environment variable {name} is not an option{hint}")
    return tuple(warnings)
