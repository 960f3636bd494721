"""Any scheduler of diffusers as one of diffbench: the peer as it is shipped, with its own tables, in its own precision.

    scheduler: [ddim, diffusers.ddim, {"diffusers:DPMSolverSinglestepScheduler": {steps: 20, solver_order: 3}}]

A peer owns its grid and its state. It is told our table of betas and our network's eps (a flow: our velocity); its noise is the harness's.
Its calls are dealt out to our steps; a step of a second-order peer makes two.
"""

import contextlib
import functools
import importlib
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, make_dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import diffusers
import torch
from annotated_types import Ge
from torch import Tensor

from diffbench import Denoise, DiffbenchError, Noise, NoiseSchedule, OptionError, Scheduler
from diffbench_diffusers.hooks import class_name, scheduler_names

# Options of a peer that are its own matter; the rest of its constructor is the table, the network's output and clipping, which the harness has.
KEPT = ("timestep_spacing", "steps_offset", "solver_order", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final", "use_karras_sigmas",
        "use_exponential_sigmas", "use_lu_lambdas", "final_sigmas_type", "predict_x0", "skip_prk_steps", "set_alpha_to_one", "predictor_order",
        "corrector_order", "interpolation_type", "shift")
GRIDS = Literal["linspace", "leading", "trailing"]


@dataclass(frozen=True, kw_only=True)
class Adapted(Scheduler):
    """What all have in common; `peer` is the class of diffusers."""

    steps: Annotated[int, Ge(1)] = 20                 # steps the peer is asked for

    peer: ClassVar[type]
    order: ClassVar[int] = 0                          # nothing is claimed in a peer's name
    version: ClassVar[str] = f"1 of diffusers {diffusers.__version__}"

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self._made(None)
        except (ValueError, NotImplementedError, ImportError) as error:
            raise OptionError(f"{self.peer.__name__} refuses these options: {error}") from None

    @property
    def is_flow(self) -> bool:
        """Whether the peer moves along x_0 + t (eps - x_0)."""
        return self.peer.__name__.startswith("FlowMatch")

    @property
    def is_stochastic(self) -> bool:
        return _asks_for_noise(replace(self, steps=max(self.steps, 4)))

    def nfe(self, steps: int) -> int:
        return len(replace(self, steps=steps)._made(None).timesteps)

    def why_not(self, cell):
        reason = self.why_not_on(cell.noise_schedule)
        if reason:
            return reason
        own, asked = self.times(cell.noise_schedule), cell.spacing(cell.noise_schedule, self.steps)
        if own.shape != asked.shape or (own - asked).abs().max() > 1e-4:
            first = ", ".join(f"{t:.4g}" for t in own[:3].tolist())
            return (f"{self.peer.__name__} visits times of its own ({first}, ...); use the spacing "
                    f"{{diffusers.times_of: {{of: diffusers.{self.component_name()}}}}}, or one that visits the same")
        return None

    def why_not_on(self, schedule: NoiseSchedule) -> str | None:
        """Why the peer has no table for a noise schedule."""
        if self.is_flow:
            return None if schedule.scales(0.3) == (0.7, 0.3) else f"{self.peer.__name__} is made for alpha = 1 - t, sigma = t: use rectified_flow"
        if schedule.grid is None:
            return f"{self.peer.__name__} is made from a table of betas, and {schedule.component_name()} is continuous"
        if schedule.at(1.0).alpha == 0:
            return f"{self.peer.__name__} is given eps, which is undefined at the zero terminal SNR of {schedule.component_name()}"
        return None

    def times(self, schedule: NoiseSchedule) -> Tensor:
        """Where the peer's steps begin, and 0; float64 [steps + 1]."""
        return _times(self, schedule)

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: Any, noise: Noise) -> tuple[Tensor, Any]:
        run = state or _Run(self, schedule, x_t, t)
        return run.step(denoise, noise), run

    def _made(self, schedule: NoiseSchedule | None) -> Any:
        """The peer, its grid set; on a table of its own where there is no schedule."""
        options = {name: getattr(self, name) for name in KEPT if name in type(self).__dataclass_fields__}
        if not self.is_flow:
            options |= {"prediction_type": "epsilon"} | (_table(schedule) if schedule is not None else {})
            options |= {"clip_sample": False} if "clip_sample" in inspect.signature(self.peer.__init__).parameters else {}
        with _quiet():
            peer = self.peer(**options)
            peer.set_timesteps(self.steps)
        return peer


class _Run:
    """A peer on its way: its sample, in its own scale, and the next of its calls."""

    def __init__(self, options: Adapted, schedule: NoiseSchedule, x_t: Tensor, t: float):
        self.options, self.schedule, self.peer = options, schedule, options._made(schedule)
        self.dealt, self.next = iter(_dealt(self.peer, options.steps)), 0
        begins = _time(options, self.peer, schedule, 0)
        if abs(begins - t) > 1e-4:
            raise DiffbenchError(f"{options.peer.__name__} begins at t = {begins:g}, and is asked to begin at {t:g}: use the spacing diffusers.times_of")
        self.sample = x_t / self._scaled(torch.ones((), dtype=torch.float64)).to(x_t)

    def step(self, denoise: Denoise, noise: Noise) -> Tensor:
        """The calls of one of our steps; x_s in our scale."""
        _, last = next(self.dealt)
        with _noise_from(self.peer, noise):
            while self.next < last:
                x0_hat, eps_hat, _ = denoise(self._scaled(self.sample), self._now())              # [B, C, H, W] each
                out = eps_hat - x0_hat if self.options.is_flow else eps_hat
                self.sample = self.peer.step(out, self.peer.timesteps[self.next], self.sample).prev_sample.to(self.sample.dtype)
                self.next += 1
        return self.sample if self.next == len(self.peer.timesteps) else self._scaled(self.sample)

    def _scaled(self, sample: Tensor) -> Tensor:
        """What the peer shows its network: a variance-exploding sample brought to ours; elsewhere the sample itself."""
        return self.peer.scale_model_input(sample, self.peer.timesteps[self.next]) if hasattr(self.peer, "scale_model_input") else sample

    def _now(self) -> float:
        """Our time of the next call: where the peer scales its input, by that, for the inner stage of a step has a level of its own."""
        scale = float(self._scaled(torch.ones((), dtype=torch.float64)))
        if scale < 1:
            return _on_grid(self.schedule, self.schedule.time_of((scale**-2 - 1) ** 0.5))
        return _time(self.options, self.peer, self.schedule, self.next)


@functools.lru_cache(maxsize=256)
def _times(options: Adapted, schedule: NoiseSchedule) -> Tensor:
    """Remembered, for some peers take a tenth of a second to make their grid."""
    peer = options._made(schedule)
    return torch.tensor([_time(options, peer, schedule, first) for first, _ in _dealt(peer, options.steps)] + [0.0], dtype=torch.float64)


def _time(options: Adapted, peer: Any, schedule: NoiseSchedule, call: int) -> float:
    """Our time of a call that begins a step."""
    if hasattr(peer, "sigmas") and len(peer.sigmas) >= len(peer.timesteps):
        sigma = float(peer.sigmas[call])
        return sigma if options.is_flow else _on_grid(schedule, schedule.time_of(sigma))
    return (float(peer.timesteps[call]) + 1) / schedule.grid          # their index i is our grid point i + 1


def _on_grid(schedule: NoiseSchedule, t: float) -> float:
    """A time that misses a grid point by the rounding of float32 is that point."""
    near = round(t * schedule.grid) / schedule.grid
    return near if abs(near - t) * schedule.grid < 0.01 else t


def _dealt(peer: Any, steps: int) -> Iterator[tuple[int, int]]:
    """(first call, end) of each of our steps. A second-order peer calls twice in each but the last; else what is too many is its start-up."""
    calls = len(peer.timesteps)
    for i in range(steps):
        begin = 2 * i if peer.order == 2 else 0 if i == 0 else i + calls - steps
        end = min(2 * i + 2, calls) if peer.order == 2 else i + 1 + calls - steps
        yield begin, end


@functools.lru_cache(maxsize=64)
def _table_of(schedule: NoiseSchedule) -> tuple[float, ...]:
    squares = schedule.alpha(torch.arange(schedule.grid + 1, dtype=torch.float64) / schedule.grid) ** 2
    return tuple((1 - squares[1:] / squares[:-1]).tolist())


def _table(schedule: NoiseSchedule) -> dict[str, Any]:
    return {"num_train_timesteps": schedule.grid, "trained_betas": list(_table_of(schedule))}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what some peers say each time they are made, of defaults of theirs that they correct themselves."""
    level = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers.logging.set_verbosity(level)


@contextlib.contextmanager
def _noise_from(peer: Any, noise: Noise) -> Iterator[None]:
    """While a peer steps, its draws are the harness's, numbered within the step."""
    module = importlib.import_module(type(peer).__module__)
    if not hasattr(module, "randn_tensor"):
        yield
        return
    theirs, draws = module.randn_tensor, iter(range(1_000_000))
    module.randn_tensor = lambda shape, *args, **kwargs: noise(next(draws)).reshape(shape)
    try:
        yield
    finally:
        module.randn_tensor = theirs


@functools.lru_cache(maxsize=256)
def _asks_for_noise(options: Adapted) -> bool:
    """Told by a run on one pixel."""
    peer, asked, sample = options._made(None), [], torch.ones(1, 1, 1, 1)

    def noise(draw: int = 0) -> Tensor:
        asked.append(draw)
        return torch.zeros(1, 1, 1, 1)
    with _noise_from(peer, noise):
        for t in peer.timesteps:
            if hasattr(peer, "scale_model_input"):
                peer.scale_model_input(sample, t)
            sample = peer.step(torch.zeros(1, 1, 1, 1), t, sample).prev_sample
    # Flow matching draws and adds nothing at its default of no churn.
    return bool(asked) and not options.is_flow


def _adapted(peer: type) -> type[Adapted]:
    """The component of a class of diffusers: its options are those of the constructor that are its own matter."""
    options: list[tuple[str, Any, Any]] = []
    for name, parameter in inspect.signature(peer.__init__).parameters.items():
        if name in KEPT and parameter.default is not None:
            declared = typing.get_type_hints(peer.__init__).get(name, type(parameter.default))
            kind = GRIDS if name == "timestep_spacing" else type(parameter.default) if typing.get_origin(declared) is not Literal else declared
            options.append((name, kind, field(default=parameter.default, metadata={"meaning": f"{name} of {peer.__name__}"})))
    made = make_dataclass(class_name(peer.__name__), options, bases=(Adapted,), frozen=True, kw_only=True,
                          namespace={"peer": peer, "__doc__": f"{peer.__name__} of diffusers {diffusers.__version__}, as it is shipped."})
    made.__module__ = __name__
    return made


PEERS = {class_name(name): name for name in scheduler_names()}


def __getattr__(name: str) -> Any:
    if name not in PEERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = _adapted(getattr(diffusers, PEERS[name]))
    return globals()[name]
