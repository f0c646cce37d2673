"""Sources of settings: the environment variables of other systems, and the file `.env`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource

from rowcast.setting_aliases import ALIAS_PUSH_JOB


class AliasSource(PydanticBaseSettingsSource):
    """The settings that come from environment variables of other systems.

    `aliased` contains the value and the environment variable of each of these settings.
    """

    def __init__(self, settings_cls: type[BaseSettings], aliased: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(settings_cls)
        self._aliased = aliased

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return one setting's value and name, and whether the value must be decoded."""
        return self._aliased.get(field_name, (None, ""))[0], field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the settings that come from aliases."""
        values: dict[str, Any] = {setting: value for setting, (value, _) in self._aliased.items()}
        if "push_gateway" in values and "push_gateway" not in self.current_state:
            values.setdefault("push_job", ALIAS_PUSH_JOB)
        return values


class SharedDotEnvSource(DotEnvSettingsSource):
    """Reads `.env`, which other programs may share: names without Rowcast's prefix are ignored."""

    def __init__(self, settings_cls: type[BaseSettings], prefix: str) -> None:
        super().__init__(settings_cls)
        self._prefix = prefix.lower()

    def __call__(self) -> dict[str, Any]:
        """Return the settings; unknown names with the prefix are kept, so that validation rejects them."""
        fields = self.settings_cls.model_fields
        return {
            key: value for key, value in super().__call__().items() if key in fields or key.startswith(self._prefix)
        }
