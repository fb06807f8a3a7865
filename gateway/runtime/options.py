"""The options of `gateway serve`: one table that the command line, the environment and the file share.

It is made from the sections of the configuration, which declare their options.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, Final, get_type_hints

from gateway.errors import InvalidArgument
from gateway.runtime.access_options import AccessOptions
from gateway.runtime.option import Option, Setting
from gateway.runtime.protection import TlsOptions
from gateway.runtime.sections import (
    CallLimits,
    DriftOptions,
    EventOptions,
    FeatureOptions,
    ListenOptions,
    LogOptions,
    ModelOptions,
    ProcessOptions,
    StoreOptions,
    TraceOptions,
)

SECTIONS: Final[Mapping[str, type[Any]]] = {
    "models": ModelOptions,
    "process": ProcessOptions,
    "listen": ListenOptions,
    "tls": TlsOptions,
    "access": AccessOptions,
    "store": StoreOptions,
    "features": FeatureOptions,
    "events": EventOptions,
    "log": LogOptions,
    "drift": DriftOptions,
    "traces": TraceOptions,
    "limits": CallLimits,
}
# Options that Triton's start scripts pass and that do nothing here: taken with a warning that says why.
IGNORED: Final[Mapping[str, str]] = {"log-verbose": "log-level says what is told"}


def _declared(section: str) -> Iterator[Option]:
    hints = get_type_hints(SECTIONS[section], include_extras=True)
    for one in fields(SECTIONS[section]):
        for setting in getattr(hints[one.name], "__metadata__", ()):
            if not isinstance(setting, Setting):
                continue
            name = setting.name or one.name.replace("_", "-")
            if one.default is MISSING:
                raise TypeError(f"option {name} has no default")
            yield Option(name, section, one.name, one.default, setting)


OPTIONS: Final[tuple[Option, ...]] = tuple(option for section in SECTIONS for option in _declared(section))
BY_NAME: Final[Mapping[str, Option]] = {option.name: option for option in OPTIONS}


def option_named(key: str, source: str) -> Option | None:
    """Returns the option of that name, None for one that is ignored; dashes and underscores are the same.

    Raises: InvalidArgument naming the nearest option.
    """
    name = key.replace("_", "-")
    if name in IGNORED:
        return None
    option = BY_NAME.get(name)
    if option is None:
        raise InvalidArgument(f"{source}: there is no option {key!r}{nearest(key)}")
    return option


def nearest(key: str) -> str:
    close = get_close_matches(key.replace("_", "-").lower(), BY_NAME, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; the options are {', '.join(sorted(BY_NAME))}"


def read_value(option: Option, given: object, source: str) -> object:
    """Raises: InvalidArgument naming source, option, value and what is allowed."""
    try:
        return option.setting.value.read(given)
    except ValueError as error:
        told = ",".join(map(str, given)) if isinstance(given, list) else given  # as one writes several in one argument
        shown = json.dumps(option.masked(told), default=str)
        raise InvalidArgument(f"{source}: {option.name} is {shown}, allowed: {error}") from None
