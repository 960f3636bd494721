"""diffbench schema"""

from __future__ import annotations

from pathlib import Path

import click

from diffbench.cli.common import PLUGIN, UserPath
from diffbench.cli.output import say


@click.command()
@click.option("--out", type=UserPath(dir_okay=False, path_type=Path), help="Write it to a file instead.")
@PLUGIN
def command(out: Path | None, plugins: tuple[str, ...]) -> None:
    """Write the JSON Schema of matrix.yaml: every component that is installed, plug-ins included, with its options,
    ranges and meanings.

    An editor with a YAML language server completes and checks a file whose first line is

        # yaml-language-server: $schema=matrix.schema.json
    """
    import os

    from diffbench.errors import DiffbenchError
    from diffbench.matrix.schema import as_text, is_schema
    from diffbench.registry.registry import load_registry
    from diffbench.store.disk import make_folders, write_atomically

    text = as_text(load_registry(plugins))
    if out is None:
        say(text, end="")
        return
    if os.path.lexists(out) and not is_schema(out):
        raise DiffbenchError(f"--out {out}: there is a file already that is no schema of diffbench; name another one")
    make_folders(out.parent)
    write_atomically(out, text.encode())
