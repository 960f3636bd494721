"""A process that measures one version: `python child.py` reads JSON lines and answers in JSON lines. Used by `pairs`.

It is a script of the version that compares, and takes the cases from beside itself, while `import diffbench` finds the
version that is measured: both versions then do the same work.
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
# a script's folder comes first, and no module of ours is top-level
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE]


def main() -> None:
    """Answers until standard input ends."""
    requests, answers = sys.stdin, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                                         # whatever a component prints is no answer
    session: Session | None = None
    for line in requests:
        message = json.loads(line)
        try:
            if message["do"] == "begin":
                session = Session(message)
                answer = session.facts
            else:
                assert session is not None, "the first message is `begin`"
                answer = getattr(session, message["do"])(message)
        except Exception as error:  # noqa: BLE001  whatever a version cannot do is an answer
            answer = {"why": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Session:
    """The cases of one version, one of which is prepared at a time."""

    def __init__(self, request: dict[str, Any]):
        import torch

        for name, folder in (("diffbench.testing.speed", HERE.parents[1] / "diffbench" / "testing" / "speed"),
                             ("benchmarks.speed", HERE)):
            _adopt(name, folder)
        import diffbench
        from benchmarks.speed.cases import cases
        from diffbench.testing.speed import figures

        torch.set_num_threads(request["threads"])
        self.device, self.torch = torch.device(request["device"]), torch
        registry = diffbench.load_registry(request["plugins"])
        self.cases = {case.name: case for case in cases(registry, request["names"], request["phrases"])
                      if case.is_timed}
        self.run: Any = None
        self.facts = {"cases": list(self.cases), "machine": figures.machine_key(request["device"]),
                      "from": diffbench.__file__}

    def prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        """Makes a case ready and runs it once."""
        self.run = None
        self.run = self.cases[message["case"]].prepare(self.device).run
        self.run()
        gc.collect()
        # so that collecting before each lap looks at what the case made alone
        gc.freeze()
        return self.lap({"runs": 1})

    def lap(self, message: dict[str, Any]) -> dict[str, Any]:
        """Seconds of `runs` runs in a row, by the clock on the wall and by that of the processor,
        which stands still while others have it.
        """
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


def _adopt(name: str, folder: Path) -> None:
    """Makes a package of that name the one of the version that compares, whichever diffbench is imported."""
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py",
                                                  submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    main()
