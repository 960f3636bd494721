"""Saving by shared stages in a finished run: seconds of its stages, against cells that share nothing.

    python benchmarks/sharing.py runs/card [--store .diffbench]
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from diffbench.store.artefacts import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--store", type=Path, default=Store.default().root)
    arguments = parser.parse_args()
    store, plan = Store(arguments.store), json.loads((arguments.run / "plan.json").read_bytes())
    names = {key: stage["name"] for key, stage in plan["stages"].items()}
    seconds = {key: store.read_json(name, key, "outcome.json")["seconds"] for key, name in names.items()}

    def chain(keys: list[str]) -> set[str]:
        """The stages and all that they depend on."""
        return set(keys).union(*(chain(list(plan["stages"][key]["parents"].values())) for key in keys))
    shared, alone, count = Counter(), Counter(), Counter()
    for key, name in names.items():
        shared[name] += seconds[key]
    for cell in plan["cells"]:
        for key in chain(list(cell["stages"].values())):
            alone[names[key]] += seconds[key]
            count[names[key]] += 1
    print(f"{'stage':>18} {'done':>6} {'alone':>6} {'seconds':>9} {'alone':>9}")
    for name in shared:
        print(f"{name:>18} {sum(n == name for n in names.values()):>6} {count[name]:>6} {shared[name]:>9,.0f} "
              f"{alone[name]:>9,.0f}")
    sample_keys = {cell["stages"]["sample"] for cell in plan["cells"] if cell["stages"]}
    facts = [store.read_json("sample", key, "facts.json") for key in sample_keys]
    print(f"{'together':>18} {'':>6} {'':>6} {shared.total():>9,.0f} {alone.total():>9,.0f}")
    print(f"network evaluations counted: {sum(f['nfe'] * f['sample_count'] for f in facts):,.0f}; planned: "
          f"{plan['summary']['nfe']:,}")


if __name__ == "__main__":
    main()
