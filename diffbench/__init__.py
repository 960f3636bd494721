"""diffbench: which diffusion component is better, by how much, and at what cost.

Names are imported on first use, so that `import diffbench` and the command line's help cost no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "diffbench.contracts": (
        "Backbone", "Component", "Conditioning", "NoiseSchedule", "Objective", "Parameterization", "Scheduler", "Spacing",
    ),
    "diffbench.evaluation": ("Dataset", "DenoiserMetric", "Extractor", "Metric", "SampleMetric"),
    "diffbench.values": (
        "Denoise", "DenoiseCondition", "Evidence", "Helpers", "Io", "Level", "Noise", "Noised", "NoisyClassifier", "Prediction", "Progress", "Real",
        "Signals", "Split", "TrainedModel", "silent",
    ),
    "diffbench.discrete": ("DiscreteNoiseSchedule",),
    "diffbench.transitions": ("Posterior", "pixel_log_likelihood", "posterior", "step_divergence", "weighted_sum"),
    "diffbench.likelihood": ("Bound", "Flow", "draw_visits", "flow_likelihood", "flow_log_density", "image_seeds", "variational_bound"),
    "diffbench.options": ("Options", "incidental_option", "sampling_option"),
    "diffbench.errors": ("BrokenComponent", "DataError", "DiffbenchError", "Diverged", "MatrixError", "OptionError", "UnknownComponent"),
    "diffbench.registry": ("Ref", "Registry", "load_registry", "register"),
    "diffbench.kinds": ("Kind",),
    "diffbench.source": ("Summary",),
    "diffbench.hookspecs": ("hookimpl",),
    "diffbench.sampling": ("sample", "trajectory"),
    "diffbench.classifier": ("Classifier", "fit_classifier"),
    "diffbench.frechet": ("Moments", "frechet_distance", "moments"),
    "diffbench.uncertainty": ("Jackknife", "blocks_of", "jackknife", "jackknife_blocks", "jackknifed", "jackknifed_mean", "jackknifed_share", "wilson"),
    "diffbench.splits": ("split_indices",),
    "diffbench.weights": ("Published",),
    "diffbench.matrix": ("Cell",),
    "diffbench.api": ("plan", "run"),
    "diffbench.repeating": ("rerun",),
    "diffbench.results": ("load",),
    "diffbench.report.sections": ("Picture", "Section"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("diffbench")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'diffbench' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
