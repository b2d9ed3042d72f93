"""Training on tables: every model learns, is saved without code, and answers the same again."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from classify.networks.network import count_parameters
from classify.tabular.algorithms import set_aside
from classify.tabular.classifier import (
    PIPELINE,
    TableTraining,
    load_table_classifier,
    save_table_classifier,
    train_table_classifier,
)
from classify.tabular.dense import MARGNET_WIDTHS, DenseConfig, dense_network, train_dense
from classify.tabular.feature_scaling import FeatureScaling, scaling_of
from classify.tabular.last_layer import laplace_samples, mean_probabilities, variational_samples
from galaxies.errors import InputError
from galaxies.tables import Table, split_table

FAST = DenseConfig(epochs=25, patience=6)
MODELS = ("logistic-regression", "random-forest", "gradient-boosting", "svm",
          "nearest-neighbours", "dense-small")  # fmt: skip


def make_table(count: int = 600, seed: int = 0) -> Table:
    """Three classes in four features, the third rare; some values missing."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=count, p=[0.55, 0.35, 0.1])
    centres = np.array([[0, 0, 0, 0], [2, 0, 1, 0], [0, 2.5, -1, 0]])
    features = centres[labels] + rng.normal(size=(count, 4))
    features[rng.random((count, 4)) < 0.03] = np.nan
    table = Table(
        features, ("u", "g", "r", "i"), labels, ("STAR", "GALAXY", "QSO"),
        np.arange(count).astype(str),
    )  # fmt: skip
    return split_table(table)


@pytest.fixture(scope="module")
def table() -> Table:
    return make_table()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_learns_and_reloads_to_the_same_numbers(
    model: str, table: Table, tmp_path: Path
) -> None:
    test = table.side("test")
    config = TableTraining(model=model, balance="none", dense=FAST)
    classifier = train_table_classifier(
        table.side("train"), table.side("validation"), config, progress=False
    )
    found = classifier.probabilities(test)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)
    assert (found.argmax(axis=1) == test.known_labels).mean() > 0.75
    save_table_classifier(classifier, tmp_path / "checkpoint")
    again = load_table_classifier(tmp_path / "checkpoint")
    np.testing.assert_array_equal(again.probabilities(test), found)


def test_columns_are_found_by_name_whatever_their_order(table: Table) -> None:
    classifier = train_table_classifier(
        table.side("train"), None, TableTraining(model="logistic-regression")
    )
    test = table.side("test")
    order = [3, 1, 0, 2]
    turned = dataclasses.replace(
        test,
        features=test.features[:, order],
        feature_names=tuple(test.feature_names[k] for k in order),
    )
    np.testing.assert_array_equal(classifier.probabilities(turned), classifier.probabilities(test))
    without = dataclasses.replace(
        test, features=test.features[:, :3], feature_names=test.feature_names[:3]
    )
    with pytest.raises(InputError, match="lacks i"):
        classifier.probabilities(without)


@pytest.mark.parametrize("bayesian", ["mc-dropout", "laplace", "variational"])
def test_posteriors_are_less_sure_far_away_and_survive_the_checkpoint(
    bayesian: str, table: Table, tmp_path: Path
) -> None:
    def trained(kind: str) -> object:
        return train_table_classifier(
            table.side("train"), table.side("validation"),
            TableTraining(model="dense-small", bayesian=kind, dense=FAST),  # type: ignore[arg-type]
            progress=False,
        )  # fmt: skip

    plain, posterior = trained("none"), trained(bayesian)
    test = table.side("test")
    found = posterior.probabilities(test)  # type: ignore[attr-defined]
    agreement = found.argmax(axis=1) == plain.probabilities(test).argmax(axis=1)  # type: ignore[attr-defined]
    assert agreement.mean() > 0.9
    save_table_classifier(posterior, tmp_path / "checkpoint")  # type: ignore[arg-type]
    again = load_table_classifier(tmp_path / "checkpoint").probabilities(test)
    np.testing.assert_array_equal(again, found)
    alone = [posterior.probabilities(test.features[[row]]) for row in range(3)]  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.concatenate(alone), found[:3], atol=1e-6)
    if bayesian == "laplace":
        far = np.random.default_rng(0).normal(0, 8, (200, 4))
        confidence = [c.probabilities(far).max(axis=1).mean() for c in (posterior, plain)]  # type: ignore[attr-defined]
        assert confidence[0] < confidence[1]


@pytest.mark.parametrize("answer", [{"balance": "sampling"}, {"resample": "smote"}], ids=str)
def test_copies_and_made_rows_do_not_make_a_posterior_surer(
    answer: dict[str, str], table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[float] = []

    def remember(*arguments: object, weights: torch.Tensor, **options: object) -> object:
        counted.append(float(weights.sum()))
        return laplace_samples(*arguments, weights=weights, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("classify.tabular.classifier.laplace_samples", remember)
    train = table.side("train")
    config = TableTraining(
        model="dense-small",
        bayesian="laplace",
        dense=DenseConfig(epochs=2),
        **answer,  # type: ignore[arg-type]
    )
    classifier = train_table_classifier(train, None, config, progress=False)
    assert classifier.record["training"]["rows_after_balancing"] > len(train)
    assert counted == [pytest.approx(len(train))]


def test_the_same_seed_gives_the_same_bytes(table: Table) -> None:
    config = TableTraining(model="dense-small", balance="sampling", dense=FAST, seed=4)
    rows = table.side("train"), table.side("validation")
    first = train_table_classifier(*rows, config, progress=False)
    torch.manual_seed(99)
    second = train_table_classifier(*rows, config, progress=False)
    np.testing.assert_array_equal(first.log_probabilities(table), second.log_probabilities(table))
    other = train_table_classifier(*rows, dataclasses.replace(config, seed=5), progress=False)
    assert not np.array_equal(first.log_probabilities(table), other.log_probabilities(table))


def test_dense_network_has_the_published_count() -> None:
    assert count_parameters(dense_network(24, 3, MARGNET_WIDTHS, 0.25)) == 331_331


def test_early_stopping_restores_the_lowest_validation_loss() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 5)).astype(np.float32)
    labels = rng.integers(0, 2, 60)  # nothing to learn: the network overfits at once
    held = rng.normal(size=(200, 5)).astype(np.float32), rng.integers(0, 2, 200)
    config = DenseConfig(widths=(64,), dropout=0.0, epochs=80, patience=10, learning_rate=0.01)
    trained = train_dense(rows, labels, np.ones(60), held, 2, config, progress=False)
    losses = [entry["validation_loss"] for entry in trained.history]
    assert trained.kept_epoch == int(np.argmin(losses)) + 1
    assert len(trained.history) == trained.kept_epoch + 10
    from classify.early_stopping import score_logits
    from classify.tabular.dense import logits_of

    again = score_logits(logits_of(trained.network, held[0]), held[1]).loss
    assert again == pytest.approx(min(losses), abs=1e-12)


def test_balance_raises_the_recall_of_the_rare_class(table: Table) -> None:
    test = table.side("test")
    recall = {}
    for name, options in {
        "none": {}, "weights": {"balance": "class-weights"}, "smote": {"resample": "smote"},
    }.items():  # fmt: skip
        classifier = train_table_classifier(
            table.side("train"), None,
            TableTraining(model="logistic-regression", **options), progress=False,  # type: ignore[arg-type]
        )  # fmt: skip
        called = classifier.probabilities(test).argmax(axis=1)
        recall[name] = (called == 2)[test.known_labels == 2].mean()
        assert classifier.record["training"]["rows"] == len(table.side("train"))
    assert recall["weights"] >= recall["none"]
    assert recall["smote"] >= recall["none"]


def test_a_pipeline_with_a_foreign_type_is_not_loaded(table: Table, tmp_path: Path) -> None:
    import skops.io

    classifier = train_table_classifier(
        table.side("train"), None, TableTraining(model="logistic-regression")
    )
    save_table_classifier(classifier, tmp_path / "checkpoint")
    classifier.pipeline.steps.append(("evil", Foreign()))
    skops.io.dump(classifier.pipeline, tmp_path / "checkpoint" / PIPELINE)
    with pytest.raises(InputError, match="types that no pipeline of ours has"):
        load_table_classifier(tmp_path / "checkpoint")


class Foreign:
    """A type that no pipeline holds."""


def test_wrong_models_are_refused_with_the_list(table: Table) -> None:
    with pytest.raises(InputError, match="'small' takes no table; models for tables are: logistic"):
        TableTraining(model="small")
    with pytest.raises(InputError, match="needs a dense network"):
        TableTraining(model="svm", bayesian="laplace")
    with pytest.raises(InputError, match="cannot weigh rows"):
        train_table_classifier(
            table.side("train"), None,
            TableTraining(model="nearest-neighbours", balance="class-weights"),
        )  # fmt: skip


def test_scaling_fills_flags_and_undoes() -> None:
    features = np.array([[1.0, np.nan], [2.0, 5.0], [3.0, 7.0], [4.0, 5.0]])
    scaling = scaling_of(features)
    scaled = scaling(features)
    assert scaled.shape == (4, 3)
    np.testing.assert_allclose(scaled[:, 0].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(scaled[:, 0].std(), 1, atol=1e-6)
    assert scaled[:, 2].tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(scaling.undo(scaled), features, rtol=1e-5)
    assert FeatureScaling.from_json(scaling.as_json()) == scaling
    assert np.abs(scaling(np.array([[1e9, 5.0]]))).max() <= 10


def test_laplace_of_a_linear_model_has_the_inverse_hessian_as_covariance() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(400, 2, generator=random)
    labels = (features[:, 0] + torch.randn(400, generator=random) > 0).long()
    head = torch.nn.Linear(2, 2)
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=100)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(head(features), labels)
        loss.backward()
        return loss

    optimiser.step(closure)
    samples, tau = laplace_samples(head, features, labels, random, samples=20_000)
    with torch.no_grad():
        p = torch.softmax(head(features), 1)[:, 1].double()
    inputs = torch.cat([features, torch.ones(400, 1)], 1).double()
    fisher = (inputs * (p * (1 - p))[:, None]).T @ inputs
    # The difference of the two rows has the Hessian of logistic regression and prior tau / 2.
    expected = torch.linalg.inv(fisher + tau / 2 * torch.eye(3, dtype=torch.float64))
    difference = (samples[:, 1] - samples[:, 0]).double()
    found = torch.cov(difference.T)
    torch.testing.assert_close(found, expected, rtol=0.08, atol=0.08 * float(expected.max()))
    assert torch.allclose(mean_probabilities(samples, features).sum(1), torch.ones(400).double())


def test_variational_spread_shrinks_with_more_data() -> None:
    random = torch.Generator().manual_seed(0)
    spreads = []
    for count in (50, 2000):
        features = torch.randn(count, 3, generator=random)
        labels = (features[:, 0] > 0).long()
        samples = variational_samples(torch.nn.Linear(3, 2), features, labels, random, steps=600)
        spreads.append(float(samples.std(dim=0).mean()))
    assert spreads[1] < 0.7 * spreads[0]


@pytest.mark.parametrize("balance", ["none", "sampling", "class-weights"])
def test_boosting_stops_on_rows_that_no_copy_was_made_of(balance: str) -> None:
    """Labels without any meaning: there is nothing to learn, however often a row is repeated."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [900, 100])
    table = Table(
        rng.normal(size=(1000, 5)), tuple("ugriz"), labels, ("COMMON", "RARE"),
        np.arange(1000).astype(str),
    )  # fmt: skip
    config = TableTraining(model="gradient-boosting", balance=balance)  # type: ignore[arg-type]
    classifier = train_table_classifier(table, None, config, progress=False)
    assert classifier.pipeline[-1].n_iter_ < 60


def test_the_rows_set_aside_are_a_tenth_of_each_class_and_none_of_a_tiny_one() -> None:
    labels = np.repeat([0, 1, 2], [500, 47, 9])
    aside = set_aside(labels, np.random.default_rng(0))
    assert np.bincount(labels[aside], minlength=3).tolist() == [50, 4, 0]


def few_rows(table: Table, rare: int) -> Table:
    """Four rows of two classes each, and so many of the third."""
    train = table.side("train")
    rows = [np.flatnonzero(train.known_labels == k)[:n] for k, n in enumerate((4, 4, rare))]
    return train.select(np.concatenate(rows))


@pytest.mark.parametrize("balance", ["none", "sampling"])
def test_a_class_of_one_row_is_no_riddle_to_cross_fitting(table: Table, balance: str) -> None:
    config = TableTraining(model="svm", balance=balance)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"svm needs two different training rows .*QSO has one"):
        train_table_classifier(few_rows(table, 1), None, config, progress=False)
    found = train_table_classifier(few_rows(table, 2), None, config, progress=False)
    assert np.isfinite(found.probabilities(table)).all()


def test_fewer_rows_than_neighbours(table: Table) -> None:
    few = few_rows(table, 1)
    config = TableTraining(model="nearest-neighbours")
    classifier = train_table_classifier(few, None, config, progress=False)
    assert (classifier.probabilities(few).argmax(axis=1) == few.known_labels).all()
