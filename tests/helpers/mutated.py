"""Matrices of the repository, changed at random: text, tree and arguments. Used by tests/matrix/test_fuzz_matrix.py; a number gives the same one again."""

import json
import random
import re

from diffbench.matrix import yaml_file
from diffbench.matrix.matrix import BLOCKS, KEYS
from tests import test_docs
from tests.conftest import REGISTRY
from tests.matrix.test_matrix import AXES, HEAD
from tests.matrix.test_schema import BASE, GOOD, changed
from tests.running.test_scale import MIXED

ROOT = test_docs.ROOT


class Raw(str):
    """A piece of YAML that is written as it is."""


NAMES = [ref.full_name for kind in REGISTRY.kinds for ref in REGISTRY.refs(kind)]
WORDS = [*KEYS, *REGISTRY.kinds, *NAMES, *(option for cls in BLOCKS.values() for option in cls.__dataclass_fields__), "seed", "why", "preset", "inner", "scale",
         "train.lr", "sample.count", "scheduler.steps", "conditioning.scale", "backbone.channels", "seed.real", "axes", "", "a" * 3000, "axes.train.lr", "<<"]
NUMBERS = [0, 1, -1, 2, 3, 10, 1000, 10**6, 2**31, 2**31 - 1, 2**63 - 1, 2**63, 10**30, -2**63, 0.0, -0.0, 0.5, 1.0, 1e3, 1e-300, 1e300, 1e-4]
TEXTS = ["", " ", "\x1b[2J", "\x00", "\u202e", "\u2028", "\xa0", "ü→拡散😀", "../../etc/passwd", "~", "~/x", "/dev/zero", "none", "null", "yes", "1e3", "10m", "3h", "9" * 400 + "h",
         "," * 2000, "[" * 50, "a=b,c=d", "scheduler=ddim,steps=[1,2", "{", "%", "&a", "*a", "!x", "|", ">", "x" * 20_000]
RAW = [Raw(text) for text in (".nan", ".inf", "-.inf", "1e400", "2024-01-15", "!!int 3", "!!omap [a: 1]", "!x y", "*anchor", "&anchor {a: 1}", "{<<: *anchor}", "{<<: {steps: 3}}",
                              "{<<: [1]}", "{? [a, [b]] : 1}", "0x" + "f" * 30, "1_000", "_", "'", '"\\uD800"', '"\\x1b"', "[" * 40 + "]" * 40, "1" * 4500, "<<", "? ", "- ", "&b [*b]",
                              "[" + "1, " * 3000 + "1]", "{" + ", ".join(f"k{i}: {i}" for i in range(300)) + "}", "%YAML 1.1", "---", "...", "# x", "\t", "|\n  text")]
PIECES = [*RAW, *TEXTS, "\n", "  ", ": ", "- ", ", ", "}", "]", "&anchor ", "*anchor", "<<: *anchor\n", "\r", "\x85", "\ufeff", "\x07", "  <<: {a: 1}\n", "? x\n"]


def originals():
    """The content of every matrix of the repository, pages and tests."""
    found = [yaml_file.read(path).data for path in sorted((ROOT / "benchmarks" / "matrices").glob("*.yaml"))]
    found += [yaml_file.parse(text).data for text in (HEAD + AXES, test_docs.RUN)] + [BASE, MIXED] + [changed(*case) for case in GOOD.values()]
    for block in test_docs.ALL:
        if block.language == "yaml":
            found.append({**BASE, **{("axes" if key in REGISTRY.kinds else key): ({key: value, "scheduler": "ddim"} if key in REGISTRY.kinds else value)
                                     for key, value in yaml_file.parse(block.text).data.items()}})
    found.append({"diffbench": 1, "dataset": "digits", "metrics": "fid", "axes": {"backbone": "unet", "scheduler": [{"ddim": Raw("&anchor {steps: 2}")},
                                                                                                                    {"ddim": Raw("{<<: *anchor, eta: 0.5}")}]}})
    return found


def case(number, sources):
    """(the bytes of a matrix, arguments of `diffbench plan`) of a number."""
    said = random.Random(number)
    data = _copied(said.choice(sources))
    if number % 2:
        return written(_gently(data, said)).encode(), said.choice(([], [], ["--set", "axes.seed=[0, 1]"], ["--only", "seed=0"], ["--set", "train.steps=7"], ["--smoke"]))
    for _ in range(said.choice((0, 1, 1, 1, 2, 3, 6))):
        data = _tree(data, said)
    text = written(data) if said.random() < 0.6 else block(data)
    for _ in range(said.choice((0, 0, 0, 1, 1, 2, 5))):
        text = _text(text, said)
    raw = text.encode("utf-8", "surrogatepass")
    if said.random() < 0.03:
        raw = said.choice((lambda: text.encode("utf-16", "replace"), lambda: raw[:said.randrange(len(raw) + 1)] + b"\xff" + raw, lambda: b"", lambda: raw * 20))()
    arguments = []
    for _ in range(said.choice((0, 0, 0, 1, 2))):
        path = ".".join(said.choice(WORDS)[:200] for _ in range(said.choice((1, 2, 2, 3))))
        arguments += ["--set", said.choice((path, path + "=" + _scalar(said), "axes." + path + "=[" + _scalar(said) + "]", f"train.steps={_scalar(said)}", "axes.seed=[0, 1]", "="))]
    for _ in range(said.choice((0, 0, 0, 0, 1, 2))):
        key = said.choice((*REGISTRY.kinds, "seed", "scheduler.steps", "conditioning.inner", said.choice(WORDS)[:200]))
        arguments += ["--only", said.choice((key, f"{key}={said.choice(NAMES)}", f"{key}={_scalar(said)}", f"{key}=[{_scalar(said)}, {said.choice(NAMES)}]"))]
    if said.random() < 0.1:
        arguments.append("--smoke")
    return raw, [argument.replace("\0", "") for argument in arguments]


def _gently(data, said):
    """Changes that a matrix often survives: another component of the kind, another small number, a node twice, a merge key, one value without brackets."""
    kind_of = {ref.full_name: kind for kind in REGISTRY.kinds for ref in REGISTRY.refs(kind)}
    for _ in range(said.choice((1, 1, 2, 4))):
        path = said.choice([path for path in _places(data) if path])
        *above, last = path
        parent = data
        for part in above:
            parent = parent[part]
        node = parent[last]
        if isinstance(node, str) and node in kind_of:
            parent[last] = said.choice([ref.full_name for ref in REGISTRY.refs(kind_of[node])])
        elif isinstance(node, int | float) and not isinstance(node, bool):
            parent[last] = said.choice((1, 2, 3, 0.5, 10, node, [node, node], [2, 3]))
        elif isinstance(node, list) and node:
            parent[last] = said.choice((node[0], node + node, node[:1], node[::-1]))
        elif isinstance(node, dict) and node and not any(isinstance(below, Raw) for below in node.values()):
            parent[last] = Raw("{<<: [" + written(node) + ", " + written(dict(list(node.items())[:1])) + "]}")
    return data


def written(value):
    """A value as YAML in flow style."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(key)}: {written(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return ".nan"
    return json.dumps(value) if not isinstance(value, str) or not re.fullmatch("[a-z][a-z_.]*", value) else value


def block(data):
    """A mapping in block style at its top, and the axes too."""
    if not isinstance(data, dict):
        return written(data)
    lines = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            lines += [f"{written(key)}:", *(f"  {written(below)}: {written(item)}" for below, item in value.items())]
        elif isinstance(value, list) and value:
            lines += [f"{written(key)}:", *(f"  - {written(item)}" for item in value)]
        else:
            lines.append(f"{written(key)}: {written(value)}")
    return "\n".join(lines) + "\n"


def _copied(value):
    if isinstance(value, dict):
        return {key: _copied(below) for key, below in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


def _places(value, path=()):
    yield path
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(below, (*path, key))


def _value(said):
    return said.choice((lambda: said.choice(NUMBERS), lambda: said.choice(TEXTS), lambda: said.choice(RAW), lambda: said.choice(WORDS), lambda: None, lambda: said.random() < 0.5,
                        lambda: [said.choice(NUMBERS) for _ in range(said.choice((0, 1, 2, 3, 400)))], lambda: [said.choice(NAMES) for _ in range(said.randrange(5))],
                        lambda: {said.choice(WORDS): _value(said)}, lambda: {said.choice(NAMES): {"steps": list(range(1, said.choice((3, 200, 3000))))}},
                        lambda: {}, lambda: [], lambda: [[1, 2], [3]]))()


def _scalar(said):
    return said.choice((lambda: str(said.choice(NUMBERS)), lambda: said.choice(RAW), lambda: said.choice(TEXTS)[:3000], lambda: said.choice(NAMES)))()


def _tree(data, said):
    """One change of the tree."""
    path = said.choice(list(_places(data)))
    if not path:
        return data if said.random() < 0.95 else _value(said)
    *above, last = path
    parent = data
    for part in above:
        parent = parent[part]
    node = parent[last]
    change = said.randrange(9)
    if change == 0:
        del parent[last]
    elif change == 1:
        parent[last] = [node, node] if said.random() < 0.5 else [node]
    elif change == 2:
        parent[last] = {said.choice(WORDS): node}
    elif change == 3 and isinstance(parent, dict):
        parent[said.choice(WORDS) if said.random() < 0.7 else str(last)[:-1]] = parent.pop(last)
    elif change == 4:
        other = said.choice(list(_places(data)))
        found = data
        for part in other:
            found = found[part]
        parent[last] = _copied(found) if len(written(found)) < 5000 else 1
    elif change == 5 and isinstance(node, list):
        parent[last] = node * said.choice((0, 2, 30)) if len(node) < 50 else node[:1]
    elif change == 6 and isinstance(node, dict):
        node[said.choice(WORDS)] = _value(said)
    else:
        parent[last] = _value(said)
    return data


def _text(text, said):
    """One change of the text."""
    at, lines = said.randrange(len(text) + 1), text.split("\n")
    line = said.randrange(len(lines))
    match said.randrange(7):
        case 0:
            return text[:at] + said.choice(PIECES) + text[at:]
        case 1:
            return text[:at] + text[at + said.choice((1, 1, 5, 50)):]
        case 2:
            return "\n".join([*lines[:line], lines[line], *lines[line:]])
        case 3:
            return "\n".join([*lines[:line], *lines[line + 1:]])
        case 4:
            return re.sub(r"\d+", lambda found: str(said.choice(NUMBERS)) if said.random() < 0.3 else found[0], text)
        case 5:
            return text.replace(": ", f": {said.choice(('&anchor ', '!!str ', '!x ', '*anchor ', '? ', '| '))}", said.choice((1, 1, 3)))
        case _:
            return said.choice(("%YAML 1.1\n---\n", "---\n", "\ufeff", "\n\n", "# é\n", "\t", "? ", "- ")) + text
