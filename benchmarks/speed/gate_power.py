"""How often `python -m benchmarks.speed --against` says "slower" of unchanged code, and of code that is slower by a
known share.

    python -m benchmarks.speed.gate_power --trials 40 --slowed 1.0 1.05 1.1 1.2 --to trials.jsonl     # adds trials to
    the file python -m benchmarks.speed.gate_power --trials 0 --to trials.jsonl                                # the
    table of all trials in it

A trial is a whole comparison of this checkout with itself, second measurement included, in processes drawn from a pool.
The slowed version does its work 1.05 times as often in each lap that the other does it once: exactly 5 % slower, with
its own noise. Beside the gate: what a stored time would say, the later of any two trials 5 % above the earlier.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.speed import other_version
from benchmarks.speed.gate import THRESHOLD, Verdict
from benchmarks.speed.pairs import Child, Request, Start, Version, started
from benchmarks.speed.twice import compare
from diffbench.stats.jackknife import wilson

CHEAP = Request(names=("ddim", "pndm"), phrases=("8x8",))
# processes from which the trials draw theirs: starting them is most of a trial's time
POOL = 12


@contextlib.contextmanager
def pool(request: Request) -> Iterator[Start]:
    """A way to have a process: one of POOL that is not in use, drawn at random; cases are prepared in it anew."""
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(started(other_version.here(), request)) for _ in range(POOL)]

        @contextlib.contextmanager
        def start(version: Version, request: Request) -> Iterator[Child]:
            child = free.pop(random.randrange(len(free)))
            try:
                yield child
            finally:
                free.append(child)
        yield start


def trial(request: Request, pairs: int, slowed: float, start: Start) -> dict[str, Any]:
    """One comparison, as a line of the file."""
    here = other_version.here()
    verdicts, measurements = compare(here, here, request, pairs, THRESHOLD, slowed=slowed, start=start)
    return {"slowed": slowed, "pairs": pairs, "machine": measurements.machine, "cases": [_case(v) for v in verdicts]}


def _case(v: Verdict) -> dict[str, Any]:
    return {"case": v.name, "clock": v.clock, "ratio": v.ratio, "p": v.p_slower, "verdict": v.word,
            "there_seconds": v.there_seconds}


def table(trials: list[dict[str, Any]]) -> str:
    """Shares with 95 % intervals (Wilson), by how much slower the code was."""
    by_slowed = defaultdict(list)
    for trial_facts in trials:
        by_slowed[trial_facts["slowed"]].append(trial_facts)
    lines = [f"{'slower by':>10} {'trials':>7} {'cases called slower':>34} {'trials with any slower':>34} "
             f"{'median ratio':>13}"]
    for slowed, some in sorted(by_slowed.items()):
        words = [[case["verdict"] == "slower" for case in trial_facts["cases"]] for trial_facts in some]
        ratios = sorted(case["ratio"] for trial_facts in some for case in trial_facts["cases"])
        lines.append(f"{slowed - 1:10.0%} {len(some):7} "
                     f"{_share([w for trial_facts in words for w in trial_facts]):>34} "
                     f"{_share([any(trial_facts) for trial_facts in words]):>34} "
                     f"{ratios[len(ratios) // 2]:13.3f}")
    unchanged = [{case["case"]: case["there_seconds"] for case in trial_facts["cases"]} for trial_facts in trials]
    later = [second[name] > 1.05 * first[name] for first, second in itertools.combinations(unchanged, 2)
             for name in first if name in second]
    lines.append(f"a stored time, 5 % threshold, unchanged code: {_share(later)} (of any two trials)")
    return "\n".join(lines)


def _share(hits: list[bool]) -> str:
    """'3.1 % (1.1 to 8.6 %) of 96'."""
    low, high = wilson(sum(hits), len(hits))
    return f"{sum(hits) / len(hits):.1%} ({low:.1%} to {high:.1%}) of {len(hits)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--slowed", type=float, nargs="+", default=[1.0, 1.05, 1.1, 1.2])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--to", type=Path, default=Path("trials.jsonl"))
    arguments = parser.parse_args()
    if arguments.trials:
        with pool(CHEAP) as start:
            for _, share in itertools.product(range(arguments.trials), arguments.slowed):
                line = trial(CHEAP, arguments.pairs, share, start)
                with open(arguments.to, "a") as out:
                    out.write(json.dumps(line) + "\n")
    done = [json.loads(line) for line in arguments.to.read_text().splitlines()]
    machines = {json.dumps(one["machine"]) for one in done}
    if len(machines) > 1:
        parser.error(f"{arguments.to} holds trials of {len(machines)} machines: {'; '.join(sorted(machines))}")
    print(table(done), "\nmachine:", *machines)
