import pytest
import torch

from fid.frechet import frechet_distance_of_features
from fid.metric import FrechetDistanceMetric
from galaxies.errors import InputError


class MeanColour:
    """Two features a channel of tiny images, without weights."""

    name = "colour"
    dimensions = 6
    weights_sha256 = ""
    recipe = "mean and spread"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.float() / 255
        return torch.cat([pixels.mean(dim=(2, 3)), pixels.std(dim=(2, 3))], dim=1)


def draw(count: int, seed: int, scale: int = 255) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, scale, (count, 3, 4, 4), dtype=torch.uint8, generator=random)


def expected(real: torch.Tensor, fake: torch.Tensor) -> float:
    extractor = MeanColour()
    return frechet_distance_of_features(extractor(real), extractor(fake))


@pytest.mark.parametrize("counts", [(4, 5), (5, 40), (60, 40)])
@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_number_is_that_of_all_images_at_once(counts, batch):
    real, fake = draw(counts[0], 0), draw(counts[1], 1, 200)
    metric = FrechetDistanceMetric(MeanColour())
    for images, is_real in ((real, True), (fake, False)):
        for part in images.split(batch):
            metric.update(part, real=is_real)
    assert metric.compute().item() == pytest.approx(expected(real, fake), rel=1e-10)
    assert metric.compute().dtype == torch.float64


def test_the_same_images_are_exactly_zero():
    metric = FrechetDistanceMetric(MeanColour())
    for is_real in (True, False):
        metric.update(draw(30, 0), real=is_real)
    assert metric.compute().item() == 0


def test_reset_forgets_the_real_side_only_if_asked():
    real, fake, other = draw(30, 0), draw(30, 1, 200), draw(30, 2, 100)
    for forget in (True, False):
        metric = FrechetDistanceMetric(MeanColour(), reset_real_features=forget)
        metric.update(real, real=True)
        metric.update(fake, real=False)
        metric.compute()
        metric.reset()
        metric.update(other, real=False)
        if forget:
            with pytest.raises(InputError, match="at least 2"):
                metric.compute()
        else:
            assert metric.compute().item() == pytest.approx(expected(real, other), rel=1e-10)


def test_floats_are_refused_instead_of_guessed():
    metric = FrechetDistanceMetric(MeanColour())
    with pytest.raises(InputError, match=r"torch\.float32; uint8 is needed"):
        metric.update(torch.rand(2, 3, 4, 4), real=True)


def test_training_mode_cannot_wake_the_network(inception_weights):
    from fid.inception_features import InceptionFeatures

    extractor = InceptionFeatures(inception_weights, "")
    metric = FrechetDistanceMetric(extractor)
    assert not list(metric.parameters())
    assert not list(metric.children())
    metric.train()
    assert not extractor._network.training


def _process(rank: int, path: str, results) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=2
    )
    # Unequal shares: one process has folded its features, the other has not.
    real, fake = draw(23, 0), draw(9, 1, 200)
    metric = FrechetDistanceMetric(MeanColour())
    metric.update(real[:20] if rank == 0 else real[20:], real=True)
    metric.update(fake[:2] if rank == 0 else fake[2:], real=False)
    results[rank] = metric.compute().item()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_number_of_all_images(tmp_path):
    context = torch.multiprocessing.get_context("fork")
    with context.Manager() as manager:
        results = manager.dict()
        workers = [
            context.Process(target=_process, args=(rank, str(tmp_path / "store"), results))
            for rank in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        found = dict(results)
    whole = expected(draw(23, 0), draw(9, 1, 200))
    assert found[0] == pytest.approx(whole, rel=1e-10)
    assert found[0] == found[1]
