"""A run of which one row was made again, once for each test worker."""

import shutil

import pytest

import diffbench
from diffbench.api import running
from diffbench.store.artefacts import Store
from tests.helpers.rerun import MATRIX, ROW


@pytest.fixture(scope="session")
def repeated(tmp_path_factory):
    """(folder of a run, its store, where a repetition of one of its rows was kept, what was found)."""
    place = tmp_path_factory.mktemp("rerun")
    store = Store(place / "home")
    diffbench.run(MATRIX, out=place / "run", device="cpu", jobs=2, threads=1, store=store)
    return place / "run", store, place / "kept", diffbench.rerun(place / "run", ROW, keep=place / "kept", store=store)


@pytest.fixture
def again(repeated, tmp_path, monkeypatch):
    """Compares the kept repetition, without making it anew, with a copy of the run that a test may change: (run, store, compare)."""
    run, store, kept, _ = repeated
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(store.root, tmp_path / "home")

    def put_there(made, *, out, store, **options):
        shutil.copytree(kept / "home", store.root)
        shutil.copytree(kept / "run", out)
        return running.Finished(folder=out, counts={"ok": 1}, stages_run=0, stages_found=0)
    monkeypatch.setattr(running, "execute", put_there)
    ours = Store(tmp_path / "home")
    return tmp_path / "run", ours, lambda row=ROW, store=ours: diffbench.rerun(tmp_path / "run", row, store=store)
