"""Files of the lake that can be read, as far as their ends tell: one that is damaged must not hide the others."""

from collections.abc import Sequence
from pathlib import Path

from gateway.drift.report.lake_files import LakeFile
from gateway.records.lake.inspection import damage


class SoundFiles:
    """Tells sound files from damaged ones. Each is looked at once."""

    def __init__(self) -> None:
        self._damage: dict[str, str] = {}

    @property
    def left_out(self) -> list[str]:
        """The damaged files that were passed over so far, in words."""
        named = ((Path(path).name, why) for path, why in sorted(self._damage.items()) if why)
        return [f"{name} is left out: {why}" for name, why in named]

    def of(self, files: Sequence[LakeFile]) -> list[LakeFile]:
        """Returns those that are not damaged."""
        for file in files:
            if file.path not in self._damage:
                try:
                    self._damage[file.path] = damage(Path(file.path))
                except FileNotFoundError:  # merged or expired: DuckDB will say so, and what to do
                    self._damage[file.path] = ""
                except OSError as error:
                    self._damage[file.path] = error.strerror or "it cannot be read"
        return [file for file in files if not self._damage[file.path]]
