"""A driver process that tests kill: `python -m diffbench.testing.driving FACTORY STORE PLAN.json` runs exercises."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from diffbench.launchers import Launcher
from diffbench.matrix.settings import Run
from diffbench.planning.plan import Plan
from diffbench.planning.stage import Stage
from diffbench.registry.registry import load_registry
from diffbench.running.engine import Engine
from diffbench.running.outcome import Outcome
from diffbench.store.artefacts import Store
from diffbench.store.digest import digest

PLUGIN = str(Path(__file__).with_name("exercises.py"))


def make(factory: str) -> Launcher:
    """The launcher that "module:function" returns."""
    module, _, attribute = factory.partition(":")
    open_launcher: Callable[[], Launcher] = getattr(importlib.import_module(module), attribute)
    return open_launcher()


def exercise(name: str, do: str, parents: dict[str, str] | None = None, **details: Any) -> Stage:
    """A stage that does one exercise; its key is the hash of its name."""
    identity = {"stage": "exercise", "name": name}
    return Stage("exercise", digest(identity), identity, {"do": do, **details},
                 {role: digest({"stage": "exercise", "name": parent})
                  for role, parent in (parents or {}).items()}, name)


def drive(open_launcher: Callable[[], Launcher], store: Store, stages: list[Stage]) -> dict[str, Outcome]:
    """Runs stages, in an order with parents first; returns the outcome of each, by label."""
    by_key = {stage.key: stage for stage in stages}
    plan = Plan(matrix=SimpleNamespace(run=Run(), name="bench"), registry=load_registry(), device="cpu", stages=by_key,
                floors={key: key for key in by_key})
    store.prepare()
    engine = Engine(plan, store, open_launcher, [], jobs=2, threads=1,
                    imports=lambda stage: {"plugins": [PLUGIN], "hooks": []})
    engine.run()
    return {by_key[key].label: outcome for key, outcome in engine.outcomes.items()}


def main(factory: str, root: str, plan: str) -> int:
    """Exit code of the driver: 0 where every stage is done."""
    stages = [exercise(**arguments) for arguments in json.loads(Path(plan).read_bytes())]
    outcomes = drive(lambda: make(factory), Store(root), stages)
    for label, outcome in outcomes.items():
        print(label, outcome.status, outcome.reason)
    return 0 if all(outcome.status == "ok" for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
