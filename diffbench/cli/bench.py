"""diffbench bench"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffbench.cli.common import JSON, PLUGIN

if TYPE_CHECKING:
    from diffbench.benching.gate import Verdict
    from diffbench.benching.pairs import Asked


@click.command()
@click.option("--suite", "suites", multiple=True, metavar="NAME", help="Measure this suite alone, such as scheduler or training; may be repeated.")
@click.option("-k", "expression", default="", metavar="EXPR", help='Measure cases whose name fits, such as "ddim and not 8x8".')
@click.option("--against", metavar="REV", help="Compare with another commit of this checkout; exit code 1 where this version is slower.")
@click.option("--pairs", type=click.IntRange(min=3), default=3, show_default=True, help="Pairs of processes, one of each version, for --against.")
@click.option("--threshold", type=click.FloatRange(min=1.0), default=1.03, show_default=True, help="A smaller ratio is never called slower.")
@click.option("--beside", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Show the ratio to times that --json wrote on this machine.")
@click.option("--counts", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Count instead of timing, and compare with this file; exit code 1 where a count has changed.")
@click.option("--update", is_flag=True, help="With --counts: write what was counted to the file.")
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda[:N]", help="Where to measure.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads of each process.")
@JSON
@PLUGIN
def command(suites: tuple[str, ...], expression: str, against: str | None, pairs: int, threshold: float, beside: Path | None, counts: Path | None,
            update: bool, device: str, threads: int, as_json: bool, plugins: tuple[str, ...]) -> int:
    """Time every registered component and the harness, or guard either against getting slower.

    \b
    diffbench bench                                        times of this version, with the machine they were taken on
    diffbench bench --against main -k unet                 this version against another, in alternating pairs of processes
    diffbench bench --counts benchmarks/counts.json        operators, FLOPs, memory, synchronisations: exact, no clock

    Exit code 1 where this version is slower than REV (by ratio and by rank test) or where a count has changed. See docs/guarding-speed.md.
    """
    if sum(option is not None for option in (against, beside, counts)) > 1:
        raise click.UsageError("--against, --beside and --counts are three ways to compare: give one of them")
    if update and counts is None:
        raise click.UsageError("--update needs --counts FILE: it says which file to write")
    from diffbench.benching.pairs import Asked

    asked = Asked(suites=suites, expression=expression, device=_device(device), threads=threads, plugins=plugins)
    if against is not None:
        return _against(against, asked, pairs, threshold, as_json)
    if counts is not None:
        return _counted(counts, asked, update, as_json)
    return _timed(asked, beside, as_json)


def _device(wanted: str) -> str:
    """As asked for; the CPU needs no torch to be known."""
    if wanted == "cpu":
        return wanted
    from diffbench.errors import DiffbenchError
    from diffbench.machine import resolve_device

    try:
        return resolve_device(wanted)
    except ValueError as error:
        raise DiffbenchError(f"--device: {error}") from None


def _say(text: str) -> None:
    click.echo(f"diffbench: {text}", err=True)


def _against(revision: str, asked: Asked, pairs: int, threshold: float, as_json: bool) -> int:
    from diffbench.benching import other_version
    from diffbench.benching.twice import compare

    with other_version.checked_out(revision) as (there, how):
        _say(f"{there.name} runs {how}")
        verdicts, found = compare(there, other_version.here(), asked, pairs, threshold, _say)
    slower = [v for v in verdicts if v.is_slower]
    if as_json:
        click.echo(json.dumps({"there": there.name, "environment": how, "machine": found.machine, "threshold": threshold, "pairs": pairs,
                               "cases": [_as_data(v) for v in verdicts], "left_out": found.left_out}))
    else:
        click.echo(_table(["case", "clock", there.name, "this version", "ratio", "by pair", "p", "verdict"], [_line(v) for v in verdicts]))
        _reasons(found.left_out)
        click.echo(f"\n{len(slower)} of {len(verdicts)} cases slower; ratio above {threshold:g}, both times it was measured. {_machine(found.machine)}")
    return 1 if slower else 0


def _as_data(v: Verdict) -> dict[str, Any]:
    return {"case": v.name, "clock": v.clock, "there_seconds": v.there_seconds, "here_seconds": v.here_seconds, "ratio": v.ratio, "ratios": list(v.ratios),
            "p_slower": v.p_slower, "p_faster": v.p_faster, "verdict": v.word}


def _line(v: Verdict) -> list[str]:
    by_pair = f"{min(v.ratios):.3f} to {max(v.ratios):.3f}"
    return [v.name, v.clock, _shown(v.there_seconds), _shown(v.here_seconds), f"{v.ratio:.3f}", by_pair, f"{min(v.p_slower, v.p_faster):.2g}", v.word]


def _counted(path: Path, asked: Asked, update: bool, as_json: bool) -> int:
    from diffbench.benching import stored_counts
    from diffbench.benching.counting import count_all

    cases = _cases(asked)
    measured, left_out = count_all(cases, asked.device)
    version, ours = stored_counts.torch_version(), {case.name for case in cases if case.is_ours}
    stored = stored_counts.read(path).get(version)
    changed = [sentence for name, counts in measured.items() if stored and name in stored
               for sentence in stored_counts.changes(name, stored[name], counts, f"diffbench bench --counts {path} --update")]
    if update:
        # What cannot be measured here, for want of data, keeps the counts it has.
        kept = {name: counts for name, counts in (stored or {}).items() if name in left_out}
        stored_counts.write(path, version, kept | {name: counts for name, counts in measured.items() if name in ours},
                            whole=not (asked.suites or asked.expression))
    if as_json:
        click.echo(json.dumps({"torch": version, "counts": measured, "changed": changed, "left_out": left_out}))
    else:
        names = list(dict.fromkeys(name for counts in measured.values() for name in counts))
        click.echo(_table(["case", *names], [[case, *(f"{counts[name]:,}" if name in counts else "" for name in names)] for case, counts in measured.items()]))
        _reasons(left_out)
    if stored is None and not update:
        _say(f"{path} has no counts for torch {version}: they were measured and not compared")
    for sentence in changed:
        _say(sentence if not update else sentence.partition(". Where")[0])
    return 1 if changed and not update else 0


def _timed(asked: Asked, beside: Path | None, as_json: bool) -> int:
    from diffbench.benching import figures

    cases = _cases(asked)
    before = {} if beside is None else figures.seconds_before(beside, asked.device)
    measured, left_out = figures.measure(cases, asked.device, _say)
    if as_json:
        click.echo(json.dumps(figures.as_data(measured, left_out, asked.device)))
        return 0
    body = []
    for f in measured:
        rate = "" if f.images_per_second is None else f"{f.images_per_second:,.0f}"
        ratio = [] if beside is None else [f"{f.seconds / before[f.case]:.3f}" if f.case in before else ""]
        body.append([f.case, _shown(f.seconds), f"{_shown(f.low)} to {_shown(f.high)}", rate, *ratio])
    click.echo(_table(["case", "time", "quartiles", "images/s", *([] if beside is None else ["ratio to before"])], body))
    _reasons(left_out)
    click.echo(f"\n{_machine(figures.machine_key(asked.device))}")
    return 0


def _cases(asked: Asked) -> list[Any]:
    """The cases in this process."""
    import torch

    from diffbench.benching.cases import cases
    from diffbench.errors import DiffbenchError
    from diffbench.registry import load_registry

    torch.set_num_threads(asked.threads)
    found = cases(load_registry(asked.plugins), asked.suites, asked.expression)
    if not found:
        raise DiffbenchError(f"no case fits -k {asked.expression!r}; `diffbench bench --json` lists their names")
    return found


def _table(titles: list[str], body: list[list[str]]) -> str:
    from diffbench.report.tables import markdown

    return markdown(titles, body)


def _reasons(left_out: dict[str, str]) -> None:
    for name, reason in left_out.items():
        click.echo(f"not measured: {name}: {reason}")


def _shown(seconds: float) -> str:
    """'52.1 us', '3.4 ms', '1.23 s'."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def _machine(key: dict[str, Any]) -> str:
    return "Machine: " + ", ".join(f"{name} {value}" for name, value in key.items())
