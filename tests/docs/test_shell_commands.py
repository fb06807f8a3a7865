"""Each shell command of README and docs is run by a test, or a table says why not, and then it can be typed."""

import ast
import re
import shlex
import shutil
import subprocess
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from gateway.runtime.options import OPTIONS
from tests.cli.tree import COMMANDS
from tests.deploy.dockerfile import read
from tests.deploy.published_schemas import documents, faults, helm, is_kubernetes
from tests.docs.command_ledger import GRAMMAR, LEDGER, Reason, Row, row_of
from tests.docs.shell_commands import ROOT, ShellCommand, commands_of, pages, shell_commands

COMMAND_LINES = shell_commands()
NOT_RUN = [command for command in COMMAND_LINES if (row := row_of(command)) is not None and row.why is not None]


def parts_of(command: ShellCommand) -> list[list[str]]:
    """The words of a command, of each part where several are joined."""
    return [shlex.split(part) for part in re.split(r" && ", command.text)]


def program_of(words: list[str]) -> tuple[str, ...]:
    """Its key in the grammar: the program by its name, and what of it is called."""
    named = (Path(words[0]).name, *words[1:])
    return next((key for key in GRAMMAR if named[: len(key)] == key), ())


def test_blocks_are_read_as_a_shell_reads_them() -> None:
    text = "```\na -x 'b # c'   # said\nd \\\n  e # f\n\n# only said\n```\n```text\nno command\n```\n```sh\ng #h\n```\n"
    assert commands_of(text) == ["a -x 'b # c'", "d \\\n  e", "g"]


@pytest.mark.parametrize("command", COMMAND_LINES, ids=str)
def test_a_command_is_run_or_said_not_to_be(command: ShellCommand) -> None:
    assert row_of(command) is not None, f"{command}: in no row of tests/docs/command_ledger.py"


@pytest.mark.parametrize("row", LEDGER, ids=lambda row: f"{row.page}: {row.beginning}")
def test_a_row_holds_a_command(row: Row) -> None:
    assert any(row_of(command) is row for command in COMMAND_LINES), f"{row}: no command begins so any more"
    assert bool(row.test) != (row.why is not None)


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("test", sorted({row.test for row in LEDGER if row.test}))
def test_what_runs_commands_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    assert name in functions_of(path)


@pytest.mark.parametrize("why", Reason)
def test_the_tests_that_a_reason_names_are_there(why: Reason) -> None:
    assert any(row.why is why for row in LEDGER)
    assert all((ROOT / path).exists() for path in re.findall(r"tests/[\w/]+\.py", why))


@pytest.mark.parametrize("command", NOT_RUN, ids=str)
def test_a_command_that_is_not_run_has_flags_that_are_known(command: ShellCommand) -> None:
    for words in parts_of(command):
        known = GRAMMAR[program_of(words)]
        assert {word.partition("=")[0] for word in words if word.startswith("-") and word != "-m"} <= known | {"-m"}


def test_the_grammar_holds_nothing_that_is_not_used() -> None:
    used: dict[tuple[str, ...], set[str]] = {}
    for command in NOT_RUN:
        for words in parts_of(command):
            used.setdefault(program_of(words), set()).update(word for word in words if word.startswith("-"))
    assert {key: frozenset(flags) - {"-m"} for key, flags in used.items()} == {
        key: flags - {"-m"} for key, flags in GRAMMAR.items()
    }


@pytest.mark.parametrize("program", [key for key, flags in GRAMMAR.items() if flags], ids=" ".join)
def test_the_program_itself_knows_the_flags(program: tuple[str, ...]) -> None:
    path = helm() if program[0] == "helm" else shutil.which(program[0])
    if path is None:
        pytest.skip(f"{program[0]} is not installed: the grammar alone")
    done = subprocess.run([path, *program[1:], "--help"], capture_output=True, text=True, timeout=30, check=False)
    said = done.stdout + done.stderr
    if not all(word in said for word in program):  # the help of what is above it: it has no such part
        pytest.skip(f"{' '.join(program)} is not installed: the grammar alone")
    if program[0] == "kubectl":  # what all its commands take is told apart
        said += subprocess.run([path, "options"], capture_output=True, text=True, timeout=30, check=False).stdout
    for flag in GRAMMAR[program]:
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", said), f"{flag}: {said[:2000]}"


# ---- what is not run names things that are there ----

DOCKERFILE = read((ROOT / "Dockerfile").read_text())[-1]
RUNS = [words for command in NOT_RUN for words in parts_of(command) if program_of(words) == ("docker", "run")]


def given(words: list[str], flag: str) -> list[str]:
    return [value for before, value in pairwise(words) if before == flag]


@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_docker_is_told_of_what_the_image_has(words: list[str]) -> None:
    images = {given(shlex.split(one.text), "-t")[0] for one in NOT_RUN if one.text.startswith("docker build")}
    assert words[-1] in images
    names = {pair.partition("=")[0] for pair in given(words, "-e")}
    assert names <= {option.environment_name for option in OPTIONS}
    assert {int(port.rpartition(":")[2]) for port in given(words, "-p")} <= set(DOCKERFILE.ports)
    mounted = {place.split(":")[1] for place in given(words, "-v")}
    environment = DOCKERFILE.environment
    assert {environment["GATEWAY_MODEL_REPOSITORY"], environment["GATEWAY_DATA_DIR"]} <= mounted


def test_files_that_commands_name_are_there() -> None:
    named = {word for one in NOT_RUN for words in parts_of(one) for word in words if word.startswith("docs/")}
    assert named
    assert all((ROOT / name).exists() for name in named)


def test_helm_renders_what_it_would_install() -> None:
    [words] = [words for one in NOT_RUN for words in parts_of(one) if words[0] == "helm"]
    line = [str(helm()), "template", *words[2:]]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    rendered = documents(done.stdout)
    assert {one["kind"] for one in rendered} >= {"Deployment", "Service", "NetworkPolicy"}
    assert [fault for one in rendered if is_kubernetes(one) for fault in faults(one)] == []


def test_kubectl_and_compose_are_given_documents() -> None:
    for words in (words for one in NOT_RUN for words in parts_of(one) if words[0] in ("kubectl", "docker")):
        for file in given(words, "-f"):
            assert [one for one in yaml.safe_load_all((ROOT / file).read_text()) if one]


def test_what_is_installed_can_be() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in (words for one in NOT_RUN for words in parts_of(one) if program_of(words) == ("pip", "install")):
        for name in (word for word in words[2:] if not word.startswith("-") and not word.endswith((".txt", ".whl"))):
            # The folder of the sources, which is of this name.
            requirement = Requirement(re.sub(r"^\.(?=\[)", "model-serving-gateway", name))
            if requirement.name == "model-serving-gateway":
                assert requirement.extras <= set(extras)


# ---- commands of ours ----

OURS = [one for one in COMMAND_LINES if re.match(r"(\.venv/bin/)?gateway ", one.text)]
# Within a sentence a command may be named by a part of it.
_INLINE = re.compile(r"`((?:\.venv/bin/)?gateway [a-z][^`\n]*)`")


def called(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The command that is named, or a group of some, and what it is given."""
    for end in range(len(words), 0, -1):
        if any(known[:end] == tuple(words[:end]) for known in COMMANDS):
            return tuple(words[:end]), words[end:]
    return (), words


def mentions() -> list[tuple[str, str]]:
    return sorted({(page, line) for page in pages() for line in _INLINE.findall((ROOT / page).read_text("utf-8"))})


@pytest.mark.parametrize("command", OURS, ids=str)
def test_a_command_of_ours_can_be_typed(command: ShellCommand) -> None:
    name, given_words = called(shlex.split(command.text)[1:])
    COMMANDS[name].make_context(command.text, given_words)


@pytest.mark.parametrize(("page", "line"), mentions(), ids=str)
def test_a_command_that_a_sentence_names_is_there_with_its_options(page: str, line: str) -> None:
    name, rest = called(re.findall(r"[^\s\[\]|,]+", line)[1:])
    assert name, f"{page}: {line}"
    options = {word.partition("=")[0] for word in rest if re.match(r"--[a-z]", word)}
    if name in COMMANDS:
        known = {text for one in COMMANDS[name].params for text in (*one.opts, *one.secondary_opts)} | {"--help"}
        assert options <= known, f"{page}: {line}"
