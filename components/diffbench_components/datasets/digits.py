from dataclasses import dataclass

import torch

from diffbench import Dataset, Split


@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """Draft."""
    @property
    def image_shape(self): return (1, 8, 8)
    @property
    def classes(self): return 10
    def fingerprint(self): return "0" * 64
    def load(self):
        from sklearn.datasets import load_digits
        d = load_digits()
        x = torch.from_numpy((d.images * 255 / 16).round()).to(torch.uint8)[:, None]
        y = torch.from_numpy(d.target).long()
        p = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        s = {"train": p[:1000], "reference": p[1000:1400], "held_out": p[1400:]}
        return {k: Split(images=x[i], labels=y[i]) for k, i in s.items()}
