"""Networks of the metric `torchmetrics`: LPIPS and CLIP from local files, their keys, and what is said without them."""

import json
import pickle
import sys

import pytest
import safetensors.torch
import torch
from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
from torchvision.models import squeezenet1_1

import diffbench
from diffbench import DataError, Jackknife, read_tensors
from tests.helpers.torchmetrics_evidence import REAL, SMALL, evidence, metric


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Weights of no training, as the file that torchvision would publish."""
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_1-b8a52dc0.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(squeezenet1_1(weights=None).state_dict(), path)
    return path


def test_lpips_runs_on_a_local_file(backbone, monkeypatch):
    def refuse(*arguments, **how):
        raise AssertionError("something is downloaded")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    some = evidence(count=96, size=32, channels=1)
    measured = metric("lpips", options=("net_type=squeeze",), weights=str(backbone), pairs="diversity").measure(
        some, REAL
    )[""]
    from diffbench_components.metrics.torchmetrics_weights import local_backbone

    with local_backbone("lpips", {"net_type": "squeeze"}, str(backbone)):
        made = LearnedPerceptualImagePatchSimilarity(net_type="squeeze", normalize=True)
    assert torch.equal(made.net.net.slices[0][0].weight, torch.load(backbone)["features.0.weight"])
    images, first = some.images.expand(-1, 3, -1, -1).float() / 255, [i for k in range(3) for i in range(k, 96, 6)]
    made.update(images[first], images[[i + 3 for i in first]])
    assert (
        measured.value == pytest.approx(float(made.compute()), rel=1e-5)
        and measured.low < measured.value < measured.high
    )


def test_weights_are_tensors_in_either_format_and_nothing_that_runs(backbone, tmp_path):
    state, same, hostile = read_tensors(backbone), tmp_path / "same.safetensors", tmp_path / "hostile.pth"
    safetensors.torch.save_file(state, same)
    assert all(torch.equal(value, state[name]) for name, value in read_tensors(same).items())
    hostile.write_bytes(pickle.dumps(print))
    with pytest.raises(DataError, match="hostile.pth holds no weights that can be read without running code"):
        metric("lpips", weights=str(hostile), pairs="diversity").measure(evidence(count=40, size=32), REAL)


def test_the_fingerprint_follows_the_file_and_the_library(backbone, tmp_path):
    one = metric("lpips", options=("net_type=squeeze",), weights=str(backbone)).fingerprint()
    other = tmp_path / "other.pth"
    other.write_bytes(backbone.read_bytes() + b" ")
    assert one != metric("lpips", options=("net_type=squeeze",), weights=str(other)).fingerprint()
    assert one.startswith("torchmetrics 1.") and metric("ssim").fingerprint() == one.rpartition(" ")[0]


def test_a_missing_file_of_weights_is_one_sentence(tmp_path, backbone):
    with pytest.raises(
        DataError,
        match="lpips needs the weights of torchvision's alexnet, and the option weights does not say where they lie: "
        "fetch https://.*alexnet-owt-7be5be79.pth and write",
    ):
        metric("lpips").fingerprint()
    with pytest.raises(DataError, match=r"vgg16, and .*/none.pth is not there"):
        metric("dists", weights=str(tmp_path / "none.pth")).fingerprint()
    with pytest.raises(DataError, match="clip_score needs a CLIP model as a folder"):
        metric("clip_score", weights=str(tmp_path)).fingerprint()
    with pytest.raises(
        DataError,
        match="squeezenet1_1-b8a52dc0.pth holds the weights of another network than alexnet-owt-7be5be79.pth: "
        "Missing key",
    ):
        metric("lpips", weights=str(backbone), pairs="diversity").measure(evidence(count=40, size=32), REAL)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP model of no training with letters for words, in a folder."""
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install 'diffbench[clip]'"
    )
    folder = tmp_path_factory.mktemp("clip")
    letters = [letter + end for end in ("", "</w>") for letter in "abcdefghijklmnopqrstuvwxyz"]
    words = {word: i for i, word in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={
            **small,
            "vocab_size": len(words),
            "max_position_embeddings": 40,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def test_a_clip_score_is_the_cosine_of_image_and_text_of_its_class(clip):
    transformers = pytest.importorskip("transformers")
    some = evidence(count=60, size=32)
    measured = metric("clip_score", weights=str(clip), template="a {class}").measure(some, REAL)[""]
    model, processor = (of.from_pretrained(clip) for of in (transformers.CLIPModel, transformers.CLIPProcessor))
    texts = [f"a {REAL.class_names[k]}" for k in some.labels]
    with torch.no_grad():
        seen = model.eval()(**processor(text=texts, images=list(some.images), return_tensors="pt", padding=True))
    cosines = 100 * (seen.image_embeds * seen.text_embeds).sum(1)
    assert measured.value == pytest.approx(max(0.0, float(cosines.mean())), rel=1e-4, abs=1e-6)
    assert isinstance(measured, Jackknife) or float(cosines.mean()) < 0


def test_clip_without_transformers_or_without_a_model_is_one_sentence(clip, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="holds no CLIP model and processor that transformers reads"):
        metric("clip_score", weights=str(tmp_path)).measure(evidence(count=60), REAL)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        DataError,
        match=r"clip_score needs transformers, which cannot be imported \(.*\): pip install 'diffbench\[clip\]'",
    ):
        metric("clip_score", weights=str(clip)).measure(evidence(count=60), REAL)


def test_names_of_classes_reach_the_metric_and_its_key(clip):
    matrix = SMALL | {"dataset": "digits", "metrics": [{"torchmetrics": {"name": "clip_score", "weights": str(clip)}}]}
    matrix["axes"] = matrix["axes"] | {"conditioning": "film"}
    evaluated = [stage for stage in diffbench.plan(matrix, device="cpu").stages.values() if stage.name == "evaluate"]
    assert len(evaluated) == 2 and all(
        stage.task["class_names"] == stage.identity["class_names"] == list("0123456789") for stage in evaluated
    )
