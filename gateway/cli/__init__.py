"""The command `gateway`: starts the server, and asks a running one through the control service."""

from gateway.cli.app import main

__all__ = ["main"]
