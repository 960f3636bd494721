"""What every test may rely on: the registry, configured components by enumeration, and the real data where they lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Workers of pytest-xdist share the cores; one thread each also makes results repeatable.
torch.set_num_threads(1)

import diffbench  # noqa: E402

REGISTRY = diffbench.load_registry()


def all_of(kind: str) -> list:
    """Every registered component of a kind that needs no option, for parametrisation."""
    made = []
    for ref in REGISTRY.refs(kind):
        if "required" not in dict(ref.summary().options).values():
            made.append(pytest.param(REGISTRY.create(kind, ref.full_name), id=ref.full_name))
    return made


@pytest.fixture(scope="session")
def registry():
    return REGISTRY


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with real MNIST: DIFFBENCH_DATA, or shared/data beside the checkout."""
    root = Path(os.environ.get("DIFFBENCH_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip(f"real MNIST is not at {root}: set DIFFBENCH_DATA to the folder that holds MNIST/raw")
    return root
