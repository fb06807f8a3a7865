"""Writes the reference pages of this folder from the code that they describe: `make reference`.

A test holds what lies here against what this makes.
"""

import ast
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer.main
from google.protobuf import descriptor_pb2
from grpc_tools import protoc  # type: ignore[import-untyped]
from typer.testing import CliRunner

from gateway import errors
from gateway.access.permissions import RPCS
from gateway.access.principal import or_words
from gateway.byte_size import BYTE_FORMS
from gateway.cli.app import app
from gateway.errors import Code, GatewayError
from gateway.rest.control_paths import CONTROL_PATHS
from gateway.rest.http_refusal import HTTP_STATUS
from gateway.rest.rest_service import INFER_PATHS, OWN_PATHS, PREDICT_PATHS
from gateway.rest.triton_paths import RPC_PATHS, SERVICE
from gateway.runtime.option import Option
from gateway.runtime.options import OPTIONS

ROOT: Final = Path(__file__).parents[2]
NOTE: Final = "<!-- written by docs/reference/generate.py: `make reference` -->\n"
# What to do about a code; every text says it of its own case.
REMEDIES: Final[dict[Code, str]] = {
    Code.INVALID_ARGUMENT: (
        "Mend the request or the document: the text names the field, its value and the limit. Repeating it is"
        " of no use."
    ),
    Code.NOT_FOUND: (
        "Check the name, `gateway models`, and that your role covers the model: what you may not know is told"
        " as unknown."
    ),
    Code.FAILED_PRECONDITION: ("The request is right, the state is not: the text says which, and what changes it."),
    Code.ABORTED: ("Somebody changed the same thing meanwhile: read it again, and decide anew."),
    Code.RESOURCE_EXHAUSTED: (
        "A limit is reached. Repeat after the time that `grpc-retry-pushback-ms` or `Retry-After` gives; "
        "without end if that is negative."
    ),
    Code.UNAVAILABLE: (
        "Something is starting, stopping or away. Safe to repeat, and clients with the service config do so "
        "by themselves."
    ),
    Code.DEADLINE_EXCEEDED: (
        "The caller's own deadline, or `--default-deadline-seconds`. A longer one, fewer rows, or more workers."
    ),
    Code.CANCELLED: ("The caller went away."),
    Code.UNIMPLEMENTED: ("Not served here; the text says what is instead."),
    Code.UNAUTHENTICATED: (
        "Show a credential: a token in `authorization: Bearer TOKEN`, or a client certificate (docs/security.md)."
    ),
    Code.PERMISSION_DENIED: (
        "The credential is known; its role on that model is not enough. An admin grants it in the file of "
        "`--access-roles`."
    ),
    Code.INTERNAL: (
        "A defect of the gateway or of the model's runtime. The text has a request id; the log has the cause under it."
    ),
}


def pages() -> dict[str, str]:
    """Returns the contents of each page by its name."""
    return {
        "cli.md": cli(),
        "options.md": options(),
        "errors.md": error_texts(),
        "api.md": api(),
        "rest.md": rest(),
    }


# ---- the command line ----


def cli() -> str:
    """Returns what every command says of itself."""
    root: Any = typer.main.get_command(app)
    parts = [NOTE, "# Commands\n", "What `--help` says of each.\n"]
    runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"})
    for path in _commands((), root):
        told = runner.invoke(app, [*path, "--help"])
        assert told.exit_code == 0, told.output
        text = "\n".join(line.rstrip() for line in told.output.strip().splitlines())
        parts.append(f"## gateway {' '.join(path)}\n\n```\n{text}\n```\n")
    return "\n".join(parts)


def _commands(path: tuple[str, ...], command: Any) -> Iterator[tuple[str, ...]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield path
        return
    for name, one in sorted(below.items()):
        if not one.hidden:
            yield from _commands((*path, name), one)


# ---- options of `gateway serve` ----


def options() -> str:
    """Returns every option with its three names, by section."""
    parts = [
        NOTE,
        "# Options of `gateway serve`\n",
        "An argument overrides the variable of the environment, and that the key of the file that `--config` names.\n",
        f"Bytes are given {BYTE_FORMS}.\n",
    ]
    for section in dict.fromkeys(option.section for option in OPTIONS):
        parts.append(f"## {section}\n")
        rows = [_option(option) for option in OPTIONS if option.section == section]
        parts.append("| option | environment | key | default | what |\n|---|---|---|---|---|\n" + "".join(rows))
    return "\n".join(parts)


def _option(option: Option) -> str:
    names = f"`--{option.name}` | `{option.environment_name}` | `{option.name}`"
    return f"| {names} | {_cell(option.default_text or '(empty)')} | {_cell(option.help)} |\n"


# ---- errors ----


def error_texts() -> str:
    """Returns every code with what to do, and every text that the code can have."""
    texts: dict[Code, set[str]] = {code: set() for code in REMEDIES}
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        for kind, text in _raised(ast.parse(path.read_text())):
            texts[kind.code].add(text)
    parts = [
        NOTE,
        "# Errors\n",
        "What a caller is told: a code, a text, and in the trailing metadata (REST: the field) `x-gateway-request-id`, "
        "to find the request in the logs. `…` stands for what differs from case to case.\n",
        "| gRPC | REST | may be repeated | what to do |\n|---|---|---|---|\n"
        + "".join(
            f"| [{code.name}](#{code.name.lower()}) | {HTTP_STATUS[code]} | {_may_be_repeated(code)} | {remedy} |\n"
            for code, remedy in REMEDIES.items()
        ),
    ]
    for code, told in texts.items():
        parts.append(f"## {code.name}\n")
        parts.append("".join(f"- {_cell(text)}\n" for text in sorted(told, key=str.casefold)))
    return "\n".join(parts)


def _may_be_repeated(code: Code) -> str:
    return "yes" if any(kind.code is code and kind.retryable for kind in _kinds().values()) else "no"


def _kinds() -> dict[str, type[GatewayError]]:
    """Returns the classes whose text is given where they are raised, or that make it of their own pattern."""
    return {name: one for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, GatewayError)}


def _raised(tree: ast.Module) -> Iterator[tuple[type[GatewayError], str]]:
    kinds = _kinds()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in kinds:
            # `super().__init__(text)`: the pattern of a class that makes its text by itself.
            for call in ast.walk(node):
                made = isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "__init__"
                if made and (text := _text(*call.args[:1])):  # type: ignore[attr-defined]
                    yield kinds[node.name], text
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in kinds and (text := _text(*node.args[:1])):
            yield kinds[node.func.id], text  # type: ignore[attr-defined]


def _text(node: ast.expr | None = None) -> str:
    """Returns the text of an expression, with … for what it puts in; "" where it is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
        return "".join(map(str, parts)) if any(part.strip("… :,.") for part in map(str, parts)) else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return f"{left or '…'}{right or '…'}" if left or right else ""
    return ""


# ---- messages ----


def api() -> str:
    """Returns every service and message of protos/, with its comments."""
    # No client sends Feast's values: they are read from a store.
    names = sorted(path.name for path in (ROOT / "protos").glob("*.proto") if path.name != "feast.proto")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "all"
        well_known = Path(protoc.__file__).parent / "_proto"
        wanted = [f"-I{ROOT / 'protos'}", f"-I{well_known}", "--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", *wanted, *names]):
            raise SystemExit(1)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    parts = [
        NOTE,
        "# Messages and methods\n",
        "Made of [protos/](../../protos). Which role a method needs is said beside it.\n",
    ]
    for file in files:
        comments = {
            tuple(one.path): one.leading_comments or one.trailing_comments for one in file.source_code_info.location
        }
        for place, service in enumerate(file.service):
            parts.append(f"## {file.package}.{service.name}\n")
            rows = "".join(
                f"| {method.name} | {_message(method.input_type)}{' (stream)' if method.client_streaming else ''} | "
                f"{_message(method.output_type)}{' (stream)' if method.server_streaming else ''} | "
                f"{or_words(RPCS[f'/{file.package}.{service.name}/{method.name}'].roles) or 'none'} | "
                f"{_cell(comments.get((6, place, 2, index), ''))} |\n"
                for index, method in enumerate(service.method)
            )
            parts.append("| method | request | answer | role | |\n|---|---|---|---|---|\n" + rows)
        for place, message in enumerate(file.message_type):
            parts += _described(f"{file.package}.{message.name}", message, comments, (4, place))
    return "\n".join(parts)


def _described(
    name: str, message: descriptor_pb2.DescriptorProto, comments: dict[tuple[int, ...], str], path: tuple[int, ...]
) -> list[str]:
    if message.options.map_entry:
        return []
    parts = [f"### {name}\n"]
    if comment := comments.get(path, "").strip():
        parts.append(" ".join(comment.split()) + "\n")
    if message.field:
        maps = {f".{name}.{one.name}": one for one in message.nested_type if one.options.map_entry}
        rows = "".join(
            f"| {field.number} | {field.name} | {_type(field, maps)} | {_cell(comments.get((*path, 2, index), ''))} |\n"
            for index, field in enumerate(message.field)
        )
        parts.append("| | field | type | |\n|---|---|---|---|\n" + rows)
    for place, nested in enumerate(message.nested_type):
        parts += _described(f"{name}.{nested.name}", nested, comments, (*path, 3, place))
    return parts


def _type(field: descriptor_pb2.FieldDescriptorProto, maps: dict[str, descriptor_pb2.DescriptorProto]) -> str:
    if field.type_name in maps:
        key, value = maps[field.type_name].field
        return f"map of {_type(key, {})} to {_type(value, {})}"
    kinds = descriptor_pb2.FieldDescriptorProto
    name = _message(field.type_name) if field.type_name else kinds.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"list of {name}" if field.label == kinds.LABEL_REPEATED else name


def _message(type_name: str) -> str:
    return f"`{type_name.rsplit('.', 1)[-1]}`"


# ---- REST ----


def rest() -> str:
    """Returns every path of both ports, with the method of gRPC that it stands for, and the role that it needs."""
    applications = [(row.method, row.path, SERVICE + row.rpc) for row in RPC_PATHS]
    applications += [(row.method, row.path, SERVICE + row.rpc) for row in OWN_PATHS]
    applications += [("POST", path, f"{SERVICE}ModelInfer") for path in (*INFER_PATHS, *PREDICT_PATHS)]
    operators = [(row.method, row.path, row.permission) for row in CONTROL_PATHS]
    parts = [NOTE, "# Paths over HTTP\n", "How bodies are written says [docs/rest.md](../rest.md).\n"]
    for title, rows in (
        ("At the port of REST, for applications", applications),
        ("At the operators' port; the OpenAPI document is at `/openapi.json` there", operators),
    ):
        told = "".join(
            f"| {method} | `{path}` | {rpc.rpartition('/')[2]} | {or_words(RPCS[rpc].roles) or 'none'} |\n"
            for method, path, rpc in sorted(rows, key=lambda row: (row[1], row[0]))
        )
        parts.append(f"## {title}\n\n| | path | as | role |\n|---|---|---|---|\n{told}")
    return "\n".join(parts)


# ---- text ----


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, content in pages().items():
        (folder / name).write_text(content)
