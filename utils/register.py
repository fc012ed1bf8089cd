"""Registers: what may be chosen by name, imported when it is first asked for."""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from typing import TypeVar

from utils.errors import UserError

T = TypeVar("T")


class Register(Mapping[str, T]):
    """Entries by name, each "module.attribute"; a module is imported when its entry is first asked for.

    So a command line can list what there is without importing any of it. `option` is what chooses among them. Raises
    `UserError`, listing all, for a name that is not there.
    """

    def __init__(self, option: str, entries: Mapping[str, str]):
        self.option, self._entries = option, dict(entries)

    def __getitem__(self, name: str) -> T:
        self.require(name)
        module, attribute = self._entries[name].rsplit(".", 1)
        return getattr(importlib.import_module(module), attribute)

    def require(self, name: str) -> None:
        """Raise `UserError` where there is no such entry; imports nothing."""
        if name not in self._entries:
            near = difflib.get_close_matches(str(name), self._entries, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{self.option} must be one of {', '.join(self._entries)}, is {name!r}{meant}")

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
