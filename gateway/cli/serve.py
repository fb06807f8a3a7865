"""gateway serve, and gateway version."""

import inspect
import os
import sys
from typing import Annotated, Any, Final

import typer
import yaml

import gateway
from gateway.cli.client import control
from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import Format, show
from gateway.cli.shared_options import Output
from gateway.errors import InvalidArgument
from gateway.page.message_values import Value
from gateway.pb import control_pb2
from gateway.runtime.config_parser import load
from gateway.runtime.option import CONFIG_OPTION, ENVIRONMENT_PREFIX, Option
from gateway.runtime.options import IGNORED, OPTIONS

_PRINT: Final = "print-config"


def serve(**given: Any) -> None:
    """Start the gateway and everything that belongs to it, and run until SIGTERM or Ctrl-C."""
    only_print = given.pop(_PRINT.replace("-", "_"))
    try:
        config = load({name: value for name, value in given.items() if value != []})
    except InvalidArgument as error:
        raise Failure(Exit.USAGE, str(error)) from None
    if only_print:
        typer.echo(yaml.safe_dump(config.dump(), sort_keys=False, allow_unicode=True), nl=False)
        return
    missing = config.models.missing_repository()
    if missing:
        raise Failure(Exit.USAGE, f"--model-repository {missing}")
    # The supervisor replaces this process: it must not share one with gRPC, which this command line has loaded.
    reading, writing = os.pipe()
    os.write(writing, config.to_json().encode())
    os.close(writing)
    os.dup2(reading, 0)
    os.close(reading)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "gateway.runtime.supervisor"])


def _parameter(option: Option) -> inspect.Parameter:
    """Returns the option as typer reads it from a function's signature; the configuration checks its value."""
    flag, value = f"--{option.name}", option.setting.value
    facts = [value.limits, f"default: {option.default_text or 'none'}", f"env: {option.environment_name}"]
    shown = f"{option.help} [{'; '.join(fact for fact in facts if fact)}]"
    if isinstance(option.default, bool):
        annotation: Any = Annotated[bool | None, typer.Option(f"{flag}/--no-{option.name}", help=shown)]
    elif option.repeated:
        annotation = Annotated[list[str] | None, typer.Option(flag, help=shown, metavar=value.kind)]
    else:
        annotation = Annotated[str | None, typer.Option(flag, help=shown, metavar=value.kind)]
    return _keyword(option.name, annotation)


def _ignored_parameter(name: str) -> inspect.Parameter:
    return _keyword(name, Annotated[str | None, typer.Option(f"--{name}", hidden=True)])


def _keyword(name: str, annotation: Any, default: object = None) -> inspect.Parameter:
    name = name.replace("-", "_")
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _config_parameter() -> inspect.Parameter:
    shown = f"YAML or TOML file of options. [env: {ENVIRONMENT_PREFIX}CONFIG]"
    annotation = Annotated[str | None, typer.Option(f"--{CONFIG_OPTION}", help=shown, metavar="PATH")]
    return _keyword(CONFIG_OPTION, annotation)


def _print_parameter() -> inspect.Parameter:
    shown = "Print every option as it is in force, in the form of a --config file with secrets masked, and exit."
    return _keyword(_PRINT, Annotated[bool, typer.Option(f"--{_PRINT}", help=shown)], default=False)


def option_parameters() -> list[inspect.Parameter]:
    """Returns every option of `serve` as a parameter of a command."""
    return [_config_parameter(), *map(_parameter, OPTIONS), *map(_ignored_parameter, IGNORED)]


_parameters = [*option_parameters(), _print_parameter()]
serve.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]
serve.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters}


def version(
    server: Annotated[str, typer.Option("--server", help="Also ask the gateway at host:port.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Print the version of this command, and of a running gateway if one is named."""
    value: dict[str, Value] = {"gateway": gateway.__version__}
    note = [f"gateway {gateway.__version__}"]
    if server:
        with control(server) as stub:
            answer = stub.ServerVersion(control_pb2.ServerVersionRequest(), timeout=10)
        value["server"] = {
            "version": answer.version,
            "worker": answer.worker,
            "python": answer.python,
            "onnxruntime": answer.onnxruntime,
            "transport": answer.transport,
        }
        note.append(
            f"{server}: gateway {answer.version}, transport {answer.transport}, Python {answer.python}, "
            f"ONNX Runtime {answer.onnxruntime}"
        )
    show(value, output, note=note)
