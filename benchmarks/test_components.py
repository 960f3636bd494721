"""Every case of `python -m benchmarks.speed` under pytest-benchmark: each registered component, a stranger's included,
and the harness.

    pytest benchmarks                                    # times; -k scheduler, -k "unet and backward"
    pytest benchmarks --benchmark-autosave               # and keeps them for --benchmark-compare on the same machine

Stored times are a poor gate: `python -m benchmarks.speed --against REV` measures both versions in turns
(docs/guarding-speed.md).
"""

import pytest
import torch

import diffbench
from benchmarks.speed.cases import cases
from diffbench.errors import DiffbenchError

CASES = [case for case in cases(diffbench.load_registry()) if case.is_timed]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_time_of(case, benchmark):
    try:
        work = case.prepare(torch.device("cpu"))
    except DiffbenchError as reason:
        pytest.skip(str(reason))
    work.run()                                            # what is remembered from the first run on costs nobody later
    benchmark.group = case.name.partition(":")[0]
    if work.images:
        benchmark.extra_info["images"] = work.images
    benchmark(work.run)
