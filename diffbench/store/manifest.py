"""Manifests: size and SHA-256 of every file of an artefact. Used by `artefacts`.

A manifest is written last, so it means done.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffbench.errors import Damaged, DiffbenchError, DiskFull
from diffbench.store import disk

MANIFEST = "manifest.json"
# no folder, no hidden file, nothing that leads out
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
KEY = re.compile(r"[0-9a-f]{64}")
KEYS = re.compile(rb'"([0-9a-f]{64})"')                # in a text of JSON
STAGE = re.compile(r"[a-z][a-z0-9_]{0,63}")
# What a file that is gone, moved or unreadable for ever says. Anything else, such as a missing permission, is no
# damage.
LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ELOOP, errno.ESTALE, errno.EBADMSG,
        getattr(errno, "EUCLEAN", errno.EIO))
CHUNK = 1 << 20                       # bytes read at once, so that weights of many GB need no memory


def manifest_of(stage: str, key: str, files: Mapping[str, bytes | Path]) -> bytes:
    """The manifest of these files, as JSON."""
    listing = {}
    for name, data in files.items():
        size, sha256 = ((len(data), hashlib.sha256(data).hexdigest()) if isinstance(data, bytes)
                        else _sha256(str(data), data.stat().st_size))
        listing[name] = {"size": size, "sha256": sha256}
    return json.dumps({"stage": stage, "key": key, "files": listing}, indent=1, sort_keys=True).encode()


def write_folder(folder: Path, stage: str, key: str, files: Mapping[str, bytes | Path]) -> None:
    """Writes files into a new folder, flushed, the manifest last. Raises DiskFull with the room that all of them need.

    A file that is given by its path, on the same disk, is moved there and not read into memory.
    """
    contents = {**files, MANIFEST: manifest_of(stage, key, files)}
    try:
        for name, data in contents.items():
            if isinstance(data, bytes):
                disk.write_flushed(folder / name, data)
            else:
                disk.disk.flush_file(data)
                disk.disk.rename(data, folder / name)
    except DiskFull as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EFBIG:
            raise                                         # one file is too large; the room for all is not the question
        raise disk.disk_full(folder, sum(len(data) for data in contents.values() if isinstance(data, bytes))) from error


def listing_of(folder: Path, stage: str, key: str) -> dict[str, Any]:
    """{name: {size, sha256}} of an artefact's files but for the manifest.

    Raises Damaged where the manifest is wrong.
    """
    try:
        content = json.loads(_read(f"{folder}/{MANIFEST}"))
        if (content["stage"], content["key"]) != (stage, key):
            raise damaged(folder, stage, key, f"its manifest is of {content['stage']} {content['key']}")
        for name, facts in content["files"].items():
            is_size = type(facts["size"]) is int and 0 <= facts["size"] < 2**63
            if not FILE_NAME.fullmatch(name) or name == MANIFEST or not is_size or type(facts["sha256"]) is not str:
                raise damaged(folder, stage, key, f"its manifest names {name!r} wrongly")
        return content["files"]
    except OSError as error:
        raise _lost(folder, stage, key, MANIFEST, error) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(folder, stage, key, f"its manifest is no manifest: {type(error).__name__}: {error}") from None


def verify(folder: Path, stage: str, key: str) -> int:
    """Checks every file of an artefact against the manifest and returns their bytes. Raises Damaged."""
    listing = listing_of(folder, stage, key)
    for name, facts in listing.items():
        try:
            size_and_hash = _sha256(f"{folder}/{name}", facts["size"])
        except OSError as error:
            raise _lost(folder, stage, key, name, error) from None
        if size_and_hash != (facts["size"], facts["sha256"]):
            raise damaged(folder, stage, key, f"{name} does not match its checksum")
    return sum(facts["size"] for facts in listing.values())


def read(folder: Path, stage: str, key: str, name: str) -> bytes:
    """The content of one file of an artefact. Raises Damaged where it does not match the manifest."""
    facts = listing_of(folder, stage, key).get(name)
    if facts is None:
        raise damaged(folder, stage, key, f"its manifest names no {name}")
    try:
        data = _read(f"{folder}/{name}")
    except OSError as error:
        raise _lost(folder, stage, key, name, error) from None
    if len(data) != facts["size"] or hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise damaged(folder, stage, key, f"{name} does not match its checksum")
    return data


def damaged(folder: Path, stage: str, key: str, reason: str, *, is_content: bool = False) -> Damaged:
    """The error for an artefact that does not match its manifest or, with `is_content`, its stage."""
    return Damaged(f"the artefact {stage} {key[:12]} in {folder} is damaged: {reason}", stage=stage, key=key,
                   is_content=is_content)


def _lost(folder: Path, stage: str, key: str, name: str, error: OSError) -> DiffbenchError:
    reason = f"{name} is gone" if error.errno == errno.ENOENT else f"{name} cannot be read: {error.strerror}"
    return damaged(folder, stage, key, reason) if error.errno in LOST else DiffbenchError(f"the artefact {stage} "
                                                                                          f"{key[:12]} in {folder}: "
                                                                                          f"{reason}")


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def _sha256(path: str, size: int) -> tuple[int, str]:
    """(size, SHA-256) of a file. Of what follows `size` bytes only as much is read as shows that there is more."""
    handle = os.open(path, os.O_RDONLY)
    try:
        data = os.read(handle, min(size + 1, CHUNK))
        hasher, remaining = hashlib.sha256(data), size - len(data)     # left: -1 where there is more
        while remaining > 0 and data:
            data = os.read(handle, min(remaining + 1, CHUNK))
            hasher.update(data)
            remaining -= len(data)
        return size - remaining, hasher.hexdigest()
    finally:
        os.close(handle)
