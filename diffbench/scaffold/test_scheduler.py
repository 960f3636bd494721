"""The conformance suite, and a case in which this scheduler is exact."""

from newcomer import Newcomer

import diffbench
from diffbench import sampling
from diffbench.testing import conformance
from diffbench.testing.oracles import GaussianData

test_conforms = conformance("new-comer", quick=True)


def test_more_steps_bring_the_spread_of_gaussian_data():
    """With data N(0, 0.5²) the exact denoiser is known, and with it what a sampler should end at."""
    registry = diffbench.load_registry()
    schedule, spacing = registry.create("noise_schedule", "cosine"), registry.create("spacing", "log_snr")
    denoise = GaussianData(schedule=schedule, std=0.5)

    def error(steps):
        scheduler = Newcomer(steps=steps)
        x_T = sampling.initial(schedule, spacing, steps, range(256), (1, 4, 4))
        drawn = diffbench.sample(denoise, schedule, scheduler, x_T, spacing=spacing, seeds=range(256))
        assert drawn.nfe == 2 * steps - 1
        return abs(float(drawn.x_0.std()) - 0.5)
    assert error(40) < 0.3 * error(10) and error(40) < 0.02
