"""A process that measures one version of the code: `python child.py`, told what to do in JSON lines on standard input, answers on standard output.

It is a script of the version that compares, and takes the cases from beside itself, while `import diffbench` finds the version that is measured: both
versions then do the same work.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE]     # a script's folder comes first, and no module of ours is top-level


def main() -> None:
    """Answers until standard input ends."""
    told, answers = sys.stdin, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                                         # whatever a component prints is no answer
    session: Session | None = None
    for line in told:
        message = json.loads(line)
        try:
            if message["do"] == "begin":
                session = Session(message)
                found = session.facts
            else:
                assert session is not None, "the first message is `begin`"
                found = getattr(session, message["do"])(message)
        except Exception as error:  # noqa: BLE001  whatever a version cannot do is an answer
            found = {"why": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


class Session:
    """The cases of one version, one of which is prepared at a time."""

    def __init__(self, asked: dict[str, Any]):
        import torch

        _adopt_benching()
        import diffbench
        from diffbench.benching import cases, figures

        torch.set_num_threads(asked["threads"])
        self.device, self.torch = torch.device(asked["device"]), torch
        registry = diffbench.load_registry(asked["plugins"])
        self.cases = {case.name: case for case in cases.cases(registry, asked["suites"], asked["expression"]) if case.is_timed}
        self.run: Any = None
        self.facts = {"cases": list(self.cases), "machine": figures.machine_key(asked["device"]), "from": diffbench.__file__}

    def prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        """Makes a case ready and runs it once."""
        self.run = None
        self.run = self.cases[message["case"]].prepare(self.device).run
        self.run()
        gc.collect()
        gc.freeze()                                       # so that collecting before each lap looks at what the case made alone
        return self.lap({"runs": 1})

    def lap(self, message: dict[str, Any]) -> dict[str, Any]:
        """Seconds of `runs` runs in a row, by the clock on the wall and by that of the processor, which stands still while others have it."""
        gc.collect()
        gc.disable()
        try:
            self._synchronise()
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(message["runs"]):
                self.run()
            self._synchronise()
            return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        finally:
            gc.enable()

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)


def _adopt_benching() -> None:
    """Makes `diffbench.benching` the package this script lies in, whichever diffbench is imported."""
    import diffbench

    spec = importlib.util.spec_from_file_location("diffbench.benching", HERE / "__init__.py", submodule_search_locations=[str(HERE)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    diffbench.benching = module


if __name__ == "__main__":
    main()
