"""MNIST."""

from dataclasses import dataclass

from diffbench_components.datasets.published import IdxImages


@dataclass(frozen=True, kw_only=True)
class Mnist(IdxImages):
    """70,000 grey images of handwritten digits in ten classes, 28x28 pixels, padded with black to 32x32 by default.

    Splits: train is the published training set (or a stratified part of it), reference and held out are the two
    stratified halves of the published test set, 5,000 images each. The files lie in DIFFBENCH_DATA (`--data-root`), in
    torchvision's layout MNIST/raw.
    Source: LeCun, Cortes & Burges 1998; CC BY-SA 3.0.
    """

    def files(self) -> dict[str, str]:
        return {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        }

    def torchvision_class(self) -> type:
        from torchvision.datasets import MNIST

        return MNIST

    def folder(self) -> str:
        return "MNIST"
