"""A run of two steps, followed."""

import json
import subprocess
import sys


def test_it_follows_a_run(tmp_path):
    matrix = {"diffbench": 1, "name": "followed", "dataset": "digits", "train": {"steps": 2, "batch_size": 8},
              "sample": {"count": 8}, "metrics": [],
              "axes": {"backbone": {"unet": {"channels": 8, "multipliers": [1, 2], "blocks": 1}},
                       "scheduler": {"ddim": {"steps": 2}}},
              "throughput": {"repeats": 3, "batch_size": 2}}
    (tmp_path / "matrix.yaml").write_text(json.dumps(matrix))
    done = subprocess.run([sys.executable, "-m", "diffbench", "run", "matrix.yaml", "--device", "cpu", "--tracker",
                           "newcomer"],
                          cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "followed" / "rows.csv").read_text().endswith(
        ",ok,\n") or "newcomer" in done.stderr, done.stderr
    assert "train" in (tmp_path / "runs" / "followed" / "losses.csv").read_text()
