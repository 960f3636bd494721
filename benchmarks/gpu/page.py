"""docs/gpu.md and the measured gains, from the records of days on GPUs: `python -m benchmarks.gpu.page`.

Writes docs/gpu.md and diffbench/machine/gpu_figures.json from the records under reports/gpu/, one folder for each day
(`2027-01-31-h100`), as
`python -m benchmarks.gpu --out` left them. Of each step the newest record in which it is ok counts; what no record has
is "not measured yet".
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from benchmarks.gpu.day import PARTS, Part
from benchmarks.gpu.main_job import NAMING

ROOT = Path(__file__).parents[2]
RECORDS, PAGE, FIGURES = (ROOT / "reports" / "gpu", ROOT / "docs" / "gpu.md",
                          ROOT / "diffbench" / "machine" / "gpu_figures.json")
CPU = Path(__file__).with_name("quickstart_cpu.json")
SHOWN = "fd_dataset_classifier_debiased"
NOT_YET = "not measured yet"
# what counts of one step in several records
RANK = {"ok": 0, "failed": 1, "running": 1, "not measured": 2, "not tried": 3}
NEAR = 0.95                           # of the best rate, from which on fewer workers are taken
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """A ratio or a time that the program should reach on one GPU."""

    text: str
    part: str
    read: Callable[[Record], str]  # from the figures of the part's steps, by name; raises KeyError where they are not
                                   # there


def records(folder: Path = RECORDS) -> list[Record]:
    """The records of all days that were no dry runs, newest first."""
    all_records = [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]
    return sorted((record for record in reversed(all_records) if not record["is_dry"]),
                  key=lambda record: record["date"], reverse=True)


def newest(all_records: list[Record], part: str) -> Record | None:
    """The newest record of a part, with each step from the newest record in which it is ok, or else was tried at all.

    Where two are ok, the older adds what only it has figures of.
    """
    own = [record for record in all_records if record["part"] == part]
    if not own:
        return None
    steps: dict[str, Any] = {}
    for step in (step for record in own for step in record["steps"]):
        newer = steps.get(step["name"])
        if newer is None or RANK[step["status"]] < RANK[newer["status"]]:
            steps[step["name"]] = step
        elif newer["status"] == step["status"] == "ok":
            figures = _over(step["figures"], newer["figures"])
            steps[step["name"]] = {**newer, "figures": figures, "said": newer["said"] if figures == newer["figures"]
                                   else f"{newer['said']}; {step['said']}"}
    return {**own[0], "steps": list(steps.values())}


def _over(older: Any, newer: Any) -> Any:
    """The newer value, with what only the older of two mappings has. Figures of one network stay together."""
    if not isinstance(older, dict) or not isinstance(newer, dict) or "about" in newer or "compiled" in newer:
        return newer
    return {**older, **{name: _over(older.get(name), value) for name, value in newer.items()}}


def page(all_records: list[Record]) -> str:
    """The content of docs/gpu.md."""
    record_by_part = {part.name: newest(all_records, part.name) for part in PARTS}
    sections = [f"{part.title}\n\n{_of_part(part, record_by_part[part.name])}" for part in PARTS]
    lines = [
        "# On a GPU", "",
        "This page is written by `python -m benchmarks.gpu.page` from the records under `reports/gpu/`, which `python "
        "-m benchmarks.gpu --out reports/gpu/DAY`",
        f"leaves on a machine with a GPU (`benchmarks/gpu/README.md` says how). What no record has is \"{NOT_YET}\".",
        "",
        "## Goals", "", "One H100 or H200; ratios of one run, in turns.", "", "| goal | measured |", "|:--|:--|",
        *(f"| {goal.text} | {_reached(goal, record_by_part[goal.part])} |" for goal in GOALS), "",
        *(f"## {section}" for section in sections),
        "## The quickstart on a GPU and on a CPU", "", *_beside_the_cpu(record_by_part["main_job"])]
    return "\n".join(lines).rstrip() + "\n"


def _of_part(part: Part, record: Record | None) -> str:
    entries = {step["name"]: step for step in record["steps"]} if record else {}
    lines = ["| question | found |", "|:--|:--|"]
    for step in importlib.import_module(part.module).STEPS:
        asks = (step.__doc__ or "").strip().splitlines()[0]
        entry = entries.get(step.__name__)
        if entry is None or entry["status"] == "not tried":
            text = NOT_YET
        else:
            text = entry["said"] if entry["status"] == "ok" else f"**{entry['status']}**: {shorten(entry['said'], 200)}"
        lines.append(f"| {_cell(asks)} | {_cell(text)} |")
    about = record["before"] if record else {}
    origin = (f"{about['device']}, driver {about.get('driver', 'unknown')}, torch {about['torch']}, {record['date']}"
              if record else NOT_YET)
    return "\n".join([f"Measured on: {origin}.", "", *lines, ""])


def _beside_the_cpu(record: Record | None) -> list[str]:
    """The quickstart's rows on the CPU (`quickstart_cpu.json`:
    two cores of an AMD EPYC virtual machine) and, where they were measured, on the device.
    """
    device_rows = (steps_of(record) if record else {}).get("quickstart", {"rows": []})["rows"]
    row_by_name = {tuple(row.get(name) for name in NAMING): row for row in device_rows}
    lines = [f"| {' | '.join(NAMING)} | {SHOWN}, CPU | on the GPU | images/s, CPU | on the GPU |",
             "|:--" * (len(NAMING) + 4) + "|"]
    for row in json.loads(CPU.read_text()):
        device_row = row_by_name.get(tuple(row.get(name) for name in NAMING), {})
        numbers = [_number(some_row.get(name)) if some_row else NOT_YET for name in (SHOWN, "sample_images_per_second")
                   for some_row in (row, device_row)]
        lines.append(f"| {' | '.join(str('' if row[name] is None else row[name]) for name in NAMING)} | "
                     f"{' | '.join(numbers)} |")
    return lines


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _reached(goal: Goal, record: Record | None) -> str:
    if record is None:
        return NOT_YET
    try:
        return f"{goal.read(steps_of(record))} ({record['before']['device']})"
    except KeyError:
        return NOT_YET


def steps_of(record: Record) -> dict[str, Any]:
    """Figures of the steps that are ok, by name."""
    return {step["name"]: step["figures"] for step in record["steps"] if step["status"] == "ok"}


def figures(all_records: list[Record]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """gpu_figures.json: by device, what each way of running a network gained over running it as it is, and what several
    workers gained.

    Of each step the newest record in which it is ok counts.
    """
    by_device: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for device in sorted({record["before"]["device"] for record in all_records}):
        of_device = [record for record in all_records if record["before"]["device"] == device]
        for part, name, read in (("networks", "ways", _gains), ("small_networks", "sharing", _shared)):
            record = newest(of_device, part)
            if record is not None and (rows := list(read(steps_of(record)))):
                by_device.setdefault(device, {})[name] = rows
    return by_device


def _shared(steps: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """See `diffbench.machine.gpu_figures.Sharing`: trainings step by step, as a run makes them."""
    for by_count in steps.get("trainings_in_processes", {}).get("processes", {}).values():
        rates = {int(count): rate for count, rate in by_count["images_per_second"].items() if count.isdigit()}
        if 1 in rates and len(rates) > 1:
            workers = min(count for count, rate in rates.items() if rate >= NEAR * max(rates.values()))
            yield {"parameters": by_count["parameters"], "workers": workers, "gain": rates[workers] / rates[1]}


def _gains(steps: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """See `diffbench.machine.gpu_figures.Measured`:
    over the same network as it is, in the precision in which a run trains and samples.
    """
    sizes: dict[str, int] = {}
    for kind, name, plain, graph in (("train", "training_steps", "bfloat16", "graph"),
                                     ("sample", "sampler_runs", "float32", "graph_float32")):
        for network, ways in steps.get(name, {}).get(kind, {}).items():
            sizes[network] = ways["about"]["parameters"]
            if "seconds" in ways.get(graph, {}) and "seconds" in ways.get(plain, {}):
                yield {"kind": kind, "way": "graphs", "parameters": sizes[network],
                       "gain": ways[plain]["seconds"] / ways[graph]["seconds"],
                       "seconds": ways[graph]["set_up_seconds"]}
    for kind, name in (("train", "compiled_training_steps"), ("sample", "compiled_sampler_runs")):
        for network, ways in steps.get(name, {}).get(kind, {}).items():
            if network in sizes:
                facts = ways["compiled"]
                yield {"kind": kind, "way": "on", "parameters": sizes[network], "gain": facts["gain"],
                       "seconds": facts["set_up_seconds"]}


def _beside(step: str, half: str) -> Callable[[Mapping[str, Any]], str]:
    def read(steps: Mapping[str, Any]) -> str:
        return ", ".join(f"{facts['ratio']:.2f} times ({network})" for network, facts in steps[step][half].items())
    return read


def _utilisation(network: str) -> Callable[[Mapping[str, Any]], str]:
    def read(steps: Mapping[str, Any]) -> str:
        ways = {name: facts for step in ("training_steps", "compiled_training_steps")
                for name, facts in steps.get(step, {}).get("train", {}).get(network, {}).items()
                if "utilisation" in facts}
        best = max(ways, key=lambda name: ways[name]["utilisation"], default="")
        return f"{100 * ways[best]['utilisation']:.0f} % ({best})"
    return read


def _card(steps: Mapping[str, Any]) -> str:
    return f"about {steps['eight_cells_of_the_card_on_mnist']['card_seconds'] / 60:.0f} minutes, by eight of its cells"


GOALS = (
    Goal("training at least 1.5 times as fast as diffusers' eager loop, 35.7 M parameters", "networks",
         _beside("unet_beside_diffusers", "train")),
    Goal("training at least 3 times as fast, 0.2 M parameters", "networks",
         _beside("small_unet_beside_diffusers", "train")),
    Goal("sampling of networks under 10 M parameters at least 2 times as fast as diffusers' loop", "networks",
         _beside("small_unet_beside_diffusers", "sample")),
    Goal("DiT-B/2 trains at 45 % or more of the measured bfloat16 peak", "networks", _utilisation("dit B/2")),
    Goal("Inception features no slower than torch-fidelity's", "evaluation",
         lambda steps: f"{steps['inception_features']['ratio']:.2f} times as fast"),
    Goal("the card matrix on MNIST (80 cells) in under 30 minutes", "main_job", _card),
)


def main() -> None:
    """Writes both files."""
    all_records = records()
    PAGE.write_text(page(all_records))
    FIGURES.write_text(json.dumps(figures(all_records), indent=1) + "\n")


if __name__ == "__main__":
    main()
