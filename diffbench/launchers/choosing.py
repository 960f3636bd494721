"""From what a user writes after --launcher to a launcher: `local`, `ray`, `ray://head:6379`, `slurm:gpu-night`, `my_queue`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable

from diffbench.errors import DiffbenchError, unknown_name
from diffbench.launchers import Launcher

HOME = "diffbench"                    # whose extras are named after its launchers


def chosen(text: str, offers: Iterable[dict[str, str]]) -> Callable[[str], Launcher]:
    """The launcher a text means, as a function of the device; `offers` are the answers to the hook `diffbench_launchers`.

    A text is a name, or a name, ":" or "://" and an address. The module of the launcher is imported here and nothing is started.
    Raises DiffbenchError for an unknown name, for one that several packages offer, and for what cannot be imported.
    """
    known: dict[str, list[str]] = {}
    for offer in offers:
        for name, target in offer.items():
            known.setdefault(name, []).append(target)
    name, address = re.fullmatch(r"([^:]*)(?::(?://)?(.*))?", text, re.DOTALL).groups()
    if name not in known:
        raise DiffbenchError(f"--launcher: {unknown_name('launcher', name, known)}")
    if len(known[name]) > 1:
        raise DiffbenchError(f"--launcher: {len(known[name])} packages offer a launcher named {name!r}: {', '.join(known[name])}. Uninstall one of them")
    cls = _imported(name, known[name][0])
    return lambda device: cls.open(address or "", device)


def _imported(name: str, target: str) -> type[Launcher]:
    module, _, attribute = target.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if module.partition(".")[0] == HOME and (error.name or "").partition(".")[0] != HOME:
            raise DiffbenchError(f"launcher {name} needs `pip install 'diffbench[{name}]'`: the package {error.name} is not installed") from None
        raise DiffbenchError(f"launcher {name} cannot be used: importing {target} failed with {error}") from error
    except Exception as error:
        raise DiffbenchError(f"launcher {name} cannot be used: importing {target} failed with {type(error).__name__}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Launcher)):
        raise DiffbenchError(f"launcher {name} cannot be used: {target} is not a subclass of diffbench.launchers.Launcher")
    return cls
