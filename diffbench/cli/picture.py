"""Picture of a run's state for a terminal, and its plain lines; control characters from outside are shown as escapes.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from diffbench.watching import time_left
from diffbench.watching.run_state import RunState, StageState
from diffbench.wording import one_line

# Order of the rows: as a run goes through them; kinds this version does not know come last.
KINDS = ("extractor", "classifier", "noisy_classifier", "reference", "train", "sample", "features", "evaluate",
         "throughput")
SHOWN = 4                             # notes and failures shown at once, the newest
BAR, LONG_BAR = 10, 24                # letters
WIDE = 120                            # letters from which a running stage fits into one line


def picture(state: RunState, width: int = 80, height: int | None = 24) -> Any:
    """Drawing of the state for a terminal of so many letters and lines;
    without `height` all of it, sentences in full.
    """
    kinds = [*(k for k in KINDS if k in state.counts), *sorted(set(state.counts) - set(KINDS))]
    notes, bad = list(state.notes), state.bad()
    room, most = len(state.running) * 2, len(notes) + len(bad)
    if height is not None:
        room, most = max(4, height - len(kinds) - min(len(notes), SHOWN) - min(len(bad), SHOWN) - 4), SHOWN
    return Group(Text(head(state), style="bold", overflow="ellipsis", no_wrap=height is not None), _kinds(state, kinds),
                 *_running(state, width, room),
                 *_said(notes, bad, most, height is not None))


def head(state: RunState) -> str:
    """The run in one line."""
    parts = [f"{state.done}/{len(state.stages)} stages"]
    if state.latest is not None:
        parts.append(clock(state.now(state.latest)))
    seconds = time_left.of_run(state) if state.status == "running" and state.done < len(state.stages) else None
    if state.status == "running" and state.done < len(state.stages):
        parts.append("time left unknown" if seconds is None else f"about {clock(seconds)} left")
    parts += [f"{n} {status}" for status in ("running", "waiting", "failed", "diverged", "blocked")
              if (n := state.total(status))]
    return f"{one_line(state.name)}: " * bool(state.name) + ", ".join(parts)


def named(stage: StageState) -> str:
    """A running stage in one line."""
    return " ".join(filter(None, (_labelled(stage), _share(stage), _figures(stage))))


def complaint(stage: StageState) -> str:
    """A stage that failed, in one line."""
    return one_line(f"{stage.status}: {stage.kind} {stage.label}: {stage.reason}")


def clock(seconds: float) -> str:
    """'1:02:03' or '2:03'."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def ago(seconds: float) -> str:
    """'12 s', '3 min', '2 h' or '4 days'."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _kinds(state: RunState, kinds: list[str]) -> Table:
    table = Table.grid(padding=(0, 1))
    for kind in kinds:
        counts, of = state.counts[kind], sum(state.counts[kind].values())
        done = of - counts["waiting"] - counts["running"]
        parts = [f"{counts[status]} {status}" for status in ("running", "waiting", "failed", "diverged", "blocked")
                 if counts[status]]
        table.add_row(Text(f"  {one_line(kind)}"), ProgressBar(total=of, completed=done, width=LONG_BAR),
                      Text(f"{done}/{of}", justify="right"),
                      Text(", ".join(parts), style="red" if counts["failed"] + counts["diverged"] else "",
                           overflow="ellipsis", no_wrap=True))
    return table


def _running(state: RunState, width: int, room: int) -> list[Any]:
    """The running stages: two lines each where a line is short and there is room, else one; the oldest first."""
    stages = list(state.running.values())
    if not stages:
        return []
    is_narrow = width < WIDE and 2 * len(stages) <= room
    listed = stages if is_narrow or len(stages) <= room else stages[: room - 1]
    more = [Text(f"  and {len(stages) - len(listed)} more running")] if len(listed) < len(stages) else []
    return [Text("running"), (_two_lines if is_narrow else _one_line)(state, listed), *more]


def _two_lines(state: RunState, stages: list[StageState]) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1)
    for stage in stages:
        table.add_row(Text(f"  {clock(state.elapsed(stage))}"),
                      Text(_labelled(stage), overflow="ellipsis", no_wrap=True))
        if stage.of:
            share = Table.grid(padding=(0, 1))
            share.add_row(
                _bar(stage), Text(", ".join(filter(None, (_share(stage), _figures(stage), _left(state, stage))))))
            table.add_row(Text(""), share)
    return table


def _one_line(state: RunState, stages: list[StageState]) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for width in (BAR, None, None, None):
        table.add_column(width=width, no_wrap=True)
    for stage in stages:
        table.add_row(Text(f"  {clock(state.elapsed(stage))}"), Text(_labelled(stage)),
                      _bar(stage) if stage.of else Text(""),
                      Text(_share(stage), justify="right"), Text(_figures(stage)), Text(_left(state, stage)))
    return table


def _said(notes: list[str], bad: list[StageState], most: int, is_cut: bool) -> list[Text]:
    """The newest notes and failures; each in one line, where lines are cut."""
    lines = [(one_line(note), "yellow") for note in notes[-most:]]
    if len(bad) > most:
        lines.append((f"{len(bad) - most} more failed, before these:", "red"))
    lines += [(complaint(stage), "red") for stage in bad[-most:]]
    return [Text(line, style=style, overflow="ellipsis" if is_cut else "fold", no_wrap=is_cut) for line, style in lines]


def _labelled(stage: StageState) -> str:
    return one_line(f"{stage.kind}{f' (try {stage.tries})' if stage.tries > 1 else ''} {stage.label}")


def _bar(stage: StageState) -> ProgressBar:
    return ProgressBar(total=1.0, completed=stage.share, width=BAR)


def _share(stage: StageState) -> str:
    return f"{100 * stage.share:.0f} %" if stage.of else ""


def _left(state: RunState, stage: StageState) -> str:
    seconds = time_left.of_stage(state, stage)
    return f"{clock(seconds)} left" if seconds is not None else ""


def _figures(stage: StageState) -> str:
    """'loss 0.041, 1,234 img/s': what a stage measures of itself, in the order it says it."""
    parts = []
    for name, value in stage.figures.items():
        if value is None:
            parts.append(f"{name} not finite")
        elif name == "images_per_second":
            parts.append(f"{value:,.0f} img/s" if value >= 10 else f"{value:.2g} img/s")
        else:
            parts.append(f"{name} {value:.3g}")
    return one_line(", ".join(parts))
