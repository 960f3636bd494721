"""The checks of each kind: functions (registry, component) -> (statement, check) pairs."""

from diffbench.testing.checks.backbones import backbone_checks
from diffbench.testing.checks.conditionings import conditioning_checks
from diffbench.testing.checks.formulas import noise_schedule_checks, objective_checks, parameterization_checks, spacing_checks
from diffbench.testing.checks.schedulers import scheduler_checks

BY_KIND = {
    "backbone": backbone_checks,
    "conditioning": conditioning_checks,
    "noise_schedule": noise_schedule_checks,
    "objective": objective_checks,
    "parameterization": parameterization_checks,
    "scheduler": scheduler_checks,
    "spacing": spacing_checks,
}
