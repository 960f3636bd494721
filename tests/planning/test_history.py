"""What earlier stages say: how long the next will take, and which results an edit has left behind."""
import json

import pytest

from diffbench import wording
from diffbench.cli import cli
from diffbench.cli.plan import estimated_time, plan_lines, stale_lines, stale_stages
from diffbench.launchers import Capacity
from diffbench.machine import fingerprint as machine
from diffbench.machine.fingerprint import cores, machine_digest
from diffbench.matrix import loading
from diffbench.planning import estimate, history, stage_graph
from diffbench.planning.history import Expected, History
from diffbench.planning.stage import Stage
from diffbench.stages import worker
from diffbench.store.artefacts import Store
from diffbench.store.claims import Claims
from tests.conftest import REGISTRY
from tests.helpers.runs import attempted

SMALL = {
    "diffbench": 1, "name": "small", "dataset": "digits",
    "axes": {"backbone": [{"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}], "conditioning": ["film", {"cfg": {"inner": "film", "scale": [1.0, 2.0]}}],
             "scheduler": [{"ddim": {"steps": 5, "eta": 1.0}}, {"ddpm": {"steps": 5}}, {"heun": {"steps": 4}}], "seed": [0, 1]},
    "train": {"steps": 30, "batch_size": 8}, "sample": {"count": 12}, "metrics": ["fid"],
}


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def stage(units, like="a", name="train"):
    return Stage(name, "0" * 64, {"stage": name}, {"work": {"like": like, "units": units}}, {}, "it")


def took(store, seconds, units=100.0, like="a", threads=1, machine="here", name="train", key="k", identity=None):
    content = {"stage": name, "key": key, "identity": identity or {"stage": name}, "task": {"work": {"like": like, "units": units}}}
    history.note(store.root, content, seconds, threads, machine)


def expected(store, asked, threads=1):
    return History(store, "here", threads, exclusive_threads=4).expected_seconds(asked)


def test_an_estimate_is_the_median_and_the_quartiles_of_like_stages_scaled_by_their_units(store):
    for seconds in (10.0, 20.0, 30.0, 40.0, 50.0):
        took(store, seconds)
    assert expected(store, stage(100.0)) == Expected(30.0, 20.0, 40.0, 5)
    assert expected(store, stage(300.0)) == Expected(90.0, 60.0, 120.0, 5)


def test_the_most_similar_stages_are_gone_by_and_no_others(store):
    took(store, 1.0, like="b")
    assert expected(store, stage(100.0)).seconds == 1.0, "of its kind, where there is no more similar one"
    took(store, 5.0, threads=2)
    assert expected(store, stage(100.0)).seconds == 5.0, "of its like, with other threads"
    took(store, 7.0)
    assert expected(store, stage(100.0)).seconds == 7.0
    assert expected(store, stage(100.0), threads=2).seconds == 5.0
    took(store, 100.0, units=200.0)
    for _ in range(history.NEAREST):
        took(store, 8.0, units=99.0)
    assert expected(store, stage(99.0)) == Expected(8.0, 8.0, 8.0, history.NEAREST), "the nearest in size"


def test_no_number_is_invented(store):
    assert expected(store, stage(100.0)) is None
    took(store, 5.0, machine="there")
    took(store, 5.0, name="sample")
    took(store, 5.0, units=100.0 * history.REACH * 1.01)
    took(store, 5.0, units=100.0 / history.REACH / 1.01)
    assert expected(store, stage(100.0)) is None, "of another machine, another kind, far longer or far shorter"


def test_torn_and_foreign_lines_are_skipped(store):
    took(store, 5.0)
    with open(store.root / "history" / "train.jsonl", "ab") as file:
        file.write(b'["x", "y", "a", "many", 3.0, 1, "here"]\n[1, 2]\n{"a": 1}\n\xff\xfe\n' + b"[" * 100_000 + b'\n["torn", "li')
    assert expected(store, stage(100.0)) == Expected(5.0, 5.0, 5.0, 1)


@pytest.mark.parametrize(("units", "seconds", "threads"), [(1, 10**400, 1), (10**400, 1, 1), (1, float("inf"), 1), (1, float("nan"), 1), (float("inf"), 1, 1), (1, 1, 10**400),
                                                           (True, 1, 1), (1, "1", 1), (1, 1, [1]), (0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_numbers_that_no_stage_has_are_skipped(store, units, seconds, threads):
    took(store, 5.0)
    with open(store.root / "history" / "train.jsonl", "ab") as file:
        file.write(json.dumps(["key", "family", "like", units, seconds, threads, "here"]).encode() + b"\n")
    assert [entry.seconds for entry in history.entries(store.root, "train")] == [5.0]


def test_stages_that_share_the_machine_divide_it_and_those_that_need_it_alone_follow():
    def at(name, key, *parents):
        return Stage(name, key, {}, {}, dict(enumerate(parents)), key)
    trainings = [(at("train", f"t{i}"), 10.0) for i in range(4)]
    assert estimate._wall(trainings, 2) == 20.0 and estimate._wall(trainings, 4) == estimate._wall(trainings, 8) == 10.0
    assert estimate._wall([*trainings, (at("sample", "s", "t0"), 25.0)], 8) == 35.0, "never less than the longest chain"
    assert estimate._wall([*trainings, (at("throughput", "p"), 3.0), (at("throughput", "q"), 4.0)], 4) == 17.0


def test_the_plan_counts_what_is_left_and_says_what_it_does_not_know(store):
    plan = stage_graph.make_plan(loading.load(SMALL, REGISTRY), REGISTRY, "cpu")
    trainings = [s for s in plan.needed().values() if s.name == "train"]
    assert len(trainings) == 4
    for made in trainings:
        content = {"stage": "train", "key": made.key, "identity": made.identity, "task": made.task}
        history.note(store.root, content, 6.0, 2, machine_digest("cpu"))
    capacity = Capacity(slots=2, threads=2, machines=1)
    found = estimate.estimate(plan, (), estimate.history_of(plan, store, capacity.threads), capacity.slots)
    assert found.seconds == (12.0, 12.0, 12.0) and found.earlier == 4 and found.left == len(plan.needed())
    kinds = plan.summary()["stages"]
    assert found.unknown == {name: count for name, count in kinds.items() if name != "train"}
    assert found.line().startswith("time: about 12 s (12 s to 12 s) with 2 workers, by 4 earlier stages on this machine; not known and not counted: ")
    done = {s.key for s in trainings[:3]}
    assert estimate.estimate(plan, done, estimate.history_of(plan, store, capacity.threads), 2).seconds[0] == 6.0
    assert estimate.estimate(plan, plan.needed(), estimate.history_of(plan, store, capacity.threads), 2).line() == "time: nothing is left to run"
    empty = History(Store(store.root / "other"), "x", 1, 1)
    assert estimate.estimate(plan, (), empty, 2).line().startswith(
        "time: not known before the first stages are done: none of this size was done on this machine earlier (4 train, ")


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (5000, "83 min"), (11_520, "3.2 h"), (216_000, "2.5 days")])
def test_times_are_spoken(seconds, said):
    assert wording.spoken(seconds) == said


def test_network_evaluations_are_claimed_times_count_and_equal_cells_count_once():
    """ddim at eta 1 is ddpm; heun makes 2 N - 1; cfg doubles but at w = 1."""
    plan = stage_graph.make_plan(loading.load(SMALL, REGISTRY), REGISTRY, "cpu")
    per_scheduler, guided = 5 + 5 + 7, 1 + 1 + 2
    assert plan.saved_evaluations() == (12 * 2 * guided * (5 + 7), 12 * 2 * guided * per_scheduler)


def published(store, made, identity):
    """An earlier artefact: a stage as it was before something changed."""
    key = "a" * 64
    content = {"stage": made.name, "key": key, "identity": identity, "task": made.task, "parents": made.parents}
    if store.is_published(made.name, key):
        store.set_aside(made.name, key)
    store.publish(made.name, key, content, {})
    history.note(store.root, content, 1.0, 1, "here")


@pytest.mark.parametrize(("change", "said"), [
    (lambda i: i["backbone"].update(code="old"), "backbone dit"),
    (lambda i: i["conditioning"].update(code="old"), "conditioning film"),
    (lambda i: i.update(harness="old"), "diffbench itself"),
    (lambda i: i.update(schema=0), "diffbench itself"),
    (lambda i: i["dataset"].update(content="old"), "the images of digits"),
])
def test_a_training_made_before_an_edit_is_stale_and_the_plan_says_what_changed(store, change, said):
    plan = stage_graph.make_plan(loading.load(SMALL, REGISTRY), REGISTRY, "cpu")
    made = next(s for s in plan.needed().values() if s.name == "train")
    identity = json.loads(json.dumps(made.identity))
    change(identity)
    published(store, made, identity)
    found = stale_stages(plan, (), History(store, "here", 1, 1))
    assert [(s.key, f.key, f.changed) for s, f in found] == [(made.key, "a" * 64, (said,))]
    assert list(stale_lines(found)) == [f"  stale: 1 train stage will be done again, with what depends on it: {said} changed"]


def test_other_options_are_no_edit_and_what_is_done_is_not_stale(store):
    plan = stage_graph.make_plan(loading.load(SMALL, REGISTRY), REGISTRY, "cpu")
    made = next(s for s in plan.needed().values() if s.name == "train")
    other = json.loads(json.dumps(made.identity))
    other["backbone"]["options"]["width"] = 32
    published(store, made, other)
    assert not stale_stages(plan, (), History(store, "here", 1, 1))
    other["backbone"]["options"]["width"], other["backbone"]["code"] = made.identity["backbone"]["options"]["width"], "old"
    published(store, made, other)
    assert stale_stages(plan, (), History(store, "here", 1, 1)) and not stale_stages(plan, {made.key}, History(store, "here", 1, 1))


def test_a_worker_notes_what_its_stage_took_and_on_which_machine(store, monkeypatch):
    made = stage(64.0)
    attempt = attempted(store, Claims(), made, {"threads": 3})
    monkeypatch.setattr(worker, "_do", lambda *arguments: {"facts.json": b"{}"})
    assert worker.run(str(store.root), str(attempt)) == 0
    (entry,) = history.entries(store.root, "train")
    outcome = store.read_json("train", made.key, "outcome.json")
    assert entry.key == made.key and entry.units == 64.0 and entry.seconds == outcome["seconds"] and entry.threads == outcome["threads"] == 3
    assert entry.machine == outcome["machine"] == machine_digest("cpu")


def test_a_history_that_cannot_be_written_costs_no_result(store, monkeypatch):
    (store.root / "history").write_text("in the way")
    attempt = attempted(store, Claims(), stage(64.0), {})
    monkeypatch.setattr(worker, "_do", lambda *arguments: {})
    assert worker.run(str(store.root), str(attempt)) == 0 and store.has("train", "0" * 64)


def test_the_plan_in_lines_and_as_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "store"))
    (tmp_path / "m.yaml").write_text(json.dumps(SMALL | {"axes": SMALL["axes"] | {"seed": list(range(30)), "train.lr": [1e-3 * (i + 1) for i in range(15)]}}))
    plan = stage_graph.make_plan(loading.load(SMALL, REGISTRY), REGISTRY, "cpu")
    assert estimated_time(plan, Store.default(), (), 3)[1].workers == 3
    assert estimated_time(plan, Store.default(), (), None)[1].workers <= cores()
    assert any("network evaluations to sample instead of" in line for line in plan_lines(plan, (), estimated_time(plan, Store.default(), (), 3)[1]))
    cli.main(["plan", str(tmp_path / "m.yaml"), "--device", "cpu"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 40
    assert "more groups of equal cells; --json lists all" in shown and "train dit, linear, epsilon, film, 450 trainings: 1,350 cells" in shown
    assert not (tmp_path / "store").exists(), "looking leaves nothing behind"
    cli.main(["plan", str(tmp_path / "m.yaml"), "--device", "cpu", "--json"], standalone_mode=False)
    data = json.loads(capsys.readouterr().out)
    assert data["cells"] == len(data["listed_cells"]) and data["seconds"] is None and data["stale"] == []
    assert set(data["stages_of_unknown_time"]) == set(data["stages"])


@pytest.mark.parametrize("line", ["NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
                                  "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build  (dvs-builder)"])
def test_the_driver_of_a_gpu_is_read_without_a_second_of_nvidia_smi(tmp_path, monkeypatch, line):
    (tmp_path / "version").write_text(line + "\nGCC version:  gcc version 12.2.0 (Debian)\n")
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    assert machine.nvidia_driver() == "535.104.05"
