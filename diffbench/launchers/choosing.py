"""Launchers by the text after --launcher: `local`, `ray://head:6379`, `slurm:gpu-night`, `my_queue`. Used by runs."""

from __future__ import annotations

import re
from collections.abc import Callable

from diffbench.errors import BrokenComponent, DiffbenchError
from diffbench.launchers import Launcher
from diffbench.registry import offered


def chosen(text: str) -> Callable[[str], Launcher]:
    """The launcher of a text NAME, NAME:ADDRESS or NAME://ADDRESS, as a function of the device.

    Its module is imported here and nothing is started. Raises DiffbenchError for an unknown name, for one that several
    packages offer, and for what cannot be imported or is no launcher.
    """
    name, address = re.fullmatch(r"([^:]*)(?::(?://)?(.*))?", text, re.DOTALL).groups()
    try:
        cls = offered.load("launcher", name)
    except DiffbenchError as error:
        raise type(error)(f"--launcher: {error}") from error.__cause__
    if not (isinstance(cls, type) and issubclass(cls, Launcher)):
        target = offered.find("launcher", name).value
        raise BrokenComponent(f"--launcher: launcher {name} cannot be used: {target} is not a subclass of "
                              "diffbench.launchers.Launcher")
    return lambda device: cls.open(address or "", device)
