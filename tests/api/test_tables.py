"""Tables of the edge against what they are about."""

from gateway.api.repository_extension import STATES
from gateway.serving.version import VersionState


def test_every_state_of_a_version_has_its_word_in_the_repository_index() -> None:
    assert set(STATES) == set(VersionState)
