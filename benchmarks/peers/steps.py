"""Steps of schedulers here and in other libraries, without a network, on (64, 3, 32, 32). Used by `peers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import torch
from torch import Tensor

import diffbench
from benchmarks.peers.pairs import Missing, Pair
from diffbench import NoiseSchedule, Prediction
from diffbench.diffusion import noise

SHAPE = (64, 3, 32, 32)
STEPS = 50
REGISTRY = diffbench.load_registry()
LINEAR, EDM = REGISTRY.create("noise_schedule", "linear"), REGISTRY.create("noise_schedule", "edm")
X_T, OUT = noise.normal(range(64), SHAPE[1:], 0), noise.normal(range(64), SHAPE[1:], 1)


def pairs() -> Iterator[Pair | Missing]:
    """Deterministic steps, stochastic steps, and noise alone."""
    yield from _of_diffusers()
    yield from _of_k_diffusion()
    yield from _of_azula()
    yield from _of_denoising_diffusion()
    yield Pair(label="noise of (64, 3, 32, 32)", ours="noise.Source", peer="torch.randn", do_ours=_noise,
               do_peer=_randn, units=STEPS, unit="draw")
    for name in ("ddpm", "euler_sde"):
        yield Pair(label="stochastic step against its noise alone", ours=name, peer="our noise alone",
                   do_ours=_ours(name), do_peer=_noise, units=STEPS - 1,
                   goal=1 / 1.15)


def _ours(name: str, schedule: NoiseSchedule = LINEAR, decodes: bool = False, **options: object) -> Callable[[], None]:
    """A run of our scheduler, noise included;
    from the network's output where it decodes, else from a prediction of x_0 and eps.
    """
    scheduler = REGISTRY.create("scheduler", name, steps=STEPS, **options)
    times = REGISTRY.default("spacing")(schedule, STEPS).tolist()
    epsilon, prediction = REGISTRY.default("parameterization"), Prediction(x0=OUT, eps=OUT)

    def denoise(x_t: Tensor, t: float) -> Prediction:
        return epsilon.decode(OUT, x_t, schedule.at(t)) if decodes else prediction

    def run() -> None:
        source, x, state = noise.Source(range(64), SHAPE[1:], STEPS), X_T, scheduler.init()
        with torch.no_grad():
            for step, (t, s) in enumerate(zip(times, times[1:])):  # noqa: B905  pairs of neighbours
                x, state = scheduler.step(denoise, schedule, x, t, s, state,
                                          lambda draw=0, step=step: source(step, draw))
    return run


def _clocked(call: Callable[..., object], *arguments: object, **options: object) -> Callable[[], None]:
    """The call without gradients, returning nothing."""
    @torch.no_grad()
    def run() -> None:
        call(*arguments, **options)
    return run


def _noise() -> None:
    source = noise.Source(range(64), SHAPE[1:], STEPS)
    for step in range(STEPS - 1):
        source(step)


def _randn() -> None:
    for _ in range(STEPS - 1):
        torch.randn(SHAPE)


def _of_diffusers() -> Iterator[Pair | Missing]:
    try:
        import diffusers
    except ImportError as error:
        yield Missing(f"diffusers: {error}")
        return
    diffusers.utils.logging.set_verbosity_error()
    flow = REGISTRY.create("noise_schedule", "rectified_flow")
    for goal, ours, run, theirs, options in (
            (5, "ddim", _ours("ddim"), diffusers.DDIMScheduler, {"clip_sample": False}),
            (5, "pndm, plms", _ours("pndm", warmup="plms"), diffusers.PNDMScheduler, {"skip_prk_steps": True}),
            (5, "ddim (Euler in sigma)", _ours("ddim"), diffusers.EulerDiscreteScheduler, {}),
            (None, "euler_ode, a flow", _ours("euler_ode", flow), diffusers.FlowMatchEulerDiscreteScheduler, {}),
            (None, "dpm_solver_pp", _ours("dpm_solver_pp"), diffusers.DPMSolverMultistepScheduler, {}),
            (None, "heun", _ours("heun"), diffusers.HeunDiscreteScheduler, {}),
            (None, "ddim from the network's output", _ours("ddim", decodes=True), diffusers.DDIMScheduler,
             {"clip_sample": False}),
            (None, "pndm from the network's output", _ours("pndm", decodes=True, warmup="plms"),
             diffusers.PNDMScheduler, {"skip_prk_steps": True}),
            (None, "ddpm", _ours("ddpm"), diffusers.DDPMScheduler, {"clip_sample": False}),
            (None, "ddpm from the network's output", _ours("ddpm", decodes=True), diffusers.DDPMScheduler,
             {"clip_sample": False}),
            (None, "ddpm (Euler ancestral)", _ours("ddpm"), diffusers.EulerAncestralDiscreteScheduler, {})):
        yield Pair(label="scheduler step", ours=ours, peer=f"diffusers {theirs.__name__}", do_ours=run,
                   do_peer=_diffusers(theirs, options), units=STEPS,
                   goal=goal)


def _diffusers(cls: type, options: dict[str, object]) -> Callable[[], None]:
    """A run of their scheduler, with both evaluations of one that makes two a step.

    As in each of their pipelines, x is scaled for the network before each evaluation: schedulers in sigma need that,
    others give it back, those of flows have no such method. Ours step in the network's own scale.
    """
    is_flow = "FlowMatch" in cls.__name__
    scheduler = cls(**options) if is_flow else cls(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, **options)

    def run() -> None:
        scheduler.set_timesteps(STEPS)
        x = X_T
        with torch.no_grad():
            for t in scheduler.timesteps:
                if not is_flow:
                    scheduler.scale_model_input(x, t)
                x = scheduler.step(OUT, t, x, return_dict=False)[0]
    return run


def _of_k_diffusion() -> Iterator[Pair | Missing]:
    try:
        from k_diffusion import sampling
    except ImportError as error:
        yield Missing(f"k-diffusion: {error}; it pins numpy below 2, so an environment of its own is its place")
        return
    sigmas = torch.tensor([EDM.nsr(t) for t in REGISTRY.default("spacing")(EDM, STEPS).tolist()])
    for ours, run, theirs in (("ddim (Euler in sigma)", _ours("ddim", EDM), sampling.sample_euler),
                              ("heun", _ours("heun", EDM), sampling.sample_heun),
                              ("dpm_solver_pp", _ours("dpm_solver_pp", EDM), sampling.sample_dpmpp_2m),
                              ("ddpm (Euler ancestral)", _ours("ddpm", EDM), sampling.sample_euler_ancestral)):
        yield Pair(label="scheduler step", ours=ours, peer=f"k-diffusion {theirs.__name__}", do_ours=run, units=STEPS,
                   do_peer=_clocked(theirs, lambda x, sigma: OUT, X_T, sigmas, disable=True))


def _of_azula() -> Iterator[Pair | Missing]:
    try:
        import azula.sample as azula
    except ImportError as error:
        yield Missing(f"azula: {error}")
        return

    class Known:
        """Its denoiser: a schedule of tensors and an answer that is there."""

        def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return LINEAR.alpha(t), LINEAR.sigma(t)

        def __call__(self, x_t: Tensor, t: Tensor) -> SimpleNamespace:
            return SimpleNamespace(mean=OUT)
    for ours, theirs in (("ddim", azula.DDIMSampler), ("ddpm", azula.DDPMSampler)):
        sampler = theirs(Known(), steps=STEPS, silent=True)
        yield Pair(label="scheduler step", ours=ours, peer=f"azula {theirs.__name__}", do_ours=_ours(ours), units=STEPS,
                   do_peer=_clocked(sampler, X_T))


def _of_denoising_diffusion() -> Iterator[Pair | Missing]:
    try:
        from denoising_diffusion_pytorch import GaussianDiffusion
    except ImportError as error:
        yield Missing(f"denoising-diffusion-pytorch: {error}")
        return

    class Known(torch.nn.Module):
        """Its network: an answer that is there."""

        channels = out_dim = 3
        self_condition = False

        def forward(self, x: Tensor, t: Tensor, x_self_cond: Tensor | None = None) -> Tensor:
            return OUT
    theirs = GaussianDiffusion(Known(), image_size=32, objective="pred_noise", beta_schedule="linear")

    def run() -> None:
        x = X_T
        with torch.no_grad():
            for t in range(STEPS - 1, -1, -1):
                x, _ = theirs.p_sample(x, t)
    yield Pair(label="scheduler step", ours="ddpm from the network's output",
               peer="denoising-diffusion-pytorch p_sample", do_ours=_ours("ddpm", decodes=True),
               do_peer=run, units=STEPS)
