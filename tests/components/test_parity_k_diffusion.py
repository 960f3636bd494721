"""The same sampler in k-diffusion and here, in float64, on the exploding schedule it knows: largest difference below 1e-5.

k-diffusion pins numpy below 2 through its dependencies, so it needs an environment of its own: `pip install 'diffbench[peers]'`. It draws noise on
every step, used or not; both sides get ours. Its churn also acts on the step to the clean level, ours never does: s_tmin keeps it off there.
"""

import pytest
import torch

from tests.components.peers import CLOSE, SHAPE, STEPS, as_denoiser, largest_difference, ours, shared_noise, start
from tests.conftest import REGISTRY

sampling = pytest.importorskip("k_diffusion.sampling", reason="k-diffusion is not installed: pip install 'diffbench[peers]'")

EDM = REGISTRY.create("noise_schedule", "edm")
SPACINGS = {"karras": REGISTRY.create("spacing", "karras"), "log_snr": REGISTRY.create("spacing", "log_snr"), "uniform": REGISTRY.create("spacing", "uniform")}


def theirs(function, spacing, steps, monkeypatch, **options):
    denoise, times = as_denoiser(EDM), spacing(EDM, steps).tolist()
    sigmas = torch.tensor([EDM.nsr(t) for t in times], dtype=torch.float64)
    states, step = [], iter(range(1000))

    def model(x, sigma):
        return denoise(x, EDM.time_of(float(sigma[0]))).x0
    monkeypatch.setattr(torch, "randn_like", lambda x: shared_noise(next(step)))
    x = function(model, start(EDM, spacing, steps), sigmas, disable=True, callback=lambda info: states.append(info["x"]), **options)
    return [*states, x]


def by_step(spacing, steps):
    """Their noise_sampler(sigma, sigma_next): our noise of the step that starts at sigma."""
    index = {EDM.nsr(t): i for i, t in enumerate(spacing(EDM, steps).tolist())}
    return lambda sigma, sigma_next: shared_noise(index[float(sigma)])


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", STEPS)
class TestEverywhere:
    def compare(self, name, function, spacing, steps, monkeypatch, theirs_options=None, first=0, **options):
        spacing = SPACINGS[spacing]
        mine = ours(name, EDM, spacing, steps, **options)
        drawn = theirs(function, spacing, steps, monkeypatch, **(theirs_options(spacing, steps) if theirs_options else {}))
        assert largest_difference(mine[first:], drawn[first:]) < CLOSE * 80          # the first state has standard deviation 80
        assert (mine[-1] - drawn[-1]).abs().max() < CLOSE

    def test_ddim_is_euler(self, spacing, steps, monkeypatch):
        self.compare("ddim", sampling.sample_euler, spacing, steps, monkeypatch)

    def test_ddpm_is_euler_ancestral(self, spacing, steps, monkeypatch):
        self.compare("ddpm", sampling.sample_euler_ancestral, spacing, steps, monkeypatch,
                     lambda spacing, steps: {"noise_sampler": by_step(spacing, steps)})

    def test_heun(self, spacing, steps, monkeypatch):
        self.compare("heun", sampling.sample_heun, spacing, steps, monkeypatch)

    def test_heun_with_churn(self, spacing, steps, monkeypatch):
        """They report each state after its churn, we before: the last one, which has none, is compared."""
        limits = {"s_churn": 4.0, "s_noise": 1.003}
        low = 1.001 * EDM.nsr(float(SPACINGS[spacing](EDM, steps)[-2]))
        high = 0.5 * 80                                              # above it a step would leave the schedule's range
        self.compare("heun", sampling.sample_heun, spacing, steps, monkeypatch, lambda *_: {**limits, "s_tmin": low, "s_tmax": high},
                     first=-1, **limits, s_min=low, s_max=high)

    def test_dpm_solver_pp_2m(self, spacing, steps, monkeypatch):
        self.compare("dpm_solver_pp", sampling.sample_dpmpp_2m, spacing, steps, monkeypatch)

    def test_dpm_solver_pp_2s(self, spacing, steps, monkeypatch):
        self.compare("dpm_solver_pp", sampling.sample_dpmpp_2s_ancestral, spacing, steps, monkeypatch, lambda *_: {"eta": 0.0}, variant="2s")

    def test_dpm_solver_pp_2m_sde(self, spacing, steps, monkeypatch):
        if steps == 1:
            with pytest.raises(UnboundLocalError):                   # it reads the length of a step before there was one
                theirs(sampling.sample_dpmpp_2m_sde, SPACINGS[spacing], 1, monkeypatch)
            return
        self.compare("dpm_solver_pp", sampling.sample_dpmpp_2m_sde, spacing, steps, monkeypatch,
                     lambda spacing, steps: {"noise_sampler": by_step(spacing, steps), "solver_type": "midpoint"}, variant="2m_sde")


@pytest.mark.parametrize("steps", [2, 5, 18, 50])
def test_karras_spacing(steps):
    mine = torch.tensor([EDM.nsr(t) for t in SPACINGS["karras"](EDM, steps).tolist()], dtype=torch.float64)
    assert torch.allclose(mine, sampling.get_sigmas_karras(steps, 0.002, 80.0).double(), rtol=1e-5)


@pytest.mark.parametrize("steps", [2, 5, 18, 50])
def test_log_snr_spacing_is_exponential(steps):
    mine = torch.tensor([EDM.nsr(t) for t in SPACINGS["log_snr"](EDM, steps).tolist()], dtype=torch.float64)
    assert torch.allclose(mine, sampling.get_sigmas_exponential(steps, 0.002, 80.0).double(), rtol=1e-5)


def test_shapes_are_shared():
    assert shared_noise(0).shape == (3, *SHAPE)
