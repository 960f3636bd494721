"""Another version of this checkout, prepared to run beside it. Used by `python -m benchmarks.speed --against`.

Where it does not, an environment is laid over ours with the packages it lacks and nothing else: torch is the same in
both, as it must be.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import os
import re
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import diffbench
from benchmarks.speed.pairs import Version
from diffbench.errors import DiffbenchError


def here() -> Version:
    """The version of the files in this checkout, uncommitted changes included."""
    return Version(name="this version", path=_folders(_root()))


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[tuple[Version, str]]:
    """(a version, how its environment was made), while the context lasts.
    Raises DiffbenchError for what git does not know, and outside a checkout.
    """
    root = _root()
    commit = _git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}",
                  otherwise=f"--against: there is no commit {revision!r} in {root}")
    with tempfile.TemporaryDirectory(prefix="diffbench-against-") as temporary:
        folder = Path(temporary) / "checkout"
        _git(root, "worktree", "add", "--detach", str(folder), commit,
             otherwise=f"--against: git cannot check out {revision!r}")
        try:
            python, how = _environment(folder, Path(temporary) / "environment")
            yield Version(name=f"{revision} ({commit[:12]})", python=python, path=_folders(folder)), how
        finally:
            _git(root, "worktree", "remove", "--force", str(folder),
                 otherwise=f"git cannot remove the worktree {folder}; `git worktree prune` does")


def _root() -> Path:
    """The folder of the checkout that diffbench is imported from."""
    folder = Path(diffbench.__file__).resolve().parents[1]
    problem = (f"--against needs a git checkout to compare with, and diffbench is imported from {folder}, "
               "which is none; install it with `pip install -e`")
    if Path(_git(folder, "rev-parse", "--show-toplevel", otherwise=problem)).resolve() != folder:
        raise DiffbenchError(problem)
    return folder


def _folders(checkout: Path) -> tuple[str, ...]:
    """Folders of a version's packages, as its editable installation would have them."""
    return tuple(str((checkout / name).resolve()) for name in _listed(checkout, "dev-mode-dirs") or ["."])


def _environment(checkout: Path, folder: Path) -> tuple[str, str]:
    """(the interpreter, a sentence about it)."""
    missing = [text for text in _listed(checkout, "dependencies") if not _is_met(text)]
    if not missing:
        return sys.executable, "in this interpreter's environment, which has all it depends on"
    needed = ", ".join(missing)
    if any(re.match(r"torch\b(?!-)", text) for text in missing):
        raise DiffbenchError(f"--against: that version needs {needed}, and times on two versions of torch are not "
                             "compared")
    _run([sys.executable, "-m", "venv", str(folder)], f"no environment for {needed} could be made", folder.parent)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    inside = Path(_run([str(python), "-c", ask], "the new environment does not start", folder).strip())
    lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
    (inside / "beneath.pth").write_text("\n".join(lines) + "\n")
    _run([str(python), "-m", "pip", "install", "-q", *missing], f"{needed} could not be installed", folder)
    return str(python), f"in an environment of its own with {needed}, over this one"


def _listed(checkout: Path, name: str) -> list[str]:
    """A list of texts in pyproject.toml, which Python reads as one of its own:
    tomllib is newer than the oldest Python we run on.
    """
    text = (checkout / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(rf"^{name} = (\[.*?\])\s*$", text, re.DOTALL | re.MULTILINE)
    return [] if match is None else list(ast.literal_eval(match[1]))


def _is_met(text: str) -> bool:
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def _git(folder: Path, *arguments: str, otherwise: str) -> str:
    return _run(["git", "-C", str(folder), *arguments], otherwise).strip()


def _run(command: list[str], otherwise: str, working: Path | None = None) -> str:
    """The output of a command. working: its working folder, from which Python would import, so never the user's."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=working).stdout
    except FileNotFoundError:
        raise DiffbenchError(f"{otherwise}: there is no {command[0]}") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().rpartition("\n")[2]
        raise DiffbenchError(f"{otherwise}{f': {reason}' if reason else ''}") from None
