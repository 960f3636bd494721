"""Times and counts of all components and of the harness, or this version against another commit:
`python -m benchmarks.speed --help`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.speed import other_version
from benchmarks.speed.gate import Verdict
from benchmarks.speed.pairs import Request
from benchmarks.speed.twice import compare
from diffbench.cli.bench import (
    bench_options,
    check_options,
    machine_line,
    measured,
    resolved,
    say_aside,
    say_reasons,
    short_time,
)
from diffbench.cli.output import say, say_data
from diffbench.errors import DiffbenchError
from diffbench.report.layout import markdown


@click.command()
@click.option("--against", metavar="REV", help="Compare with another commit of this checkout; exit code 1 where this "
                                               "version is slower.")
@click.option("--pairs", type=click.IntRange(min=3), default=3, show_default=True,
              help="Pairs of processes, one of each version, for --against.")
@click.option("--threshold", type=click.FloatRange(min=1.0), default=1.03, show_default=True,
              help="A smaller ratio is never called slower.")
@bench_options
def command(against: str | None, pairs: int, threshold: float, names: tuple[str, ...], phrases: tuple[str, ...],
            beside: Path | None, counts: Path | None,
            update: bool, device: str, threads: int, as_json: bool, plugins: tuple[str, ...]) -> int:
    """As `diffbench bench`, with the cases of the harness and a comparison with other commits.

    \b
    python -m benchmarks.speed                                         times of all components and of the harness
    python -m benchmarks.speed --against main unet                     this version against another, in alternating
    pairs of processes python -m benchmarks.speed --counts benchmarks/counts.json         counts, of the components of
    this distribution alone

    Exit code 1 where this version is slower than REV (by ratio and by rank test) or where a count has changed. See
    docs/guarding-speed.md.
    """
    check_options(beside, counts, update)
    if against is not None and (beside is not None or counts is not None):
        raise click.UsageError("--against, --beside and --counts are three ways to compare: give one of them")
    device = resolved(device)
    if against is not None:
        return _against(against, Request(names=names, phrases=phrases, device=device, threads=threads, plugins=plugins),
                        pairs, threshold, as_json)
    from benchmarks.speed.cases import cases, ours
    from diffbench.registry.registry import load_registry

    selected = (cases if counts is None else ours)(load_registry(plugins), names, phrases)
    return measured(selected, device, threads, beside, counts, update, as_json, is_whole=not (names or phrases),
                    program="python -m benchmarks.speed")


def _against(revision: str, request: Request, pairs: int, threshold: float, as_json: bool) -> int:
    with other_version.checked_out(revision) as (there, how):
        say_aside(f"{there.name} runs {how}")
        verdicts, found = compare(there, other_version.here(), request, pairs, threshold, say_aside)
    slower = [v for v in verdicts if v.is_slower]
    if as_json:
        say_data({"there": there.name, "environment": how, "machine": found.machine, "threshold": threshold,
                  "pairs": pairs,
                  "cases": [_as_data(v) for v in verdicts], "left_out": found.left_out})
    else:
        say(markdown(["case", "clock", there.name, "this version", "ratio", "by pair", "p", "verdict"],
                     [_line(v) for v in verdicts]))
        say_reasons(found.left_out)
        say(f"\n{len(slower)} of {len(verdicts)} cases slower; ratio above {threshold:g}, both times it was measured. "
            f"{machine_line(found.machine)}")
    return 1 if slower else 0


def _as_data(v: Verdict) -> dict[str, Any]:
    return {"case": v.name, "clock": v.clock, "there_seconds": v.there_seconds, "here_seconds": v.here_seconds,
            "ratio": v.ratio, "ratios": list(v.ratios),
            "p_slower": v.p_slower, "p_faster": v.p_faster, "verdict": v.word}


def _line(v: Verdict) -> list[str]:
    by_pair = f"{min(v.ratios):.3f} to {max(v.ratios):.3f}"
    return [v.name, v.clock, short_time(v.there_seconds), short_time(v.here_seconds), f"{v.ratio:.3f}", by_pair,
            f"{min(v.p_slower, v.p_faster):.2g}", v.word]


if __name__ == "__main__":
    try:
        sys.exit(command(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except DiffbenchError as error:
        say_aside(str(error))
        sys.exit(error.exit_code)
