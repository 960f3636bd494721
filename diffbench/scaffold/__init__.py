"""What `diffbench new` and `diffbench init` write: the files beside this one, with the newcomer's name put in.

A template is a component that works, of a kind: `<kind>.py` and `test_<kind>.py`. A plug-in's own kind names the
package of its template in
`Kind.scaffold`. Trackers are no kind of component, but a package all the same.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import keyword
import re
from importlib.resources.abc import Traversable

from diffbench.errors import DiffbenchError
from diffbench.registry import admission, entry_points
from diffbench.registry.kinds import BUILT_IN_KINDS
from diffbench.registry.registry import Registry
from diffbench.wording import unknown_name

HERE = "diffbench.scaffold"
TRACKER = "tracker"
# Of the matrix of a new package: what is not the newcomer's axis has these values, and on its axis they stand
# beside it.
USUAL = {"backbone": "{unet: {channels: 16, multipliers: [1, 2], blocks: 1}}", "conditioning": "film",
         "scheduler": "{ddim: {steps: 20}}"}
STARTING_AXES = """\
  backbone:
    - unet: {channels: 16, multipliers: [1, 2], blocks: 1}        # options stand under the component that owns them
  noise_schedule: [linear, cosine]    # two trainings for each backbone
  conditioning:
    - cfg: {inner: film, scale: [1.0, 3.0]}       # a list inside an option is a grid; guidance costs no training
  scheduler:                          # `diffbench show scheduler ddim` explains its options
    - ddim: {steps: [10, 50]}
    - ddpm: {steps: 50}"""


def new_package(registry: Registry, kind: str, name: str) -> dict[str, str]:
    """The files of a package with one component (or one tracker) of this name, by path;
    raises DiffbenchError for a name that will not do.
    """
    kind = kind.replace("-", "_")
    kinds = [*registry.kinds, TRACKER]
    if kind not in kinds:
        raise DiffbenchError(unknown_name("kind of component", kind, kinds))
    names = _names(registry, kind, name)
    module = names["newcomer"]
    is_tracker = kind == TRACKER
    folder = importlib.resources.files(HERE)
    group = f"diffbench.{kind}" if is_tracker else registry.kinds[kind].group
    beside = ", ".join(values[1:]) if len(values := _beside(registry, kind, module)) > 1 else ""
    steps = (f"pytest\ndiffbench run matrix.yaml --tracker {module}" if is_tracker
             else f"diffbench check --quick {name}\npytest\ndiffbench run matrix.yaml")
    words = {
        "commands": steps, "spaced": kind.replace("_", " "), "group": group,
        "target": module if is_tracker else f"{module}:{names['Newcomer']}", "api": str(admission.API),
        "contract": "hookimpl" if is_tracker else registry.kinds[kind].base.rpartition(":")[2],
        "beside": f" beside `{beside}`" if beside else "",
    }
    files = {"pyproject.toml": _filled(folder / "pyproject.in", names, words),
             "README.md": _filled(folder / "readme.in", names, words),
             f"{module}.py": _filled(_template(registry, kind, f"{kind}.py"), names, words),
             f"tests/test_{module}.py": _filled(_template(registry, kind, f"test_{kind}.py"), names, words)}
    if is_tracker or registry.kinds[kind].axis or kind in {k.name for k in BUILT_IN_KINDS}:
        files["matrix.yaml"] = _matrix(_axes(registry, kind, module),
                                       f"# {module} in a table: diffbench run matrix.yaml", name=module,
                                       dataset=module if kind == "dataset" else "digits",
                                       extractor=module if kind == "extractor" else "pixels",
                                       metrics=", ".join(["fid", *([module] if kind == "metric" else [])]))
    return files


def starting_matrix(schema: str) -> str:
    """The matrix that `diffbench init` writes; schema: the file with its JSON Schema, for editors."""
    header = (f"# yaml-language-server: $schema={schema}\n# diffbench plan matrix.yaml says what this would do, "
              "diffbench run matrix.yaml does it.")
    return _matrix(STARTING_AXES, header, name="first", dataset="digits", extractor="dataset_classifier",
                   metrics="fid, class_accuracy")


def _names(registry: Registry, kind: str, name: str) -> dict[str, str]:
    """Replacements in a template for the names of the package, the module and the class."""
    module = name.replace("-", "_")
    cls = "".join(part.capitalize() for part in module.split("_"))
    if (not entry_points.is_name(module) or re.sub(r"(?<!^)(?=[A-Z])", "_", cls).lower() != module
        or keyword.iskeyword(module) or keyword.iskeyword(cls)):
        raise DiffbenchError(f"{name!r} cannot be the name of a package and a component: write words of letters a-z "
                             "and digits, each beginning with a letter, with '-' between them, such as my-sampler")
    if importlib.util.find_spec(module) is not None:
        raise DiffbenchError(f"there is a module {module!r} already, and a package of that name would hide it; choose "
                             "another name")
    offered = [ref for ref in registry.refs(kind) if ref.name == module] if kind in registry.kinds else []
    if offered:
        raise DiffbenchError(f"there is a {kind.replace('_', ' ')} named {module!r} already, of {offered[0].origin}; "
                             "choose another name")
    return {"new-comer": name, "Newcomer": cls, "newcomer": module}


def _template(registry: Registry, kind: str, file: str) -> Traversable:
    package = HERE if kind == TRACKER else registry.kinds[kind].scaffold
    template = importlib.resources.files(package) / file if importlib.util.find_spec(package) else None
    if template is None or not template.is_file():
        raise DiffbenchError(f"there is no template for the kind {kind!r}: the package that offers it names one by "
                             f"Kind(scaffold=...), with {file}")
    return template


def _filled(template: Traversable, names: dict[str, str], words: dict[str, str]) -> str:
    text = template.read_text(encoding="utf-8")
    for placeholder, word in words.items():
        text = text.replace(f"@{placeholder}@", word)
    for placeholder, word in names.items():
        text = text.replace(placeholder, word)
    return text


def _beside(registry: Registry, kind: str, module: str) -> list[str]:
    """The values of the newcomer's axis: itself, and what it is compared with."""
    if kind not in registry.kinds or not registry.kinds[kind].axis or kind == "dataset":
        return [module]
    default = next((ref.full_name for ref in registry.refs(kind) if ref.summary().is_default), None)
    usual = USUAL.get(kind, default)
    return [module, usual] if usual else [module]


def _axes(registry: Registry, kind: str, module: str) -> str:
    lines = {axis: f"  {axis}: [{value}]" for axis, value in USUAL.items()}
    if kind not in ("dataset", "extractor", "metric", TRACKER):
        lines[kind] = f"  {kind}: [{', '.join(_beside(registry, kind, module))}]"
    return "\n".join(lines.values())


def _matrix(axes: str, header: str, **words: str) -> str:
    text = _filled(importlib.resources.files(HERE) / "matrix.in", {}, {**words, "header": header, "axes": axes})
    lines = [re.fullmatch(r"(\S.*?) +(# .*)", line) for line in text.splitlines()]
    return "\n".join(f"{parts[1]:<37} {parts[2]}" if parts else line
                     for parts, line in zip(lines, text.splitlines(), strict=True)) + "\n"
