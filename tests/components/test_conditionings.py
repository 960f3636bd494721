"""Guidance against closed forms; sockets, null conditions and that a condition matters are in `test_conformance.py`."""

import math
from dataclasses import dataclass

import pytest
import torch

import diffbench
from diffbench import Condition, Helpers, NoiseSchedule, Prediction
from diffbench.diffusion import noise, sampling
from diffbench.testing.oracles import GaussianData, MixtureData, affine_map
from diffbench.testing.stand_ins import Between, StandInImages, cell_with
from tests.conftest import REGISTRY

COSINE = REGISTRY.create("noise_schedule", "cosine")
LINEAR = REGISTRY.create("noise_schedule", "linear")
FILM = REGISTRY.create("conditioning", "film")
SEEDS = noise.sample_seeds(7, 0, 6)
COND = Condition(label=torch.tensor([0, 1, 0, 1, 1, 0]))


def cfg(**options):
    return REGISTRY.create("conditioning", "cfg", inner=FILM, **options)


@dataclass(frozen=True, kw_only=True)
class JointGaussian:
    """x_0 ~ N(0, 1.3²) without and N(0.8, 0.4²) with the condition: the network under a condition, exactly."""

    schedule: NoiseSchedule

    def network(self, x_t, t, cond, drop):
        free, told = GaussianData(schedule=self.schedule, std=1.3)(x_t, t), GaussianData(schedule=self.schedule, std=0.4, mean=0.8)(x_t, t)
        keep = (~drop)[:, None, None, None]
        return Prediction(x0=torch.where(keep, told.x0, free.x0), eps=torch.where(keep, told.eps, free.eps))


@dataclass(frozen=True, kw_only=True)
class Guided:
    """A guided denoiser of the joint Gaussian, in the form that the affine oracle takes."""

    schedule: NoiseSchedule
    w: float

    def __call__(self, x_t, t):
        cond = Condition(label=torch.zeros(len(x_t), dtype=torch.int64))
        return cfg(scale=self.w).guide(JointGaussian(schedule=self.schedule).network, cond, Helpers(schedule=self.schedule))(x_t, t)


def exact_gain(schedule, w, start, end):
    """Of the guided flow in x/alpha, b = sigma/alpha at the end and a at the start; the flow is linear, and this is not a tilted density's."""
    a, b = schedule.nsr(start), schedule.nsr(end)
    free, told = ((s**2 + b**2) / (s**2 + a**2) for s in (1.3, 0.4))
    return schedule.at(end).alpha / schedule.at(start).alpha * free ** ((1 - w) / 2) * told ** (w / 2)


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0, 4.0])
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpm_solver_pp", 2)])
def test_the_guided_flow_has_its_closed_form(name, order, w):
    errors = []
    for steps in (640, 1280):
        found = affine_map(REGISTRY.create("scheduler", name, steps=steps), Between(), Guided(schedule=COSINE, w=w))
        errors.append(abs(found.gain - exact_gain(COSINE, w, 0.95, 0.05)))
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.1


@pytest.mark.parametrize(("w", "mean", "std"), [(0.0, 0.0, 1.3), (1.0, 0.8, 0.4)])
def test_no_guidance_samples_what_the_network_knows(w, mean, std):
    spacing = Between(start=0.999, end=0.001)
    found = affine_map(REGISTRY.create("scheduler", "heun", steps=300), spacing, Guided(schedule=COSINE, w=w))
    reached = found.pushed(*GaussianData(schedule=COSINE, std=std, mean=mean).marginal(0.999))
    assert reached == pytest.approx(GaussianData(schedule=COSINE, std=std, mean=mean).marginal(0.001), abs=2e-3)


def test_cfg_does_not_sample_the_tilted_density():
    """p(x) p(y|x)^2 is N(0.861, 0.287²) here; the guided flow at w = 2 ends elsewhere, so a test against it would fail a correct guidance."""
    precision = 2 / 0.4**2 - 1 / 1.3**2
    tilted = 2 * 0.8 / 0.4**2 / precision, precision**-0.5
    found = affine_map(REGISTRY.create("scheduler", "heun", steps=300), Between(start=0.999, end=0.001), Guided(schedule=COSINE, w=2.0))
    mean, variance = found.pushed(0.0, 1.0)
    assert abs(mean - tilted[0]) > 0.05 and abs(variance**0.5 - tilted[1]) > 0.05


MEANS = (-0.5, 0.7)


def class_network(x_t, t, cond, drop):
    """The exact network of two Gaussian classes: the mixture without a condition, one of them with it."""
    free = MixtureData(schedule=LINEAR, means=MEANS, weights=(0.5, 0.5), std=0.3)(x_t, t)
    told = [GaussianData(schedule=LINEAR, std=0.3, mean=mean)(x_t, t) for mean in MEANS]
    def pick(part):
        of_class = torch.where(cond.label[:, None, None, None] == 0, getattr(told[0], part), getattr(told[1], part))
        return torch.where(drop[:, None, None, None], getattr(free, part), of_class)
    return Prediction(x0=pick("x0"), eps=pick("eps"))


def class_logits(x_t, t):
    """The exact log p(y, x_t) of one pixel, [B, 2]."""
    alpha, sigma = LINEAR.scales(t)
    variance = alpha**2 * 0.3**2 + sigma**2
    return torch.cat([-((x_t.flatten(1) - alpha * mean) ** 2) / (2 * variance) for mean in MEANS], dim=1)


def guided_by_classifier(scale, inner=None):
    return REGISTRY.create("conditioning", "classifier_guidance", scale=scale, **({"inner": inner} if inner else {}))


@pytest.mark.parametrize("t", [0.9, 0.5, 0.1])
@pytest.mark.parametrize("w", [0.5, 1.0, 3.0])
def test_classifier_guidance_is_classifier_free_guidance_where_both_are_exact(w, t):
    x_t = torch.randn(6, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    helpers = Helpers(schedule=LINEAR, classifier=class_logits)
    with torch.no_grad():
        by_classifier = guided_by_classifier(w).guide(lambda x, t, cond, drop: class_network(x, t, COND, torch.ones_like(drop)), COND, helpers)(x_t, t)
        free = cfg(scale=w).guide(lambda x, t, cond, drop: class_network(x, t, cond, drop), COND, helpers)(x_t, t)
    assert (by_classifier.x0 - free.x0).abs().max() < 1e-12 and (by_classifier.eps - free.eps).abs().max() < 1e-12


def test_the_gradient_is_that_of_finite_differences():
    """Against a classifier of 2x2 images that is no closed form; the gradient reaches x_t through the classifier only."""
    matrix = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    calls = []

    def classifier(x, t):
        return torch.tanh(x.flatten(1)) @ matrix

    def network(x_t, t, cond, drop):
        calls.append(x_t.requires_grad)
        alpha, sigma = LINEAR.scales(t)
        return Prediction(x0=torch.tanh(x_t), eps=(x_t - alpha * torch.tanh(x_t)) / sigma)
    x_t, cond = torch.randn(1, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)), Condition(label=torch.tensor([1]))
    helpers = Helpers(schedule=LINEAR, classifier=classifier)
    with torch.no_grad():
        moved = guided_by_classifier(2.0).guide(network, cond, helpers)(x_t, 0.5).eps - guided_by_classifier(0.0).guide(network, cond, helpers)(x_t, 0.5).eps
    h, differences = 1e-6, []
    for pixel in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[pixel] = h
        up, down = (classifier(x_t + sign * step.view(1, 1, 2, 2), 0.5).log_softmax(1)[0, 1] for sign in (1, -1))
        differences.append(float(up - down) / (2 * h))
    expected = -2.0 * LINEAR.at(0.5).sigma * torch.tensor(differences, dtype=torch.float64)
    assert (moved.flatten() - expected).abs().max() < 1e-8 and calls == [False, False]


def test_classifier_guidance_samples_the_class_that_is_asked_for():
    """Unconditional mixture, exact classifier, w = 1: DDPM ends in the class's own Gaussian."""
    scheduler, spacing = REGISTRY.create("scheduler", "ddpm", steps=200), REGISTRY.create("spacing", "log_snr")
    seeds = noise.sample_seeds(0, 0, 2000)
    cond = Condition(label=torch.ones(2000, dtype=torch.int64))
    denoise = guided_by_classifier(1.0).guide(lambda x, t, cond, drop: class_network(x, t, Condition(label=torch.ones(len(x), dtype=torch.int64)), torch.ones_like(drop)),
                                              cond, Helpers(schedule=LINEAR, classifier=class_logits))
    x_T = sampling.initial(LINEAR, spacing, 200, seeds, (1, 1, 1)).double()
    drawn = diffbench.sample(denoise, LINEAR, scheduler, x_T, spacing=spacing, seeds=seeds).x_0
    assert abs(float(drawn.mean()) - 0.7) < 0.03 and abs(float(drawn.std()) - 0.3) < 0.02


class TestInterval:
    def evaluations(self, interval, t):
        calls = []

        def network(x_t, t, cond, drop):
            calls.append(len(x_t))
            return class_network(x_t, t, cond, drop)
        made = REGISTRY.create("conditioning", "cfg", inner=FILM, interval=interval)
        return made.guide(network, COND, Helpers(schedule=LINEAR))(torch.ones(6, 1, 1, 1, dtype=torch.float64), t), calls

    @pytest.mark.parametrize(("log_snr", "doubled"), [(-3.0, False), (0.0, True), (3.0, False)])
    def test_outside_it_is_the_plain_conditional_and_one_evaluation(self, log_snr, doubled):
        t = LINEAR.time_of(math.exp(-log_snr / 2))
        found, calls = self.evaluations((-2.0, 2.0), t)
        plain = class_network(torch.ones(6, 1, 1, 1, dtype=torch.float64), t, COND, torch.zeros(6, dtype=torch.bool))
        assert calls == [12 if doubled else 6] and torch.equal(found.x0, plain.x0) != doubled

    @pytest.mark.parametrize(("interval", "evaluated"), [((-1000.0, 1000.0), [12, 12]), ((-1000.0, 0.0), [12, 6]), ((0.0, 1000.0), [6, 12])])
    def test_zero_snr_and_the_clean_level_lie_at_the_ends_of_the_widest_interval(self, interval, evaluated):
        """Zero SNR first, then the clean level: a run from zero terminal SNR is guided from its first step on."""
        flow = REGISTRY.create("noise_schedule", "rectified_flow")
        for t, expected in zip((1.0, 0.0), evaluated, strict=True):
            calls = []

            def network(x_t, t, cond, drop, calls=calls):
                calls.append(len(x_t))
                return Prediction(x0=x_t, eps=x_t)
            cfg(interval=interval).guide(network, COND, Helpers(schedule=flow))(torch.ones(6, 1, 1, 1), t)
            assert calls == [expected]


def test_rescale_brings_the_spread_of_x_0_back():
    x_t = torch.randn(6, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def spread(**options):
        guided = cfg(scale=5.0, **options).guide(class_network, COND, Helpers(schedule=LINEAR))(x_t, 0.5)
        alpha, sigma = LINEAR.scales(0.5)
        assert (alpha * guided.x0 + sigma * guided.eps - x_t).abs().max() < 1e-12
        return guided.x0.flatten(1).std(1)
    plain = class_network(x_t, 0.5, COND, torch.zeros(6, dtype=torch.bool)).x0.flatten(1).std(1)
    assert torch.allclose(spread(rescale=1.0), plain) and not torch.allclose(spread(), plain)
    assert torch.allclose(spread(rescale=0.7), 0.7 * plain + 0.3 * spread())


@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_outside_the_interval_the_prediction_is_conditional_for_every_scale(scale):
    x_t, network = torch.ones(6, 1, 2, 2, dtype=torch.float64), JointGaussian(schedule=LINEAR).network
    guided = cfg(scale=scale, interval=(-2.0, 2.0)).guide(network, COND, Helpers(schedule=LINEAR))
    for t, drops in ((0.9, False), (LINEAR.time_of(1.0), True)):
        expected = network(x_t, t, COND, torch.full((6,), drops))
        assert torch.equal(guided(x_t, t).x0, expected.x0) == (not drops or scale == 0)


def test_rescale_has_an_answer_at_the_clean_level():
    x_t = noise.normal(SEEDS, (1, 4, 4), 0).double()
    clean = cfg(scale=2.0, rescale=0.7).guide(JointGaussian(schedule=LINEAR).network, COND, Helpers(schedule=LINEAR))(
        x_t, 0.0
    )
    assert clean.x0.isfinite().all() and clean.eps.isfinite().all()


def test_rescale_leaves_a_flat_image_as_it_is():
    def network(x_t, t, cond, drop):
        x0 = torch.where(drop[:, None, None, None], 0.0, 0.5).expand(x_t.shape)
        return Prediction(x0=x0, eps=x_t)
    guided = cfg(scale=3.0, rescale=0.7).guide(network, COND, Helpers(schedule=LINEAR))(torch.zeros(6, 1, 4, 4), 0.5)
    assert torch.allclose(guided.x0, torch.full((6, 1, 4, 4), 1.5))


@pytest.mark.parametrize(("name", "options", "dataset", "said"), [
    ("cfg", {"inner": REGISTRY.create("conditioning", "none")}, StandInImages(), "its inner conditioning none has none"),
    ("cfg", {"inner": cfg()}, StandInImages(), "cfg around cfg would guide twice"),
    ("classifier_guidance", {"inner": cfg()}, StandInImages(), "classifier_guidance around cfg would guide twice"),
    ("film", {}, StandInImages(by_image=True), "film takes labels, and the condition of stand_in_images is an image"),
    ("classifier_guidance", {}, StandInImages(by_image=True), "classifier_guidance takes labels"),
    ("cross_attention", {"patch": 3}, StandInImages(by_image=True), "patches of 3x3, and 4x4 is not divisible by 3"),
])
def test_pairs_that_make_no_sense_have_a_reason(name, options, dataset, said):
    made = REGISTRY.create("conditioning", name, **options)
    assert said in made.why_not(cell_with(REGISTRY, conditioning=made, dataset=dataset))


def test_classifier_guidance_needs_a_first_level_with_signal():
    made = REGISTRY.create("conditioning", "classifier_guidance")
    flow = REGISTRY.create("noise_schedule", "rectified_flow")
    assert "zero terminal SNR" in made.why_not(cell_with(REGISTRY, conditioning=made, noise_schedule=flow))
    late = REGISTRY.create("spacing", "uniform", start=0.98)
    assert made.why_not(cell_with(REGISTRY, conditioning=made, noise_schedule=flow, spacing=late)) is None


@pytest.mark.parametrize(("options", "said"), [
    ({"scale": -1.0}, "scale must be a number >= 0, got -1.0"),
    ({"interval": (2.0, -2.0)}, r"interval must run from a lower to a higher log SNR, got \[2.0, -2.0\]"),
    ({"dropout": 0.0}, "dropout must be a number in"),
])
def test_nonsense_is_refused(options, said):
    with pytest.raises(diffbench.OptionError, match=said):
        cfg(**options)
