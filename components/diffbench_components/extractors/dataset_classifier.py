from dataclasses import dataclass
import torch
from diffbench import Extractor, Classifier, fit_classifier
@dataclass(frozen=True, kw_only=True)
class DatasetClassifier(Extractor):
    """Draft."""
    default_of_kind = True
    def fit(self, train, seed, device):
        m, f = fit_classifier(train.images, train.labels, 10, seed, device); return m.weights(), f
    def features(self, weights, images, device):
        with torch.no_grad(): return Classifier.from_weights(weights).features(images.float()/127.5-1).double()
