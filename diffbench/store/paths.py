"""Paths as users write them. Used by the command line, by variables of the environment and by options of components."""

from __future__ import annotations

import os
from pathlib import Path

from diffbench.errors import DiffbenchError


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path with a leading `~` or `~name` replaced by that home folder.

    Raises DiffbenchError where the user's own home is meant and not known: a folder named `~` is never what was meant.
    `~name` where there is no such user is a file's name.
    """
    text = os.path.expanduser(os.fspath(path))
    if text == "~" or text.startswith("~/"):
        raise DiffbenchError(f"{text}: there is no home folder that '~' could stand for; set HOME, or write the path "
                             "in full")
    return Path(text)
