"""Image metrics of the installed torchmetrics, read from its source without an import. Used by `torchmetrics`."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffbench import DataError, OptionError

FOLDERS = ("image", "multimodal")
# What `update` is given, by the names of its arguments.
FORMS = {
    ("imgs", "real"): "sets",  # features of generated and of real images
    ("imgs",): "logits",  # logits of generated images
    ("img",): "images",  # each generated image alone
    ("preds", "target"): "pairs",  # two images
    ("img1", "img2"): "pairs",
    ("source", "target"): "texts",  # an image and its text
}
SHORT = {  # of classes that do not have the name of their module
    "InceptionScore": "inception_score",
    "LearnedPerceptualImagePatchSimilarity": "lpips",
    "MultiScaleStructuralSimilarityIndexMeasure": "ms_ssim",
}
UNFIT = {  # metrics that samples cannot be given to, by module
    "arniqa": "it downloads two networks of its own",
    "clip_iqa": "it knows its networks by the names they are downloaded under",
    "d_s": "it takes a panchromatic image beside each multispectral one",
    "lve": "it takes meshes of faces, not images",
    "perceptual_path_length": "it draws from the generator itself, and a metric of samples is not given it",
    "qnr": "it takes a panchromatic image beside each multispectral one",
}


GIVEN = (
    "antialias",
    "feature",
    "feature_extractor_weights_path",
    "high_pass_filter",
    "input_img_size",
    "model_name_or_path",
    "reset_real_features",
    "return_contrast_sensitivity",
    "return_full_image",
)  # options that are decided here


@dataclass(frozen=True)
class MetricClass:
    """A metric of torchmetrics as its source declares it."""

    module: str  # "torchmetrics.image.kid"
    name: str  # "KernelInceptionDistance"
    takes: str  # one of FORMS, "" where none of them
    higher_is_better: bool | None
    options: dict[str, Any]  # of its constructor with their defaults, None where there is none

    @property
    def short(self) -> str:
        """'kid': its name in a matrix and in a column."""
        return SHORT.get(self.name, self.module.rpartition(".")[2])

    @property
    def why_unfit(self) -> str:
        """Why samples cannot be given to it, or ""."""
        return UNFIT.get(
            self.short, "" if self.takes else "its update takes neither images, pairs of images, features nor texts"
        )


@functools.cache
def known_classes() -> dict[str, MetricClass]:
    """All image metrics of the installed torchmetrics by short name."""
    spec = importlib.util.find_spec("torchmetrics")  # finds the package, and does not import it: that takes seconds
    if spec is None or spec.origin is None:
        raise DataError("torchmetrics is not installed: pip install torchmetrics")
    root, classes = Path(spec.origin).parent, {}
    for folder in FOLDERS:
        for path in sorted((root / folder).glob("[a-z]*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and {"update", "compute"} <= {
                    part.name for part in node.body if isinstance(part, ast.FunctionDef)
                }:
                    metric = _declared(f"torchmetrics.{folder}.{path.stem}", node)
                    classes[metric.short] = metric
    return classes


def short_name(name: str) -> str:
    """The short name of a metric by that or by its class, in any case; raises OptionError with the nearest one."""
    known = known_classes()
    folded = {key.lower(): short for short, metric in known.items() for key in (short, metric.name)}
    if name.lower() not in folded:
        near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.55)
        hint = f" Did you mean '{folded[near[0]]}'?" if near else ""
        fit = sorted(short for short, metric in known.items() if not metric.why_unfit)
        raise OptionError(f"torchmetrics has no image metric named {name[:80]!r}.{hint} Known: {', '.join(fit)}")
    return folded[name.lower()]


def canonical_options(found: MetricClass, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Texts name=value in one form and order; raises OptionError."""
    chosen = dict(parsed(found, text) for text in texts)
    if len(chosen) < len(texts):
        raise OptionError("options names one option twice")
    if chosen.get("reduction", "mean") in ("sum", "none", None):
        raise OptionError(
            f"options: reduction={json.dumps(chosen['reduction'])} gives no mean over images; leave it out"
        )
    return tuple(
        sorted(f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in chosen.items())
    )


def with_defaults(found: MetricClass, chosen: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a metric of images in [0, 1] and of a mean over them."""
    options = dict(chosen)
    if "data_range" in found.options:
        options.setdefault("data_range", 1.0)
    if found.options.get("normalize") is False and "feature" not in found.options:
        options["normalize"] = True  # of LPIPS: images are in [0, 1], not in [-1, 1]
    if found.options.get("reduction") == "sum":
        options["reduction"] = "mean"
    return options


def parsed(found: MetricClass, text: str) -> tuple[str, Any]:
    """(name, value) of 'name=value': a number, true, false, null or a list as JSON writes them, else text."""
    name, sign, value = (part.strip() for part in text.partition("="))
    known = [
        option
        for option, default in found.options.items()
        if option not in GIVEN and (option, default) != ("normalize", False)
    ]
    if not sign or name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.55)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise OptionError(
            f"options: {text[:80]!r} is no name=value with an option of {found.name}.{hint} "
            f"Its options: {', '.join(known) or 'none'}"
        )
    try:
        number = json.loads(value)
    except ValueError:
        return name, value
    return name, tuple(number) if isinstance(number, list) else number


def _declared(module: str, node: ast.ClassDef) -> MetricClass:
    methods = {part.name: part.args for part in node.body if isinstance(part, ast.FunctionDef)}
    constants = {
        part.target.id: part.value
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    }
    better, made = constants.get("higher_is_better"), methods["__init__"]
    names = [part.arg for part in made.args[1:]]
    defaults = [None] * (len(names) - len(made.defaults)) + [_literal(value) for value in made.defaults]
    return MetricClass(
        module=module,
        name=node.name,
        takes=FORMS.get(tuple(part.arg for part in methods["update"].args[1:]), ""),
        higher_is_better=None if better is None else _literal(better),
        options=dict(zip(names, defaults, strict=True)),
    )


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
