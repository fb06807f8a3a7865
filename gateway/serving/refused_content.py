"""Content that is refused: what lies in the repository under the name of a version that a route was given otherwise."""

import logging

from gateway.errors import GatewayError
from gateway.serving.candidate import Candidate
from gateway.serving.lifecycle import Pipeline

logger = logging.getLogger(__name__)


async def refused_content(pipeline: Pipeline, candidate: Candidate) -> str:
    """Returns why the repository's present content is refused (it differs from a route's pin); "" if it is not."""
    if not candidate.pin:
        return ""
    try:
        digest = await pipeline.digest(candidate)
    except GatewayError as error:
        return f"its files cannot be read any more, what the route was given serves on: {error}"
    if digest == candidate.pin:
        return ""
    numbers = [int(name) for name in candidate.folder.versions if name.isdigit()]
    following = max(numbers, default=0) + 1
    refusal = (
        f"its files were changed (digest {digest[:12]}, the route was given {candidate.pin[:12]}): "
        f"a version that a route names is immutable; copy the new content to version {following} and route it"
    )
    logger.warning("changed files refused: model=%s version=%s %s", candidate.model, candidate.version, refusal)
    return refusal
