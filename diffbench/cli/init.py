"""diffbench init"""

from __future__ import annotations

from pathlib import Path

import click

from diffbench.cli.common import UserPath
from diffbench.cli.output import say


@click.command()
@click.argument("file", type=UserPath(dir_okay=False, path_type=Path), default="matrix.yaml")
def command(file: Path) -> None:
    """Write a matrix to start from, with comments, and beside it the JSON Schema by which editors complete
    and check it.
    """
    import os

    from diffbench.errors import DiffbenchError
    from diffbench.matrix.schema import as_text
    from diffbench.registry.registry import load_registry
    from diffbench.scaffold import starting_matrix
    from diffbench.store.disk import make_folders, write_atomically

    schema = file.with_suffix(".schema.json")
    for path in (file, schema):
        if os.path.lexists(path):                         # also a link that leads nowhere
            raise DiffbenchError(f"{path} is there already; give another name, as in: diffbench init other.yaml")
    make_folders(file.parent)
    write_atomically(schema, as_text(load_registry()).encode())
    write_atomically(file, starting_matrix(schema.name).replace("matrix.yaml", file.name).encode())
    say(f"{file}\n{schema}\nnext: diffbench run {file}")
