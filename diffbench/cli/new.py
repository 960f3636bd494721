"""diffbench new"""

from __future__ import annotations

from pathlib import Path

import click

from diffbench.cli.common import UserPath
from diffbench.cli.completing import kinds_and_tracker
from diffbench.cli.output import say


@click.command()
@click.argument("kind", shell_complete=kinds_and_tracker)
@click.argument("name")
@click.option("--into", type=UserPath(file_okay=False, path_type=Path), default=".",
              help="The folder in which the package's own is made.")
def command(kind: str, name: str, into: Path) -> None:
    """Write a package NAME with one component of a KIND (or a tracker) that works as it stands: code, tests, a matrix.

    It passes `diffbench check` and its own tests as written; change what it computes, and both say whether it still
    does.
    """
    import os

    from diffbench.errors import DiffbenchError
    from diffbench.registry.registry import load_registry
    from diffbench.scaffold import new_package
    from diffbench.store.disk import make_folders, write_atomically

    files = new_package(load_registry(), kind, name)
    folder = into / name
    if os.path.lexists(folder):
        raise DiffbenchError(f"{folder} is there already; choose another name, or another folder with --into")
    for path, text in files.items():
        make_folders((folder / path).parent)
        write_atomically(folder / path, text.encode())
        say(f"{folder / path}")
    say(f"next: cd {folder} && pip install -e '.[test]'; README.md says the rest")
