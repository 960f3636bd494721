"""What each of our backbones promises of itself; what every backbone must do is in `test_conformance.py`."""

import functools
from dataclasses import fields
from types import SimpleNamespace
from typing import Literal, get_args, get_origin

import pytest
import torch
from diffbench_components.backbones.attention import LinearAttention
from diffbench_components.backbones.embeddings import sinusoids
from diffbench_components.backbones.pyramid import Halve, doubled
from torch import nn

from diffbench import Io, OptionError, Signals
from tests.conftest import REGISTRY

SQUARE, WIDE = (1, 8, 8), (3, 8, 16)
ALL = frozenset({"maps", "tokens", "vector"})
SOCKETS = {                           # what a conditioning fills and an objective asks for, as fields of Io
    "nothing": {},
    "maps": {"ports": frozenset({"maps"}), "map_channels": 2},
    "vector": {"ports": frozenset({"vector"})},
    "tokens_cross_attention": {"ports": frozenset({"tokens"})},
    "tokens_in_context": {"ports": frozenset({"tokens"}), "tokens_enter": "in_context"},
    "all_cross_attention": {"ports": ALL, "map_channels": 1, "learned_variance": True},
    "all_in_context": {"ports": ALL, "map_channels": 1, "tokens_enter": "in_context"},
}


def configurations() -> list:
    """The small forms that every backbone names, on sockets it has."""
    found = []
    for ref in REGISTRY.refs("backbone"):
        for options in REGISTRY.load(ref).examples:
            backbone = REGISTRY.create("backbone", ref.full_name, **options)
            written = "-".join(f"{option}={value}" for option, value in options.items()).replace(" ", "")
            found += [pytest.param(backbone, sockets, id=f"{ref.full_name}-{written}-{name}")
                      for name, sockets in SOCKETS.items() if sockets.get("ports", frozenset()) <= backbone.ports]
    return found


def why_not(backbone, shape):
    return backbone.why_not(SimpleNamespace(data_shape=shape))


def io_of(backbone, shape, **sockets):
    return Io(shape=shape, classes=10, signal_width=backbone.signal_width, **sockets)


@functools.lru_cache(maxsize=4)
def _built(backbone, io, perturbed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = backbone.build(io)
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters() if perturbed else ():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05, generator=generator)
    return network


def built(backbone, sockets, shape=SQUARE, perturbed=True):
    """The network on images of one shape; `perturbed` replaces tensors that start at zero, as a first training step would."""
    reason = why_not(backbone, shape)
    if reason:
        pytest.skip(reason)
    return _built(backbone, io_of(backbone, shape, **sockets), perturbed).eval()


def inputs(backbone, sockets, batch=3, shape=SQUARE):
    """Images, levels in [0, 1000] and every signal that is filled."""
    generator = torch.Generator().manual_seed(2)
    offered = {"maps": (sockets.get("map_channels", 0), *shape[1:]), "tokens": (4, backbone.signal_width), "vector": (backbone.signal_width,)}
    signals = {port: torch.randn(batch, *offered[port], generator=generator) for port in sorted(sockets.get("ports", ()))}
    return torch.randn(batch, *shape, generator=generator), torch.linspace(1000, 50, batch), Signals(**signals)


def replaced(signals, **changes):
    return Signals(**{**vars(signals), **changes})


@pytest.mark.parametrize(("backbone", "sockets"), [p for p in configurations() if "tokens" in p.values[1].get("ports", ())])
def test_the_order_of_tokens_is_theirs_to_tell(backbone, sockets):
    """Attention does not see an order: who needs one puts it into the tokens."""
    network = built(backbone, sockets)
    x, c_noise, signals = inputs(backbone, sockets)
    assert relative(network(x, c_noise, replaced(signals, tokens=signals.tokens.flip(1))), network(x, c_noise, signals)) < 1e-5


def relative(found, expected):
    """The size of the difference in sizes of what was expected."""
    return float(((found - expected).norm() / expected.norm()).detach())


def test_dit_puts_every_patch_back_where_it_was():
    """At birth blocks are the identity, so with a last layer a pixel is seen in its own patch and nowhere else."""
    backbone = REGISTRY.create("backbone", "dit", patch=2, depth=1, width=16, heads=2)
    network = backbone.build(io_of(backbone, WIDE)).eval()
    nn.init.normal_(network.last.weight, generator=torch.Generator().manual_seed(3))
    x, c_noise, _ = inputs(backbone, {}, 1, WIDE)
    changed = x.clone()
    changed[0, 0, 5, 12] += 1
    rows, columns = (network(changed, c_noise, Signals()) - network(x, c_noise, Signals()))[0].abs().sum(0).nonzero(as_tuple=True)
    assert sorted(set(zip(rows.tolist(), columns.tolist(), strict=True))) == [(4, 12), (4, 13), (5, 12), (5, 13)]


@pytest.mark.parametrize("block", ["adaln_zero", "adaln", "in_context"])
def test_cross_attention_to_tokens_adds_nothing_at_birth(block):
    """PixArt: a network with tokens starts as the one without, but where its own kind of block is cross-attention."""
    backbone = REGISTRY.create("backbone", "dit", depth=2, width=16, heads=2, block=block)
    network = backbone.build(io_of(backbone, SQUARE, **SOCKETS["tokens_cross_attention"]))
    nn.init.normal_(network.last.weight, generator=torch.Generator().manual_seed(3))
    x, c_noise, signals = inputs(backbone, SOCKETS["tokens_cross_attention"])
    assert torch.equal(network(x, c_noise, signals), network(x, c_noise, replaced(signals, tokens=-signals.tokens)))


@pytest.mark.parametrize("preset", ["tiny", "small"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)], ids=str)
def test_the_small_unets_take_small_images(preset, shape):
    backbone = REGISTRY.create("backbone", "unet", preset=preset)
    assert why_not(backbone, shape) is None
    with torch.device("meta"):
        x = torch.empty(1, *shape)
        assert backbone.build(io_of(backbone, shape))(x, torch.empty(1), Signals()).shape == x.shape


@pytest.mark.parametrize("ref", REGISTRY.refs("backbone"), ids=lambda ref: ref.full_name)
def test_the_examples_reach_every_option(ref):
    """Every option is at least once not at its default, and every choice of a few is made."""
    cls = REGISTRY.load(ref)
    made = [REGISTRY.create("backbone", ref.full_name, **options) for options in cls.examples]
    for option in fields(cls):
        choices = get_args(option.type) if get_origin(option.type) is Literal else ()
        values = {getattr(backbone, option.name) for backbone in made}
        assert values - {option.default} and values >= set(choices), option.name


def test_pooling_then_doubling_keeps_what_is_constant_on_four_pixels():
    x = torch.randn(2, 8, 3, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(doubled(8, "pool")(Halve(8, "pool")(x, None, None)), x, atol=1e-6)


def test_linear_attention_equals_its_definition():
    """Shen et al. 2021 with the matrix of all pairs written out, which the layer never makes; its rows sum to 1."""
    layer, h = LinearAttention(8, 2), torch.randn(3, 5, 8)
    q, k, v = layer.qkv(h).reshape(3, 5, 3, 2, 4).unbind(2)                        # [B, L, heads, d] each
    pairs = torch.einsum("blhd,bmhd->bhlm", q.softmax(3), k.softmax(1))
    assert torch.allclose(pairs.sum(3), torch.ones(3, 2, 5))
    assert torch.allclose(layer(h), layer.project(torch.einsum("bhlm,bmhd->blhd", pairs, v).flatten(2)), atol=1e-6)


@pytest.mark.parametrize("c_noise", [torch.tensor([-2.0, -1.99, 0.0, 2.0]), torch.tensor([0.0, 1.0, 999.0, 1000.0])], ids=["edm", "ddpm"])
def test_sinusoids_tell_levels_apart_in_float32(c_noise):
    """cos w c, then sin w c, w from 1 down to 1e-4; bfloat16 around them changes nothing."""
    with torch.autocast("cpu", torch.bfloat16):
        wave = sinusoids(c_noise, 8)
    w = 10000 ** (-torch.arange(4, dtype=torch.float64) / 4)
    phase = c_noise.double()[:, None] * w
    assert wave.dtype == torch.float32
    assert torch.allclose(wave.double(), torch.cat([phase.cos(), phase.sin()], dim=1), atol=1e-4)
    assert torch.pdist(wave).min() > 5e-3


@pytest.mark.parametrize(("name", "options", "said"), [
    ("dit", {"width": 64, "heads": 5}, "width must be divisible by heads, got width 64 and heads 5"),
    ("dit", {"width": 66, "heads": 3}, "width must be divisible by 4 .*, got 66"),
    ("unet", {"channels": 25}, "channels must be even .*, got 25"),
    ("unet", {"channels": 18, "attention": (8,)}, "channels must be divisible by heads, got channels 18 and heads 4"),
    ("unet", {"attention": (8, 16), "linear_attention": (32, 16)}, "full attention or linear attention, got 16 in both"),
    ("unet", {"block": "resnext"}, "block must be one of 'resnet', 'convnext', got 'resnext'"),
    ("unet", {"multipliers": ()}, "multipliers must be a list of integers"),
    ("unet", {"dropout": 1.0}, r"dropout must be a number in \[0.*1\), got 1.0"),
])
def test_options_that_do_not_fit_are_refused_at_birth(name, options, said):
    with pytest.raises(OptionError, match=said):
        REGISTRY.create("backbone", name, **options)


@pytest.mark.parametrize(("name", "options", "shape", "said"), [
    ("dit", {"patch": 4}, (1, 10, 8), "10x8 is not divisible by 4"),
    ("unet", {"multipliers": (1, 2, 2, 2)}, (1, 28, 28), "halves the image 3 times, and 28x28 is not divisible by 8"),
    ("dit", {"patch": 8}, (1, 8, 8), "sees 8x8 as a single patch, and attention needs two"),
    ("unet", {"attention": (16,), "linear_attention": (32,)}, (1, 28, 28), "attend at image heights 16, 32, and on 28x28 its levels have 28, 14, 7"),
    ("unet", {"attention": (16,)}, (1, 28, 28), "attend at image heights 16, and on 28x28 its levels have 28, 14, 7"),
])
def test_images_that_do_not_fit_are_refused(name, options, shape, said):
    backbone = REGISTRY.create("backbone", name, **options)
    assert said in why_not(backbone, shape)
    assert why_not(backbone, (1, 64, 64)) is None
