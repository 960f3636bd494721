"""The Fréchet distance at Inception's 2,048 features against the route over scipy's sqrtm.

    python benchmarks/frechet_against_sqrtm.py [--features D] [--count N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy
import scipy.linalg
import torch
from torch import Tensor

from diffbench import frechet_distance, jackknife_blocks, moments


def by_sqrtm(x: numpy.ndarray, y: numpy.ndarray) -> float:
    c_x, c_y = numpy.cov(x, rowvar=False), numpy.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(c_x @ c_y)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + numpy.trace(c_x) + numpy.trace(c_y)
                 - 2 * numpy.trace(root.real))


def timed(label: str, work: Callable[[], float]) -> float:
    start = time.perf_counter()
    value = work()
    print(f"{label:>40}: {time.perf_counter() - start:7.2f} s, {value!r}", flush=True)
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--count", type=int, default=5000)
    arguments, generator = parser.parse_args(), torch.Generator().manual_seed(0)
    torch.set_num_threads(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)
    width, count = arguments.features, arguments.count
    mix = normal(width, width) / width**0.5 * torch.linspace(1.5, 0.01, width, dtype=torch.float64)
    x, y = normal(count, width) @ mix, normal(count, width) @ mix * 1.1 + 0.02
    reference = moments(y)
    timed("distance", lambda: frechet_distance(x, y))
    timed("distance, moments of the reference known", lambda: frechet_distance(x, reference))
    timed("with its jackknife", lambda: frechet_distance(x, reference, jackknife_blocks(count)).value)
    timed("scipy's sqrtm", lambda: by_sqrtm(x.numpy(), y.numpy()))


if __name__ == "__main__":
    main()
