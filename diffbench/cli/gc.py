"""diffbench gc"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffbench.cli.common import UserPath
from diffbench.cli.output import say

if TYPE_CHECKING:
    from diffbench.store.garbage import Garbage
    from diffbench.store.inventory import Item


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.option("--forget", "folders", multiple=True, type=UserPath(path_type=Path), metavar="FOLDER",
              help="The run that was in this folder is no more; may be repeated.")


@click.option("--forget-missing", is_flag=True, help="So is every run that is not where this machine registered it.")
@click.option("--older-than", default="1h", show_default=True, metavar="DURATION",
              help="Leave alone what was written since then, such as 7d.")


def command(dry_run: bool, yes: bool, folders: tuple[Path, ...], forget_missing: bool, older_than: str) -> None:
    """Remove from the store what no run names any more, after showing it and asking.

    A run counts until you say that it is no more: one whose folder was renamed, moved or is not mounted keeps what it
    needs. Delete its folder and name it with --forget, and what only it needed goes. A folder that was moved is known
    again by any command that opens it. What somebody works on, and what is younger than an hour, always stays. The
    results themselves lie in the runs' folders and are never touched.
    """
    from diffbench.errors import DiffbenchError
    from diffbench.matrix import durations
    from diffbench.store.artefacts import Store
    from diffbench.store.garbage import Forget, find_garbage, remove

    try:
        seconds = durations.seconds(float(older_than) if older_than.replace(".", "", 1).isdigit() else older_than)
    except ValueError:
        raise DiffbenchError(f"--older-than is a duration such as 90m, 12h or 7d, got {older_than!r}") from None
    store, working = Store.default(), Path.cwd()
    if not store.root.is_dir():
        raise DiffbenchError(f"there is no store at {store.root.resolve()}; say where it is with DIFFBENCH_HOME")
    garbage = find_garbage(store, working, seconds, Forget(folders=folders, missing=forget_missing))
    _say_runs(garbage)
    _say_items("would free" if dry_run else "to remove:", garbage.items)
    if garbage.claimed or garbage.young:
        say(f"left alone: {garbage.claimed} that somebody works on, {garbage.young} younger than {older_than}")
    if dry_run or not (garbage.items or garbage.needs.forgotten):
        return
    if garbage.items and not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise DiffbenchError("nothing is removed without being asked, and there is no terminal to ask on: give "
                                 "--yes")
        if not click.confirm("Remove?"):
            say("nothing was removed")
            return
    _say_items("freed", remove(store, garbage, working))


def _say_runs(garbage: Garbage) -> None:
    for line in garbage.strange:
        say(f"note: {line}", err=True)
    for folder in garbage.needs.runs:
        say(f"kept for the run {folder}")
    for run in garbage.needs.missing:
        say(f"kept for a run that is not where it was: {run}; moved or not mounted? Once it is no more: "
                   f"diffbench gc --forget {run.folder}")
    for run in garbage.needs.forgotten_by_user:
        say(f"forgotten: {run}")


def _say_items(word: str, items: Iterable[tuple[Item, int]]) -> None:
    from diffbench.wording import in_bytes

    count, size = Counter[str](), Counter[str]()
    for item, each in items:
        of_stage = f"{item.kind} of {item.stage}" if item.stage else item.kind
        name = item.stage if item.kind == "artefact" else of_stage
        count[name], size[name] = count[name] + 1, size[name] + each
    say(f"{word} {in_bytes(sum(size.values()))}" + ("" if count else ": there is nothing that no run names"))
    for name in sorted(count, key=lambda n: -size[n]):
        say(f"  {name}: {count[name]}, {in_bytes(size[name])}")
