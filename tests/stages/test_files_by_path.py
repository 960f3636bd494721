"""Files of an artefact that a stage gives by their paths: written as the library writes them, in the stage's own folder, with its user's mode."""

import os
import resource
import signal
import stat
from pathlib import Path

import pytest
import safetensors.torch
import torch

import diffbench
from diffbench.errors import DiffbenchError, DiskFull
from diffbench.stages.context import Context
from diffbench.stages.worker import refuse_unusable
from tests.conftest import REGISTRY

TENSORS = {"weight": torch.arange(12.0).view(3, 4), "count": torch.tensor(7), "bytes": torch.arange(256, dtype=torch.uint8)}
FACTS = b'{"losses": [], "steps_per_loss": 1, "train_loss": null, "compiled": false}'


@pytest.fixture
def context(tmp_path):
    return Context(store=None, registry=REGISTRY, stage="train", device=torch.device("cpu"), threads=1, key="0" * 64, task={}, parents={},
                   progress=diffbench.silent, files=tmp_path / "attempt" / "files", partial=tmp_path / "partial", execution={})


def test_tensors_are_written_as_in_memory_with_the_mode_of_the_user(context):
    before = os.umask(0o027)
    try:
        path = context.write_tensors("weights.safetensors", TENSORS)
    finally:
        os.umask(before)
    assert path.read_bytes() == safetensors.torch.save(TENSORS) and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path == context.files / "weights.safetensors" and [p.name for p in context.files.iterdir()] == [path.name]


def test_a_file_without_room_is_a_full_disk(context):
    """By a limit on the size of files, in a process of its own: it lasts for the rest of a process."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            context.write_tensors("weights.safetensors", {"weight": torch.zeros(100_000)})
        except DiskFull as error:
            os._exit(0 if "weights.safetensors would be larger than a file may be here" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_only_files_of_the_stages_own_folder_are_taken(context, tmp_path):
    weights = context.write_tensors("weights.safetensors", TENSORS)
    refuse_unusable("train", {"weights.safetensors": weights, "facts.json": FACTS}, context.files)
    (elsewhere := tmp_path / "weights.safetensors").write_bytes(weights.read_bytes())
    (link := context.files / "more.safetensors").symlink_to(elsewhere)
    for name, path in (("weights.safetensors", elsewhere), ("other.safetensors", weights), ("more.safetensors", link),
                       ("up.safetensors", context.files / ".." / "up.safetensors")):
        files: dict[str, bytes | Path] = {"weights.safetensors": weights, "facts.json": FACTS, name: path}
        with pytest.raises(DiffbenchError, match=f"{name} is given by the path .*; a file that is given by its path must be {context.files / name}"):
            refuse_unusable("train", files, context.files)


def test_what_lies_there_is_looked_at_as_it_would_be_in_memory(context):
    weights = context.write_tensors("weights.safetensors", {"weight": torch.tensor([1.0, float("nan")])})
    with pytest.raises(DiffbenchError, match="what the stage made cannot be used: weight in weights.safetensors holds NaN"):
        refuse_unusable("train", {"weights.safetensors": weights, "facts.json": FACTS}, context.files)
    weights.write_bytes(b"no tensors")
    with pytest.raises(DiffbenchError, match="weights.safetensors is no file of tensors"):
        refuse_unusable("train", {"weights.safetensors": weights, "facts.json": FACTS}, context.files)
