"""Checks of backbones, with each socket filled and with none, on square and on wide images. Used by `conformance`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffbench.contracts.dataset import Dataset
from diffbench.contracts.model import Backbone, Conditioning
from diffbench.contracts.values import Io, Signals, Split
from diffbench.registry.registry import Registry
from diffbench.testing.stand_ins import StandInImages, cell_with
from diffbench.testing.verdicts import NotApplicable

Checks = Iterator[tuple[str, Callable[[], Any]]]
SQUARE, WIDE = (1, 8, 8), (3, 8, 16)
TOKENS, MAPS = 3, 2                   # of the signals


@dataclass(frozen=True)
class Use:
    """One use of a network: the sockets that are filled, the shape of images, with a learned variance or without."""

    name: str
    ports: frozenset[str] = frozenset()
    tokens_enter: str = "cross_attention"
    shape: tuple[int, int, int] = SQUARE
    learned_variance: bool = False


def backbone_checks(registry: Registry, backbone: Backbone) -> Checks:
    """Checks of shapes, gradients, untrained output, compilation, precision, signals and independence of samples."""
    uses = [Use("nothing"), Use("nothing, wide images, learned variance", shape=WIDE, learned_variance=True)]
    for port in sorted(backbone.ports - {"tokens"}):
        uses.append(Use(port, frozenset({port})))
    if "tokens" in backbone.ports:
        uses += [Use("tokens by cross-attention", frozenset({"tokens"})),
                 Use("tokens in context", frozenset({"tokens"}), "in_context")]
    if len(backbone.ports) > 1:
        uses.append(Use("every socket, wide images", backbone.ports, shape=WIDE))
    if len(backbone.ports) > 1 and "tokens" in backbone.ports:
        uses.append(Use("every socket, tokens in context, learned variance", backbone.ports, "in_context",
                        learned_variance=True))
    for use in uses:
        for statement, check in (("answers with the shape of the image", _shape),
                                 ("has parameters that all learn", _gradients),
                                 ("is close to itself in bfloat16", _bfloat16),
                                 ("hears the level and every signal", _reads_signals),
                                 ("gives an output that does not depend on the batch", _independent)):
            yield f"{statement}, filled: {use.name}", partial(check, registry, backbone, use)
        if use.ports == backbone.ports:                   # compiling takes the time of all the others
            yield f"compiles into one graph, filled: {use.name}", partial(_compiles, registry, backbone, use)
        if backbone.starts_at_zero:
            yield f"starts at zero, filled: {use.name}", partial(_zero, registry, backbone, use)


@dataclass(frozen=True, kw_only=True)
class _Shaped(Dataset):
    """A data set that has a shape only."""

    of_images: tuple[int, int, int]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.of_images

    def fingerprint(self) -> str:
        return "0" * 64

    def load(self) -> dict[str, Split]:
        return StandInImages().load()


@dataclass(frozen=True, kw_only=True)
class _Filling(Conditioning):
    """A conditioning that names the sockets it fills and does nothing else."""

    sockets: tuple[str, ...] = ()
    enter: str = "cross_attention"

    @property
    def ports(self) -> frozenset[str]:
        return frozenset(self.sockets)

    @property
    def tokens_enter(self) -> str:
        return self.enter

    def build(self, io: Io) -> nn.Module:
        raise AssertionError("it is asked what it fills, not to fill it")


def _built(registry: Registry, backbone: Backbone, use: Use, perturbed: bool = True) -> nn.Module:
    """The network of one use. `perturbed` replaces tensors that start at zero, as a first training step would."""
    filling = _Filling(sockets=tuple(sorted(use.ports)), enter=use.tokens_enter)
    reason = backbone.why_not(cell_with(registry, backbone=backbone, dataset=_Shaped(of_images=use.shape),
                                        conditioning=filling))
    if reason:
        raise NotApplicable(reason)
    io = Io(shape=use.shape, signal_width=backbone.signal_width, classes=10, ports=use.ports,
            map_channels=MAPS if "maps" in use.ports else 0, tokens_enter=use.tokens_enter,
            learned_variance=use.learned_variance)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = backbone.build(io)
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters() if perturbed else ():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05, generator=generator)
    return network.eval()


def _inputs(backbone: Backbone, use: Use, batch: int = 3) -> tuple[Tensor, Tensor, Signals]:
    """Images, levels from 1000 down, and the signals of a use."""
    generator = torch.Generator().manual_seed(2)
    offered = {"maps": (MAPS, *use.shape[1:]), "tokens": (TOKENS, backbone.signal_width),
               "vector": (backbone.signal_width,)}
    x = torch.randn(batch, *use.shape, generator=generator)
    return x, torch.linspace(1000, 50, batch), Signals(**{port: torch.randn(batch, *offered[port], generator=generator)
                                                          for port in sorted(use.ports)})


def _relative_difference(actual: Tensor, expected: Tensor) -> float:
    return float(((actual - expected).norm() / expected.norm()).detach())


def _shape(registry: Registry, backbone: Backbone, use: Use) -> None:
    network = _built(registry, backbone, use)
    for batch in (1, 3):
        x, c_noise, signals = _inputs(backbone, use, batch)
        with torch.no_grad():
            out = network(x, c_noise, signals)
        expected = (batch, use.shape[0] * (2 if use.learned_variance else 1), *use.shape[1:])
        assert (out.shape == expected and out.dtype == x.dtype
                and out.isfinite().all()), f"a batch of {batch} gives {out.dtype} {list(out.shape)}"


def _gradients(registry: Registry, backbone: Backbone, use: Use) -> None:
    network = _built(registry, backbone, use).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network(*_inputs(backbone, use)).square().sum().backward()
    sizes = {name: 0.0 if p.grad is None else float(p.grad.norm())
             for name, p in network.named_parameters() if p.requires_grad}
    still = [name for name, size in sizes.items() if size < 1e-6 * max(sizes.values())]        # less is rounding
    assert not still, f"no gradient reaches {', '.join(still[:5])}" + (
        f" and {len(still) - 5} more" if len(still) > 5 else "")


def _zero(registry: Registry, backbone: Backbone, use: Use) -> None:
    with torch.no_grad():
        out = _built(registry, backbone, use, perturbed=False)(*_inputs(backbone, use))
    assert not out.any(), f"an untrained network answers {float(out.abs().max()):.2g}"


def _compiles(registry: Registry, backbone: Backbone, use: Use) -> None:
    network = _built(registry, backbone, use)
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        difference = _relative_difference(compiled(*_inputs(backbone, use)), network(*_inputs(backbone, use)))
    torch.compiler.reset()
    assert difference < 1e-5, f"compiled and eager output differ by {difference:.2g}"


def _bfloat16(registry: Registry, backbone: Backbone, use: Use) -> float:
    network = _built(registry, backbone, use)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            out = network(*_inputs(backbone, use)).float()
        difference = _relative_difference(out, network(*_inputs(backbone, use)))
    assert difference < 0.05, f"differs by {difference:.2g}"
    return difference


def _reads_signals(registry: Registry, backbone: Backbone, use: Use) -> None:
    network = _built(registry, backbone, use)
    x, c_noise, signals = _inputs(backbone, use)
    with torch.no_grad():
        plain = network(x, c_noise, signals)
        # of DDPM's range, and of EDM's log(sigma)/4
        for levels, step in ((c_noise, -20.0), (c_noise / 250 - 2, 1.0)):
            assert _relative_difference(network(x, levels + step, signals),
                                        network(x, levels,
                                                signals)) > 1e-4, f"a level further by {step:g} changes nothing"
        for port in use.ports:
            others = {other_port: getattr(signals, other_port) for other_port in use.ports - {port}}
            changed = Signals(**others, **{port: -getattr(signals, port)})
            assert _relative_difference(network(x, c_noise, changed), plain) > 1e-4, f"other {port} change nothing"


def _independent(registry: Registry, backbone: Backbone, use: Use) -> float:
    network = _built(registry, backbone, use)
    x, c_noise, signals = _inputs(backbone, use)
    alone = Signals(**{port: getattr(signals, port)[1:2] for port in use.ports})
    with torch.no_grad():
        difference = _relative_difference(network(x[1:2], c_noise[1:2], alone), network(x, c_noise, signals)[1:2])
    assert difference < 1e-5, f"differs by {difference:.2g}"
    return difference
