"""diffbench run"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from diffbench.cli import completing
from diffbench.cli.common import Duration, UserPath, make_plan, matrix_options
from diffbench.cli.output import say
from diffbench.process import interrupts


@click.command()
@matrix_options
@click.option("--out", type=UserPath(file_okay=False), help="Folder of the results; runs/NAME unless told otherwise.")
@click.option("--launcher", default="local", show_default=True, metavar="local|ray[://HOST:PORT]|slurm[:PARTITION]",
              help="Where workers run.")
@click.option("--jobs", type=click.IntRange(min=1), help="Workers at once; otherwise as many as there are cores, or "
                                                         "GPUs. More jobs than GPUs share them.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of each worker; otherwise the cores are "
                                                            "divided among the workers.")
@click.option("--budget", type=Duration(), help="Time after which the run ends, such as 2h: one seed of every "
                                               "configuration comes before the second; the same line again goes on.")
@click.option("--wait", is_flag=True, help="Where another run writes to the same folder, wait for it to end.")
@click.option("--tracker", "trackers", multiple=True, metavar="NAME", shell_complete=completing.trackers,
              help="Also tell this tracker, such as tensorboard, what happens.")
def command(out: str | None, launcher: str, jobs: int | None, threads: int | None, budget: float | None, wait: bool,
            trackers: tuple[str, ...], plugins: tuple[str, ...],
            smoke: bool, **asked: Any) -> int:
    """Train and sample every combination in MATRIX and write FID and throughput tables.

    Typing the same line again goes on where it stopped. Exit codes: 0 every cell is ok or skipped, 1 some cell failed
    (the rest is there), 2 the request was wrong and nothing was run, 3 the budget ended first, 130 Ctrl-C, 143 SIGTERM.
    """
    from diffbench.api import running
    from diffbench.cli.display import Display
    from diffbench.cli.plan import estimated_time, plan_lines
    from diffbench.registry import offered
    from diffbench.results.records import NOT_RUN
    from diffbench.watching import time_left
    from diffbench.watching.reading import Logs

    # a plan may take a while; a misspelt name need not wait for it
    for name in trackers:
        offered.find("tracker", name)
    plan = make_plan(plugins=plugins, smoke=smoke, **asked)
    earlier = time_left.earlier(event for _, event in Logs(running.run_folder(plan, out, smoke)).read())
    display = Display(plan.needed(), plan.matrix.name, earlier)

    def ready(engine: Any) -> None:
        done = {key for key, outcome in engine.outcomes.items() if outcome.cached}
        estimated = estimated_time(plan, engine.store, done, jobs)[1] if launcher == "local" else None
        for line in plan_lines(plan, done, estimated):
            say(line)
        display.begin()

    try:
        finished = running.execute(plan, out=out, launcher=launcher, jobs=jobs, threads=threads, plugins=list(plugins),
                               watchers=[display],
                               smoke=smoke, on_ready=ready, wait=wait, trackers=trackers, budget=budget)
    except KeyboardInterrupt:
        display.end()
        say("interrupted: what was finished is kept; the same line again goes on from here", err=True)
        sys.exit(interrupts.exit_code())
    finally:
        display.end()
    counts = ", ".join(f"{n} {status}" for status, n in sorted(finished.counts.items()))
    say(f"{counts} ({finished.stages_run} stages run, {finished.stages_found} found done)")
    for line in finished.answer:
        say(line)
    for name in ("report.html", "fid.md", "throughput.md", "results.csv", "results.parquet", "samples"):
        if (finished.folder / name).exists():
            say(f"  {Path(finished.folder) / name}")
    for problem in finished.not_written:
        say(problem, err=True)
    has_failed = bool(finished.not_written) or not set(finished.counts) <= {"ok", "skipped", NOT_RUN}
    if finished.ended_early:
        say("the budget ended before all was done; the same line again goes on from here", err=True)
    if not finished.is_complete:
        for line in display.reasons():
            say(line, err=True)
        sys.exit(1 if has_failed else 3)
    sys.exit(0)
