"""An upgrade on one host: `pip install` beside the running gateway, then SIGHUP; no request is lost."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

import gateway
from gateway.pb import control_pb2
from tests.e2e.calls import control
from tests.e2e.product import Product, until
from tests.e2e.traffic import Outcome, Traffic
from tests.upgrade.release import call, write_models

ROOT = Path(__file__).parents[2]
NEXT = f"{gateway.__version__}.post1"
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def _wheel(work: Path, version: str) -> Path:
    """A wheel of this tree under that version."""
    tree = work / f"tree-{version}"
    tree.mkdir(parents=True)
    for name in ("gateway", "loaders"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, tree)
    package = tree / "gateway" / "__init__.py"
    text = re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', package.read_text())
    package.write_text(text)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(work)]
    subprocess.run([*build, str(tree)], check=True, env={**os.environ, "GATEWAY_COMPILE": "never", "PYTHONPATH": ""})
    [wheel] = work.glob(f"model_serving_gateway-{version}-*.whl")
    return wheel


def _environment_with(work: Path) -> Path:
    """A virtual environment that sees what is installed in this one, but for the gateway."""
    subprocess.run([sys.executable, "-m", "venv", str(work / "venv")], check=True)
    python = work / "venv" / "bin" / "python"
    [packages] = (work / "venv" / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def _install(python: Path, wheel: Path) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", str(wheel)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": ""})


def _versions(server: str, workers: int) -> set[str]:
    """What the workers say they are, asked over connections of their own until each has answered."""
    said: dict[str, str] = {}
    for _ in range(40):
        with grpc.insecure_channel(server, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            answer = control(channel).ServerVersion(control_pb2.ServerVersionRequest(), timeout=10)
            said[answer.worker] = answer.version
        if len(said) == workers:
            break
    return set(said.values())


@contextmanager
def _calling(server: str) -> Iterator[Traffic]:
    """Calls from four clients while the context is open, each over its connection, and one that connects anew."""
    made, over = Traffic(), threading.Event()

    def outcome(channel: grpc.Channel, user: str) -> None:
        began_s, failure, text = time.monotonic(), "", ""
        try:
            call(channel, "pinned", user)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)  # noqa: PT017
            failure, text = error.code().name, error.details() or ""
        made.add(Outcome(began_s, failure, text))

    def run(number: int) -> None:
        while not over.is_set():
            with grpc.insecure_channel(server, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                while not over.wait(0.02):
                    outcome(channel, f"user-{number}")
                    if number == 0:
                        break

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    try:
        made.wait_for(50)
        yield made
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def test_a_release_that_is_installed_is_served_after_a_hup_and_nobody_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = _wheel(tmp_path, gateway.__version__), _wheel(tmp_path, NEXT)
    python = _environment_with(tmp_path)
    _install(python, before)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    product = Product(tmp_path / "gw", write_models(tmp_path / "models"), program=python.with_name("gateway"))
    try:
        product.start()
        assert _versions(product.server, 2) == {gateway.__version__}
        old = {child["pid"] for child in product.children("worker")}
        with _calling(product.server) as calls:
            _install(python, after)
            calls.wait_for(50)
            os.kill(product.state()["pid"], signal.SIGHUP)
            until(lambda: _renewed(product, old), 120, "every worker is a new one")
            calls.wait_for(100)
        assert calls.failures() == []
        assert _versions(product.server, 2) == {NEXT}
        product.stop()
    finally:
        product.kill()


def _renewed(product: Product, old: set[int]) -> bool:
    return all(child["state"] == "READY" and child["pid"] not in old for child in product.children("worker"))
