"""Weights that others published, as files: found, compared with their SHA-256, and only then read,
without running what they hold.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from diffbench.errors import DataError
from diffbench.store.paths import user_path


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file of weights: its name in torch hub's cache, where it can be had, and what it is."""

    what: str                         # for people: "Inception-v3"
    variable: str                     # environment variable that says where it lies
    file: str
    url: str
    sha256: str

    def path(self, *, download: bool = False) -> Path:
        """Path of the file: as the variable says, else in torch hub's cache, into which it is fetched where that is
        asked for.

        Raises DataError that says where it was looked for and what would help.
        """
        named = os.environ.get(self.variable)
        cached = Path(torch.hub.get_dir()) / "checkpoints" / self.file
        path = user_path(named) if named else cached
        if not path.is_file() and download and not named:
            self._fetch(cached)
        if not path.is_file():
            where = (f"{self.variable} says {path}, and there is no such file" if named
                     else f"{self.variable} is not set, and {cached} is not there")
            raise DataError(f"the weights of {self.what} are missing: {where}. Fetch {self.url} (SHA-256 "
                            f"{self.sha256[:16]}...) and say where it lies with "
                            f"{self.variable}=/path/to/{self.file}, or write the option {{download: true}} where this "
                            "machine has a connection")
        return path

    def digest(self, *, download: bool = False) -> str:
        """SHA-256 (hex) of the file's content."""
        path = self.path(download=download)
        state = path.stat()
        return _digest(str(path), state.st_mtime_ns, state.st_size)

    def read(self, expected: Mapping[str, Tensor], *, download: bool = False) -> dict[str, Tensor]:
        """The tensors in the file, which must have the names and shapes of `expected`. Its content is hashed and read
        once, as one.

        Raises DataError for a file that is none of tensors, or those of another network.
        """
        path = self.path(download=download)
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.digest(download=download):
            raise DataError(f"{path} changed while it was read; start again")
        if (data[:2] == b"PK" and int(torch.__version__.partition(".")[0]) == 2
            and int(torch.__version__.split(".")[1]) < 10 and not self.is_published()):
            warnings.warn(f"{path} is not the published file, and torch before 2.10 has a known fault in reading files "
                          "of others", stacklevel=2)
        state = _tensors(data, path)
        shapes, wanted = ({name: tuple(value.shape) for name, value in some.items()} for some in (state, expected))
        wrong = sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))
        if wrong:
            name = wrong[0]
            raise DataError(f"{path} holds the weights of another network than {self.what}: {len(wrong)} of "
                            f"{len(wanted)} differ, such as {name}, "
                            f"{shapes.get(name, 'missing')} instead of {wanted.get(name, 'none')}")
        return {name: value.contiguous() for name, value in state.items()}

    def is_published(self, *, download: bool = False) -> bool:
        """Whether the file is the published one."""
        return self.digest(download=download) == self.sha256

    def _fetch(self, target: Path) -> None:
        """Fetches the file; it gets its name only where its SHA-256 is the published one."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(self.url, str(target), hash_prefix=self.sha256, progress=False)
        except (OSError, RuntimeError) as error:
            raise DataError(f"the weights of {self.what} cannot be fetched from {self.url}: {error}; "
                            f"fetch the file elsewhere and name it with {self.variable}") from None


@functools.lru_cache(maxsize=16)
def _digest(path: str, modified: int, size: int) -> str:
    whole = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 22):
            whole.update(part)
    return whole.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of weights by name, as safetensors or torch.save wrote them; nothing in it is run.

    Raises DataError for a file that holds anything else.
    """
    return _tensors(path.read_bytes(), path)


def _tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(data)
        # The one place where something pickled is read: tensors and nothing else, refused otherwise.
        state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # noqa: BLE001  what a damaged or hostile file raises is not listed anywhere
        raise DataError(
            f"{path} holds no weights that can be read without running code: {type(error).__name__}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path} holds no table of weights by name")
    return state
