"""Runs a module as a program that the kernel kills when its parent ends: `orphan_guard PARENT-PID MODULE`."""

import runpy
import sys

from gateway.runtime.child import die_with

if __name__ == "__main__":
    parent_pid, module = int(sys.argv[1]), sys.argv[2]
    die_with(parent_pid)
    del sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
