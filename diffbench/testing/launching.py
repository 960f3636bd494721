"""The suite of launchers: checks that every launcher must pass. It starts real workers, which do exercises.

    @pytest.fixture(scope="module")
    def bench(tmp_path_factory):
        with Bench("my_queue.testing:make", tmp_path_factory.mktemp("bench")) as bench:
            yield bench

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_queue(bench, check):
        check(bench)

`make()` gives a fresh launcher whose workers run on this machine; drivers that the suite kills import it by its name. A
check returns what it measured, raises AssertionError where the launcher is wrong, or NotApplicable with a reason.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffbench.launchers import Ended
from diffbench.testing.bench import Bench, await_end, noted_pids
from diffbench.testing.driving import drive, exercise, make
from diffbench.testing.verdicts import NotApplicable


def success(bench: Bench) -> None:
    """A worker that succeeds has published, with the threads it was given and the environment of now."""
    launcher = bench.launcher
    os.environ["DIFFBENCH_MARK"] = mark = str(time.time())
    try:
        job = bench.submit("succeed", threads=1)
    finally:
        del os.environ["DIFFBENCH_MARK"]
    assert bench.ends_of(job) == [Ended(id=job.id, code=0)] and bench.launcher is launcher
    facts = bench.facts(job)
    assert (facts["threads"], facts["openmp"], facts["gpus"]) == (1, "1", ""), facts
    assert facts["marked"] == mark and Path(facts["folder"]) == Path.cwd(), facts
    assert (job.attempt / "started.json").is_file()


def failures(bench: Bench) -> None:
    """An exception, a segmentation fault, a kill and os._exit(0) each end their own worker and publish nothing;
    the launcher goes on.
    """
    jobs = {do: bench.submit(do) for do in ("raise", "segfault", "kill", "leave")}
    codes = dict(zip(jobs, (end.code for end in bench.ends_of(*jobs.values())), strict=True))
    assert codes == {"raise": 1, "segfault": -signal.SIGSEGV, "kill": -signal.SIGKILL, "leave": 0}, codes
    assert not any(bench.store.has("exercise", job.id) for job in jobs.values())
    error = json.loads((jobs["raise"].attempt / "error.json").read_bytes())
    assert "raised on purpose, ünïcode and all" in error["reason"], error
    assert "Traceback" in (jobs["raise"].attempt / "log.txt").read_text()


def logs(bench: Bench) -> None:
    """All that a worker says is in log.txt of its attempt: stdout, stderr, unicode, below Python and in C."""
    job = bench.submit("speak")
    bench.ends_of(job)
    text = (job.attempt / "log.txt").read_text()
    for line in ("said to stdout: ü → 拡散", "said to stderr: ü → 拡散", "said below Python", "said in C"):
        assert line in text, f"{line!r} is not in {text!r}"


def cancelling(bench: Bench) -> float:
    """A worker that hangs in native code is killed with its children, also one that left its group;
    its end is told once.
    """
    pids = bench.file("pids")
    job = bench.submit("hang", pids=str(pids))
    family = noted_pids(pids, job)
    start = time.monotonic()
    bench.launcher.cancel(job.id)
    bench.launcher.cancel("an id nobody knows")
    (end,) = bench.ends_of(job)
    took = time.monotonic() - start
    assert end.code != 0 and not bench.store.has("exercise", job.id)
    await_end(family)
    return took


def cancelling_what_waits(bench: Bench) -> None:
    """A job that waits for its turn can be taken out; the others go on."""
    flag = bench.file("flag")
    holding = [bench.submit("wait", file=str(flag), pids=str(bench.file("pids"))) for _ in range(bench.capacity.slots)]
    waiting = bench.submit("succeed")
    bench.launcher.cancel(waiting.id)
    flag.touch()
    *codes, code = (end.code for end in bench.ends_of(*holding, waiting))
    assert code != 0 and not any(codes), (codes, code)
    assert not bench.store.has("exercise", waiting.id)


def leaking(bench: Bench) -> None:
    """A child that a worker leaves behind, and that holds on to its log, keeps no end from being told, and is killed.
    """
    pids = bench.file("pids")
    job = bench.submit("leak", pids=str(pids))
    assert bench.ends_of(job)[0].code == 0
    await_end(json.loads(pids.read_bytes()))


def pinning(bench: Bench) -> None:
    """Workers of whole GPUs have different ones, one of two GPUs has both, and two halves fit one."""
    if bench.gpus < 2:
        raise NotApplicable(f"the launcher is said to have {bench.gpus} GPUs, and two are needed")
    bench.close()
    capacity = bench.launcher.capacity("cuda", bench.gpus, None)
    assert capacity.slots == bench.gpus and capacity.gpus == 1.0, capacity
    jobs = [bench.submit("succeed", device="cuda", gpus=1.0, seconds=0.5) for _ in range(bench.gpus)]
    bench.ends_of(*jobs)
    names = [bench.facts(job)["gpus"] for job in jobs]
    assert len(set(names)) == bench.gpus and all(gpus and "," not in gpus for gpus in names), names
    wide = bench.submit("succeed", device="cuda", gpus=2.0)
    bench.ends_of(wide)
    pair = bench.facts(wide)["gpus"].split(",")
    assert len(pair) == 2 and set(pair) <= set(names), pair
    shared = bench.launcher.capacity("cuda", 99, 2 * bench.gpus)
    assert shared.gpus == 0.5, shared
    halves = [bench.submit("succeed", device="cuda", gpus=0.5, seconds=0.5) for _ in range(2 * bench.gpus)]
    bench.ends_of(*halves)
    users = [bench.facts(job)["gpus"] for job in halves]
    assert sorted(users) == sorted(2 * names), users
    bench.close()


def many_jobs_keep_to_the_slots(bench: Bench) -> dict[str, float]:
    """All at once into the queue; no more at a time than there are slots.
    Seconds of each job, and from one end to the next.
    """
    start = time.time()
    jobs = [bench.submit("succeed") for _ in range(bench.many)]
    assert not any(end.code for end in bench.ends_of(*jobs))
    facts = [bench.facts(job) for job in jobs]
    moments = sorted([(f["begun"], 1) for f in facts] + [(f["ended"], -1) for f in facts])
    running = [sum(step for _, step in moments[: i + 1]) for i in range(len(moments))]
    assert max(running) <= bench.capacity.slots, f"{max(running)} ran at once"
    return {"seconds_per_job": (time.time() - start) / bench.many,
            "longest": max(f["ended"] - f["begun"] for f in facts),
            "median": statistics.median(f["ended"] - f["begun"] for f in facts)}


def order(bench: Bench) -> None:
    """Through the engine: parents before children, and what depends on a failure is blocked while the rest goes on."""
    bench.close()
    stages = [exercise("early", "succeed", seconds=0.3), exercise("late", "succeed", {"early": "early"}),
              exercise("wrong", "raise"),
              exercise("hopeless", "succeed", {"wrong": "wrong"}),
              exercise("latest", "succeed", {"late": "late", "early": "early"})]
    outcomes = drive(lambda: make(bench.factory), bench.store, stages)
    assert {label: outcome.status for label, outcome in outcomes.items()} == {
        "early": "ok", "late": "ok", "latest": "ok", "wrong": "failed", "hopeless": "blocked"}, outcomes
    for stage in stages[1], stages[4]:
        facts = bench.store.read_json("exercise", stage.key, "facts.json")
        assert facts["begun"] >= max(facts["parents"].values()), facts


def killed_driver(bench: Bench) -> None:
    """After SIGKILL of the driver no worker is left, unless the launcher says so;
    the same line again finishes and repeats nothing.
    """
    flag, pids = bench.file("flag"), bench.file("pids")
    plan = [{"name": "before the kill", "do": "succeed"},
            {"name": "during the kill", "do": "wait", "parents": {"first": "before the kill"}, "file": str(flag),
             "pids": str(pids)}]
    driver = bench.drive(plan)
    family = noted_pids(pids, driver)
    driver.process.kill()
    driver.process.wait()
    if not bench.outlives_driver:
        await_end(family)
    flag.touch()
    bench.drive(plan).finish()
    tries = [len(list((bench.store.root / "attempts" / exercise(item["name"], item["do"]).key).iterdir()))
             for item in plan]
    assert tries == [1, 1 if bench.outlives_driver else 2], tries


def two_drivers(bench: Bench) -> None:
    """Two drivers of one plan in one store at once: both end well, and every stage is done once."""
    plan = [{"name": f"shared {i}", "do": "succeed", "seconds": 0.3} for i in range(4)]
    drivers = [bench.drive(plan) for _ in range(2)]
    for driver in drivers:
        driver.finish()
    tries = [len(list((bench.store.root / "attempts" / exercise(item["name"], item["do"]).key).iterdir()))
             for item in plan]
    assert tries == [1] * len(plan), tries


def closing(bench: Bench) -> None:
    """`close` leaves no worker behind, running or waiting."""
    pids = bench.file("pids")
    job = bench.submit("hang", pids=str(pids))
    family = noted_pids(pids, job)
    bench.close()
    await_end(family)


CHECKS: tuple[Callable[[Bench], Any], ...] = (success, failures, logs, cancelling, cancelling_what_waits, leaking,
                                              pinning, many_jobs_keep_to_the_slots,
                                              closing, order, killed_driver, two_drivers)
