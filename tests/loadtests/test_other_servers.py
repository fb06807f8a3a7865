"""Real Triton and MLServer servers are driven as this gateway is: what they have in common with it, and what not.

They are those of `make bench-rivals`, in build/rivals or where RIVALS says.
"""

import os
import re
from pathlib import Path

import pytest

from loadtests.bench import cases
from loadtests.bench.models import MODELS
from loadtests.bench.rivals.launch import interpreter, started
from loadtests.bench.rivals.roster import RIVALS
from loadtests.job.arrivals import steady
from loadtests.job.figures import figures_of
from loadtests.job.scenario_plan import PROTOCOLS, TrafficPlan
from loadtests.job.sender import SenderOrder
from loadtests.job.target import LoadTarget
from tests.loadtests.test_sender import sent

VENVS = Path(os.environ.get("RIVALS", Path(__file__).parents[2] / "build" / "rivals")).absolute()
# What a server has not, and how it shows.
LACKS = {
    "triton": {},
    "mlserver": {
        "grpc-stream": "WRONG: an answer on the stream is no ModelStreamInferResponse",
        "rest-binary": "HTTP 500|UNAVAILABLE: the connection was lost",
    },
}
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.long, pytest.mark.timeout(300)]


@pytest.mark.parametrize("name", LACKS)
async def test_another_server_is_driven(name: str, tmp_path: Path) -> None:
    if not interpreter(RIVALS[name], VENVS).exists():
        pytest.skip(f"no {name} in {VENVS}: python -m loadtests.bench.rivals --install --rivals {name}")
    case = cases.make([MODELS["tiny"]], tmp_path)[0]
    with started(RIVALS[name], VENVS, case, tmp_path / name, 1) as server:
        target = LoadTarget(server.address, server.rest_address)
        # One after the other: a connection that is lost is opened anew.
        for protocol in PROTOCOLS:
            plan = TrafficPlan(protocol, steady(30, "constant"), model="tiny", protocol=protocol)
            made = figures_of(await sent(SenderOrder(target, (plan,), 1.0)), 1.0)
            if text := LACKS[name].get(protocol):
                assert made.right == 0
                assert all(re.match(text, failure) for failure in made.failures), made.failures
            else:
                assert (made.offered, made.right, dict(made.failures)) == (30, 30, {}), protocol
                assert dict(made.versions) == {"1": 30}
