"""A control group of this machine's kernel, for tests of what happens when memory or processes run out."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

_ROOT = Path("/sys/fs/cgroup")
_ALLOCATE = "import os, sys; sys.stdin.readline(); b'x' * (1 << 30)"
# The files of a controller: its limit and its use, of version 1 and of version 2.
_FILES = {
    "memory": (("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")),
    "pids": (("pids.max", "pids.current"), ("pids.max", "pids.current")),
}


class ControlGroup:
    """An empty group with one controller, of whichever version this machine has.

    `is_first`: of version 1, where each controller has groups of its own.
    """

    def __init__(self, controller: str) -> None:
        """Raises: OSError, AssertionError, if it cannot be made."""
        mount = _ROOT / controller
        self.is_first = (mount / "cgroup.procs").is_file()
        if not self.is_first:
            mount = _ROOT
            (mount / "cgroup.subtree_control").write_text(f"+{controller}")
        self._limit, self._use = _FILES[controller][0 if self.is_first else 1]
        self._none = "-1" if self.is_first and controller == "memory" else "max"
        self.path = mount / f"gateway-test-{uuid4().hex[:12]}"
        self.path.mkdir()
        assert (self.path / self._limit).is_file()

    def use(self) -> int:
        return int((self.path / self._use).read_text())

    def limit(self, value: int | None) -> None:
        (self.path / self._limit).write_text(self._none if value is None else str(value))

    @property
    def joining(self) -> str:
        """The line of a shell script that makes the shell, and what it becomes, part of the group."""
        return f"echo $$ > {self.path / 'cgroup.procs'}\n"

    def exhaust_memory(self) -> int:
        """The exit status of a process of the group that takes all of its memory."""
        with subprocess.Popen([sys.executable, "-c", _ALLOCATE], stdin=subprocess.PIPE) as process:
            (self.path / "cgroup.procs").write_text(str(process.pid))
            self.limit(64 << 20)
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.close()
            return process.wait(30)

    def remove(self) -> None:
        """Order: when none of its processes is left."""
        self.path.rmdir()


@contextmanager
def control_group(controller: str) -> Iterator[ControlGroup]:
    """A group of this controller; the test is skipped where this user, or this kernel, may have none."""
    with group_if_any(controller) as group:
        if group is None:
            pytest.skip(f"no control group with {controller!r} can be made here")
        yield group


@contextmanager
def group_if_any(controller: str) -> Iterator[ControlGroup | None]:
    """A group of this controller, or None where this user, or this kernel, may have none."""
    try:
        group = ControlGroup(controller)
    except (OSError, AssertionError):
        yield None
        return
    try:
        yield group
    finally:
        group.remove()


def program_in(groups: Iterable[ControlGroup | None], program: Path, script: Path) -> Path:
    """A program that is the given one as a member of the groups that there are."""
    joining = "".join(group.joining for group in groups if group is not None)
    script.write_text(f'#!/bin/sh\n{joining}exec {program} "$@"\n')
    script.chmod(0o700)
    assert os.access(script, os.X_OK)
    return script
