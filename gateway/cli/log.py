"""gateway log: the prediction log."""

import sys
from typing import Annotated

import grpc
import typer
import yaml

from gateway.cli.client import control
from gateway.cli.printing import Format, printable, say, to_json
from gateway.cli.shared_options import DEFAULT_SERVER, Output, Server
from gateway.page.message_values import row_value
from gateway.pb import control_pb2

app = typer.Typer(no_args_is_help=True, help="Read the prediction log.")


@app.command(epilog="Example: gateway log tail flights -n 20 --no-follow")
def tail(
    model: Annotated[str, typer.Argument(help="Only this model.")] = "",
    backlog: Annotated[int, typer.Option("-n", "--backlog", help="Rows already written to show first.", min=0)] = 10,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on as rows come.")] = True,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Show predictions as they are logged, until Ctrl-C.

    Those of before the newest minutes are in Parquet: `gateway log query` finds them.
    """
    request = control_pb2.TailLogRequest(model=model, backlog=backlog, follow=follow)
    with control(server) as stub:
        rows = stub.TailLog(request, timeout=None)
        shown = False
        try:
            for row in rows:
                shown = True
                sys.stdout.write(_line(row, output) + "\n")
                sys.stdout.flush()
        except KeyboardInterrupt:
            rows.cancel()
        except grpc.RpcError as error:
            if not (isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.CANCELLED):
                raise
    if not (shown or follow):
        what = f"of model {model!r} " if model else ""
        say(f"gateway: no prediction {what}was logged in the newest minutes; `gateway log query` has older ones")


def _line(row: control_pb2.LogRow, form: Format) -> str:
    value = row_value(row)
    if form is Format.JSON:
        return to_json(value)
    if form is Format.YAML:
        return "---\n" + yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()
    served = f"{row.model}/{row.version}" + (f" arm {row.arm}" if row.arm else "")
    return printable(
        f"{value['ts']}  {row.code:<5} {served}  r{row.revision} {row.reason}  {row.total_us} us  {row.request_id}  "
        f"{row.inputs_json} -> {row.outputs_json}"
    )
