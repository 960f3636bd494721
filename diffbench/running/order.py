"""Order in which the stages of a plan are started: cell after cell, so that rows follow each other from the first
minute on. Used by `ready_stages`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from diffbench.planning.plan import CellPlan, Plan
from diffbench.store.stage_kinds import BUILT_IN_STAGES

KINDS = {kind.name: place for place, kind in enumerate(BUILT_IN_STAGES)}
FIRST = -1                            # stages of plug-ins: what others wait for
Place = tuple[int, int, int]


def places(plan: Plan) -> dict[str, Place]:
    """Place of each needed stage: that of the first cell that waits for it, then that of its kind, then its own.

    What no cell waits for, such as distances of real images, comes after the first row.
    """
    stages, ranks = plan.needed(), dict[str, int]()
    for rank, planned in enumerate(cells_in_order(plan)):
        waiting = list(planned.stages.values())
        while waiting:
            key = waiting.pop()
            if key not in ranks:
                ranks[key] = rank
                waiting.extend(stages[key].parents.values())
    return {key: (ranks.get(key, 1), KINDS.get(stage.name, FIRST), i) for i, (key, stage) in enumerate(stages.items())}


def cells_in_order(plan: Plan) -> list[CellPlan]:
    """Cells with stages, one seed of every configuration before the second of any; else as in the matrix."""
    repeats = Counter[tuple[object, ...]]()
    ranked = []
    for planned in plan.cells:
        if planned.stages:
            cell = planned.cell
            sample = plan.names.once(lambda cell=cell: replace(cell.sample, seed="cell"), "without seed", cell.sample)
            # a matrix makes each component once
            configuration = (*map(id, cell.components().values()), id(cell.train), sample)
            ranked.append((repeats[configuration], planned))
            repeats[configuration] += 1
    return [planned for _, planned in sorted(ranked, key=lambda pair: pair[0])]
