"""The product as `pip install` builds it where there is a C compiler: what every request runs through is compiled.

The tests of the modules that are compiled run once more, on a copy that is built in place.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fault_stack
from tests.hypothesis_profiles import FEW

ROOT = Path(__file__).parents[1]
ROUTING = ("decide", "explain", "key", "operators", "snapshot", "replay", "table")
RECORDS = ("fast_path", "large_inputs", "log", "log_thread", "loss_policy", "redaction", "round_trip", "score_filter")
TESTS = (
    *("tests/api", "tests/rpc", "tests/serving", "tests/telemetry"),
    *("tests/features/test_look_up.py", "tests/features/test_absent_store.py"),
    "tests/test_backoff.py",
    *(f"tests/rest/test_{name}.py" for name in ("http1", "http2", "infer_calls", "malformed")),
    *(f"tests/routing/test_{name}.py" for name in ROUTING),
    *(f"tests/records/test_{name}.py" for name in RECORDS),
)
# Of the folders among them what tests modules that are not compiled, and knows of those that are only `HELD`: objects
# that pass through. `make test-all` runs these as well.
HELD = {"gateway.access.principal", "gateway.serving.version"}
CONTROL = ("api", "bridge", "drafts", "edits", "explain", "plan", "rollouts", "service", "watch")
API = ("health", "models", "operating_tables", "overview", "route_guard", "tf_numbers", "watch_by_rest")
SERVING = (
    *("bad_model_files", "budget", "carried_value", "catalog", "catalog_loop", "catalog_state", "completed_config"),
    *("cpu_share", "ensemble_graph", "execution_provider", "fallback_breaker", "heap", "loads_by_hand"),
    *("mirror_comparison", "model_config", "operator_examples", "pinned_versions", "preparation", "prepared_store"),
    *("prepared_versions", "probe", "process_ban", "provenance", "repository", "residence", "row_independence"),
    *("row_trial", "session", "trial_processes", "verification", "worker_lives"),
)
TELEMETRY = (
    *("alert_firing", "alerts", "dashboards", "drift_states", "events", "metrics_page", "published"),
    "span_encoding",
)
APART = (
    *(f"tests/api/test_control_{name}.py" for name in CONTROL),
    *(f"tests/api/test_{name}.py" for name in API),
    *(f"tests/rpc/test_{name}.py" for name in ("listening_descriptor", "server_certificate")),
    *(f"tests/serving/test_{name}.py" for name in SERVING),
    *(f"tests/telemetry/test_{name}.py" for name in TELEMETRY),
)
COMPILER = (sysconfig.get_config_var("CC") or "cc").split()[0]
VALGRIND = Path("/usr/bin/valgrind")
HEADER = Path(sysconfig.get_path("include"), "Python.h")


def compiled(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """Marks a test of the compiled copy: it takes minutes, and a compiler."""
    missing = shutil.which(COMPILER) is None or not HEADER.exists()
    test = pytest.mark.skipif(missing, reason=f"no {COMPILER} or no {HEADER}")(test)
    return pytest.mark.slow(pytest.mark.timeout(900)(test))


@pytest.mark.parametrize("path", [*TESTS, *APART])
def test_what_is_run_on_the_compiled_copy_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path", APART)
def test_what_is_run_by_itself_tests_nothing_that_is_compiled(path: str) -> None:
    listed = re.findall(r'"(gateway/[\w/]+)\.py",', (ROOT / "setup.py").read_text())
    modules = {name.replace("/", ".") for name in listed}
    assert modules > HELD
    assert not modules.intersection(imports((ROOT / path).read_text())) - HELD


def imports(source: str) -> set[str]:
    """The modules that are imported by `from`, as it is done in this tree."""
    return set(re.findall(r"^from ([\w.]+) import", source, re.MULTILINE))


def copy(tree: Path) -> None:
    """Makes a copy of the source."""
    for name in ("gateway", "loaders", "loadtests", "protos", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "README.md", "Makefile", "constraints.txt"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source, compiled in place."""
    tree = tmp_path_factory.mktemp("compiled")
    copy(tree)
    shutil.copytree(ROOT / "docs", tree / "docs")
    run(tree, "setup.py", "-q", "build_ext", "--inplace", GATEWAY_COMPILE="require", GATEWAY_COMPILE_LEVEL="0")
    return tree


def run(tree: Path, *arguments: str, **environment: str) -> str:
    """What a Python process in the tree printed; it has ended well."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, fault_stack.end_of(ended)
    return ended.stdout


@compiled
def test_the_copy_is_compiled(built: Path) -> None:
    said = run(built, "-c", "import gateway.runtime.build as build; print(build.__file__, build.is_compiled())")
    assert said.split() == [str(built / "gateway/runtime/build.py"), "True"]


def passes(tree: Path, *arguments: str) -> None:
    """The tests pass in the tree, with few examples of each property; what is compiled can end the process."""
    library = fault_stack.build(COMPILER, tree)
    run(
        *(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow and not long"),
        *("-p", "no:faulthandler", "-p", "tests.fault_stack", f"--hypothesis-profile={FEW}", *arguments),
        FAULT_STACK=str(library),
    )


@compiled
def test_the_compiled_modules_pass_their_tests(built: Path) -> None:
    passes(built, *TESTS, *(f"--ignore={path}" for path in APART))


@pytest.mark.long
@compiled
def test_what_uses_compiled_modules_passes_its_tests(built: Path) -> None:
    passes(built, *APART)


@pytest.mark.long
@compiled
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not VALGRIND.exists(), reason=f"no {VALGRIND}")
def test_traces_of_one_call_in_a_hundred_cost_two_percent_at_most(built: Path) -> None:
    """In instructions, with their way to a collector: what else the machine does is not in it."""
    said = run(built, "-m", "loadtests.bench.instructions", "--of", "tracing", "--calls", "300", "--rounds", "1")
    [share] = re.findall(r": ([+-][\d.]+)% with one in 100", said)
    assert 0.1 < float(share) <= 2.0, said


@pytest.mark.long
@compiled
def test_a_compiled_wheel_needs_nothing_but_what_the_build_asks_for(tmp_path: Path) -> None:
    """In an environment that has no package but pip: what is imported for its types alone is part of it."""
    copy(tmp_path)
    run(tmp_path, "-m", "venv", str(tmp_path / "empty"))
    subprocess.run(
        [tmp_path / "empty/bin/python", "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", tmp_path, tmp_path],
        env={**os.environ, "GATEWAY_COMPILE": "require", "PYTHONPATH": ""},
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert sysconfig.get_config_var("SOABI").split("-")[1] in wheel.name
