"""Runs the comparison. Exit codes: 0 done, 1 a server failed or answered wrongly, 2 usage or no h2load."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from loadtests.bench import cases, h2load, report
from loadtests.bench.machine import describe
from loadtests.bench.models import MODELS
from loadtests.bench.rivals.comparison import Contender, Pace, markdown, measure, ours, theirs
from loadtests.bench.rivals.launch import install
from loadtests.bench.rivals.roster import RIVALS, Rival
from loadtests.bench.rivals.scorer import MODEL
from loadtests.bench.servers import ServerFailed

_ABOUT: Final = """\
Measures the gateway and other servers of models one after another: the same model, the same bytes, one client.

Each rival is installed in an environment of its own (--install; 2.2 GB in all) and has to answer
rightly before it is measured."""
_MOST_OTHER_CORES: Final = 0.25
_MOST_DRIFT: Final = 0.10
_news = Console(stderr=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m loadtests.bench.rivals",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--venvs", type=Path, default=Path("build/rivals"), metavar="DIR", help="their environments (build/rivals)")
    add("--install", action="store_true", help="install them first")
    add("--rivals", nargs="+", choices=sorted(RIVALS), default=list(RIVALS), metavar="NAME",
        help=f"of {', '.join(RIVALS)} (all)")  # fmt: skip
    add("--concurrency", nargs="+", type=int, default=[64, 1], metavar="N", help="calls at a time (64 1)")
    add("--seconds", type=float, default=5.0, help="length of each timed part (5)")
    add("--rounds", type=int, default=1, help="how often they take turns (1)")
    add("--workers", type=int, default=2, help="processes that run the model, where a server has that setting (2)")
    add("--json", type=Path, metavar="FILE", help="write every run, the medians and the machine to this file")
    add("--table", type=Path, metavar="FILE", help="write the table to this file as well")
    return made


def contenders_of(rivals: Sequence[Rival], venvs: Path, case: cases.Case, workers: int) -> list[Contender]:
    """The gateway before the rivals, over REST only if one of them is."""
    made = [ours(case, workers, rest=False)]
    if any(rival.rest for rival in rivals):
        made.append(ours(case, workers, rest=True))
    return made + [theirs(rival, venvs, case, workers) for rival in rivals]


def run(given: argparse.Namespace) -> int:
    rivals = [RIVALS[name] for name in given.rivals]
    pace = Pace(tuple(given.concurrency), given.seconds, given.rounds, _MOST_OTHER_CORES, _MOST_DRIFT)
    started_at = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="rivals-") as folder:
        work = Path(folder)
        case = cases.make([MODELS[MODEL]], work)[0]
        contenders = contenders_of(rivals, given.venvs.absolute(), case, given.workers)
        rows = list(measure(contenders, case, pace, work, lambda title: _news.print(title, highlight=False)))
    summaries = report.summarize(rows, base=contenders[0].title)
    table = markdown(contenders, summaries, pace.concurrency)
    sys.stdout.write(table)
    if given.table is not None:
        given.table.write_text(table)
    if given.json is not None:
        servers = [
            {"title": one.title, "version": one.version, "protocol": one.protocol, "processes": one.processes}
            for one in contenders
        ]
        about = {
            "date": started_at.isoformat(timespec="seconds"),
            "machine": describe(),
            "pace": asdict(pace),
            "servers": servers,
        }
        given.json.write_text(json.dumps(report.as_json(rows, summaries, about), indent=1) + "\n")
    for row in rows:
        if row.disturbed:
            _news.print(f"disturbed: {row.system}, {row.concurrency} at a time", style="yellow", highlight=False)
    faults = report.faults(summaries)
    for fault in faults:
        _news.print(f"fault: {fault}", style="red", highlight=False, markup=False, soft_wrap=True)
    return 1 if faults else 0


def main(arguments: Sequence[str]) -> int:
    given = parser().parse_args(arguments)
    if not h2load.installed():
        _news.print(h2load.MISSING, style="red", highlight=False, soft_wrap=True)
        return 2
    try:
        for name in given.rivals if given.install else ():
            _news.print(f"installing {RIVALS[name].title}", highlight=False)
            install(RIVALS[name], given.venvs)
    except ServerFailed as error:
        _news.print(f"failed: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 1
    return run(given)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
