"""The order in which stages are started: cell after cell, one seed of every configuration before the second."""

import time

import diffbench
from diffbench.matrix import loading
from diffbench.planning import stage_graph
from diffbench.report import page
from diffbench.running import order
from tests.conftest import REGISTRY

TINY = {"diffbench": 1, "name": "order", "dataset": "digits", "metrics": ["fid"], "extractor": "pixels", "throughput": "off",
        "axes": {"backbone": {"unet": {"channels": 8, "multipliers": [1], "blocks": 1}}, "noise_schedule": ["linear", "cosine"], "seed": [0, 1],
                 "scheduler": [{"ddim": {"steps": 2}}, {"euler_ode": {"steps": 2}}]},
        "train": {"steps": 2, "batch_size": 8}, "sample": {"count": 8}}


def planned(matrix):
    return stage_graph.make_plan(loading.load(matrix, REGISTRY), REGISTRY, "cpu")


def test_the_first_seed_of_every_configuration_comes_before_the_second_of_any():
    plan = planned(TINY)
    assert [p.cell.seed for p in plan.cells] == [0, 0, 1, 1] * 2, "which is not the order of the matrix"
    ordered = order.cells_in_order(plan)
    assert [p.cell.seed for p in ordered] == [0] * 4 + [1] * 4
    assert [p.cell_id for p in ordered if p.cell.seed == 0] == [p.cell_id for p in plan.cells if p.cell.seed == 0]
    noise = planned(TINY | {"axes": TINY["axes"] | {"seed": [0], "sample.seed": [7, 8]}})
    assert [p.cell.noise_seed for p in order.cells_in_order(noise)] == [7] * 4 + [8] * 4


def test_what_a_cell_waits_for_comes_before_all_that_later_cells_wait_for():
    plan = planned(TINY)
    places = order.places(plan)
    assert places.keys() == plan.needed().keys()
    seen = set()
    for rank, cell in enumerate(order.cells_in_order(plan)):
        own, waiting = set(), list(cell.stages.values())
        while waiting:
            key = waiting.pop()
            own.add(key)
            waiting += plan.stages[key].parents.values()
        assert {places[key][0] for key in own - seen} == {rank}
        seen |= own
    first = sorted(places, key=places.get)
    assert plan.stages[first[0]].name == "train", "the longest of a cell first"


def test_rows_come_one_after_another_and_the_page_with_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("diffbench.running.engine.LOOK_SECONDS", 0.0)
    seen = []

    class Listener:
        def started(self, stage):
            frame = diffbench.load(tmp_path / "run") if (tmp_path / "run" / "results.csv").exists() else ()
            seen.append((stage.name, len(frame), (tmp_path / "run" / page.FILE).is_file()))

        def progress(self, stage, done, of, figures):
            time.sleep(0)

        def finished(self, stage, outcome):
            pass

        def note(self, text):
            pass

    finished = diffbench.run(TINY, out=tmp_path / "run", device="cpu", jobs=1, watchers=[Listener()])
    assert finished.counts == {"ok": 8}
    last_training = max(i for i, (name, _, _) in enumerate(seen) if name == "train")
    assert seen[last_training][1] >= 2 and seen[last_training][2], "rows and page stand while trainings are still to come"
