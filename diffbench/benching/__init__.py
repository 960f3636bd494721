"""Guarding speed: cases that enumerate the registry, counts that are exact, and times compared between two versions of the code.

`cases` (with `parts` and `harness`) is what can be measured; `counting` and `stored_counts` gate by numbers without noise; `pairs`, run by `child`
in processes of both versions, and `gate` compare times; `other_version` makes the other version; `figures` are times with their machine.
"""
