"""`diffbench plan` on matrices that were changed at random: it ends with exit code 0 or 2 and a sentence, soon, and without much memory.

DIFFBENCH_FUZZ=10000 tries so many, DIFFBENCH_FUZZ=2000:4000 those of these numbers. What fails is named by its number: `mutated.case` makes it again.
"""

import functools
import os
import resource
import time
from collections import Counter

import pytest

from diffbench.registry import code_identity
from tests.cli.test_output import command, is_clean
from tests.helpers import mutated

FIRST, _, END = (os.environ.get("DIFFBENCH_FUZZ") or "500").rpartition(":")
NUMBERS = range(int(FIRST or 0), int(END))
MOST_SECONDS = 15.0                   # of the processor, for one file
MOST_KILOBYTES = 600_000              # more than before
SHOWN = 10                            # failures


@pytest.fixture
def everything_is_there(monkeypatch):
    """Data sets and weights that would be downloaded are there, as far as a plan asks."""
    from diffbench_components.datasets import cifar10, published

    from diffbench.contracts import published as weights

    for cls in (published.IdxImages, cifar10.Cifar10):
        monkeypatch.setattr(cls, "fingerprint", lambda self: "0" * 64)
    monkeypatch.setattr(weights.Published, "digest", lambda self, *, download=False: self.sha256)


@pytest.fixture
def code_does_not_change(monkeypatch):
    """The part of the harness in the keys, which takes most of the time of a small plan, is worked out once."""
    monkeypatch.setattr(code_identity, "of_harness", functools.cache(code_identity.of_harness))


def ended(raw, arguments, path):
    """How `plan` ends: its exit code, and what is wrong with it or None."""
    path.write_bytes(raw)
    begun = time.process_time()
    try:
        code, said = command("plan", path, "--device", "cpu", "--max-cells", "400", *arguments)
    except BaseException as error:  # noqa: BLE001  whatever gets out is a failure
        return None, f"raised {type(error).__name__}: {error}"
    seconds = time.process_time() - begun
    if code not in (0, 2) or "itself failed" in said or "Traceback" in said:
        return code, f"exit code {code}: {said[-600:]}"
    if not said.strip() or not is_clean(said) or len(said) > 200_000:
        return code, f"exit code {code}, {len(said)} letters, clean {is_clean(said)}: {said[:300]!r}"
    return code, f"{seconds:.1f} s of the processor" if seconds > MOST_SECONDS else None


def test_mutated_matrices(tmp_path, monkeypatch, everything_is_there, code_does_not_change):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    sources = mutated.originals()
    failures, codes = [], Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in NUMBERS:
        raw, arguments = mutated.case(number, sources)
        code, why = ended(raw, arguments, tmp_path / "matrix.yaml")
        codes[code] += 1
        if why is not None:
            failures.append(f"{number}: {why}\n  {arguments}\n  {raw[:400]!r}")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert not failures, f"{len(failures)} of {len(NUMBERS)}:\n" + "\n".join(failures[:SHOWN])
    print(f"{len(NUMBERS)} matrices, by exit code: {dict(codes)}; {grown} kB more than before")
    assert codes[0] > len(NUMBERS) / 20, "most of what is planned must be of interest to a plan"
    assert grown < MOST_KILOBYTES, f"{grown} kB more than before"
