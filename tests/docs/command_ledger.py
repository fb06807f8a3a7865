"""What becomes of each shell command of the documentation: which test runs it, or why none does.

A command that is in no row is an error, and so is a row that no command is in. What is not run is held to a small
grammar, and to the help of the program itself where that is installed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.docs.shell_commands import ShellCommand


class Reason(StrEnum):
    """Why a command is not run."""

    ENGINE = "needs a container engine; tests/deploy/test_dockerfile.py carries the Dockerfile out without one"
    CLUSTER = "needs a cluster; tests/deploy/test_chart.py holds what it sends to the published schemas"
    HOST = "changes the host that the tests run on: its users, its services, its /opt"
    REGISTRY = "installs from a registry, into an environment that others use as well"
    SUITE = "is what runs the tests, or what they start without make: the gateway, by its command"
    SIGNER = "needs a package that is no dependency; tests/loaders/test_model_signature.py signs by its format"
    SHELL = "says where later commands are found, which the test of the page sets as well"


@dataclass(frozen=True, slots=True)
class Row:
    """Commands of a page that begin so; of several rows that fit, the first counts. `test` runs them, or `why` not."""

    page: str
    beginning: str
    test: str = ""
    why: Reason | None = None

    def holds(self, command: ShellCommand) -> bool:
        return command.page == self.page and command.text.startswith(self.beginning)


_CURL: Final = "tests/e2e/test_rest.py::test_a_line_of_the_documentation"
_JOBS: Final = "tests/e2e/test_load_jobs.py::test_every_command_of_the_page_does_what_it_says"
_LOCUST: Final = "tests/e2e/test_load_jobs.py::test_locust_with_two_workers_sends_each_call_once"
_TUTORIAL: Final = "tests/e2e/test_tutorial.py::test_every_command_of_the_page_does_what_it_says"
_REPLAY: Final = "tests/replay/test_replay_page.py::test_a_command_of_the_page_runs"
_OPERATORS: Final = "tests/e2e/test_documented_commands.py::test_operators_commands_do_what_they_say"
_TOUR: Final = "tests/e2e/test_documented_commands.py::test_the_tour_of_the_readme"
_STARTS: Final = "tests/e2e/test_documented_commands.py::test_a_gateway_starts_as_a_page_says"
_ENSEMBLES: Final = "tests/e2e/test_own_models.py::test_the_example_of_an_ensemble_runs"

LEDGER: Final = (
    Row("README.md", "make ", why=Reason.SUITE),
    Row("README.md", ".venv/bin/pip install ", why=Reason.REGISTRY),
    Row("README.md", "docker ", why=Reason.ENGINE),
    Row("README.md", "curl ", _CURL),
    Row("README.md", ".venv/bin/", _TOUR),
    Row("docs/deployment.md", "gateway doctor ", _OPERATORS),
    Row("docs/deployment.md", "docker ", why=Reason.ENGINE),
    Row("docs/deployment.md", "helm ", why=Reason.CLUSTER),
    Row("docs/deployment.md", "kubectl ", why=Reason.CLUSTER),
    Row("docs/deployment.md", "useradd ", why=Reason.HOST),
    Row("docs/deployment.md", "python3 -m venv /opt/", why=Reason.HOST),
    Row("docs/deployment.md", "/opt/model-serving-gateway/bin/pip install ", why=Reason.HOST),
    Row("docs/deployment.md", "install ", why=Reason.HOST),
    Row("docs/deployment.md", "systemctl ", why=Reason.HOST),
    Row("docs/ensembles.md", "make ", why=Reason.SUITE),
    Row("docs/ensembles.md", ".venv/bin/python docs/examples/ensembles/", _ENSEMBLES),
    Row("docs/experiments.md", "gateway results ", _OPERATORS),
    Row("docs/features.md", "gateway serve ", _STARTS),
    Row("docs/load-tests.md", "python -m loadtests ", _JOBS),
    Row("docs/load-tests.md", "locust ", _LOCUST),
    Row("docs/log.md", "gateway ", _OPERATORS),
    Row("docs/models.md", "gateway serve ", _STARTS),
    Row("docs/models.md", "gateway ", _OPERATORS),
    Row("docs/models.md", "pip install ", why=Reason.SIGNER),
    Row("docs/models.md", "model_signing ", why=Reason.SIGNER),
    Row("docs/operating.md", "gateway serve ", _STARTS),
    Row("docs/operating.md", "gateway models --server gateway.example:8001 ", _STARTS),
    Row("docs/operating.md", "gateway ", _OPERATORS),
    Row("docs/replay.md", "gateway ", _REPLAY),
    Row("docs/rest.md", "curl ", _CURL),
    Row("docs/traces.md", "gateway serve ", _STARTS),
    Row("docs/tutorial.md", "mkdir -p tour/models", "tests/e2e/test_tutorial.py::serving"),
    Row("docs/tutorial.md", ".venv/bin/gateway serve ", "tests/e2e/test_tutorial.py::serving"),
    Row("docs/tutorial.md", "export PATH=", why=Reason.SHELL),
    Row("docs/tutorial.md", "python docs/", _TUTORIAL),
    Row("docs/tutorial.md", "gateway ", _TUTORIAL),
    Row("docs/your-own-model.md", "mkdir -p models", "tests/e2e/test_own_models.py::serving"),
    Row("docs/your-own-model.md", "make ", why=Reason.SUITE),
)

# The programs of commands that are not run, with what they are given here. Where the program is installed, its help has
# to name every one of these.
GRAMMAR: Final[Mapping[tuple[str, ...], frozenset[str]]] = {
    ("docker", "build"): frozenset({"-t"}),
    ("docker", "run"): frozenset(
        {"--cap-drop", "--read-only", "--rm", "--security-opt", "--tmpfs", "-e", "-p", "-v"}
    ),
    ("docker", "compose"): frozenset({"--build", "-f"}),
    ("helm", "install"): frozenset({"--namespace", "--set"}),
    ("kubectl", "apply"): frozenset({"-f", "-n"}),
    ("useradd",): frozenset({"--home-dir", "--shell", "--system"}),
    ("systemctl", "daemon-reload"): frozenset(),
    ("systemctl", "enable"): frozenset({"--now"}),
    ("systemctl", "reload"): frozenset(),
    ("install",): frozenset({"-d", "-g", "-m"}),
    ("pip", "install"): frozenset({"--upgrade", "-c"}),
    ("python3", "-m", "venv"): frozenset(),
    ("make", "run"): frozenset(),
    ("make", "test"): frozenset(),
    ("model_signing", "sign", "key"): frozenset({"--private_key", "--signature"}),
    ("export",): frozenset(),
}  # fmt: skip


def row_of(command: ShellCommand) -> Row | None:
    """The row that the command is in."""
    return next((row for row in LEDGER if row.holds(command)), None)
