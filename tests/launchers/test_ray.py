"""Ray: the suite on a cluster that is joined, and a cluster that is started for one run."""

import os
import secrets
import subprocess
import sys

import pytest

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'diffbench[ray]'")

from diffbench.testing import launching  # noqa: E402
from tests.launchers import gone, run  # noqa: E402

pytestmark = pytest.mark.slow
MEMORY = 100 * 2**20


def make():
    from diffbench.launchers.ray import RayLauncher

    return RayLauncher.open(os.environ["TEST_RAY_ADDRESS"], "cuda")


@pytest.fixture(scope="module")
def cluster():
    """One node with four cores and two GPUs that are not there; other drivers find it by its address."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2, "include_dashboard": False, "object_store_memory": MEMORY})
        patch.setenv("TEST_RAY_ADDRESS", made.address)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture(scope="module")
def bench(cluster, tmp_path_factory):
    with launching.Bench("tests.launchers.test_ray:make", tmp_path_factory.mktemp("ray bench ü"), gpus=2, many=24) as bench:
        yield bench


@pytest.mark.parametrize("check", launching.CHECKS, ids=lambda check: check.__name__)
def test_suite(bench, check):
    run(check, bench)



OWN_CLUSTER = """
import os, sys
from diffbench.launchers.ray import RayLauncher
from diffbench.testing.launching import Bench, success
import diffbench.testing.driving as driving
from pathlib import Path
driving.make_own = lambda: RayLauncher.open("", "cpu")
with Bench("diffbench.testing.driving:make_own", Path(sys.argv[1])) as bench:
    success(bench)
    print(bench.capacity)
"""


def test_a_cluster_of_its_own_is_quiet_leaves_no_process_and_no_file_at_home(tmp_path):
    home = tmp_path / "user"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "DIFFBENCH_TEST_MARK": str(tmp_path)}
    for name in [name for name in environment if name.startswith("RAY_")]:
        del environment[name]
    done = subprocess.run([sys.executable, "-c", OWN_CLUSTER, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stdout.startswith("Capacity(slots=4, threads=1"), done
    assert not done.stderr, done.stderr
    assert not list(home.rglob("*")), list(home.rglob("*"))
    gone(tmp_path)
