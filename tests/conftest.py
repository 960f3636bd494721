"""What every test may rely on: the registry, configured components by enumeration, and the real data where they lie."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch

# Workers of pytest-xdist share the cores: each keeps to one, with all it starts, so that none waits for another's threads. Not the
# process that starts them: they would inherit its one core.
worker = os.environ.get("PYTEST_XDIST_WORKER")
if worker and hasattr(os, "sched_setaffinity"):
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[int(worker[2:]) % len(allowed)]})
state = tempfile.TemporaryDirectory(prefix="diffbench-state-")         # the lock of throughput stages is per test worker
os.environ["XDG_STATE_HOME"] = state.name
torch.set_num_threads(1)

import diffbench  # noqa: E402
import diffbench.registry.registry  # noqa: E402
from diffbench.launchers import processes  # noqa: E402
from diffbench.results.exporting import export_run  # noqa: E402
from diffbench.store.artefacts import Store  # noqa: E402
from tests.helpers import forking  # noqa: E402
from tests.helpers.runs import make_run  # noqa: E402

REGISTRY = diffbench.load_registry()


def all_of(kind: str) -> list:
    """Every registered component of a kind that needs no option, for parametrisation."""
    made = []
    for ref in REGISTRY.refs(kind):
        if "required" not in dict(ref.summary().options).values():
            made.append(pytest.param(REGISTRY.create(kind, ref.full_name), id=ref.full_name))
    return made


def pytest_configure(config):
    """One test at a time to each worker of pytest-xdist: in chunks, one worker would get all the long ones."""
    if hasattr(config.option, "maxschedchunk"):
        config.option.maxschedchunk = 1


def pytest_collection_modifyitems(items):
    """Longest first, so that no worker is left alone with them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="module", autouse=True)
def _registered_again():
    """What a module's tests register, by --plugin too, is gone with them: some of it crashes its process on purpose."""
    before, loaded = dict(diffbench.registry.registry._session), set(sys.modules)
    yield
    diffbench.registry.registry._session.clear()
    diffbench.registry.registry._session.update(before)
    for name in set(sys.modules) - loaded:
        if name.startswith("diffbench_plugin_"):          # a file that stays loaded would not register again
            del sys.modules[name]


@pytest.fixture(scope="session", autouse=True)
def _forked_servers():
    """Runs of this process fork their fork servers from one that has torch imported; started ones are in tests of the launchers, and of drivers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "server_process", forking.server_process)
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with real MNIST: DIFFBENCH_DATA, or shared/data beside the checkout."""
    root = Path(os.environ.get("DIFFBENCH_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip(f"real MNIST is not at {root}: set DIFFBENCH_DATA to the folder that holds MNIST/raw")
    return root


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all workers of one test session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def archived(tmp_path):
    """A run made in milliseconds, packed: (store, folder of results, keys, archive)."""
    store, run = Store(tmp_path / "home"), tmp_path / "made"
    keys = make_run(store, run)
    export_run(run, store, tmp_path / "run.zip")
    return store, run, keys, tmp_path / "run.zip"
