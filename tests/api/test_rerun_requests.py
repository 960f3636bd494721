"""How a row is made again: as the run was asked for, with its batches and its threads."""

import dataclasses
import json

import pytest

import diffbench
from diffbench.api import rerunning, running
from diffbench.store.artefacts import Store
from tests.helpers.rerun import MATRIX, ROW, change, record, update

PLUGIN = """
from dataclasses import dataclass
import diffbench

@diffbench.register
@dataclass(frozen=True, kw_only=True)
class Jumping(diffbench.Scheduler):
    "Straight to the estimate of the data."
    steps: int = 5
    def step(self, denoise, schedule, x_t, t, s, state, noise):
        return denoise(x_t, t).x0, None
"""
pytestmark = pytest.mark.slow


def test_a_smoke_run_with_a_plug_in_file_and_changes_is_repeated_as_it_was_asked_for(tmp_path):
    """What is neither in the matrix nor in its plan is in environment.json."""
    (tmp_path / "jumping.py").write_text(PLUGIN)
    store, content = Store(tmp_path / "home"), MATRIX | {"axes": MATRIX["axes"] | {"scheduler": ["jumping", {"ddpm": {"steps": 50}}]}}
    made = diffbench.plan(content, device="cpu", smoke=True, plugins=[str(tmp_path / "jumping.py")], changes=["train.lr=0.01"], only=["scheduler=jumping"])
    running.execute(made, out=tmp_path / "run", threads=1, store=store, smoke=True, plugins=[str(tmp_path / "jumping.py")])
    asked = json.loads((tmp_path / "run" / "environment.json").read_bytes())["request"]
    assert asked["smoke"] is True and asked["plugins"][0]["path"] == str(tmp_path / "jumping.py")
    found = diffbench.rerun(tmp_path / "run", "seed=0", store=store)
    assert found.is_bitwise and found.is_comparable_to_the_bit and all(a.is_equal for a in found.artefacts)
    assert dataclasses.replace(found, failure="x").agrees is False


@pytest.fixture
def asked(again, monkeypatch):
    """How a repetition of the changed run would be executed, without doing it: (plan, options)."""
    run, store, _ = again
    seen = []

    def execute(made, **options):
        seen.append((made, options))
        raise KeyboardInterrupt
    monkeypatch.setattr(running, "execute", execute)

    def ask(**options):
        with pytest.raises(KeyboardInterrupt):
            diffbench.rerun(run, ROW, store=store, **options)
        return seen.pop()
    return run, ask


def test_a_row_sampled_in_smaller_batches_after_running_out_of_memory_is_so_again(asked):
    run, ask = asked
    change(record(run), sample_batch_size=12)
    made, options = ask()
    engine = type("Engine", (), {"batches": {}})
    options["on_ready"](engine)
    assert engine.batches == {made.cells[0].stages["sample"]: 12}


def test_every_stage_gets_as_many_threads_as_then(asked, monkeypatch):
    """Where the cores were divided among workers they are divided again: what measures speed has them all."""
    run, ask = asked

    def given(**options):
        return {name: value for name, value in ask(**options)[1].items() if name in ("jobs", "threads")}
    assert given() == {"threads": 1} and given(threads=2) == {"threads": 2}
    update(run, request=("threads", None))
    for here in (1, 4, 6, 7, 64):
        monkeypatch.setattr(rerunning, "cores", lambda here=here: here)
        for workers in range(1, here + 1):
            change(record(run), cores=here, threads=here // workers)
            assert here // given()["jobs"] == here // workers
    assert given(threads=3) == {"threads": 3}
    change(record(run), cores=128)
    assert given() == {"threads": 1}, "a machine of another size"
