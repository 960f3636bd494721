"""Slurm: the suite on submitit's local executor, and what is asked of a queue, read from the submission."""

import pytest

submitit = pytest.importorskip("submitit", reason="submitit is not installed: pip install 'diffbench[slurm]'")

from diffbench.testing import launching  # noqa: E402
from tests.launchers import run  # noqa: E402

pytestmark = pytest.mark.slow


def make():
    from diffbench.launchers.slurm import SlurmLauncher

    return SlurmLauncher(cluster="local")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with launching.Bench("tests.launchers.test_slurm:make", tmp_path_factory.mktemp("slurm bench ü"), many=6, outlives_driver=True) as bench:
        yield bench


@pytest.mark.parametrize("check", launching.CHECKS, ids=lambda check: check.__name__)
def test_suite(bench, check):
    run(check, bench)
