import pytest
import torch

import fid.features
from fid.features import (
    load_extractor,
    name_of_distance,
    registered_loaders,
    short_name,
    train_extractor,
)
from fid.inception import WEIGHTS_SHA256
from galaxies.errors import InputError


@pytest.mark.parametrize(
    ("model", "short"),
    [
        ("mobilenetv2_100", "mobilenetv2"),
        ("mobilenetv2_100.ra_in1k", "mobilenetv2"),
        ("vit_base_patch16_224", "vit_base_patch16"),
        ("resnet50", "resnet50"),
        ("resnet18.a1_in1k", "resnet18"),
        ("classifier", "classifier"),
    ],
)
def test_a_distance_is_named_by_its_features(model, short):
    assert short_name(model) == short
    assert name_of_distance(model, "ab" * 32) == f"FD({short})"


def test_only_the_published_weights_give_fid():
    assert name_of_distance("inception", WEIGHTS_SHA256) == "FID"
    assert name_of_distance("inception", "ab" * 32) == "FD(inception)"


def test_the_kinds_of_this_project_are_registered():
    assert {"inception", "timm", "classifier"} <= set(registered_loaders())


def test_an_unknown_kind_lists_the_known():
    with pytest.raises(InputError, match=r"no features 'vgg'; choose from .*inception.*timm"):
        load_extractor("vgg")


def test_a_kind_that_is_registered_twice_is_a_bug(monkeypatch):
    class Entry:
        name = "inception"
        value = "other:load"

    monkeypatch.setattr(fid.features, "entry_points", lambda group: [Entry()])
    with pytest.raises(RuntimeError, match="registered twice"):
        registered_loaders()


def test_training_features_without_a_trainer_says_so(monkeypatch, tiny_set):
    monkeypatch.setattr(fid.features, "entry_points", lambda group: [])
    with pytest.raises(InputError, match="no installed package trains features"):
        train_extractor(tiny_set, seed=0, device="cpu", progress=False)


def test_a_trainer_gets_what_it_needs(monkeypatch, tiny_set):
    seen = {}

    class Entry:
        name = "classifier"

        @staticmethod
        def load():
            def train(train, **settings):
                seen.update(settings, count=len(train))
                return "features"

            return train

    monkeypatch.setattr(fid.features, "entry_points", lambda group: [Entry()])
    assert train_extractor(tiny_set, seed=3, device="cpu", progress=False) == "features"
    assert seen == {"seed": 3, "device": torch.device("cpu"), "progress": False, "count": 120}


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory):
    timm = pytest.importorskip("timm", reason="needs timm")
    path = tmp_path_factory.mktemp("timm") / "model.pth"
    generator = torch.Generator().manual_seed(0)
    state = timm.create_model("mobilenetv3_small_050", num_classes=10).state_dict()
    for tensor in state.values():
        if tensor.ndim == 4:
            tensor.normal_(0, 0.2, generator=generator)
    torch.save(state, path)
    return path


def test_a_timm_model_without_its_head(timm_file, tiny_set):
    extractor = load_extractor("timm:mobilenetv3_small_050,side=64", timm_file)
    features = extractor(tiny_set.pixels[:3])
    assert features.shape == (3, extractor.dimensions)
    assert features.dtype == torch.float32
    assert extractor.name == "mobilenetv3_small_050"
    assert "64" in extractor.recipe
    alone = torch.cat([extractor(image[None]) for image in tiny_set.pixels[:3]])
    torch.testing.assert_close(alone, features, rtol=1e-3, atol=1e-4)


def test_settings_of_a_timm_model_are_part_of_the_recipe(timm_file):
    plain = load_extractor("timm:mobilenetv3_small_050", timm_file)
    other = load_extractor("timm:mobilenetv3_small_050,mean=0.5,std=0.5", timm_file)
    assert plain.recipe != other.recipe
    assert "own mean 0.485 0.456 0.406, own std 0.229 0.224 0.225" in plain.recipe


@pytest.mark.parametrize(
    ("specification", "complaint"),
    [
        ("timm", "needs a model: timm:NAME"),
        ("timm:mobilnet", "timm has no model 'mobilnet'"),
        ("timm:resnet18", "does not fit timm's resnet18"),
        ("timm:mobilenetv3_small_050,wide", "'wide' is not setting=value"),
        ("timm:mobilenetv3_small_050,mean=grey", "mean and std are numbers"),
    ],
)
def test_a_timm_model_that_cannot_be_used_says_why(timm_file, specification, complaint):
    with pytest.raises(InputError, match=complaint):
        load_extractor(specification, timm_file)


def test_a_timm_model_needs_weights():
    pytest.importorskip("timm", reason="needs timm")
    with pytest.raises(InputError, match="needs --weights FILE"):
        load_extractor("timm:resnet18")


@pytest.mark.real_data
def test_tensorflow_weights_are_recognised(real_data):
    pytest.importorskip("timm", reason="needs timm")
    path = real_data("weights/mobilenetv2_100_same_imagenet1001.safetensors")
    extractor = load_extractor("timm:mobilenetv2_100", path)
    assert extractor.dimensions == 1280
    assert "pad_type same" in extractor.recipe
    assert "mean 0.5" in extractor.recipe
