"""Manifests: size and SHA-256 of every file of an artefact, in the file that is written last. Its presence, verified, means done."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from diffbench import durable
from diffbench.errors import Damaged, DiffbenchError, DiskFull

MANIFEST = "manifest.json"
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")          # no folder, no hidden file, nothing that leads out
KEY = re.compile(r"[0-9a-f]{64}")
STAGE = re.compile(r"[a-z][a-z0-9_]{0,63}")
# What a file that is gone, moved or unreadable for ever says. Anything else, such as a missing permission, is no damage.
LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ELOOP, errno.ESTALE, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO))
CHUNK = 1 << 20                       # bytes read at once, so that weights of many GB need no memory


def manifest_of(stage: str, key: str, files: dict[str, bytes]) -> bytes:
    """The manifest of an artefact with these files."""
    listing = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    return json.dumps({"stage": stage, "key": key, "files": listing}, indent=1, sort_keys=True).encode()


def write_folder(folder: Path, stage: str, key: str, files: dict[str, bytes]) -> None:
    """Writes files into a new folder, flushed, and their manifest last; raises DiskFull with the room that all of them need."""
    contents = {**files, MANIFEST: manifest_of(stage, key, files)}
    try:
        for name, data in contents.items():
            durable.write_flushed(folder / name, data)
    except DiskFull as error:
        raise durable.disk_full(folder, sum(map(len, contents.values()))) from error


def listing_of(folder: Path, stage: str, key: str) -> dict[str, Any]:
    """{name: {size, sha256}} of an artefact's files, manifest apart; raises Damaged where the manifest is gone, torn or another artefact's."""
    try:
        content = json.loads(_read(f"{folder}/{MANIFEST}"))
        if (content["stage"], content["key"]) != (stage, key):
            raise damaged(folder, stage, key, f"its manifest is of {content['stage']} {content['key']}")
        for name, facts in content["files"].items():
            if not FILE_NAME.fullmatch(name) or name == MANIFEST or type(facts["size"]) is not int or type(facts["sha256"]) is not str:
                raise damaged(folder, stage, key, f"its manifest names {name!r} wrongly")
        return content["files"]
    except OSError as error:
        raise _lost(folder, stage, key, MANIFEST, error) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(folder, stage, key, f"its manifest is no manifest: {type(error).__name__}: {error}") from None


def verify(folder: Path, stage: str, key: str) -> int:
    """The bytes of an artefact; raises Damaged unless every file has the size and SHA-256 that its manifest names."""
    listing = listing_of(folder, stage, key)
    for name, facts in listing.items():
        try:
            found = _sha256(f"{folder}/{name}", facts["size"])
        except OSError as error:
            raise _lost(folder, stage, key, name, error) from None
        if found != facts["sha256"]:
            raise damaged(folder, stage, key, f"{name} does not match its checksum")
    return sum(facts["size"] for facts in listing.values())


def read(folder: Path, stage: str, key: str, name: str) -> bytes:
    """The content of one file of an artefact; raises Damaged where it is not what the manifest names."""
    facts = listing_of(folder, stage, key).get(name)
    if facts is None:
        raise damaged(folder, stage, key, f"its manifest names no {name}")
    try:
        data = _read(f"{folder}/{name}")
    except OSError as error:
        raise _lost(folder, stage, key, name, error) from None
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise damaged(folder, stage, key, f"{name} does not match its checksum")
    return data


def damaged(folder: Path, stage: str, key: str, what: str) -> Damaged:
    """The error for an artefact that is not what it was."""
    return Damaged(f"the artefact {stage} {key[:12]} in {folder} is damaged: {what}", stage=stage, key=key)


def _lost(folder: Path, stage: str, key: str, name: str, error: OSError) -> DiffbenchError:
    what = f"{name} is gone" if error.errno == errno.ENOENT else f"{name} cannot be read: {error.strerror}"
    return damaged(folder, stage, key, what) if error.errno in LOST else DiffbenchError(f"the artefact {stage} {key[:12]} in {folder}: {what}")


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def _sha256(path: str, size: int) -> str:
    """SHA-256 of a file; of what follows `size` bytes no more is read than shows that there is more."""
    handle = os.open(path, os.O_RDONLY)
    try:
        data = os.read(handle, min(size + 1, CHUNK))
        whole, left = hashlib.sha256(data), size - len(data)
        while left > 0 and data:
            data = os.read(handle, min(left + 1, CHUNK))
            whole.update(data)
            left -= len(data)
        return whole.hexdigest()
    finally:
        os.close(handle)
