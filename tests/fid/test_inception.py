import pytest
import torch

from fid.compatible import compatible_distance
from fid.frechet import frechet_distance_of_features
from fid.inception import (
    WEIGHTS_NAME,
    FoldedInception,
    PublishedInception,
    convolution_shapes,
)
from fid.inception_features import InceptionFeatures, load
from fid.weights import file_sha256
from galaxies.errors import InputError


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    low = torch.rand(6, 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(low, size=(64, 64), mode="bilinear")
    return (smooth * 255).to(torch.uint8)


@pytest.fixture(scope="module")
def their_network(inception_weights):
    inception = pytest.importorskip("pytorch_fid.inception", reason="needs pytorch-fid")
    patch = pytest.MonkeyPatch()
    patch.setattr(inception, "load_state_dict_from_url", lambda *a, **k: inception_weights)
    yield inception.InceptionV3([3]).eval()
    patch.undo()


def test_the_layout_is_that_of_torchvision(inception_weights):
    assert len(inception_weights) == 566
    assert len(convolution_shapes()) == 94


@torch.no_grad()
def test_features_are_those_of_pytorch_fid(images, inception_weights, their_network):
    theirs = their_network(images.float() / 255)[0].flatten(1)
    published = InceptionFeatures(inception_weights, "", as_published=True)(images)
    folded = InceptionFeatures(inception_weights, "")(images)
    assert torch.equal(published, theirs)
    assert ((folded - theirs).norm() / theirs.norm()).item() < 5e-6
    spread = (theirs - theirs.mean(dim=0)).norm()
    assert ((folded - theirs).norm() / spread).item() < 5e-5


@torch.no_grad()
def test_features_are_those_of_torch_fidelity(images, inception_weights, inception_file):
    module = pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3", reason="needs torch-fidelity"
    )
    network = module.FeatureExtractorInceptionV3(
        "inception", ["2048"], feature_extractor_weights_path=str(inception_file)
    )
    theirs = network(images)[0]
    ours = InceptionFeatures(inception_weights, "", "torch-fidelity")(images)
    spread = (theirs - theirs.mean(dim=0)).norm()
    assert ((ours - theirs).norm() / spread).item() < 5e-5


def test_known_mistakes_would_be_noticed(images, inception_weights, their_network):
    """The other scaling of pixels, and an average pool where the last block takes the maximum."""
    ours = InceptionFeatures(inception_weights, "")(images)
    scaled = (images.float() - 128) / 128
    resized = torch.nn.functional.interpolate(scaled, size=(299, 299), mode="bilinear")
    wrong = FoldedInception(inception_weights)(resized)
    spread = (ours - ours.mean(dim=0)).norm()
    assert ((ours - wrong).norm() / spread).item() > 5e-4


def test_one_image_at_a_time_gives_the_same_distance(images, inception_weights):
    extractor = InceptionFeatures(inception_weights, "")
    together = extractor(images)
    alone = torch.cat([extractor(image[None]) for image in images])
    value = frechet_distance_of_features(together[:3], together[3:])
    assert frechet_distance_of_features(alone[:3], alone[3:]) == pytest.approx(value, rel=1e-5)


def test_a_missing_or_misshaped_tensor_is_named(inception_weights):
    without = {k: v for k, v in inception_weights.items() if k != "Mixed_6d.branch1x1.bn.bias"}
    with pytest.raises(InputError, match=r"Mixed_6d\.branch1x1\.bn\.bias is missing"):
        InceptionFeatures(without, "")
    other = inception_weights | {"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 5, 5)}
    with pytest.raises(InputError, match=r"has shape \(32, 3, 5, 5\), \(32, 3, 3, 3\) is needed"):
        PublishedInception(other)


def test_weights_from_a_file_carry_its_hash(inception_file):
    extractor = load("", inception_file, torch.device("cpu"))
    assert extractor.weights_sha256 == file_sha256(inception_file)
    assert extractor.recipe == "pytorch-fid"
    assert load("clean-fid", inception_file, torch.device("cpu")).recipe == "clean-fid"


def test_a_file_with_the_published_name_and_another_hash_is_refused(tmp_path, inception_file):
    impostor = tmp_path / WEIGHTS_NAME
    impostor.write_bytes(inception_file.read_bytes())
    with pytest.raises(InputError, match=r"is damaged: its sha256 is .*6726825d"):
        load("", impostor, torch.device("cpu"))


def test_offline_one_line_says_which_file_its_hash_and_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", _no_network)
    with pytest.raises(InputError) as caught:
        load("", None, torch.device("cpu"))
    text = str(caught.value)
    assert WEIGHTS_NAME in text
    assert "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2" in text
    assert str(tmp_path / "hub" / "checkpoints" / WEIGHTS_NAME) in text
    assert "--weights" in text
    assert "\n" not in text


def _no_network(*arguments, **settings):
    raise OSError("no network")


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04"])
def test_a_file_that_holds_no_weights_is_named(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.pth holds no readable weights"):
        load("", path, torch.device("cpu"))


def test_approximate_arithmetic_is_marked(inception_weights):
    extractor = InceptionFeatures(inception_weights, "", approximate=True)
    assert "approximate" in extractor.recipe


@pytest.mark.parametrize("count", [30])
def test_compatible_numbers_are_those_of_the_programs(rng, count):
    """Each program's own arithmetic, on the same features, to 1e-5."""
    real = rng.gamma(1, size=(count, 64)).astype("float32")
    fake = rng.gamma(1.2, size=(count, 64)).astype("float32")
    fidelity = pytest.importorskip("torch_fidelity.metric_fid", reason="needs torch-fidelity")
    statistics = [fidelity.fid_features_to_statistics(torch.from_numpy(x)) for x in (real, fake)]
    theirs = fidelity.fid_statistics_to_metric(*statistics, verbose=False)
    found = compatible_distance("torch-fidelity", real, fake)
    assert found == pytest.approx(theirs["frechet_inception_distance"], abs=1e-5)

    from torchmetrics.image.fid import _compute_fid

    moments = [torch.from_numpy(x).double() for x in (real, fake)]
    theirs = _compute_fid(
        moments[0].mean(0), moments[0].T.cov(), moments[1].mean(0), moments[1].T.cov()
    )
    found = compatible_distance("torchmetrics", real, fake)
    assert found == pytest.approx(float(theirs), rel=1e-6)


def test_compatible_with_pytorch_fid(rng):
    fid_score = pytest.importorskip("pytorch_fid.fid_score", reason="needs pytorch-fid")
    import numpy as np

    real, fake = (rng.gamma(shape, size=(30, 64)) for shape in (1, 1.2))
    moments = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (real, fake)]
    try:
        theirs = fid_score.calculate_frechet_distance(*moments[0], *moments[1])
    except TypeError:
        pytest.skip("pytorch-fid does not run with this SciPy (sqrtm has lost an argument)")
    found = compatible_distance("pytorch-fid", real, fake)
    assert found == pytest.approx(theirs, abs=1e-5)
    # Off the exact value by far more than that: the reason why this is not the default.
    assert abs(found - frechet_distance_of_features(real, fake)) > 1e-7
