"""A run that is interrupted keeps what is done, leaves no process and goes on with the same line."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.running.test_engine import MATRIX, PLUGIN, matrix, run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_store(monkeypatch, shared_folder):
    """That of all tests, where the classifiers are fitted once."""
    monkeypatch.setenv("DIFFBENCH_HOME", str(shared_folder / "store"))


def start(folder, seed):
    axes = MATRIX["axes"] | {"scheduler": [{"ddim": {"steps": 2}}, "hanging"], "conditioning": "film", "seed": seed}
    (folder / "matrix.json.yaml").write_text(json.dumps(MATRIX | {"axes": axes}))
    environment = {**os.environ, "DIFFBENCH_TEST_MARK": str(folder)}
    return subprocess.Popen([sys.executable, "-m", "diffbench", "run", "matrix.json.yaml", "--out", "out", "--device", "cpu", "--plugin", PLUGIN],
                            cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def alive(mark):
    """Processes that were started, at any remove, with this mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "environ").read_bytes()
        except OSError:
            continue
        if str(mark).encode() in status:
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to look for processes left behind")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_an_interrupted_run_keeps_what_is_done_leaves_no_process_and_goes_on(tmp_path, how):
    process = start(tmp_path, seed=int(how))             # tests beside this one hang with other seeds
    deadline = time.monotonic() + 600
    attempts = Path(os.environ["DIFFBENCH_HOME"]) / "attempts"
    before = set(attempts.glob("*/*"))

    def is_hanging():
        tasks = [json.loads(p.read_bytes()) for a in set(attempts.glob("*/*")) - before for p in a.glob("task.json")]
        cells = [t["task"]["cell"] for t in tasks if t["stage"] == "sample"]
        return any(c["scheduler"]["component"] == "hanging" and c["seed"] == how for c in cells)
    while time.monotonic() < deadline and not is_hanging():
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(how)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == (-9 if how == signal.SIGKILL else 128 + how)
    assert "Traceback" not in said
    if how != signal.SIGKILL:
        assert "the same line again goes on from here" in said
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and alive(tmp_path):
        time.sleep(0.1)
    assert not alive(tmp_path)
    content = matrix(axes=MATRIX["axes"] | {"scheduler": [{"ddim": {"steps": 2}}], "conditioning": "film", "seed": int(how)})
    again = run(tmp_path, content)
    assert again.counts == {"ok": 1} and again.stages_found >= 3


def test_an_interrupt_that_python_dropped_still_ends_the_run(tmp_path, monkeypatch):
    from diffbench.process import interrupts

    monkeypatch.setattr(interrupts, "_requested", threading.Event())
    interrupts._requested.set()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, matrix(sample={"count": 17}, metrics=[]))
