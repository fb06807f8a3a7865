"""What a directory of this machine holds: models in Triton's layout, or the versions of one model."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

MODEL_FILE: Final = "model.onnx"
SIDE_DIRECTORY: Final = "warmup"
_NUMBER: Final = re.compile(r"[1-9][0-9]*\Z", re.ASCII)


def is_number(directory: str) -> bool:
    """Whether a version may be named so without being a label."""
    return _NUMBER.match(directory) is not None


def versions_alone(directories: Sequence[str], holds_model: Callable[[str], bool]) -> bool | None:
    """Whether these directories are the versions of one model; None where nobody can tell yet.

    They are, if one whose name is a number holds model.onnx, and all others are numbers, `warmup`, or hold it too.
    """
    numbers = [name for name in directories if is_number(name)]
    others = [name for name in directories if not is_number(name) and name != SIDE_DIRECTORY]
    if numbers and all(map(holds_model, others)) and any(map(holds_model, numbers)):
        return True
    return False if others else None


def holds_versions(directory: Path) -> bool:
    """Whether it is a directory of versions. Raises: OSError (it cannot be listed)."""
    names = [path.name for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return versions_alone(names, lambda name: (directory / name / MODEL_FILE).exists()) is True
