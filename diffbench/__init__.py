"""diffbench: which diffusion component is better, by how much, and at what cost.

Names are imported on first use, so that `import diffbench` and the command line's help cost no torch.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

# `python -m diffbench...` has put the working folder first on the import path, where a file of the user's would stand
# in for a module: taken off again. Another program that is started by -m and imports diffbench keeps its path.
_is_ours = sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].partition(".")[0] in ("diffbench", "-mdiffbench")
if _is_ours and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

_HOMES = {
    "diffbench.contracts.model": ("Backbone", "Conditioning", "Helpers", "Objective", "Parameterization"),
    "diffbench.contracts.sampler": ("Scheduler", "Spacing"),
    "diffbench.contracts.noise_schedule": ("NoiseSchedule",),
    "diffbench.contracts.method": ("Batch", "Method", "Network"),
    "diffbench.contracts.pipeline": ("Pipeline", "Sampler"),
    "diffbench.contracts.process": ("Process",),
    "diffbench.contracts.autoencoder": ("Autoencoder", "Encoded"),
    "diffbench.contracts.component": ("Component",),
    "diffbench.contracts.needs": ("Need", "Read"),
    "diffbench.contracts.evaluation": (
        "DenoiserMetric", "Evidence", "Extractor", "Metric", "Real", "SampleMetric", "TrainedModel", "blocks_of",
    ),
    "diffbench.contracts.dataset": ("Dataset",),
    "diffbench.contracts.condition": ("Condition",),
    "diffbench.contracts.values": (
        "Denoise", "DenoiseCondition", "Images", "Io", "Level", "Noise", "Noised", "NoisyClassifier", "Prediction",
        "Progress", "Signals", "Split", "per_sample", "silent",
    ),
    "diffbench.contracts.text_encoder": ("TextEncoder", "Tokens"),
    "diffbench.contracts.tabulated": ("DiscreteNoiseSchedule",),
    "diffbench.diffusion.transitions": (
        "Posterior", "pixel_log_likelihood", "posterior", "step_divergence", "weighted_sum",
    ),
    "diffbench.diffusion.likelihood": (
        "Bound", "Flow", "draw_visits", "flow_likelihood", "flow_log_density", "image_seeds",
        "variational_bound",
    ),
    "diffbench.contracts.options": ("Options", "incidental_option", "sampling_option"),
    "diffbench.errors": (
        "BrokenComponent", "DataError", "DiffbenchError", "Diverged", "MatrixError", "OptionError",
        "UnknownComponent",
    ),
    "diffbench.registry.ref": ("Ref",),
    "diffbench.registry.registry": ("Registry", "load_registry", "register"),
    "diffbench.registry.kinds": ("Kind",),
    "diffbench.store.stage_kinds": ("StageKind",),
    "diffbench.registry.entry_points": ("Summary",),
    "diffbench.registry.hooks": ("hookimpl",),
    "diffbench.diffusion.sampling": ("sample", "trajectory"),
    "diffbench.diffusion.classifier": ("Classifier", "fit_classifier"),
    "diffbench.diffusion.weights": ("denoiser_tensors", "misfit"),
    "diffbench.stats.frechet": ("Moments", "enough_samples", "frechet_distance", "moments"),
    "diffbench.stats.jackknife": (
        "Jackknife", "Measured", "NoInterval", "jackknife", "jackknife_blocks", "jackknifed", "jackknifed_mean",
        "jackknifed_share", "wilson",
    ),
    "diffbench.store.paths": ("user_path",),
    "diffbench.contracts.splits": ("split_indices",),
    "diffbench.contracts.published": ("Published", "read_tensors"),
    "diffbench.contracts.cell": ("Cell", "Recipe"),
    "diffbench.api.running": ("plan", "run"),
    "diffbench.api.rerunning": ("rerun",),
    "diffbench.api.loading_models": ("load_model",),
    "diffbench.api.models": ("Model", "Samples"),
    "diffbench.results.folder": ("load",),
    "diffbench.contracts.sections": ("Picture", "Section"),
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
