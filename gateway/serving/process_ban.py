"""A ban on new processes and on reaching others, held by the kernel, for processes that run what they do not trust.

RLIMIT_NPROC counts all processes and threads of a user, of other containers too, and not those of root. A control group
counts rightly, and can seldom be made by who is not root. A filter of system calls needs no right and holds for one
process, whoever its user is. Threads are let through: ONNX Runtime has its own, and each takes address space, which
RLIMIT_AS bounds. What such a process cannot reach either is another one: it may signal, and set the limits of, itself
alone, so that no model ends the trial of the next.

Source: seccomp(2); Documentation/userspace-api/seccomp_filter.rst of Linux; the numbers are those of its unistd.h.
"""

import ctypes
import errno
import os
import struct
import sys
from dataclasses import dataclass
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_FILTER_FLAG_TSYNC: Final = 1
_CLONE_THREAD: Final = 0x10000
_X32_CALLS: Final = 0x40000000  # a second set of numbers for the same calls; others have no calls that high

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_AT_LEAST: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_CALL_AT: Final = 0  # of struct seccomp_data; the first argument's low half on a little-endian machine
_MACHINE_AT: Final = 4
_ARGUMENT_AT: Final = 16
_ALLOW: Final = 0x7FFF0000
_ERROR: Final = 0x00050000


@dataclass(frozen=True, slots=True)
class _SystemCalls:
    """The numbers of a machine's system calls.

    `forbidden` start a process or another program, or read, write, trace or signal another one by other means than its
    number (fork, vfork, execve, execveat; ptrace, process_vm_readv and _writev, tkill, pidfd_send_signal, _open and
    _getfd); those of `own` begin with the number of a process, which must be the caller's (kill, tgkill,
    rt_sigqueueinfo, rt_tgsigqueueinfo, prlimit64).
    """

    machine: int
    seccomp: int
    clone: int
    clone3: int
    forbidden: tuple[int, ...]
    own: tuple[int, ...]
    prlimit: int


_MACHINES: Final = {
    "x86_64": _SystemCalls(
        0xC000003E,
        seccomp=317,
        clone=56,
        clone3=435,
        forbidden=(57, 58, 59, 322, 101, 310, 311, 200, 424, 434, 438),
        own=(62, 234, 129, 297),
        prlimit=302,
    ),
    "aarch64": _SystemCalls(
        0xC00000B7,
        seccomp=277,
        clone=220,
        clone3=435,
        forbidden=(221, 281, 117, 270, 271, 130, 424, 434, 438),
        own=(129, 131, 138, 240),
        prlimit=261,
    ),
}


def ban_processes() -> bool:
    """Forbids this process, its threads and whatever they start, for good, new processes and other programs, and to
    signal, trace or limit another process.

    Returns False where the kernel has no such filter (not Linux, another machine than x86-64 and arm64): nothing is
    forbidden then. Threads can be started as before; what is forbidden fails with PermissionError.
    """
    calls = _MACHINES.get(os.uname().machine) if sys.platform == "linux" and sys.maxsize > 2**32 else None
    if calls is None:
        return False
    program = _program(calls, os.getpid())
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    # To every thread: those of the libraries that are imported are there already.
    return bool(libc.syscall(calls.seccomp, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, header) == 0)


def _program(calls: _SystemCalls, pid: int) -> bytes:
    """Returns the filter of the process `pid`, by which every other call is let through.

    What clone3 would do is in memory, which a filter cannot read: without clone3 the C library takes clone.
    """
    forbidden = [(_JUMP_EQUAL, number, "forbidden") for number in calls.forbidden]
    own = [(_JUMP_EQUAL, number, "own") for number in calls.own]
    lines: list[tuple[int, int, str]] = [
        (_LOAD, _MACHINE_AT, ""),
        (_JUMP_EQUAL, calls.machine, "+1"),
        (_RETURN, _ERROR | errno.EPERM, ""),
        (_LOAD, _CALL_AT, ""),
        (_JUMP_AT_LEAST, _X32_CALLS, "forbidden"),
        (_JUMP_EQUAL, calls.clone3, "unknown"),
        *forbidden,
        *own,
        (_JUMP_EQUAL, calls.prlimit, "limit"),
        (_JUMP_EQUAL, calls.clone, "+1"),
        (_RETURN, _ALLOW, ""),
        (_LOAD, _ARGUMENT_AT, ""),
        (_JUMP_ANY_BIT, _CLONE_THREAD, "allowed"),
        (_RETURN, _ERROR | errno.EPERM, ""),
        (_LOAD, _ARGUMENT_AT, "limit:"),
        (_JUMP_EQUAL, 0, "allowed"),  # its own, as the C library calls it
        (_LOAD, _ARGUMENT_AT, "own:"),
        (_JUMP_EQUAL, pid, "allowed"),
        (_RETURN, _ERROR | errno.EPERM, "forbidden:"),
        (_RETURN, _ERROR | errno.ENOSYS, "unknown:"),
        (_RETURN, _ALLOW, "allowed:"),
    ]
    places = {label[:-1]: place for place, (_, _, label) in enumerate(lines) if label.endswith(":")}
    written = []
    for place, (operation, operand, label) in enumerate(lines):
        is_jump = operation in (_JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT)
        over = 0 if not is_jump else 1 if label == "+1" else places[label] - place - 1
        written.append(struct.pack("@HBBI", operation, over, 0, operand))
    return b"".join(written)
