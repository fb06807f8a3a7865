"""What an option of `gateway serve` is, and how a field of the configuration declares one."""

from dataclasses import dataclass
from typing import Any, Final

from gateway.runtime.option_value import Bounded, OptionValue

ENVIRONMENT_PREFIX: Final = "GATEWAY_"
CONFIG_OPTION: Final = "config"  # names the file itself, so it has no place in the file


@dataclass(frozen=True, slots=True)
class Setting:
    """Makes a field of a section an option: `Annotated[int, Setting("What it means.", whole(0, 10))]`.

    `name` is the option's, where it is not the field's own with dashes. An option that is `repeated` is given a list
    where it is named twice.
    """

    help: str
    value: OptionValue[Any]
    name: str = ""
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name as on the command line, where its value goes, and what it may be."""

    name: str
    section: str
    field: str
    default: object
    setting: Setting

    @property
    def help(self) -> str:
        return self.setting.help

    @property
    def repeated(self) -> bool:
        return self.setting.repeated

    @property
    def environment_name(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.replace("-", "_").upper()

    @property
    def default_text(self) -> str:
        """Returns the default as it may be given; "" where it is nothing."""
        value = self.default
        if isinstance(self.setting.value, Bounded):
            return self.setting.value.written(value)
        if isinstance(value, bool):
            return str(value).lower()
        return "" if value is None else str(value)

    def masked(self, value: object) -> object:
        """Returns the value, fit to be printed and logged."""
        return value if isinstance(value, bool | int | float) or not value else self.setting.value.mask(str(value))
