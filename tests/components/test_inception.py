"""Inception-v3: its weights are the right ones or refused, and its numbers are those of two libraries on the same images and weights."""

import os
import pickle

import filelock
import numpy
import pytest
import torch
from diffbench_components.extractors import inception
from torch_fidelity import calculate_metrics
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

import diffbench
from benchmarks.gpu.evaluation import random_weights
from diffbench import DataError, Evidence, Real
from diffbench.contracts import published
from diffbench.stages.evaluate import as_columns
from tests.conftest import REGISTRY

CPU = torch.device("cpu")
COUNTS = [20, 50, 500, 5000] if os.environ.get("DIFFBENCH_PARITY") == "long" else [20]


@pytest.fixture(scope="module")
def weights_file(shared_folder):
    path = shared_folder / "inception.pth"
    with filelock.FileLock(shared_folder / "inception.lock"):
        if not path.exists():
            torch.save(random_weights(), path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)
    return path


@pytest.fixture
def extractor(weights_file, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_INCEPTION", str(weights_file))
    return REGISTRY.create("extractor", "inception")


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    monkeypatch.delenv("DIFFBENCH_INCEPTION", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path


def images(seed, count, channels):
    """Smooth coloured patterns with noise: resizing matters, and no two sets are the same."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 5, 5, generator=generator) * (220 - 60 * seed)
    fine = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic") + 12 * torch.randn(count, channels, 32, 32, generator=generator)
    return fine.round().clamp(0, 255).to(torch.uint8)


class Images(torch.utils.data.Dataset):
    def __init__(self, tensors):
        self.tensors = tensors

    def __len__(self):
        return len(self.tensors)

    def __getitem__(self, index):
        return self.tensors[index]


class Remembering(torch.nn.Module):
    """A network that sees each batch once, however many metrics ask."""

    num_features = 2048

    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, {}

    def forward(self, batch):
        key = (tuple(batch.shape), int(batch.long().sum()), int((batch.long() * torch.arange(batch.numel()).view_as(batch)).sum()))
        if key not in self.seen:
            self.seen[key] = self.net(batch)
        return self.seen[key]


@pytest.mark.slow
@pytest.mark.timeout(3600)            # a busy core sees one image a second, and 20 images are 120 that are seen
@pytest.mark.parametrize("count", COUNTS)
def test_the_numbers_are_those_of_two_libraries(extractor, weights_file, count):
    """On colour images against grey ones. FID, precision and recall, inception score: relative difference below 1e-4. KID, which both of them compute in float32 so that kernel sums of
    order 1 leave three digits of it: below 1e-4 where their function is given our float64 features, below 1e-2 on their own.
    """
    x, y = images(0, count, 3), images(1, count + 5, 1)
    fitted, facts = extractor.fit(None, 0, CPU)
    assert facts["sha256"] == extractor.fingerprint()
    seen = [Evidence(images=i, labels=None, predicted=None, **extractor.look(fitted, i, CPU)) for i in (x, y)]
    real = Real(reference=seen[1], held_out=seen[1])
    metrics = {"fid": {}, "kid": {}, "prdc": {"k": 3}, "inception_score": {"splits": 5}}
    ours = {name: as_columns(REGISTRY.create("metric", name, **options).measure(seen[0], real))["values"] for name, options in metrics.items()}

    colour = [i.expand(-1, 3, -1, -1).contiguous() for i in (x, y)]
    peer = calculate_metrics(
        input1=Images(colour[0]), input2=Images(colour[1]), feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights_file), cuda=False,
        fid=True, kid=True, prc=True, isc=True, kid_subsets=1, kid_subset_size=count, isc_splits=5, samples_shuffle=False, prc_neighborhood=3, cache=False,
        save_cpu_ram=True, verbose=False)
    assert ours["fid"][""] == pytest.approx(peer["frechet_inception_distance"], rel=1e-4)
    assert (ours["prdc"][""], ours["prdc"]["recall"]) == pytest.approx((peer["precision"], peer["recall"]), abs=1e-6)
    assert ours["inception_score"][""] == pytest.approx(peer["inception_score_mean"], rel=1e-4)
    # Its KID takes as many of the larger set as there are in the smaller one, drawn at random: ours on the very same ones.
    drawn = numpy.random.RandomState(2020)
    first, second = drawn.choice(count, count, replace=False), drawn.choice(count + 5, count, replace=False)
    part = [Evidence(images=e.images[i], labels=None, features=e.features[i], predicted=None) for e, i in zip(seen, (first, second), strict=True)]
    same = REGISTRY.create("metric", "kid").measure(part[0], Real(reference=part[1], held_out=part[1]))[""]
    same = same if isinstance(same, float) else same.value
    options = {"kid_subsets": 1, "kid_subset_size": count, "kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_coef0": 1.0, "verbose": False}
    exact = kid_features_to_metric(part[0].features, part[1].features, kid_kernel_poly_gamma=None, rng_seed=0, **options)
    assert same == pytest.approx(exact["kernel_inception_distance_mean"], rel=1e-4)
    assert same == pytest.approx(peer["kernel_inception_distance_mean"], rel=1e-2)

    fid = FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(weights_file), antialias=False)
    fid.inception = Remembering(fid.inception)
    kid = KernelInceptionDistance(feature=fid.inception, subsets=1, subset_size=count)
    for batch, is_real in ((colour[1], True), (colour[0], False)):
        fid.update(batch, real=is_real)
    kid.update(colour[1][torch.as_tensor(second)], real=True)
    kid.update(colour[0], real=False)
    assert float(fid.compute()) == pytest.approx(ours["fid"][""], rel=1e-4)
    assert float(kid.compute()[0]) == pytest.approx(same, rel=1e-2)
    score = InceptionScore(feature="logits_unbiased", splits=1, feature_extractor_weights_path=str(weights_file)) if "feature_extractor_weights_path" in \
        InceptionScore.__init__.__code__.co_varnames else None
    if score is not None:
        score.update(colour[0])
        whole = as_columns(REGISTRY.create("metric", "inception_score").measure(seen[0], real))["values"][""]
        assert float(score.compute()[0]) == pytest.approx(whole, rel=1e-4)


@pytest.mark.slow
def test_features_do_not_depend_on_the_batch_or_on_training_mode_and_grey_is_repeated(extractor, monkeypatch):
    fitted, _ = extractor.fit(None, 0, CPU)
    x = images(2, 5, 1)
    whole = extractor.look(fitted, x, CPU)
    monkeypatch.setattr(inception, "BATCH", 2)
    parts = extractor.look(fitted, x.expand(-1, 3, -1, -1), CPU)
    for name, width in (("features", 2048), ("logits", 1008)):
        assert whole[name].shape == (5, width) and whole[name].dtype == torch.float64
        assert torch.allclose(whole[name], parts[name], rtol=1e-4, atol=1e-5 * float(whole[name].abs().max()))
    assert not inception.network(fitted).training


def test_other_weights_never_give_a_column_called_fid(extractor, monkeypatch):
    short = extractor.fingerprint()[:8]
    columns = {name: REGISTRY.create("metric", name).column(extractor) for name in ("fid", "kid", "inception_score")}
    assert columns == {"fid": f"fd_inception_{short}", "kid": f"kid_inception_{short}", "inception_score": f"inception_score_inception_{short}"}
    monkeypatch.setattr(inception.Published, "digest", lambda self, download=False: self.sha256)
    assert [REGISTRY.create("metric", name).column(extractor) for name in ("fid", "kid", "inception_score")] == ["fid", "kid", "inception_score"]


def test_missing_weights_are_told_before_anything_runs(nowhere):
    matrix = {"diffbench": 1, "name": "m", "dataset": "digits", "axes": {"backbone": "unet", "scheduler": "ddim", "conditioning": "film"}, "metrics": ["fid"],
              "extractor": "inception"}
    with pytest.raises(DataError) as error:
        diffbench.plan(matrix, device="cpu")
    text = str(error.value)
    assert "the weights of Inception-v3 are missing: DIFFBENCH_INCEPTION is not set" in text and "Fetch https://github.com/toshas/torch-fidelity" in text
    assert "DIFFBENCH_INCEPTION=/path/to/weights-inception-2015-12-05-6726825d.pth" in text and "{download: true}" in text


def test_a_variable_that_names_no_file_is_told(nowhere, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_INCEPTION", str(nowhere / "gone.pth"))
    with pytest.raises(DataError, match="DIFFBENCH_INCEPTION says .*gone.pth, and there is no such file"):
        REGISTRY.create("extractor", "inception").fingerprint()


def test_the_cache_of_torch_hub_is_looked_at_and_its_file_believed_by_its_bytes_alone(nowhere):
    cached = nowhere / "hub" / "checkpoints" / inception.PUBLISHED.file
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"not the weights")
    extractor = REGISTRY.create("extractor", "inception")
    assert extractor.column_suffix.startswith("_inception_"), "the name of a file proves nothing"
    with pytest.raises(DataError, match="holds no weights that can be read without running code"):
        extractor.fit(None, 0, CPU)


def test_a_download_gets_its_name_only_where_its_hash_is_right(nowhere, monkeypatch):
    asked = []

    def fetch(url, target, hash_prefix, progress):
        asked.append((url, hash_prefix))
        raise RuntimeError("invalid hash value")
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(DataError, match="cannot be fetched .* invalid hash value"):
        REGISTRY.create("extractor", "inception", download=True).fingerprint()
    assert asked == [(inception.PUBLISHED.url, inception.PUBLISHED.sha256)], "torch compares the whole hash before it renames"


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


@pytest.mark.parametrize("how", ["pickle", "torch", "cut", "other network", "no table"])
def test_a_file_that_is_not_what_it_should_be_is_refused_and_runs_nothing(weights_file, monkeypatch, tmp_path, how):
    path, canary = tmp_path / "weights.pth", tmp_path / "canary"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Payload(canary)))
    elif how == "torch":
        torch.save({"a": Payload(canary)}, path)
    elif how == "cut":
        path.write_bytes(weights_file.read_bytes()[:1_000_000])
    elif how == "other network":
        torch.save({"a": torch.zeros(3)}, path)
    else:
        torch.save([torch.zeros(3)], path)
    monkeypatch.setenv("DIFFBENCH_INCEPTION", str(path))
    said = {"other network": r"holds the weights of another network than Inception-v3: \d+ of 566 differ, such as ", "no table": "holds no table of weights"}
    with pytest.raises(DataError, match=said.get(how, "holds no weights that can be read without running code")):
        REGISTRY.create("extractor", "inception").fit(None, 0, CPU)
    assert not canary.exists()


def test_images_that_are_not_uint8_or_have_two_channels_are_refused(extractor):
    for bad in (torch.zeros(2, 3, 8, 8), torch.zeros(2, 2, 8, 8, dtype=torch.uint8)):
        with pytest.raises(DataError, match="inception sees uint8 images"):
            extractor.look({}, bad, CPU)


def test_reading_hashes_what_it_reads(extractor, monkeypatch):
    monkeypatch.setattr(published.Published, "digest", lambda self, download=False: "0" * 64)
    with pytest.raises(DataError, match="changed while it was read"):
        extractor.fit(None, 0, CPU)
