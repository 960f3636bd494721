"""Three nodes, one of which is lost in the middle, give the rows of one machine."""

import secrets

import pytest

pytest.importorskip("ray", reason="ray is not installed: pip install 'diffbench[ray]'")

import diffbench
from diffbench.results.rows import CLOCKED
from diffbench.store.artefacts import Store

MATRIX = {
    "diffbench": 1, "name": "nodes", "dataset": "digits",
    "axes": {"backbone": {"dit": {"patch": 4, "width": 8, "depth": 1, "heads": 1}}, "conditioning": "none", "seed": [0, 1, 2], "scheduler": "dawdling"},
    "train": {"steps": 3, "batch_size": 8}, "sample": {"count": 20, "batch_size": 4}, "throughput": {"repeats": 3, "batch_size": 2},
    "extractor": "pixels", "metrics": ["fid"], "run": {"retries": 2},
}
DAWDLING = """
import time
from dataclasses import dataclass
import diffbench
@diffbench.register
@dataclass(frozen=True, kw_only=True)
class Dawdling(diffbench.Scheduler):
    \"\"\"Takes its time, so that a node can be lost meanwhile.\"\"\"
    steps: int = 2
    def step(self, denoise, schedule, x_t, t, s, state, noise):
        time.sleep(0.4)
        return denoise(x_t, t).x0, None
"""
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


class LosesANode:
    """A watcher that ends a node once each of the three samples."""

    def __init__(self, cluster, node):
        self.cluster, self.node, self.sampling, self.notes = cluster, node, set(), []

    def started(self, stage):
        """A job may wait; progress is what counts."""

    def progress(self, stage, done, of, figures):
        if stage.name == "sample":
            self.sampling.add(stage.key)
        if len(self.sampling) == 3 and self.node is not None:
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = None

    def finished(self, stage, outcome):
        """Of no interest."""

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def cluster(monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.mark.slow
def test_three_nodes_of_which_one_is_lost_give_the_rows_of_one_machine(tmp_path, cluster):
    lost = [cluster.add_node(**NODE) for _ in range(2)][0]
    cluster.wait_for_nodes()
    watcher, rows, plugin = LosesANode(cluster, lost), {}, tmp_path / "dawdling.py"
    plugin.write_text(DAWDLING)
    for name, options in {"ray": {"launcher": f"ray://{cluster.address}", "watchers": [watcher]}, "local": {}}.items():
        done = diffbench.run(MATRIX, out=tmp_path / name, device="cpu", jobs=3, threads=1, plugins=[plugin], store=Store(tmp_path / f"{name} home"), **options)
        table = diffbench.load(tmp_path / name)
        assert done.counts == {"ok": 3}, list(table["reason"])
        rows[name] = table[[column for column in table.columns if not CLOCKED.search(column)]]
    assert any("the node was lost" in note for note in watcher.notes), watcher.notes
    assert rows["local"].equals(rows["ray"]), rows["local"].compare(rows["ray"])
