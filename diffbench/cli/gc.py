"""diffbench gc"""

from __future__ import annotations

from collections import Counter

import click


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@click.option("--older-than", default="1h", show_default=True, metavar="DURATION", help="Leave alone what was written since then, such as 7d.")
def command(dry_run: bool, older_than: str) -> None:
    """Remove from the store what no run names any more.

    A run is a folder of results that still holds its plan.json: delete the folder and what only it needed goes. What somebody works on, and what is
    younger than an hour, always stays. The results themselves lie in the runs' folders and are never touched.
    """
    from pathlib import Path

    from diffbench import durations
    from diffbench.durable import in_bytes
    from diffbench.errors import DiffbenchError
    from diffbench.garbage import find_garbage, remove
    from diffbench.store import Store

    try:
        seconds = durations.seconds(float(older_than) if older_than.replace(".", "", 1).isdigit() else older_than)
    except ValueError:
        raise DiffbenchError(f"--older-than is a duration such as 90m, 12h or 7d, got {older_than!r}") from None
    store, working = Store.default(), Path.cwd()
    if not store.root.is_dir():
        raise DiffbenchError(f"there is no store at {store.root.resolve()}; say where it is with DIFFBENCH_HOME")
    garbage = find_garbage(store, working, seconds)
    for line in (*garbage.named.notes, *garbage.strange):
        click.echo(f"note: {line}", err=True)
    for run in garbage.named.runs:
        click.echo(f"kept for the run {run}")
    for registration in garbage.named.gone:
        click.echo(f"a run is no more: {registration}")
    gone = garbage.items if dry_run else remove(store, garbage, working)
    count, size = Counter[str](), Counter[str]()
    for item, each in gone:
        name = item.stage if item.kind == "artefact" else f"{item.kind} of {item.stage}" if item.stage else item.kind
        count[name], size[name] = count[name] + 1, size[name] + each
    click.echo(f"{'would free' if dry_run else 'freed'} {in_bytes(sum(size.values()))}" + ("" if count else ": there is nothing that no run names"))
    for name in sorted(count, key=lambda n: -size[n]):
        click.echo(f"  {name}: {count[name]}, {in_bytes(size[name])}")
    if garbage.claimed or garbage.young:
        click.echo(f"left alone: {garbage.claimed} that somebody works on, {garbage.young} younger than {older_than}")
