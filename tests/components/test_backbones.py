"""Every backbone: shapes, zero at birth, what changes the output and what must not; then sizes against the published counts."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from diffbench import Io, OptionError, Signals
from tests.conftest import REGISTRY, all_of

SQUARE, WIDE = (1, 8, 8), (3, 8, 16)


def configurations() -> list:
    """Every backbone as it stands, and small forms that reach what the defaults leave out."""
    small = [
        ("unet", {"channels": 12, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "heads": 2, "dropout": 0.5}),
        ("unet", {"channels": 8, "multipliers": (3,), "blocks": 1}),
        ("dit", {"patch": 1, "depth": 1, "width": 12, "heads": 3, "mlp_ratio": 1.5}),
        ("dit", {"patch": 4, "depth": 2, "width": 16, "heads": 1}),
    ]
    forms = [pytest.param(REGISTRY.create("backbone", name, **options), id=f"{name}-{options}") for name, options in small]
    return all_of("backbone") + forms


def why_not(backbone, shape):
    return backbone.why_not(SimpleNamespace(dataset=SimpleNamespace(image_shape=shape, classes=10)))


def built(backbone, shape=SQUARE, perturbed=True):
    """The network on images of one shape; `perturbed` replaces tensors that start at zero, as a first training step would."""
    reason = why_not(backbone, shape)
    if reason:
        pytest.skip(reason)
    channels, height, width = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = backbone.build(Io(channels=channels, height=height, width=width, classes=10, signal_width=backbone.signal_width))
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters() if perturbed else ():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05, generator=generator)
    return network.eval()


def inputs(backbone, batch=3, shape=SQUARE):
    """Images, levels in [0, 1000] and every signal the backbone takes."""
    generator = torch.Generator().manual_seed(2)
    offered = {"maps": (shape[0], *shape[1:]), "tokens": (4, backbone.signal_width), "vector": (backbone.signal_width,)}
    signals = Signals(**{port: torch.randn(batch, *offered[port], generator=generator) for port in backbone.ports})
    return torch.randn(batch, *shape, generator=generator), torch.linspace(1000, 50, batch), signals


@pytest.mark.parametrize("backbone", configurations())
class TestEveryBackbone:
    @pytest.mark.parametrize("shape", [SQUARE, WIDE], ids=["square", "wide"])
    @pytest.mark.parametrize("batch", [1, 3])
    def test_the_output_has_the_shape_of_the_image(self, backbone, batch, shape):
        x, c_noise, signals = inputs(backbone, batch, shape)
        out = built(backbone, shape)(x, c_noise, signals)
        assert out.shape == x.shape and out.dtype == x.dtype and out.isfinite().all()

    def test_runs_without_signals(self, backbone):
        x, c_noise, _ = inputs(backbone)
        assert built(backbone)(x, c_noise, Signals()).isfinite().all()

    def test_is_zero_at_birth(self, backbone):
        assert not built(backbone, perturbed=False)(*inputs(backbone)).any()

    def test_every_parameter_learns(self, backbone):
        network = built(backbone).train()
        network(*inputs(backbone)).square().sum().backward()
        still = [name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()]
        assert not still

    def test_the_level_changes_the_output(self, backbone):
        network = built(backbone)
        x, c_noise, signals = inputs(backbone)
        assert relative(network(x, c_noise - 20, signals), network(x, c_noise, signals)) > 1e-4

    def test_each_signal_changes_the_output(self, backbone):
        network = built(backbone)
        x, c_noise, signals = inputs(backbone)
        for port in backbone.ports:
            others = {other: getattr(signals, other) for other in backbone.ports - {port}}
            changed = Signals(**others, **{port: -getattr(signals, port)})
            assert relative(network(x, c_noise, changed), network(x, c_noise, signals)) > 1e-4, port

    def test_a_sample_does_not_depend_on_the_others(self, backbone):
        network = built(backbone)
        x, c_noise, signals = inputs(backbone)
        alone = Signals(**{port: getattr(signals, port)[1:2] for port in backbone.ports})
        assert relative(network(x[1:2], c_noise[1:2], alone), network(x, c_noise, signals)[1:2]) < 1e-5

    def test_bfloat16_is_close_to_float32(self, backbone):
        network = built(backbone)
        with torch.autocast("cpu", torch.bfloat16):
            out = network(*inputs(backbone))
        assert relative(out.float(), network(*inputs(backbone))) < 0.03

    def test_compiles_into_one_graph(self, backbone):
        torch.compiler.reset()
        network = built(backbone)
        compiled = torch.compile(network, fullgraph=True, backend="eager")
        with torch.no_grad():
            assert relative(compiled(*inputs(backbone)), network(*inputs(backbone))) < 1e-5


def relative(found, expected):
    """The size of the difference in sizes of what was expected."""
    return float(((found - expected).norm() / expected.norm()).detach())


def parameters(name, shape, **options):
    """Number of parameters, without making them."""
    backbone = REGISTRY.create("backbone", name, **options)
    channels, height, width = shape
    with torch.device("meta"):
        network = backbone.build(Io(channels=channels, height=height, width=width, classes=None, signal_width=backbone.signal_width))
    return sum(parameter.numel() for parameter in network.parameters())


SIZES = {"S": (12, 384, 6, 33.0), "B": (12, 768, 12, 130.5), "L": (24, 1024, 16, 458.1), "XL": (28, 1152, 16, 675.1)}


@pytest.mark.parametrize(("depth", "width", "heads", "millions"), SIZES.values(), ids=SIZES)
def test_dit_has_the_published_size(depth, width, heads, millions):
    """Peebles & Xie 2023 at patch 2 on 32x32x4 latents. They also count 1000 + 1 labels (in our conditioning), the outputs of the
    learned variance (another 2 * 2 * 4 per patch) and the fixed positions of 16 * 16 patches (our buffer)."""
    ours = parameters("dit", (4, 32, 32), patch=2, depth=depth, width=width, heads=heads)
    labels, variance, positions = 1001 * width, (width + 1) * 2 * 2 * 4, 16 * 16 * width
    assert round((ours + labels + variance + positions) / 1e6, 1) == millions


def test_the_default_dit_is_s_2():
    s_2 = REGISTRY.create("backbone", "dit", patch=2, depth=12, width=384, heads=6)
    assert REGISTRY.create("backbone", "dit") == s_2


def test_dit_puts_every_patch_back_where_it_was():
    """At birth blocks are the identity, so with a last layer a pixel is seen in its own patch and nowhere else."""
    network = built(REGISTRY.create("backbone", "dit", patch=2, depth=1, width=16, heads=2), WIDE, perturbed=False)
    nn.init.normal_(network.last.weight, generator=torch.Generator().manual_seed(3))
    x, c_noise, _ = inputs(REGISTRY.create("backbone", "dit"), 1, WIDE)
    changed = x.clone()
    changed[0, 0, 5, 12] += 1
    rows, columns = (network(changed, c_noise, Signals()) - network(x, c_noise, Signals()))[0].abs().sum(0).nonzero(as_tuple=True)
    assert sorted(set(zip(rows.tolist(), columns.tolist(), strict=True))) == [(4, 12), (4, 13), (5, 12), (5, 13)]


def test_unet_has_the_size_of_ddpm():
    """Ho et al. 2020 on CIFAR-10: 35 746 307 parameters. Our 22 residual blocks project the time, 512 wide, to a scale and a shift
    instead of a shift alone: (512 + 1) more for each output feature of a block, 128 at full resolution and 256 below."""
    features = (2 + 3) * 128 + 3 * (2 + 3) * 256 + 2 * 256                     # going down + up, the levels below, the middle
    ours = parameters("unet", (3, 32, 32), channels=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), dropout=0.1)
    assert ours == 35_746_307 + 513 * features


@pytest.mark.parametrize(("name", "options", "said"), [
    ("dit", {"width": 64, "heads": 5}, "width must be divisible by heads, got width 64 and heads 5"),
    ("dit", {"width": 66, "heads": 3}, "width must be divisible by 4 .*, got 66"),
    ("unet", {"channels": 25}, "channels must be even .*, got 25"),
    ("unet", {"channels": 18, "attention": (8,)}, "channels must be divisible by heads, got channels 18 and heads 4"),
    ("unet", {"multipliers": ()}, "multipliers must be a list of integers"),
    ("unet", {"dropout": 1.0}, r"dropout must be a number in \[0.*1\), got 1.0"),
])
def test_options_that_do_not_fit_are_refused_at_birth(name, options, said):
    with pytest.raises(OptionError, match=said):
        REGISTRY.create("backbone", name, **options)


@pytest.mark.parametrize(("name", "options", "shape", "said"), [
    ("dit", {"patch": 4}, (1, 10, 8), "10x8 is not divisible by 4"),
    ("unet", {"multipliers": (1, 2, 2, 2)}, (1, 28, 28), "halves the image 3 times, and 28x28 is not divisible by 8"),
    ("unet", {"attention": (16,)}, (1, 28, 28), "attend at image heights 16, and on 28x28 its levels have 28, 14, 7"),
])
def test_images_that_do_not_fit_are_refused(name, options, shape, said):
    backbone = REGISTRY.create("backbone", name, **options)
    assert said in why_not(backbone, shape)
    assert why_not(backbone, (1, 64, 64)) is None
