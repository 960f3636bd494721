"""Guarding the speed of this checkout: `python -m benchmarks.speed`.

`cases` are those of components and, from `harness`, of the harness; `pairs`, run by `child` in processes of both
versions, and `gate` compare times;
`twice` measures again what differs; `other_version` makes the other version; `gate_power` tells how often the gate is
wrong.
"""
