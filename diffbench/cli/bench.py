"""diffbench bench"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffbench.cli import completing
from diffbench.cli.common import JSON, PLUGIN, UserPath
from diffbench.cli.output import say, say_data

if TYPE_CHECKING:
    from diffbench.testing.speed.case import Case


def bench_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options for what is measured, where, and what it is compared with. Used by the benchmarks of the harness too."""
    for option in reversed((
        click.argument("names", nargs=-1, shell_complete=completing.subjects),
        click.option("-k", "phrases", multiple=True, metavar="TEXT",
                     help='Measure cases with this in their name, such as "8x8"; several must all hold.'),
        click.option("--beside", type=UserPath(path_type=Path, dir_okay=False), metavar="FILE",
                     help="Show the ratio to times that --json wrote on this machine."),
        click.option("--counts", type=UserPath(path_type=Path, dir_okay=False), metavar="FILE",
                     help="Count instead of timing, and compare with this file; exit code 1 where a count has "
                           "changed."),
        click.option("--update", is_flag=True, help="With --counts: write what was counted to the file."),
        click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda[:N]", help="Where to measure."),
        click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads."),
        JSON,
        PLUGIN,
    )):
        command = option(command)
    return command


@click.command()
@bench_options
def command(names: tuple[str, ...], phrases: tuple[str, ...], beside: Path | None, counts: Path | None, update: bool,
            device: str, threads: int,
            as_json: bool, plugins: tuple[str, ...]) -> int:
    """Time components, or count what they do: by name, of a kind, of a whole package, or everything installed.

    \b
    diffbench bench my_sampler                                 times, with the machine they were taken on
    diffbench bench my_sampler --counts counts.json --update   operators, FLOPs, memory, synchronisations: exact, no
    clock diffbench bench my_sampler --counts counts.json            exit code 1 where a count has changed

    See docs/guarding-speed.md for guarding a component in its own repository.
    """
    from diffbench.registry.registry import load_registry
    from diffbench.testing.speed.components import cases_of

    check_options(beside, counts, update)
    return measured(cases_of(load_registry(plugins), names, phrases), resolved(device), threads, beside, counts,
                    update, as_json,
                    is_whole=not (names or phrases), program=" ".join(
                        ["diffbench bench", *names, *(f"-k {text!r}" for text in phrases)]))


def check_options(beside: Path | None, counts: Path | None, update: bool) -> None:
    """Raises UsageError for options that exclude or need each other."""
    if beside is not None and counts is not None:
        raise click.UsageError("--beside and --counts are two ways to compare: give one of them")
    if update and counts is None:
        raise click.UsageError("--update needs --counts FILE: it says which file to write")


def resolved(device: str) -> str:
    """The device as asked for; the CPU needs no torch to be known."""
    if device == "cpu":
        return device
    from diffbench.errors import DiffbenchError
    from diffbench.machine.fingerprint import resolve_device

    try:
        return resolve_device(device)
    except ValueError as error:
        raise DiffbenchError(f"--device: {error}") from None


def measured(cases: Sequence[Case], device: str, threads: int, beside: Path | None, counts: Path | None, update: bool,
             as_json: bool, *,
             is_whole: bool, program: str) -> int:
    """Times or counts cases in this process; the exit code.
    is_whole: these are all cases that a file of counts may have. program: how to ask for them.
    """
    import torch

    from diffbench.errors import DiffbenchError

    if not cases:
        raise DiffbenchError(f"`{program}` means no case: kinds that have some are backbone, conditioning, dataset, "
                             "extractor, objective and scheduler")
    torch.set_num_threads(threads)
    if counts is not None:
        return _counted(cases, counts, device, update, as_json, is_whole, f"{program} --counts {counts} --update")
    return _timed(cases, device, beside, as_json)


def _counted(cases: Sequence[Case], path: Path, device: str, update: bool, as_json: bool, is_whole: bool,
             to_update: str) -> int:
    from diffbench.report.layout import markdown
    from diffbench.testing.speed import counts_file
    from diffbench.testing.speed.counting import count_all

    counted, left_out = count_all(cases, device)
    version = counts_file.torch_version()
    stored = counts_file.read(path).get(version)
    changed = [sentence for name, counts in counted.items() if stored and name in stored
               for sentence in counts_file.changes(name, stored[name], counts, to_update)]
    if update:
        # What cannot be measured here, for want of data, keeps the counts it has.
        kept = {name: counts for name, counts in (stored or {}).items() if name in left_out}
        counts_file.write(path, version, kept | counted, whole=is_whole)
    if as_json:
        say_data({"torch": version, "counts": counted, "changed": changed, "left_out": left_out})
    else:
        names = list(dict.fromkeys(name for counts in counted.values() for name in counts))
        say(markdown(["case", *names], [[case, *(f"{counts[name]:,}" if name in counts else "" for name in names)]
                                        for case, counts in counted.items()]))
        say_reasons(left_out)
    if stored is None and not update:
        say_aside(f"{path} has no counts for torch {version}: they were measured and not compared")
    for sentence in changed:
        say_aside(sentence if not update else sentence.partition(". Where")[0])
    return 1 if changed and not update else 0


def _timed(cases: Sequence[Case], device: str, beside: Path | None, as_json: bool) -> int:
    from diffbench.report.layout import markdown
    from diffbench.testing.speed import figures

    before = {} if beside is None else figures.seconds_before(beside, device)
    timed, left_out = figures.measure(cases, device, say_aside)
    if as_json:
        say_data(figures.as_data(timed, left_out, device))
        return 0
    body = []
    for f in timed:
        rate = "" if f.images_per_second is None else f"{f.images_per_second:,.0f}"
        ratio = [] if beside is None else [f"{f.seconds / before[f.case]:.3f}" if f.case in before else ""]
        body.append([f.case, short_time(f.seconds), f"{short_time(f.low)} to {short_time(f.high)}", rate, *ratio])
    say(markdown(["case", "time", "quartiles", "images/s", *([] if beside is None else ["ratio to before"])], body))
    say_reasons(left_out)
    say(f"\n{machine_line(figures.machine_key(device))}")
    return 0


def say_aside(text: str) -> None:
    """A line of progress, on standard error."""
    say(f"diffbench: {text}", err=True)


def say_reasons(left_out: dict[str, str]) -> None:
    """Why cases were not measured."""
    for name, reason in left_out.items():
        say(f"not measured: {name}: {reason}")


def short_time(seconds: float) -> str:
    """'52.1 us', '3.4 ms', '1.23 s'."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def machine_line(key: dict[str, Any]) -> str:
    """'Machine: processor ..., threads 1'."""
    return "Machine: " + ", ".join(f"{name} {value}" for name, value in key.items())
