"""Node.js's own gRPC client against the inference API, over both transports."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests import models
from tests.api.stand import Stand, standing

pytestmark = pytest.mark.asyncio(loop_scope="module")
CLIENT = Path(__file__).parent / "grpc_js"
PROTO = Path(__file__).parents[2] / "protos" / "inference.proto"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the client with its packages installed."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("grpc_js")
    for name in ("package.json", "package-lock.json", "client.js"):
        shutil.copy(CLIENT / name, folder)
    install = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    installed = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if installed.returncode:
        pytest.skip(f"npm cannot install the client: {installed.stderr.strip()[-300:]}")
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["ngh2", "grpcio"])
async def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    data = tmp_path_factory.mktemp("node")
    repository = data / "models"
    models.write_version(repository, "affine", "1", models.affine(2.0))
    probes = tmp_path_factory.getbasetemp() / "probes"
    async with standing(repository, data, probes=probes, transport=request.param) as made:
        yield made


async def test_a_node_application_can_use_every_kind_of_call(packages: Path, stand: Stand) -> None:
    client = await asyncio.create_subprocess_exec(
        "node",
        "client.js",
        stand.address,
        str(PROTO),
        cwd=packages,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(client.communicate(), 40)
    assert client.returncode == 0, output.decode()
