"""The training loop: what it does with seeds, weights, conditions and bad losses, and that it reaches the loss it can."""
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import diffbench
from diffbench import Diverged, Split
from diffbench.matrix import loading
from diffbench.stages import batches, training_loop
from diffbench.stages.batches import Batches
from tests.conftest import REGISTRY

CPU = torch.device("cpu")


def cell(**train):
    content = {"diffbench": 1, "dataset": "digits", "metrics": [], "axes": {
        "backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "scheduler": "ddim", "conditioning": {"cfg": {"inner": "film", "dropout": 0.25}}},
        "train": {"steps": 5, "batch_size": 16, **train}}
    return loading.load(content, REGISTRY).cells[0]


@pytest.fixture(scope="module")
def split():
    return REGISTRY.create("dataset", "digits").load()["train"]


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_one_seed_is_one_network_and_the_global_generator_is_left_alone(split):
    before = torch.random.get_rng_state()
    first, second = training_loop.train(cell(), split, CPU), training_loop.train(cell(), split, CPU)
    assert torch.equal(before, torch.random.get_rng_state())
    assert same(first.weights, second.weights) and first.losses == second.losses
    other = training_loop.train(replace(cell(), seed=1), split, CPU)
    assert not same(first.weights, other.weights)


def test_no_step_leaves_the_network_as_it_was_built(split):
    trained = training_loop.train(cell(steps=0), split, CPU)
    assert trained.losses == [] and same(trained.weights, training_loop.build(cell(), CPU).state_dict())


def test_the_average_follows_the_ramp(split):
    """ema = 0 is the last network; with a ramp of (1 + n)/(10 + n) the average of few steps lies between first and last."""
    last = training_loop.train(cell(ema=0.0), split, CPU).weights
    averaged = training_loop.train(cell(ema=0.999), split, CPU).weights
    first = training_loop.build(cell(), CPU).state_dict()
    name = "network.last.weight"
    assert torch.equal(first[name], torch.zeros_like(first[name]))
    assert 0 < averaged[name].norm() < last[name].norm()


def test_learning_rate_rises_and_falls():
    flat, cosine = cell(steps=100, warmup=9, lr=1.0), cell(steps=100, warmup=9, lr=1.0, lr_decay="cosine")
    assert [training_loop.learning_rate(flat, s) for s in (0, 4, 9, 99)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert training_loop.learning_rate(cosine, 9) == pytest.approx(1.0) and training_loop.learning_rate(cosine, 54) == pytest.approx(0.5, abs=0.02)
    assert training_loop.learning_rate(cosine, 99) < 0.001


def test_batches_visit_every_image_once_an_epoch_and_drop_the_share_they_should():
    few = Split(images=torch.arange(64, dtype=torch.uint8)[:, None, None, None].expand(64, 1, 8, 8).contiguous(), labels=torch.arange(64) % 10)
    few_batches = Batches(cell(), few, CPU, slice(0, 16))
    drawn = list(few_batches.draw(40))
    seen = torch.cat([((x_0[:, 0, 0, 0] + 1) * 127.5).round().long() for (x_0, *_), *_ in drawn[:4]])
    assert sorted(seen.tolist()) == list(range(64))
    share = torch.cat([drop for _, _, drop, _ in drawn]).float().mean()
    assert abs(float(share) - 0.25) < 5 * (0.25 * 0.75 / 640) ** 0.5
    for (_, _, _, level, _), _, _, c_noise in drawn:
        assert level.alpha.shape == (16, 1, 1, 1) and torch.allclose(level.alpha**2 + level.sigma**2, torch.ones(()), atol=1e-6)
        assert c_noise.min() >= 1 and c_noise.max() <= 1000 and torch.equal(c_noise, c_noise.round())


def test_a_loss_that_is_not_finite_is_said_with_its_step(split):
    with pytest.raises(Diverged, match=r"the training loss became (nan|inf) between steps \d+ and \d+"):
        training_loop.train(cell(steps=120, lr=1e30, clip=1e30, warmup=0), split, CPU)


@dataclass(frozen=True, kw_only=True)
class Linear(diffbench.Backbone):
    """One factor per noise level, tabulated: enough for Gaussian data, whose best epsilon is linear in x."""

    @property
    def signal_width(self):
        return 1

    def build(self, io):
        return _Factors()


class _Factors(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(21))

    def forward(self, x, c_noise, signals):
        place = c_noise / 50
        low = place.floor().long().clamp(max=19)
        share = place - low
        return (self.factor[low] * (1 - share) + self.factor[low + 1] * share)[:, None, None, None] * x


@dataclass(frozen=True, kw_only=True)
class FourPixels(diffbench.Dataset):
    """Images of four pixels, which the test brings."""

    image_shape = (1, 2, 2)

    def fingerprint(self):
        return ""

    def load(self):
        return {}


def test_a_linear_network_on_gaussian_data_reaches_the_closed_form():
    """eps_hat = sigma/(alpha² s² + sigma²) x is the best any network can do, and what training must find."""
    std = 0.25
    noise = torch.randn(4000, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * std
    data = Split(images=((noise.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8), labels=None)
    made = replace(cell(steps=1500, batch_size=256, lr=2e-2, lr_decay="cosine", ema=0.99), dataset=FourPixels(), backbone=Linear(),
                   conditioning=REGISTRY.create("conditioning", "none"))
    factors = training_loop.train(made, data, CPU).weights["network.factor"]
    for index in (4, 10, 16):
        alpha, sigma = made.noise_schedule.scales(index * 0.05)
        assert abs(float(factors[index]) - sigma / (alpha**2 * std**2 + sigma**2)) < 0.05


def test_the_condition_reaches_the_network(split):
    made = cell(steps=60, lr=1e-2, batch_size=64)
    model = training_loop.build(made, CPU).eval()
    model.load_state_dict(training_loop.train(made, split, CPU).weights)
    x, keep = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1, 1), torch.tensor([False, False, True])
    with torch.no_grad():
        eps = model.denoise(x, 0.5, diffbench.Condition(label=torch.tensor([0, 1, 1])), keep).eps
    assert not torch.allclose(eps[0], eps[1], atol=1e-4) and not torch.allclose(eps[1], eps[2], atol=1e-4)
    assert model.evaluations == 3


def test_levels_of_a_batch_are_those_of_the_schedule():
    made = cell()
    t = torch.tensor([0.25, 1.0], dtype=torch.float64)
    level = made.noise_schedule.level(t)
    assert [float(a) for a in level.alpha] == pytest.approx([made.noise_schedule.at(0.25).alpha, made.noise_schedule.at(1.0).alpha])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_gpu_is_bfloat16_and_close(split):
    on_gpu = training_loop.train(cell(steps=20), split, torch.device("cuda"))
    on_cpu = training_loop.train(cell(steps=20), split, CPU)
    assert training_loop.uses_bfloat16(cell(), torch.device("cuda")) and not training_loop.uses_bfloat16(cell(), CPU)
    assert on_gpu.losses[-1] == pytest.approx(on_cpu.losses[-1], rel=0.1)


class Read:
    """Images that are read by their numbers; it notes how many at a time."""

    def __init__(self, images):
        self.stored, self.counts = images, []

    def __len__(self):
        return len(self.stored)

    def __getitem__(self, rows):
        self.counts.append(len(rows))
        return self.stored[rows]


def test_images_that_are_read_by_their_numbers_train_the_same_network(split):
    read = Read(split.images)
    lazily = training_loop.train(cell(flip=True), Split(images=read, labels=split.labels), CPU)
    assert read.counts == [1, *[16] * 5], "one to see what they are, then each batch"
    at_once = training_loop.train(cell(flip=True), split, CPU)
    assert lazily.losses == at_once.losses and same(lazily.weights, at_once.weights)
    assert torch.equal(Split(images=read).in_memory().images, split.images)


def test_a_condition_that_is_read_by_its_numbers_is_that_of_its_image(split):
    images = REGISTRY.create("dataset", "super_resolution", inner=REGISTRY.create("dataset", "digits")).load()["train"]
    of = {}
    for name, conditions in (("read", Read(images.conditions)), ("at once", images.conditions)):
        drawn = list(Batches(cell(flip=True), replace(images, conditions=conditions), CPU, slice(4, 12)).draw(3))
        of[name] = [(noised.x_0, cond.image) for noised, cond, _, _ in drawn]
    for (x_0, small), (same_x_0, same_small) in zip(of["read"], of["at once"], strict=True):
        assert torch.equal(x_0, same_x_0) and torch.equal(small, same_small)
        assert torch.allclose(torch.nn.functional.avg_pool2d(x_0, 2), small, atol=1.01 / 255), "mirrored together"


def test_a_data_set_lies_on_a_gpu_where_it_takes_a_quarter_of_what_is_free(split, monkeypatch):
    size = split.images.nbytes + split.labels.nbytes
    for free, expected in ((4 * size, True), (4 * size - 1, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * free))
        assert batches.fits(split, torch.device("cuda")) == expected
    assert batches.fits(split, CPU) and not batches.fits(Split(images=Read(split.images)), CPU)
