"""What workers say of their start and of their models, in words."""

import pytest

from gateway.page.worker_words import worker_words

START = {"serving": 2.25, "loaded": 31.0}
RESIDENCE = {"warm": 2, "cold": 98, "bytes": 3 << 20, "limit_bytes": 10 << 20}


@pytest.mark.parametrize(
    ("feed", "words"),
    [
        ({"worker": 0}, ""),
        ({"start": None, "residence": None}, ""),
        ({"start": {"loaded": 1.0}}, "does not serve yet, all versions there after 1.0 s"),
        ({"start": {"serving": 2.0}}, "served after 2.0 s, versions still to come"),
        ({"residence": RESIDENCE}, "2 versions in memory (3.0 MiB of 10.0 MiB), 98 on demand"),
        ({"residence": RESIDENCE | {"limit_bytes": 0}}, "2 versions in memory (3.0 MiB), 98 on demand"),
        (
            {"residence": RESIDENCE | {"bytes": 300 << 10, "limit_bytes": 700 << 10}},
            "2 versions in memory (300.0 KiB of 700.0 KiB), 98 on demand",
        ),
        (
            {"start": START, "residence": RESIDENCE},
            "served after 2.2 s, all versions there after 31.0 s; "
            "2 versions in memory (3.0 MiB of 10.0 MiB), 98 on demand",
        ),
    ],
)
def test_a_worker_is_described(feed: dict[str, object], words: str) -> None:
    assert worker_words(feed) == words
