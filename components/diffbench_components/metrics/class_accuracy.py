from dataclasses import dataclass
from diffbench import Metric
@dataclass(frozen=True, kw_only=True)
class ClassAccuracy(Metric):
    """Draft."""
    needs_judge = True
    def measure(self, generated, reference):
        return {"": float((generated.predicted == generated.labels).double().mean())}
