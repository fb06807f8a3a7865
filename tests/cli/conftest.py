"""A running worker to ask, and the command line that asks it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from gateway.routing.document.document import RouteDocument
from tests.api.operated import Operated, operated


@dataclass(frozen=True, slots=True)
class Shell:
    """The command line, pointed at a real server in this process."""

    worker: Operated
    directory: Path

    async def run(self, *words: str, text: str | None = None) -> Result:
        """The command, in a thread beside the server."""
        arguments = [*words, "--server", self.worker.server]
        return await asyncio.to_thread(CliRunner().invoke, app, arguments, input=text)

    async def done(self, *words: str, text: str | None = None) -> str:
        """What a command printed that ended well."""
        result = await self.run(*words, text=text)
        assert result.exit_code == 0, result.output
        return result.stdout

    async def value(self, *words: str, text: str | None = None) -> Any:
        return json.loads(await self.done(*words, "-o", "json", text=text))

    def write(self, name: str, *documents: RouteDocument) -> str:
        """The path of a file with these documents."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"---\n{yaml.safe_dump(document.to_value())}" for document in documents))
        return str(path)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Operated]:
    probes = tmp_path_factory.getbasetemp() / "probes"
    async with operated(tmp_path_factory.mktemp("worker"), probes) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def shell(worker: Operated, tmp_path: Path) -> Shell:
    """The command line for a worker without a route."""
    await worker.clear()
    return Shell(worker, tmp_path)
