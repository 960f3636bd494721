"""DINOv2: the published names, a peer's numbers on the same weights, the published preparation of images, and weights that are the right ones or refused."""

import os

import numpy
import pytest
import torch
from diffbench_components.extractors import dinov2
from PIL import Image

from diffbench import DataError
from diffbench.testing.checks import BY_KIND
from tests.components.test_inception import images
from tests.conftest import REGISTRY

CPU = torch.device("cpu")
# Bytes of the published files: the weights in float32 and a few hundred bytes for each name.
FILES = {"small": 88_283_115, "base": 346_378_731, "large": 1_217_586_395}
LONG = os.environ.get("DIFFBENCH_PARITY") == "long"


def random_state(size: str) -> dict[str, torch.Tensor]:
    """Weights of the real names and shapes that keep the size of activations."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name, value in dinov2.network(size).state_dict().items():
        drawn = torch.randn(value.shape, generator=generator)
        if name.endswith("gamma") or (name.endswith("weight") and value.ndim == 1):
            state[name] = 1 + drawn / 10
        else:
            state[name] = drawn * (value[0].numel() ** -0.5 if name.endswith("weight") else 0.1)
    return state


@pytest.fixture
def extractor(tmp_path, monkeypatch):
    """One whose network is of another width and depth, so that passes take milliseconds, with a file of weights."""
    monkeypatch.setitem(dinov2.FORMS, "small", dinov2.FORMS["small"]._replace(width=24, depth=2, heads=3))
    torch.save(random_state("small"), tmp_path / "weights.pth")
    monkeypatch.setenv("DIFFBENCH_DINOV2", str(tmp_path / "weights.pth"))
    return REGISTRY.create("extractor", "dinov2", size="small")


def peer(size, **options):
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm for the network that ours is compared with")
    return timm.create_model(f"vit_{size}_patch14_dinov2", pretrained=False, **options).eval()


@pytest.mark.parametrize("size", dinov2.FORMS)
def test_the_names_are_those_of_the_published_files_and_fill_them(size):
    form, ours = dinov2.FORMS[size], dinov2.network(size).state_dict()
    parts = [f"{part}.{kind}" for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2") for kind in ("weight", "bias")]
    whole = ("cls_token", "pos_embed", "mask_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias")
    assert set(ours) == {*whole, *(f"blocks.{i}.{part}" for i in range(form.depth) for part in (*parts, "ls1.gamma", "ls2.gamma"))}
    assert 0 < FILES[size] - 4 * sum(value.numel() for value in ours.values()) < 400 * len(ours)


@pytest.mark.parametrize("size", dinov2.FORMS)
def test_the_shapes_are_those_of_a_peer(size):
    ours = {name: tuple(value.shape) for name, value in dinov2.network(size).state_dict().items()}
    with torch.device("meta"):
        theirs = {name: tuple(value.shape) for name, value in peer(size).state_dict().items()}
    assert ours == theirs | {"mask_token": (1, dinov2.FORMS[size].width)}, "a peer drops what only its training used"


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", pytest.param("large", marks=pytest.mark.skipif(not LONG, reason="takes 3 GB: set DIFFBENCH_PARITY=long"))])
def test_the_features_are_those_of_a_peer_on_the_same_weights(size):
    """At 224 pixels the peer is given our embedding of positions, which it works out in another way; see below for that alone."""
    state, seen = random_state(size), dinov2.prepared(images(0, 4, 3))
    ours, theirs = dinov2.network(size, state), peer(size, img_size=dinov2.SIDE)
    known = {name: value for name, value in state.items() if name != "mask_token"} | {"pos_embed": dinov2.positions(state["pos_embed"], 16, 16)}
    theirs.load_state_dict(known, assign=True)
    with torch.inference_mode():
        x, y = ours(seen), theirs(seen)
    assert x.shape == (4, dinov2.FORMS[size].width) and float(x.std(0).min()) > 1e-3, "images differ in every feature"
    assert float((x - y).abs().max() / y.abs().max()) < 1e-5


@pytest.mark.slow
def test_at_the_size_of_its_training_positions_are_taken_as_they_are():
    state, seen = random_state("small"), torch.randn(1, 3, 518, 518, generator=torch.Generator().manual_seed(3))
    theirs = peer("small")
    theirs.load_state_dict({name: value for name, value in state.items() if name != "mask_token"})
    with torch.inference_mode():
        x, y = dinov2.network("small", state)(seen), theirs(seen)
    assert float((x - y).abs().max() / y.abs().max()) < 1e-5


def test_positions_are_interpolated_as_published():
    """Keys' cubic kernel with a = -0.75, without antialiasing, at (i + 1/2) 37/16.1 - 1/2 and clamped at the edges; written out in float64."""
    def kernel(x, a=-0.75):
        x = abs(x)
        return ((a + 2) * x - (a + 3)) * x * x + 1 if x <= 1 else ((x - 5) * x + 8) * x * a - 4 * a if x < 2 else 0.0
    matrix = numpy.zeros((16, 37))
    for i in range(16):
        at = (i + 0.5) * 37 / 16.1 - 0.5
        for j in range(int(numpy.floor(at)) - 1, int(numpy.floor(at)) + 3):
            matrix[i, min(max(j, 0), 36)] += kernel(at - j)
    embedding = torch.randn(1, 1 + 37**2, 5, generator=torch.Generator().manual_seed(1))
    grid = embedding[0, 1:].double().numpy().reshape(37, 37, 5)
    expected = numpy.einsum("ia,jb,abd->ijd", matrix, matrix, grid).reshape(256, 5)
    found = dinov2.positions(embedding, 16, 16)[0].double().numpy()
    assert numpy.array_equal(found[0], embedding[0, 0].double().numpy())
    assert numpy.abs(found[1:] - expected).max() < 1e-5
    assert dinov2.positions(embedding, 37, 37) is embedding


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28), (3, 300)])
def test_images_are_prepared_as_published(channels, side):
    """By the very transforms of dgm-eval."""
    from torchvision import transforms

    published = transforms.Compose([transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC), transforms.ToTensor(),
                                    transforms.Normalize(dinov2.MEAN, dinov2.STD)])
    given = torch.randint(0, 256, (3, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(side))
    pictures = [Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()) for image in given]
    assert torch.allclose(dinov2.prepared(given), torch.stack([published(picture) for picture in pictures]), atol=1e-6)


def test_it_conforms_where_there_are_weights(extractor):
    for statement, check in BY_KIND["extractor"](REGISTRY, extractor):
        assert check() is None, statement


def test_grey_images_are_repeated_and_others_refused(extractor):
    weights, facts = extractor.fit(None, 0, CPU)
    assert facts == {"sha256": extractor.fingerprint()} and set(weights) == set(dinov2.network("small").state_dict())
    grey = images(2, 2, 1)
    assert torch.equal(extractor.features(weights, grey, CPU), extractor.features(weights, grey.expand(-1, 3, -1, -1), CPU))
    assert extractor.remark((1, 8, 8)) and not extractor.remark((3, 8, 8))
    for bad in (torch.zeros(2, 3, 8, 8), torch.zeros(2, 2, 8, 8, dtype=torch.uint8)):
        with pytest.raises(DataError, match="dinov2 sees uint8 images"):
            extractor.look(weights, bad, CPU)


def test_only_the_published_weights_give_the_column_of_that_name(extractor, monkeypatch):
    fid, short = REGISTRY.create("metric", "fid"), extractor.fingerprint()[:8]
    sizes = {size: REGISTRY.create("extractor", "dinov2", size=size) for size in dinov2.FORMS}
    assert fid.column(sizes["small"]) == f"fd_dinov2_small_{short}" and fid.column(sizes["large"]) == f"fd_dinov2_{short}"
    monkeypatch.setattr(dinov2.Published, "digest", lambda self, download=False: self.sha256)
    assert [fid.column(sizes[size]) for size in ("large", "base", "small")] == ["fd_dinov2", "fd_dinov2_base", "fd_dinov2_small"]
    assert REGISTRY.create("metric", "kid").column(sizes["large"]) == "kid_dinov2"


def test_weights_of_another_size_are_named(extractor):
    with pytest.raises(DataError, match=r"holds the weights of another network than DINOv2 ViT-L/14: 343 of 343 differ, such as "):
        REGISTRY.create("extractor", "dinov2").fit(None, 0, CPU)


def test_missing_weights_say_where_to_get_them_and_where_to_put_them(monkeypatch, tmp_path):
    monkeypatch.delenv("DIFFBENCH_DINOV2", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(DataError) as error:
        REGISTRY.create("extractor", "dinov2").fingerprint()
    said = str(error.value)
    assert "the weights of DINOv2 ViT-L/14 are missing: DIFFBENCH_DINOV2 is not set" in said and "{download: true}" in said
    assert "Fetch https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth" in said
    assert "DIFFBENCH_DINOV2=/path/to/dinov2_vitl14_pretrain.pth" in said
