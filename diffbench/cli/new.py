"""diffbench new"""

from __future__ import annotations

from pathlib import Path

import click

from diffbench.cli.completing import kinds_and_tracker


@click.command()
@click.argument("kind", shell_complete=kinds_and_tracker)
@click.argument("name")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), default=".", help="The folder in which the package's own is made.")
def command(kind: str, name: str, into: Path) -> None:
    """Write a package NAME with one component of a KIND (or a tracker) that works as it stands: code, tests, a matrix.

    It passes `diffbench check` and its own tests as written; change what it computes, and both say whether it still does.
    """
    from diffbench.durable import make_folders, write_atomically
    from diffbench.errors import DiffbenchError
    from diffbench.registry import load_registry
    from diffbench.scaffold import new_package

    files = new_package(load_registry(), kind, name)
    folder = into / name
    if folder.exists():
        raise DiffbenchError(f"{folder} is there already; choose another name, or another folder with --into")
    for path, text in files.items():
        make_folders((folder / path).parent)
        write_atomically(folder / path, text.encode())
        click.echo(f"{folder / path}")
    click.echo(f"next: cd {folder} && pip install -e '.[test]'; README.md says the rest")
