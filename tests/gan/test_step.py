"""One training step: gradients go where they belong, averages and feedback follow their rules."""

import dataclasses

import pytest
import torch

from galaxies.errors import InputError
from gan.step import METRICS, TrainingStep
from gan.training_config import TrainConfig


def advance(step: TrainingStep, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        step.draw()
        step.run(step.is_penalised(number))


def weights(step: TrainingStep, name: str) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in getattr(step, name).parameters()])


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": "dcgan"},
        {"recipe": "tail"},
        {"loss": "relativistic", "r2": 0.5},
        {"loss": "hinge", "lecam": 0.1, "class_bound": 0.1},
        {"discriminator": "convolutional", "spectral_norm": True, "minibatch_deviation": False},
        {"generator": "convolutional", "class_from": 16, "projection": False},
        {"symmetries": "none", "augment": ()},
        {"scope": "class"},
    ],
    ids=lambda changes: ",".join(f"{k}={v}" for k, v in changes.items()),
)
def test_every_part_trains_both_networks(make_step, changes):
    step = make_step(**changes)
    before = {name: weights(step, name) for name in ("generator", "discriminator", "average")}
    advance(step, 2)
    for name, old in before.items():
        new = weights(step, name)
        assert torch.isfinite(new).all()
        assert (new - old).abs().max() > 0
    assert torch.isfinite(step.sums).all()


def test_the_first_images_are_sky_where_asked(make_step):
    def first_images(**changes):
        step = make_step(**changes)
        latent = torch.randn(16, step.parts.latent, generator=torch.Generator().manual_seed(0))
        labels = torch.zeros(16, dtype=torch.int64)
        with torch.no_grad():
            return step.generator(latent, labels, torch.tensor(1.0)), step.data.sky

    images, sky = first_images(start_at_sky=True)
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), sky, atol=0.15, rtol=0)
    mottled, _ = first_images(start_at_sky=False)
    assert mottled.std() > 5 * images.std()


def test_the_discriminator_sees_deviations_from_the_sky(make_step):
    """The same step on images that are shifted and scaled has the same first logits."""
    plain, standard = make_step(standardise=False), make_step(standardise=True)
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels, full = torch.zeros(8, dtype=torch.int64), torch.tensor(1.0)
    data = standard.data
    raw = images * data.contrast + data.sky[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(
            standard.discriminator(raw, labels, full), plain.discriminator(images, labels, full)
        )
    real = data.batch(torch.rand(64, 3, generator=torch.Generator().manual_seed(1)))[0]
    above = (real - data.sky[:, None, None]) / data.contrast
    assert above.square().mean().sqrt().item() == pytest.approx(1, abs=0.15)


def test_same_seed_same_bytes_and_another_seed_others(make_step):
    first, second, other = make_step(), make_step(), make_step(seed=1)
    for step in (first, second, other):
        advance(step, 3)
    assert torch.equal(weights(first, "average"), weights(second, "average"))
    assert not torch.equal(weights(first, "average"), weights(other, "average"))


@pytest.mark.parametrize("recipe", ["dcgan", "tail"])
def test_a_restored_snapshot_repeats_the_future_bit_by_bit(make_step, recipe):
    step = make_step(recipe=recipe)
    advance(step, 3)
    snapshot = step.snapshot()
    advance(step, 9, first=3)
    future = step.snapshot()
    fresh = make_step(recipe=recipe)
    fresh.restore(snapshot)
    advance(fresh, 9, first=3)
    again = fresh.snapshot()
    assert future.keys() == again.keys()
    assert all(torch.equal(future[name], again[name]) for name in future)


def test_restoring_happens_in_place(make_step):
    step = make_step()
    places = {name: tensor.data_ptr() for name, tensor in step.tensors().items()}
    snapshot = step.snapshot()
    advance(step, 1)
    step.restore(snapshot)
    advance(step, 1)
    assert places == {name: tensor.data_ptr() for name, tensor in step.tensors().items()}


def test_gradients_equal_those_of_backward(make_step):
    """The generator's step, recomputed the plain way with ``backward``."""
    step = make_step(augment=(), ema_images=0.0)
    step.draw()
    uniforms, latent, noise = step._our_part()
    reals, labels = step.data.batch(uniforms[:, :3])
    conditioning = step._conditioning()
    seen, fake_labels = step._fakes_seen(
        step.generator(latent, labels, conditioning, noise), labels, uniforms, 1
    )
    loss = torch.nn.functional.softplus(-step.discriminator(seen, fake_labels, conditioning)).mean()
    loss.backward()
    expected = [p.grad.clone() for p in step.generator.parameters() if p.grad is not None]
    step.generator.zero_grad(set_to_none=True)
    captured = {}
    original = step.optimizers["generator"].step
    step.optimizers["generator"].step = lambda: captured.update(  # type: ignore[method-assign]
        {i: p.grad.clone() for i, p in enumerate(step.generator.parameters())}
    )
    fakes = step.generator(latent, labels, conditioning, noise)
    step._step_generator(reals, labels, fakes, uniforms, conditioning)
    step.optimizers["generator"].step = original  # type: ignore[method-assign]
    ours = [g for g in captured.values() if g.abs().sum() > 0]
    expected = [g for g in expected if g.abs().sum() > 0]
    assert len(ours) == len(expected) > 5
    for left, right in zip(ours, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-7)


def test_average_follows_its_half_life(make_step):
    step = make_step(ema_images=40.0)
    step.step_count.fill_(10_000)  # long past the ramp: 8 images a step, 5 steps a half-life
    old_average, old = weights(step, "average"), weights(step, "generator")
    advance(step, 1)
    new = weights(step, "generator")
    share = 1 - 0.5 ** (8 / 40)
    expected = old_average + share * (new - old_average)
    torch.testing.assert_close(weights(step, "average"), expected, rtol=1e-5, atol=1e-7)
    assert not torch.equal(old, new)


def test_a_young_average_looks_back_five_percent(make_step):
    step = make_step(ema_images=1e9)
    advance(step, 1)
    # 8 images seen, half-life 0.4 images: the average is the generator but for 2^-20.
    torch.testing.assert_close(
        weights(step, "average"), weights(step, "generator"), rtol=1e-4, atol=1e-6
    )


def test_probability_rises_while_the_discriminator_overfits_and_falls_after(make_step):
    step = make_step(augment_probability=0.3, augment_watch="sign")
    real = torch.ones(8)
    for _ in range(5):
        step.augmentation.mean_sign.fill_(1.0)
        step._observe(torch.tensor(0.0), real, -real, torch.tensor(0.0))
    assert step.augmentation.probability.tolist() == pytest.approx(
        [0.3 + 5 * 8 / 100_000] * 3, abs=1e-6
    )
    for _ in range(10):
        step.augmentation.mean_sign.fill_(0.0)
        step._observe(torch.tensor(0.0), -real, -real, torch.tensor(0.0))
    assert step.augmentation.probability.tolist() == pytest.approx(
        [0.3 - 5 * 8 / 100_000] * 3, abs=1e-6
    )


def test_groups_of_the_deviation_never_mix_real_and_generated(make_step):
    """Nor do they differ from those that the discriminator is watched with."""
    step = make_step(r1=0.0)
    counts = []
    step.discriminator.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    advance(step, 1)
    assert counts == [16, 8]
    with pytest.raises(InputError, match="--batch-size 10 is no multiple of 4"):
        make_step(batch_size=10)
    assert make_step(batch_size=10, minibatch_deviation=False).batch_size == 10


def test_relativistic_pairs_show_the_same_class(make_step, tiny_config, tiny_set):
    """Mirrored by draws of their own, half of the images of two twins once met the other twin."""
    from gan.preparation import build_step, prepare

    twins = dataclasses.replace(tiny_set, mirror_pairs=(("round", "double"),))
    names = list(tiny_set.class_names)
    config = tiny_config(loss="relativistic", augment=(), batch_size=64)
    preparation = prepare(config, twins)
    step = build_step(preparation, config, torch.device("cpu"), torch.float32)
    step.draw()
    uniforms, _, _ = step._our_part()
    reals, labels = step.data.batch(uniforms[:, :3])
    made = step._classes_made(labels, uniforms)
    fakes = reals.new_zeros(reals.shape)
    fakes[:, :, 0, :20] = made.view(-1, 1, 1).float() + 1  # a bar that is no mirror of itself
    fakes[:, :, 1, :4] = 9
    for turn in (0, 1):
        seen, fake_labels = step._fakes_seen(fakes, labels, uniforms, turn)
        assert torch.equal(fake_labels, labels)
        turned = {tuple(map(tuple, image[0].nonzero().tolist())) for image in seen}
        assert len(turned) == 8  # every symmetry is still drawn
    swapped = made != labels
    assert 0 < swapped.sum() < (labels != names.index("elongated")).sum()


def test_relativistic_logits_are_told_by_their_distance_from_the_other_side(make_step):
    """They have no zero: all may be positive where the discriminator tells every image."""
    step = make_step(loss="relativistic")
    step.lecam_means.copy_(torch.tensor([30.0, 20.0]))
    real, fake = torch.full((8,), 30.0), torch.full((8,), 20.0)
    step._observe(torch.tensor(0.0), real, fake, torch.tensor(0.0))
    found = dict(zip(METRICS, step.sums.tolist(), strict=True))
    assert (found["sign_real"], found["sign_fake"]) == (1.0, -1.0)


def test_the_class_ramps_in(make_step):
    step = make_step(steps=100, condition_from=0.1, condition_full=0.3)
    seen = []
    for number in (0, 10, 20, 30, 99):
        step.step_count.fill_(number)
        seen.append(step._conditioning().item())
    assert seen == pytest.approx([0, 0, 0.5, 1, 1])


def test_penalty_comes_at_its_interval_only(make_step):
    step = make_step(r1=1.0, penalty_every=4)
    assert [step.is_penalised(n) for n in range(6)] == [True, False, False, False, True, False]
    advance(step, 1, first=1)
    assert step.sums[METRICS.index("penalty")] == 0
    advance(step, 1, first=4)
    assert step.sums[METRICS.index("penalty")] > 0


def penalty_of(step: TrainingStep, reals: torch.Tensor) -> float:
    """The gradient penalty of one step of the discriminator on these images."""
    step.draw()
    labels = torch.zeros(len(reals), dtype=torch.int64)
    fakes = reals.flip(0)
    step._step_discriminator(reals, labels, fakes, step.uniforms, torch.tensor(1.0), True)
    return step.sums[METRICS.index("penalty")].item()


def test_a_fainter_set_has_the_same_penalty(make_step, tiny_config, tiny_set):
    """Where the network sees units of contrast, so does its penalty: 4 times as large before."""
    from gan.preparation import prepare

    bright = make_step(augment=(), symmetries="none", r2=1.0)
    preparation = prepare(tiny_config(), tiny_set)
    data = dataclasses.replace(bright.data, contrast=bright.data.contrast / 2)
    faint = TrainingStep(
        preparation.shape,
        bright.parts,
        data,
        batch_size=8,
        schedule=preparation.schedule,
        precision=torch.float32,
        seed=0,
    )
    reals, _ = data.batch(torch.rand(8, 3, generator=torch.Generator().manual_seed(0)))
    sky = data.sky[:, None, None]
    expected = penalty_of(bright, reals)
    assert penalty_of(faint, sky + (reals - sky) / 2) == pytest.approx(expected, rel=1e-3)
    for left, right in zip(
        bright.parameters["discriminator"], faint.parameters["discriminator"], strict=True
    ):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=0)


def test_a_larger_image_of_the_same_thing_has_the_same_penalty(make_step):
    class Coarse(torch.nn.Module):
        """A logit from the image reduced to 32 pixels."""

        has_batch_norm = False

        def forward(self, images, labels, conditioning):
            small = torch.nn.functional.adaptive_avg_pool2d(images, 32)
            return (small / contrast).square().sum(dim=(1, 2, 3)) / 100

    penalties = []
    small = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for size in (32, 64, 128):
        step = make_step(augment=(), symmetries="none", size=size)
        contrast = step.data.contrast
        step.discriminator = Coarse()
        large = torch.nn.functional.interpolate(contrast * small, size=size)
        penalties.append(penalty_of(step, large))
    assert penalties == pytest.approx([penalties[0]] * 3, rel=1e-3)


def test_without_standardising_the_penalty_is_on_the_pixels():
    from gan.recipes import PartChoices, resolve_parts

    assert resolve_parts("tail", PartChoices()).r1 == 0.9
    for choices in (
        PartChoices(standardise=False),
        PartChoices(discriminator="convolutional"),
    ):
        assert resolve_parts("tail", choices).r1 == 0.05
    assert resolve_parts("tail", PartChoices(standardise=False, r1=0.3)).r1 == 0.3
    assert resolve_parts("dcgan", PartChoices()).r1 == 0


def test_rates_are_lowered_in_place(make_step):
    step = make_step()
    step.lower_rates(0.5)
    rates = {name: o.param_groups[0]["lr"].item() for name, o in step.optimizers.items()}
    assert rates == pytest.approx({"generator": 1e-4, "discriminator": 2e-4})


def test_choices_and_parts_have_the_same_names():
    from gan.recipes import PartChoices, Parts

    choices = {field.name for field in dataclasses.fields(PartChoices)}
    assert choices == {field.name for field in dataclasses.fields(Parts)}
    assert choices <= {field.name for field in dataclasses.fields(TrainConfig)}
    assert all(getattr(TrainConfig(), name) is None for name in choices)
