"""Repositories that plug-ins load by `torch.hub`: their modules are theirs alone, as those of a plug-in's folder."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def hook_hub(applies: Callable[[], bool], load: Callable[[str], ModuleType]) -> None:
    """Let `torch.hub`, once it is imported, import repositories otherwise; a second call changes nothing.

    Args:
        applies: returns True if the code that runs is a plug-in's; for other code all stays as it is.
        load: from the path of a hubconf.py to its module.
    """
    hub: Any = sys.modules.get("torch.hub")
    if hub is None or not hasattr(hub, "_import_module") or hasattr(hub._import_module, "plain"):
        return
    plain, on_path = hub._import_module, hub._add_to_sys_path

    def import_module(name: str, path: str) -> object:
        return load(path) if applies() else plain(name, path)

    def add_to_sys_path(path: str) -> object:
        return contextlib.nullcontext() if applies() else on_path(path)

    vars(import_module)["plain"] = plain
    hub._import_module, hub._add_to_sys_path = import_module, add_to_sys_path
