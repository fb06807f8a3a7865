"""How the benchmark starts gateways: each feature that is off reaches the configuration."""

from pathlib import Path

import pytest

from gateway.runtime.config_parser import load
from loadtests.bench.options import FEATURES
from loadtests.bench.servers import GatewaySetup
from loadtests.bench.uncounted import given_options

PORTS = {"grpc": 9001, "http": 9002, "metrics": 9003}


@pytest.mark.parametrize("off", [(), *((feature,) for feature in FEATURES)], ids=lambda off: "".join(off) or "none")
def test_a_gateway_is_started_with_every_feature_but_those_that_are_off(off: tuple[str, ...], tmp_path: Path) -> None:
    setup = GatewaySetup("gateway", workers=2, off=frozenset(off))
    config = load(given_options(setup.arguments(tmp_path, tmp_path, PORTS)), {})
    assert config.process.workers == 2
    assert config.listen.grpc_port == 9001
    assert config.log.rate == (0.0 if "log" in off else 1.0)
    assert config.listen.feedback_token is ("token" not in off)
