"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.printing import Format

Server = Annotated[str, typer.Option("--server", help="host:port of a gateway's gRPC port.", envvar="GATEWAY_SERVER")]
Output = Annotated[Format, typer.Option("-o", "--output", help="table for people, json or yaml for programs.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for every live worker.", min=0.1, max=600)]
Model = Annotated[str, typer.Argument(help="Name of the model.")]
DataDir = Annotated[
    Path, typer.Option("--data-dir", help="The data directory of the gateway.", envvar="GATEWAY_DATA_DIR")
]

DEFAULT_SERVER = "127.0.0.1:8001"
DEFAULT_DATA_DIR = Path("data")
