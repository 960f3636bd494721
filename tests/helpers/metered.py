"""The command line, metered: `python -m tests.helpers.metered FILE ...` writes what `diffbench ...` cost to FILE.

A process tells its own peak: what the parent of a spawned process held would be counted to it.
"""

import hashlib
import json
import resource
import sys
import time
from pathlib import Path


def yardstick():
    """Processor seconds of a fixed amount of what planning does: nested mappings, their JSON, its digests."""
    def work():
        known = {}
        for i in range(18_000):
            options = {"steps": i, "eta": i / 3}
            content = {"a": {"component": "ddim", "options": options}, "b": {str(n): [n, float(i)] for n in range(12)}}
            known[hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()] = {**content, "i": i}
        return known
    begin = time.process_time()
    work()
    return time.process_time() - begin


def used():
    """Processor seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    """Does what the arguments say."""
    begun = used()
    before = yardstick()
    measured = used()
    from diffbench.cli import main as diffbench

    try:
        diffbench(sys.argv[2:])
    except SystemExit as end:
        assert end.code == 0
    seconds = begun + used() - measured
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    told = {"seconds": seconds, "kilobytes": peak, "yardsticks": [before, yardstick()]}
    Path(sys.argv[1]).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
