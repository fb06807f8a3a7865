"""gateway redis-acl: the users with the least rights that the routing store needs."""

from typing import Annotated

import typer

from gateway.cli.exits import Exit, Failure
from gateway.errors import InvalidArgument
from gateway.routing.store.store_rights import users


def redis_acl(
    environment: Annotated[
        str,
        typer.Option("--environment", help="The environment whose keys they may use.", envvar="GATEWAY_ENVIRONMENT"),
    ] = "default",
) -> None:
    """Print the commands that make the users of the routing store; put their passwords in. Asks nobody.

    gateway-worker is for hosts that serve, gateway-control for those at which operators change rules and which judge
    rollouts (docs/redis.md); the names of another environment than default end with its own.
    """
    try:
        commands = [user.command() for user in users(environment)]
    except InvalidArgument as error:
        raise Failure(Exit.USAGE, str(error)) from None
    for command in commands:
        typer.echo(command)
