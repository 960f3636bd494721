"""The checks of each kind of component: functions (registry, component) -> (statement, check).

Used by `conformance`.
"""

from diffbench.testing.checks.backbones import backbone_checks
from diffbench.testing.checks.conditionings import conditioning_checks
from diffbench.testing.checks.data import dataset_checks, extractor_checks, metric_checks
from diffbench.testing.checks.formulas import (
                                               noise_schedule_checks,
                                               objective_checks,
                                               parameterization_checks,
                                               spacing_checks,
)
from diffbench.testing.checks.schedulers import scheduler_checks
from diffbench.testing.checks.seams import (
                                               autoencoder_checks,
                                               method_checks,
                                               pipeline_checks,
                                               process_checks,
                                               text_encoder_checks,
)

BY_KIND = {
    "autoencoder": autoencoder_checks,
    "backbone": backbone_checks,
    "conditioning": conditioning_checks,
    "dataset": dataset_checks,
    "extractor": extractor_checks,
    "metric": metric_checks,
    "method": method_checks,
    "noise_schedule": noise_schedule_checks,
    "objective": objective_checks,
    "parameterization": parameterization_checks,
    "pipeline": pipeline_checks,
    "process": process_checks,
    "scheduler": scheduler_checks,
    "spacing": spacing_checks,
    "text_encoder": text_encoder_checks,
}
