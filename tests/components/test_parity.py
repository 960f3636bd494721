"""The same step in diffusers and here: same grid, same schedule, same network, largest difference in the loop below 1e-5.

Both sides run in float64 on the same table: diffusers' float32 table alone makes its DDIM return NaN at eta 1 on the cosine
schedule's last index, and differ by 1e-4 elsewhere. `test_their_tables_are_ours` compares the tables.

Where the peer is known to be wrong, the test says which and why, and compares up to there: its DDPM adds noise on the last step of a
trailing grid, its DDIM ignores the grid where N does not divide T, its PNDM extrapolates the raw output of a v network (ours is compared
on epsilon), its DEIS has no step to the clean level. `test_conformance.py` proves ours on every grid instead.
"""

import pytest
import torch

from diffbench.diffusion import noise
from tests.components.peers import CLOSE, SEEDS, SHAPE, STEPS, largest_difference, network, ours, shared_noise, start
from tests.conftest import REGISTRY

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'diffbench[parity]'")

SCHEDULES = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012},
}
TRAILING = REGISTRY.create("spacing", "trailing")


def theirs(peer, schedule, spacing, steps, monkeypatch, **step_options):
    """Every state of the peer's loop, x_T first."""
    in_float64(peer, schedule)
    peer.set_timesteps(steps)
    states = [start(schedule, spacing, steps)]
    for index, t in enumerate(peer.timesteps):
        monkeypatch.setattr(f"{type(peer).__module__}.randn_tensor", lambda *a, index=index, **k: shared_noise(index))    # both sides add the same
        states.append(peer.step(network(states[-1], float(t)), t, states[-1], **step_options).prev_sample)
    return states


class _InFloat64:
    """torch, but for its float32: some peers cast every state to that, which alone costs 1e-3 where alpha is 5e-5."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def in_float64(peer, schedule):
    peer.alphas_cumprod = schedule.alpha_bar()
    peer.final_alpha_cumprod = peer.one = torch.tensor(1.0, dtype=torch.float64)


def multistep(peer, schedule, steps, monkeypatch):
    """Every state of a peer that keeps sigmas: given ours in float64, with sigma_N = 0 where it knows none."""
    monkeypatch.setattr(f"{type(peer).__module__}.torch", _InFloat64())
    peer.set_timesteps(steps)
    times = TRAILING(schedule, steps).tolist()
    peer.sigmas = torch.tensor([schedule.nsr(t) for t in times], dtype=torch.float64)
    assert [round(1000 * t) - 1 for t in times[:-1]] == peer.timesteps.tolist()
    states = [start(schedule, TRAILING, steps)]
    for index, t in enumerate(peer.timesteps):
        monkeypatch.setattr(f"{type(peer).__module__}.randn_tensor", lambda *a, index=index, **k: shared_noise(index), raising=False)
        states.append(peer.step(network(states[-1], float(t)), t, states[-1]).prev_sample)
    return states


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm(name, spacing, steps, variance, monkeypatch):
    # diffusers adds noise on the last step unless its index is 0, so a trailing grid ends noisy where the variance there is not 0.
    last = -1 if variance == "large" and spacing == "trailing" else None
    peer = diffusers.DDPMScheduler(variance_type=f"fixed_{variance}", timestep_spacing=spacing, clip_sample=True, **SCHEDULES[name])
    schedule, spacing = REGISTRY.create("noise_schedule", name), REGISTRY.create("spacing", spacing)
    mine = ours("ddpm", schedule, spacing, steps, clip=True, variance=variance)
    assert largest_difference(mine[:last], theirs(peer, schedule, spacing, steps, monkeypatch)[:last]) < CLOSE


@pytest.mark.parametrize("steps", [5, 50])
def test_ddpm_with_a_learned_variance(steps, monkeypatch):
    """Its network output carries v in [-1, 1] behind the mean; both interpolate the logarithms."""
    schedule, spacing = REGISTRY.create("noise_schedule", "linear"), REGISTRY.create("spacing", "leading")
    peer = diffusers.DDPMScheduler(variance_type="learned_range", timestep_spacing="leading", clip_sample=False, **SCHEDULES["linear"])
    monkeypatch.setattr("tests.components.peers.as_denoiser", with_variance(schedule))
    mine = ours("ddpm", schedule, spacing, steps, variance="learned")
    in_float64(peer, schedule)
    peer.set_timesteps(steps)
    states = [start(schedule, spacing, steps)]
    for index, t in enumerate(peer.timesteps):
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, index=index, **k: shared_noise(index))
        out = torch.cat([network(states[-1], float(t)), variance_of(states[-1])], dim=1)
        states.append(peer.step(out, t, states[-1]).prev_sample)
    assert largest_difference(mine, states) < CLOSE


def variance_of(x):
    return torch.tanh(0.7 * x)


def with_variance(schedule):
    from tests.components import peers

    plain = peers.as_denoiser
    return lambda schedule, clip=False: lambda x_t, t: plain(schedule)(x_t, t)._replace(variance=(variance_of(x_t) + 1) / 2)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(name, spacing, steps, eta, monkeypatch):
    peer = diffusers.DDIMScheduler(timestep_spacing=spacing, clip_sample=True, set_alpha_to_one=True, **SCHEDULES[name])
    schedule, spacing = REGISTRY.create("noise_schedule", name), REGISTRY.create("spacing", spacing)
    mine = ours("ddim", schedule, spacing, steps, clip=True, eta=eta)
    assert largest_difference(mine, theirs(peer, schedule, spacing, steps, monkeypatch, eta=eta, use_clipped_model_output=True)) < CLOSE


@pytest.mark.parametrize("warmup", ["prk", "plms"])
@pytest.mark.parametrize("steps", [5, 10, 50])
def test_pndm(steps, warmup, monkeypatch):
    """Half-steps need an even stride; the level t = 0 has no index in the peer, which asks its network at index -1 there."""
    schedule = REGISTRY.create("noise_schedule", "linear")
    spacing = REGISTRY.create("spacing", "uniform")
    peer = diffusers.PNDMScheduler(timestep_spacing="trailing", skip_prk_steps=warmup == "plms", set_alpha_to_one=True, **SCHEDULES["linear"])
    mine = ours("pndm", schedule, spacing, steps, warmup=warmup)[-1]
    in_float64(peer, schedule)
    peer.set_timesteps(steps)
    x = noise.normal(SEEDS, SHAPE, noise.INITIAL).double()
    for t in peer.timesteps:
        x = peer.step(network(x, float(t)), t, x).prev_sample
    assert (mine - x).abs().max() < CLOSE


@pytest.mark.parametrize("name", ["linear", "scaled_linear"])
@pytest.mark.parametrize("steps", STEPS)
def test_euler_is_ddim_and_euler_ancestral_is_ddpm(name, steps, monkeypatch):
    """They step x/alpha; ours is brought there for the comparison."""
    schedule = REGISTRY.create("noise_schedule", name)
    for mine_is, cls in (("ddim", diffusers.EulerDiscreteScheduler), ("ddpm", diffusers.EulerAncestralDiscreteScheduler)):
        peer = cls(timestep_spacing="trailing", **SCHEDULES[name])
        assert exploding(peer, schedule, steps, ours(mine_is, schedule, TRAILING, steps), monkeypatch) < CLOSE


@pytest.mark.parametrize("name", ["linear", "scaled_linear"])
@pytest.mark.parametrize("steps", STEPS)
def test_heun(name, steps, monkeypatch):
    schedule = REGISTRY.create("noise_schedule", name)
    peer = diffusers.HeunDiscreteScheduler(timestep_spacing="trailing", **SCHEDULES[name])
    assert exploding(peer, schedule, steps, ours("heun", schedule, TRAILING, steps), monkeypatch, evaluations=2) < CLOSE


def exploding(peer, schedule, steps, mine, monkeypatch, evaluations=1):
    """Largest difference in x/alpha, relative to the first state, from a peer that works there."""
    times = TRAILING(schedule, steps).tolist()
    nsr = torch.tensor([schedule.nsr(t) for t in times], dtype=torch.float64)
    peer.set_timesteps(steps)
    # Heun lists every level between the first and the clean one twice.
    repeats = torch.tensor([1] + [evaluations] * (steps - 1) + [1])
    peer.sigmas = nsr.repeat_interleave(repeats)
    states = [mine[0] / schedule.at(times[0]).alpha]
    for index, t in enumerate(peer.timesteps):
        monkeypatch.setattr(f"{type(peer).__module__}.randn_tensor", lambda *a, index=index, **k: shared_noise(index), raising=False)
        scaled = peer.scale_model_input(states[-1], t)
        states.append(peer.step(network(scaled, float(t)), t, states[-1]).prev_sample)
    theirs_ = states[::evaluations] if evaluations == 1 else [states[0], *states[2::2], states[-1]]
    mine_ = [x / schedule.at(t).alpha for x, t in zip(mine, times, strict=True)]
    return largest_difference(mine_, theirs_) / float(states[0].abs().max())


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("variant", "algorithm"), [("2m", "dpmsolver++"), ("2m_sde", "sde-dpmsolver++")])
def test_dpm_solver_pp(name, steps, variant, algorithm, monkeypatch):
    schedule = REGISTRY.create("noise_schedule", name)
    peer = diffusers.DPMSolverMultistepScheduler(timestep_spacing="trailing", algorithm_type=algorithm, **SCHEDULES[name])
    assert largest_difference(ours("dpm_solver_pp", schedule, TRAILING, steps, variant=variant), multistep(peer, schedule, steps, monkeypatch)) < CLOSE


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("b", ["bh1", "bh2"])
@pytest.mark.parametrize(("order", "steps"), [*((order, steps) for order in (1, 2) for steps in STEPS), (3, 5), (3, 10), (3, 50)])
def test_unipc(name, order, steps, b, monkeypatch):
    """At order 3 it lowers the order on the last two steps, ours on the last only: compared up to there."""
    schedule = REGISTRY.create("noise_schedule", name)
    peer = diffusers.UniPCMultistepScheduler(timestep_spacing="trailing", solver_type=b, solver_order=order, **SCHEDULES[name])
    last = -2 if order == 3 else None
    mine = ours("unipc", schedule, TRAILING, steps, b=b, solver_order=order)
    drawn = multistep(peer, schedule, steps, monkeypatch)
    assert largest_difference(mine[:last], drawn[:last]) < CLOSE


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis(name, steps, order, monkeypatch):
    """It has no step to the clean level: where its grid ends there it divides by zero. Compared up to the last step."""
    schedule = REGISTRY.create("noise_schedule", name)
    peer = diffusers.DEISMultistepScheduler(timestep_spacing="trailing", solver_order=order, lower_order_final=False, **SCHEDULES[name])
    mine = ours("deis", schedule, TRAILING, steps, solver_order=order)
    drawn = multistep(peer, schedule, steps, monkeypatch)
    assert largest_difference(mine[:-1], drawn[:-1]) < CLOSE


@pytest.mark.parametrize("steps", STEPS)
def test_flow_euler(steps, monkeypatch):
    """Its default grid is given ours; its model predicts eps - x_0."""
    schedule, spacing = REGISTRY.create("noise_schedule", "rectified_flow"), REGISTRY.create("spacing", "uniform", start=0.99)
    peer = diffusers.FlowMatchEulerDiscreteScheduler()
    monkeypatch.setattr("diffusers.schedulers.scheduling_flow_match_euler_discrete.torch", _InFloat64())
    times = spacing(schedule, steps)
    peer.set_timesteps(sigmas=times[:-1].numpy())
    peer.sigmas = times
    for name in ("euler_ode", "ddim"):
        mine = ours(name, schedule, spacing, steps)
        states = [mine[0]]
        for t, step in zip(times[:-1].tolist(), peer.timesteps, strict=True):
            eps = network(states[-1], 1000 * t - 1)
            x0 = (states[-1] - t * eps) / (1 - t)
            states.append(peer.step(eps - x0, step, states[-1]).prev_sample)
        peer._step_index = None
        assert largest_difference(mine, states) < CLOSE


def test_their_tables_are_ours():
    for name, options in SCHEDULES.items():
        peer = diffusers.DDPMScheduler(**options)
        assert (peer.alphas_cumprod.double() - REGISTRY.create("noise_schedule", name).alpha_bar()).abs().max() < 1e-5
        peer = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, **options)
        mine = REGISTRY.create("noise_schedule", name, zero_terminal_snr=True)
        t = torch.arange(1, 1001, dtype=torch.float64) / 1000
        assert (peer.alphas_cumprod.double() - mine.alpha(t) ** 2).abs().max() < 1e-5 and mine.at(1.0).alpha == 0
