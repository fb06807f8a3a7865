"""Trace and log settings: readable for Triton's tools; they are set when the server starts, not by a call.

Source: Triton's trace and logging extensions.
"""

import logging
from collections.abc import Mapping

from gateway.api.naming import shown
from gateway.errors import InvalidArgument, Unimplemented
from gateway.pb import inference_pb2 as pb

TRACE: Mapping[str, tuple[str, ...]] = {
    "trace_file": ("",),
    "trace_level": ("OFF",),
    "trace_rate": ("1000",),
    "trace_count": ("-1",),
    "log_frequency": ("0",),
    "trace_mode": ("triton",),
}
_Log = bool | int | str


def trace_settings(request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
    """Returns the settings as they are: nothing is traced. Setting what is already so, or clearing it, is no change.

    Raises: InvalidArgument (no such setting), Unimplemented (a change).
    """
    for name in sorted(request.settings):
        current = TRACE.get(name)
        if current is None:
            raise InvalidArgument(f"unknown trace setting {shown(name)}: {', '.join(TRACE)} are known")
        wanted = tuple(request.settings[name].value)
        if wanted and wanted != current:
            raise Unimplemented(f"trace setting {name!r} cannot be changed by a call")
    response = pb.TraceSettingResponse()
    for name, values in TRACE.items():
        response.settings[name].value.extend(values)
    return response


def log_settings(request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
    """Returns the settings of this server's log. Setting what is already so is no change.

    Raises: InvalidArgument (no such setting), Unimplemented (a change).
    """
    current = _log()
    for name in sorted(request.settings):
        if name not in current:
            raise InvalidArgument(f"unknown log setting {shown(name)}: {', '.join(current)} are known")
        setting = request.settings[name]
        kind = setting.WhichOneof("parameter_choice")
        if kind is not None and getattr(setting, kind) != current[name]:
            raise Unimplemented(f"log setting {name!r} cannot be changed by a call: restart with another --log-level")
    response = pb.LogSettingsResponse()
    for name, value in current.items():
        if isinstance(value, bool):
            response.settings[name].bool_param = value
        elif isinstance(value, int):
            response.settings[name].uint32_param = value
        else:
            response.settings[name].string_param = value
    return response


def _log() -> dict[str, _Log]:
    logger = logging.getLogger("gateway")
    return {
        "log_file": "",
        "log_info": logger.isEnabledFor(logging.INFO),
        "log_warning": logger.isEnabledFor(logging.WARNING),
        "log_error": logger.isEnabledFor(logging.ERROR),
        "log_verbose_level": int(logger.isEnabledFor(logging.DEBUG)),
        "log_format": "default",
    }
