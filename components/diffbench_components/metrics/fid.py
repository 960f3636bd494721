from dataclasses import dataclass
import torch
from diffbench import Metric
@dataclass(frozen=True, kw_only=True)
class Fid(Metric):
    """Draft."""
    def column(self, extractor): return extractor.distance_column
    def measure(self, generated, reference):
        x, y = generated.features, reference.features
        a, b = x - x.mean(0), y - y.mean(0)
        ra = torch.linalg.qr(a / (len(a) - 1)**.5, mode="r")[1]; rb = torch.linalg.qr(b / (len(b) - 1)**.5, mode="r")[1]
        return {"": float(((x.mean(0) - y.mean(0))**2).sum() + (ra**2).sum() + (rb**2).sum() - 2 * torch.linalg.svdvals(ra @ rb.T).sum()), "_debiased": 0., "_low": 0., "_high": 0.}
