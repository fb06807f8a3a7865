"""What the command line asks for."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from loadtests.bench.models import MODELS

Value = TypeVar("Value")

FEATURES: Final = ("log", "route", "metrics", "token")
SYSTEMS: Final = ("gateway", "rest", "rest-json", "guarded", "judged", "traced", "grpcio", "aio")

_ABOUT: Final = """\
Drives servers of the Open Inference Protocol with h2load and prints what a request costs them.

Without options: the gateway with every feature on (ngh2), the gateway on --transport grpcio and a bare grpc.aio server,
in turns, on all models. The figures of a row are medians over the rounds; ratios are medians of the rounds' ratios."""
_EXAMPLES: Final = """\
examples:
  python -m loadtests.bench --models tiny --concurrency 64 --rounds 5 --json tiny.json
  python -m loadtests.bench --feature-off log --feature-off metrics --models tiny --concurrency 64
  python -m loadtests.bench --workers 1,2 --systems gateway --models tiny --concurrency 256
  python -m loadtests.bench --floor 'my_server --models {models} --listen 127.0.0.1:{port}'
  python -m loadtests.bench --against 127.0.0.1:8001 --work bench-models   (make the models first: --only-models)
  python -m loadtests.bench --idle-connections 5000
  python -m loadtests.bench --weights 400 --workers 2"""


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, on what, and how often. Units: seconds for each timed part."""

    models: tuple[str, ...]
    concurrency: tuple[int, ...]
    seconds: float
    rounds: int
    workers: tuple[int, ...]
    systems: tuple[str, ...]
    features_off: tuple[str, ...]
    arms: str
    floor: str
    against: str
    pid: int
    idle_connections: int
    weights_mb: int
    work: Path | None
    only_models: bool
    json: Path | None
    tries: int
    most_other_cores: float
    most_drift: float


def _list_of(read: Callable[[str], Value]) -> Callable[[str], tuple[Value, ...]]:
    def read_list(text: str) -> tuple[Value, ...]:
        return tuple(dict.fromkeys(read(part.strip()) for part in text.split(",")))

    return read_list


def _one_of(allowed: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(allowed)}")
        return text

    return read


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 3600")
    return number


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m loadtests.bench",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    names = _list_of(_one_of(tuple(MODELS)))
    add("--models", type=names, default=tuple(MODELS), metavar="A,B", help=f"of {', '.join(MODELS)} (all)")
    add("--concurrency", type=_list_of(_at_least_one), default=(1, 16, 64, 256), metavar="N,M",
        help="calls at a time (1,16,64,256)")  # fmt: skip
    add("--seconds", type=_seconds, default=3.0, help="length of each timed part (3)")
    add("--rounds", type=_at_least_one, default=3, help="how often each pair takes turns (3)")
    add("--workers", type=_list_of(_at_least_one), default=(1,), metavar="N[,M]",
        help="workers of the gateway (1); of several, each further one is a system of its own")  # fmt: skip
    add("--systems", type=_list_of(_one_of(SYSTEMS)), metavar="A,B",
        help="of gateway, rest (over HTTP/1.1, tensors in binary), rest-json (in JSON), guarded (its callers send a "
        "token), judged (its routes are canaries that are judged), traced (one call in a hundred is), grpcio (the "
        "gateway on that transport), aio (a bare grpc.aio server)")  # fmt: skip
    add("--feature-off", type=_one_of(FEATURES), action="append", default=[], metavar="FEATURE",
        help="pair the gateway with one without log, route, token or metrics; may be given several times")  # fmt: skip
    add("--arms", type=_one_of(("one", "both")), default="one",
        help="keys of one arm of the A/B route in each run, or of both at the same time (one)")  # fmt: skip
    add("--floor", default="", metavar="COMMAND", help="also start this server; {port} and {models} are filled in")
    add("--against", default="", metavar="HOST:PORT", help="measure the server that runs there")
    add("--pid", type=_at_least_one, default=0, help="its first process, for CPU and RSS")
    add("--idle-connections", type=_at_least_one, default=0, metavar="N",
        help="only measure what this many idle connections take")  # fmt: skip
    add("--weights", type=_at_least_one, default=0, metavar="MB",
        help="only measure what workers hold of a model with so many MB of weights")  # fmt: skip
    add("--work", type=Path, metavar="DIR", help="keep models, requests and the servers' data and logs there")
    add("--only-models", action="store_true", help="make the models in --work and end")
    add("--json", type=Path, metavar="FILE", help="write every run, the medians and the machine to this file")
    add("--tries", type=_at_least_one, default=3, help="a disturbed run is repeated so often; the calmest counts (3)")
    add("--most-other-cores", type=float, default=0.25, metavar="CORES",
        help="a run is disturbed if others used more (0.25)")  # fmt: skip
    add("--most-drift", type=float, default=0.10, metavar="SHARE",
        help="... or a fixed loop took so much longer or shorter after it than before (0.10)")  # fmt: skip
    return made


def read_options(arguments: Sequence[str]) -> Options:
    """The options; a wrong one ends the program with status 2 and a sentence."""
    reader = parser()
    given = reader.parse_args(arguments)
    if given.against and not given.against.rpartition(":")[2].isdigit():
        reader.error(f"--against {given.against!r} is not host:port")
    if given.pid and not given.against:
        reader.error("--pid belongs to --against")
    if given.idle_connections and given.against and not given.pid:
        reader.error("--idle-connections needs the --pid of the server that it weighs")
    if given.only_models and given.work is None:
        reader.error("--only-models needs --work DIR")
    systems = given.systems
    if systems is None:
        alone = given.feature_off or given.idle_connections or len(given.workers) > 1
        systems = () if given.against else ("gateway",) if alone else SYSTEMS
    if given.feature_off and "gateway" not in systems:
        reader.error("--feature-off needs the gateway among the systems")
    return Options(
        models=given.models,
        concurrency=given.concurrency,
        seconds=given.seconds,
        rounds=given.rounds,
        workers=given.workers,
        systems=systems,
        features_off=tuple(dict.fromkeys(given.feature_off)),
        arms=given.arms,
        floor=given.floor,
        against=given.against,
        pid=given.pid,
        idle_connections=given.idle_connections,
        weights_mb=given.weights,
        work=given.work,
        only_models=given.only_models,
        json=given.json,
        tries=given.tries,
        most_other_cores=given.most_other_cores,
        most_drift=given.most_drift,
    )
