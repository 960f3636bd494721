"""Mutants of files as a run writes them: JSON changed node by node, and bytes changed as a disk or a stranger would."""

import json
import random

ODD = (None, True, False, 0, -1, 1, 0.5, 1e308, -1e308, float("nan"), float("inf"), 2**63, 10**400, "", "x", "../../x", "\ud800", "=1+1", "<b>", "\x1b[31m",
       "\0", "a" * 5000, [], {}, [[]], {"": {}}, [None], ["x", 1], {"x": 1}, {"component": 1, "options": []}, "ok", "failed", "nan", "1e5")


def places(value, at=()):
    """The path of every node of a value of JSON."""
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*at, key))


def node(value, at):
    for key in at:
        value = value[key]
    return value


def changed(value, rng):
    """The value with one node replaced, removed, renamed, doubled, or put in another's place."""
    everywhere = list(places(value))
    at = rng.choice(everywhere)
    if not at:
        return rng.choice(ODD)
    parent, key, how = node(value, at[:-1]), at[-1], rng.randrange(6)
    if how == 0:
        del parent[key]
    elif how == 1 and isinstance(parent, dict):
        parent[rng.choice(("", "x", "cell_id", "\ud800", key.upper(), key + "_low"))] = parent.pop(key)
    elif how == 2:
        parent[key] = json.loads(json.dumps(node(value, rng.choice(everywhere))))
    elif how == 3 and isinstance(parent, list):
        parent.insert(key, json.loads(json.dumps(parent[key])))
    else:
        parent[key] = rng.choice(ODD)
    return value


def torn(data, rng):
    """Bytes with something wrong that no program would write."""
    at = rng.randrange(len(data) + 1)
    return rng.choice((data[:at], data[at:], b"", b"[" * 100_000, b"\xff\xfe" + data, data[:at] + bytes([rng.randrange(256)]) + data[at + 1:],
                       data[:at] + rng.randbytes(8) + data[at:], data + data, b"null", b"[]", b"{}", b"\xef\xbb\xbf" + data, b"1" * 5000))


def mutant(name, data, seed):
    """Another content for a file, the same for the same seed."""
    rng = random.Random(seed)
    if name.endswith((".json", ".jsonl")) and data and rng.random() < 0.85:
        lines = data.splitlines() if name.endswith(".jsonl") else [data]
        line = rng.randrange(len(lines))
        lines[line] = json.dumps(changed(json.loads(lines[line]), rng)).encode()
        return b"\n".join(lines) + b"\n" * name.endswith(".jsonl")
    if name.endswith(".csv") and rng.random() < 0.7:
        words = data.decode().split(",")
        words[rng.randrange(len(words))] = str(rng.choice(ODD))
        return ",".join(words).encode("utf-8", "replace")
    return torn(data, rng)
