"""The same work done by other libraries and here, in one process, in turns: `python -m benchmarks.peers`."""
