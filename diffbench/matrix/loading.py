"""Loading of matrix.yaml: a file becomes a `Matrix`, or a MatrixError with all mistakes. Used by `api` and `cli`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from diffbench.errors import MatrixError
from diffbench.matrix import yaml_file
from diffbench.matrix.matrix import Matrix
from diffbench.matrix.reading import MAX_CELLS, Reader, TooManyProblems
from diffbench.registry.registry import Registry
from diffbench.store.paths import user_path


def load(source_: str | FilePath | Mapping[str, Any], registry: Registry, *, changes: Iterable[str] = (),
         only: Iterable[str] = (), smoke: bool = False,
         max_cells: int = MAX_CELLS) -> Matrix:
    """The matrix in a file or a mapping; raises MatrixError with every mistake in it.

    changes: 'PATH=VALUE' of --set; only: 'AXIS=VALUE' of --only; smoke: every code path in seconds.
    """
    from diffbench.matrix.expansion import Expansion

    document = yaml_file.copied(source_) if isinstance(source_, Mapping) else yaml_file.read(source_)
    document = _changed(document, changes)
    reader = Reader(registry, max_cells)
    try:
        matrix = Expansion(document.data, reader, max_cells, tuple(only), smoke).matrix()
    except TooManyProblems:
        matrix = None
    if matrix is None or reader.problems:
        raise MatrixError(document.render_all(reader.problems))
    return matrix if isinstance(source_, Mapping) else replace(matrix, path=user_path(source_).absolute())


def _changed(document: yaml_file.Document, changes: Iterable[str]) -> yaml_file.Document:
    """The document with 'PATH=VALUE' applied; VALUE is read as YAML."""
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path:
            raise MatrixError([f"--set {change}: write PATH=VALUE, such as train.steps=100 or axes.seed=[0]"])
        value = yaml_file.parse(text, f"--set {path}").data
        parts = path.split(".")
        if parts[0] == "axes":                            # axes have dotted names: axes.train.lr
            parts = ["axes", ".".join(parts[1:])] if len(parts) > 1 else parts
        document = document.changed(tuple(parts), value, f"--set {change}")
    return document
