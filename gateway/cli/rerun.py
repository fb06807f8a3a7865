"""gateway rerun: a logged request on the same version and input again, and whether the answer is the same."""

from time import time
from typing import Annotated

import msgspec
import typer

from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import Format, show
from gateway.cli.replay import Repository, asked
from gateway.cli.shared_options import DEFAULT_DATA_DIR, DataDir, Model, Output
from gateway.page.message_values import moment
from gateway.replay.replay_question import RerunQuestion
from gateway.replay.replay_report import MISSING
from gateway.replay.rerun_report import RerunReport
from gateway.replay.served_repository import served_repository


def rerun(
    model: Model,
    request_id: Annotated[str, typer.Argument(help="The id of a request in the log of this host.")],
    repository: Repository = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    output: Output = Format.TABLE,
) -> None:
    """Run a logged request again, on the same version with the same input, and say whether the answer is bit-equal.

    The version is that content that answered then, from the content store where its directory has changed since. Where
    the answer is another one: by how much, whether it is that of a larger run (requests are merged), and what else is
    not as it was: ONNX Runtime, CPU. Ends with 1 where it differs or cannot be told. Run it on the gateway's host.
    """
    served = served_repository(data_dir)
    question = RerunQuestion(
        str(data_dir.absolute()), model, request_id, int(time() * 1e6), repository or served.uri, served.links_to
    )
    report = asked(question).rerun
    if report is None:
        raise Failure(Exit.REFUSED, "the process of the rerun ended without a report")
    if output is Format.TABLE:
        _show(report)
    else:
        show(msgspec.to_builtins(report), output)
    if report.outcome != "bit-equal":
        raise Failure(Exit.REFUSED, f"request {request_id}: {report.outcome}")


def _show(report: RerunReport) -> None:
    lines = [
        f"request {report.request_id} of {moment(report.ts_us)}, {report.rows} rows, version {report.version} "
        f"({report.digest[:12]}): {report.outcome}"
    ]
    if report.records > 1:
        lines.append(f"the log has {report.records} requests with this id; this is the newest")
    if report.error:
        lines.append(f"it fails now: {report.error}")
    if report.equal_in_run_of is not None:
        lines.append(
            f"bit-equal in a run of {report.equal_in_run_of} rows: then it ran together with other requests, "
            "and sums are rounded in another order"
        )
    lines += report.environment
    if not report.environment_known:
        lines.append("what ONNX Runtime and CPU it ran on then was not written down")
    elif report.outcome != "bit-equal" and not report.environment:
        lines.append(f"ONNX Runtime ({report.runtime}), CPU and threads are as they were")
    show(None, Format.TABLE, note=lines)
    if report.outputs:
        show(
            None,
            Format.TABLE,
            columns=("OUTPUT", "BIT-EQUAL", "DIFFERING", "LARGEST DIFFERENCE"),
            rows=[
                [
                    one.name,
                    MISSING[one.missing] if one.missing else "yes" if one.equal else "no",
                    "" if one.missing else f"{one.differing} of {one.elements}",
                    "" if one.largest is None else f"{one.largest:.6g}",
                ]
                for one in report.outputs
            ],
        )
