"""What tests of the engine share: a small run that is finished."""

import filelock
import pytest


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shared_folder):
    """One small run, shared by the tests that only look at it. All tests use one store, where the classifiers are fitted once."""
    from tests.running.test_engine import MATRIX, run

    folder = tmp_path_factory.mktemp("run with spaces ü")
    with pytest.MonkeyPatch.context() as patch, filelock.FileLock(shared_folder / "first.lock") as first:
        patch.setenv("DIFFBENCH_HOME", str(shared_folder / "store"))
        done = run(folder, MATRIX)
        first.release()
        yield folder, done
