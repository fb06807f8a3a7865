"""A Dockerfile, read, and carried out step by step where no container engine is there.

Each stage is a folder; RUN is chroot into it, with a mount and a process namespace of its own; COPY is cp. What
stands in for the base image is Debian's own minimal system of the same release, with its Python.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

_KNOWN = {
    *("FROM", "WORKDIR", "RUN", "ENV", "COPY", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"),
    *("ENTRYPOINT", "CMD"),
}
# What a host needs to reach registries, inside as outside.
_NETWORK = re.compile(r"(?i)^(https?_proxy|no_proxy|SSL_CERT_FILE|PIP_CERT|PIP_INDEX_URL|REQUESTS_CA_BUNDLE)$")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass
class Stage:
    """A stage: where it begins, its steps in order, and what the image will say."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    directory: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)


def read(text: str) -> list[Stage]:
    """The stages of a Dockerfile. Raises: ValueError for an instruction that nobody here knows."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if word not in _KNOWN:
            raise ValueError(f"{word} is no instruction that is known here")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
            continue
        stage = stages[-1]
        stage.steps.append((word, rest))
        match word:
            case "USER":
                stage.user = rest
            case "WORKDIR":
                stage.directory = rest
            case "ENTRYPOINT":
                stage.entrypoint = json.loads(rest)
            case "CMD":
                stage.command = json.loads(rest)
            case "VOLUME":
                stage.volumes = json.loads(rest)
            case "EXPOSE":
                stage.ports = [int(port) for port in rest.split()]
            case "HEALTHCHECK":
                stage.health = json.loads(rest[rest.index("CMD") + 3 :])
            case "ENV":
                for pair in shlex.split(rest):
                    name, _, value = pair.partition("=")
                    stage.environment[name] = value
    return stages


class Build:
    """Folders made of the stages, below `work`; `context` is what the engine would be sent."""

    def __init__(self, work: Path, context: Path, base: Path) -> None:
        self._work, self._context, self._base = work, context, base
        self._roots: dict[str, Path] = {}
        ignored = (context / ".dockerignore").read_text().split()
        self._ignored = [pattern.removeprefix("**/") for pattern in ignored]

    def stage(self, stage: Stage) -> Path:
        """Carries the stage out; returns its root. Raises: subprocess.CalledProcessError with what a step said."""
        root = self._work / f"stage-{len(self._roots)}"
        subprocess.run(["cp", "-a", "--reflink=auto", self._base, root], check=True)
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        directory = "/"
        for word, rest in stage.steps:
            if word == "ENV":
                for pair in shlex.split(rest):
                    name, _, value = pair.partition("=")
                    environment[name] = re.sub(r"\$(\w+)", lambda match: environment.get(match[1], ""), value)
            elif word == "WORKDIR":
                directory = rest
                (root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                self._copy(root, directory, rest)
            elif word == "RUN":
                run(root, ["/bin/sh", "-ec", rest], environment, directory).check_returncode()
        stage.environment = environment
        self._roots[stage.name] = root
        return root

    def _copy(self, root: Path, directory: str, rest: str) -> None:
        words = rest.split()
        source = self._context
        if words[0].startswith("--from="):
            source = self._roots[words.pop(0).removeprefix("--from=")]
        *names, target = words
        into = root / (target if target.startswith("/") else f"{directory}/{target}").lstrip("/")
        for name in names:
            wanted = source / name.lstrip("/")
            if wanted.is_dir():
                shutil.copytree(wanted, into, symlinks=True, dirs_exist_ok=True, ignore=self._ignore)
            else:
                folder = into if target.endswith("/") else into.parent
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy2(wanted, into)

    def _ignore(self, folder: str, names: list[str]) -> set[str]:
        if Path(folder).is_relative_to(self._context):
            return {name for name in names if any(fnmatch(name, pattern) for pattern in self._ignored)}
        return set()


def command(
    root: Path,
    words: Sequence[str],
    environment: Mapping[str, str],
    directory: str = "/",
    user: str = "0:0",
    mounts: Mapping[str, Path] | None = None,
) -> list[str]:
    """The command line that runs `words` inside `root`.

    With `mounts` the root is read-only, as a container's may be, but for these and /tmp.
    """
    at = shlex.quote(str(root))
    prepare = [f"mount --bind {at} {at}"] if mounts is not None else []
    prepare += [f"mount -t proc proc {at}/proc", f"mount --rbind /dev {at}/dev"]
    if mounts is not None:
        prepare += [f"mount --bind {shlex.quote(str(host))} {at}{inside}" for inside, host in mounts.items()]
        prepare += [f"mount -t tmpfs tmpfs {at}/tmp", f"mount -o remount,bind,ro {at}"]
    variables = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
    chroot = f"chroot --userspec={user} {at} /usr/bin/env -i -C {directory} {variables} {shlex.join(words)}"
    return ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", " && ".join([*prepare, f"exec {chroot}"])]


def run(
    root: Path, words: Sequence[str], environment: Mapping[str, str], directory: str = "/", user: str = "0:0"
) -> "subprocess.CompletedProcess[str]":
    """Runs a step of the build, which may use the network as this host does."""
    shutil.copy2("/etc/resolv.conf", root / "etc" / "resolv.conf")
    if _CERTIFICATES.exists():
        shutil.copy2(_CERTIFICATES, root / _CERTIFICATES.relative_to("/"))
    network = {name: value for name, value in os.environ.items() if _NETWORK.match(name)}
    line = command(root, words, {**network, **environment}, directory, user)
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        print(done.stdout[-4000:])
    return done


def minimal_debian(root: Path, release: str) -> None:
    """Makes what stands in for an image `python:...-slim-RELEASE`: a minimal Debian with `python` and its headers."""
    packages = "--include=python3,python3-venv,python3-dev,ca-certificates"
    subprocess.run(["debootstrap", "--variant=minbase", packages, release, root], check=True, stdout=subprocess.DEVNULL)
    (root / "usr" / "local" / "bin" / "python").symlink_to("/usr/bin/python3")
    shutil.copy2("/etc/resolv.conf", root / "etc" / "resolv.conf")
