"""The conformance suite, and a case in which this scheduler is exact."""

import math

from newcomer import Newcomer

import diffbench
from diffbench.diffusion import sampling
from diffbench.testing import conformance
from diffbench.testing.oracles import GaussianData

test_conforms = conformance("new-comer", quick=True)


def test_more_steps_come_nearer_to_the_exact_flow_of_gaussian_data():
    """With data N(0, 0.5²) the exact denoiser is known, and with it where a sampler should end."""
    registry = diffbench.load_registry()
    schedule, spacing = registry.create("noise_schedule", "cosine"), registry.create("spacing", "log_snr")
    denoise = GaussianData(schedule=schedule, std=0.5)

    def error(steps):
        scheduler = Newcomer(steps=steps)
        x_T = sampling.initial(schedule, spacing, steps, range(8), (1, 4, 4))
        drawn = diffbench.sample(denoise, schedule, scheduler, x_T, spacing=spacing, seeds=range(8))
        assert drawn.nfe == 2 * steps - 1
        begin = schedule.at(float(spacing(schedule, steps)[0]))
        # the flow of Gaussian data is x_0 = gain x_T
        gain = 0.5 / math.hypot(0.5 * begin.alpha, begin.sigma)
        return float((drawn.x_0 - gain * x_T).abs().max())
    assert error(40) < 0.3 * error(10) and error(40) < 0.02
