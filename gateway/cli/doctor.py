"""gateway doctor: whether a gateway with these options can start and live on this host, and what to do where not."""

import asyncio
import inspect
from typing import Annotated, Any, Final

import typer

from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import Format, show
from gateway.cli.serve import option_parameters
from gateway.cli.shared_options import Output
from gateway.page.message_values import Value
from gateway.runtime.config_parser import load
from gateway.runtime.host_finding import HostState

_COLUMNS: Final = ("check", "state", "seen", "what to do")


def doctor(**given: Any) -> None:
    """Look at this host with the options of `serve`, before a start or beside a running gateway. Changes nothing.

    Ends with 1 if a check fails; with --strict also where one warns or cannot be made.
    """
    # It loads what only this command needs.
    from gateway.runtime.host_examination import CHECKS, examine, worst

    strict, output = given.pop("strict"), given.pop("output")
    options = {name: value for name, value in given.items() if value != []}
    findings = asyncio.run(examine(lambda: load(options)))
    rows: list[dict[str, Value]] = [
        {"check": name, "state": str(one.verdict), "seen": one.seen, "remedy": one.remedy, "about": CHECKS[name][0]}
        for name, one in findings.items()
    ]
    verdict = worst(findings)
    shown = [[row["check"], row["state"], row["seen"], row["remedy"]] for row in rows]
    show({"verdict": str(verdict), "checks": list(rows)}, output, columns=_COLUMNS, rows=shown)
    failed = [name for name, one in findings.items() if one.verdict is HostState.FAIL]
    if failed:
        raise Failure(Exit.REFUSED, f"failed: {', '.join(failed)}")
    if strict and verdict is not HostState.OK:
        raise Failure(Exit.REFUSED, "not everything is well, and --strict was given")


_parameters = [
    *option_parameters(),
    inspect.Parameter(
        "strict",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--strict", help="Warnings and what is unknown count as failures.")],
    ),
    inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, default=Format.TABLE, annotation=Output),
]
doctor.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]
doctor.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters}
