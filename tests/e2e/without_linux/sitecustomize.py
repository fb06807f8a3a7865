"""Makes this interpreter lack what macOS lacks, as far as Python code can tell: on its path, it is imported first.

The platform's name, functions of `os` and constants of `socket`, functions of the C library, sockets of unix that keep
messages apart, ports that several processes listen on, limits of the address space, and the files of /proc and /sys.
What native code asks the kernel it asks Linux: nothing is shown here of how libraries behave on macOS.
"""

import os
import resource
import socket
import sys

_OF_OS = (
    *("copy_file_range", "eventfd", "fdatasync", "getrandom", "memfd_create", "pidfd_open", "pipe2", "posix_fadvise"),
    *("posix_fallocate", "sched_getaffinity", "sched_setaffinity", "sched_setscheduler", "sched_getscheduler"),
    *("sched_param", "splice", "O_DIRECT", "O_PATH", "O_TMPFILE", "SCHED_BATCH", "getxattr", "setxattr"),
)
_OF_SOCKET = (
    *("AF_NETLINK", "AF_PACKET", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "SO_DOMAIN", "SO_PEERCRED", "SO_PROTOCOL"),
    *("TCP_CORK", "TCP_DEFER_ACCEPT", "TCP_INFO", "TCP_KEEPIDLE", "TCP_LINGER2", "TCP_QUICKACK", "TCP_USER_TIMEOUT"),
)
_OF_C = frozenset({"prctl", "mallopt", "malloc_trim", "pthread_mutexattr_setrobust", "syscall"})
_FOLDERS = ("/proc", "/sys")

for module, names in ((os, _OF_OS), (socket, _OF_SOCKET), (resource, ("prlimit",))):
    for name in names:
        vars(module).pop(name, None)


# Modules that ask for the platform's name when they are imported, and stay Linux's.
import asyncio  # noqa: E402, F401
import ctypes  # noqa: E402
import errno  # noqa: E402
import multiprocessing.util  # noqa: E402, F401
import platform  # noqa: E402, F401
import shutil  # noqa: E402, F401
import subprocess  # noqa: E402, F401
import sysconfig  # noqa: E402, F401
import tempfile  # noqa: E402, F401
import urllib.request  # noqa: E402, F401
import uuid  # noqa: E402, F401
import zoneinfo  # noqa: E402, F401
from typing import Any  # noqa: E402


class _Library(ctypes.CDLL):
    def __getattr__(self, name: str) -> Any:
        if name in _OF_C:
            raise AttributeError(name)
        return super().__getattr__(name)


class _Socket(socket.socket):
    def setsockopt(self, level: int, option: int, *value: object) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_REUSEPORT):
            raise OSError(errno.ENOPROTOOPT, "this host shares no port")
        super().setsockopt(level, option, *value)  # type: ignore[call-overload]


def _socketpair(
    family: int = socket.AF_UNIX, type: int = socket.SOCK_STREAM, proto: int = 0
) -> tuple[socket.socket, socket.socket]:
    if type == socket.SOCK_SEQPACKET:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
    return _pair(family, type, proto)


def _setrlimit(limit: int, values: tuple[int, int]) -> None:
    if limit == resource.RLIMIT_AS:
        raise ValueError("current limit exceeds maximum limit")
    _set(limit, values)


def _no_fork() -> int:
    raise OSError(errno.EPERM, "a fork does not outlive the frameworks")


def _look(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | bytes):
        path = os.fsdecode(arguments[0])
        if path.startswith(_FOLDERS) and (path + "/").startswith(tuple(f"{folder}/" for folder in _FOLDERS)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


_pair, _set = socket.socketpair, resource.setrlimit
ctypes.CDLL = _Library  # type: ignore[misc]
socket.socket = _Socket  # type: ignore[misc]
socket.socketpair = _socketpair  # type: ignore[assignment]
resource.setrlimit = _setrlimit
os.fork = _no_fork
sys.platform = "darwin"
sys.addaudithook(_look)
