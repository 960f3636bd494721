"""Fashion-MNIST."""

from dataclasses import dataclass

from diffbench_components.datasets.published import IdxImages


@dataclass(frozen=True, kw_only=True)
class FashionMnist(IdxImages):
    """70,000 grey images of clothes in ten classes, 28x28 pixels, padded with black to 32x32 by default.

    Splits as in `mnist`, less test images that are copies of others. The four published .gz files lie in DIFFBENCH_DATA
    (`--data-root`), in torchvision's layout FashionMNIST/raw.
    Source: Xiao et al. 2017, arXiv:1708.07747; MIT licence.
    """

    def files(self) -> dict[str, str]:
        order = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
                 "t10k-labels-idx1-ubyte.gz")
        published = dict(self.torchvision_class().resources)
        return {name: published[name] for name in order}

    def torchvision_class(self) -> type:
        from torchvision.datasets import FashionMNIST

        return FashionMNIST

    def folder(self) -> str:
        return "FashionMNIST"
