"""A trained table classifier: rows in, probabilities out; its training and its checkpoint."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch

from classify.balance import class_weights
from classify.determinism import (
    derived_seed,
    generator_for,
    numpy_generator_for,
)
from classify.dropout_masks import thinned
from classify.networks.network import Network, count_parameters
from classify.tabular import algorithms
from classify.tabular.checkpoint_kind import TABLE_KIND, is_table_checkpoint
from classify.tabular.dense import (
    WIDTHS,
    DenseConfig,
    dense_network,
    logits_of,
    penultimate_of,
    train_dense,
)
from classify.tabular.feature_scaling import FeatureScaling, scaling_of
from classify.tabular.last_layer import laplace_samples, mean_probabilities, variational_samples
from classify.tabular.options import TABLE_MODELS, Bayesian, Resample
from classify.tabular.oversampling import METHODS, copies, rows_to_balance
from classify.training_config import Balance
from galaxies.atomic import whole_folder
from galaxies.errors import InputError
from galaxies.tables import HOLDS_NO_VALUE, Table, identical_rows

SMALLEST_PROBABILITY = 1e-9
DROPOUT_PASSES = 50

Augment = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(n, F) scaled training rows without missing values and (n,) labels -> those to train on."""

Score = Literal["log_probabilities", "probabilities"]


@dataclass(frozen=True, kw_only=True)
class TableTraining:
    """How one table classifier is trained.

    Attributes
    ----------
    model : str
        A key of `classify.tabular.options.TABLE_MODELS`.
    balance : str
        As for images: ``sampling`` repeats rows, ``class-weights`` weighs them.
    resample : str
        New rows instead of repeated ones; takes the place of ``balance``.
    bayesian : str
        Of a dense network.
    dense : DenseConfig
        Its seed and widths are replaced by those of this configuration.
    seed, threads : int
    """

    model: str = "random-forest"
    balance: Balance = "none"
    resample: Resample = "none"
    bayesian: Bayesian = "none"
    dense: DenseConfig = field(default_factory=DenseConfig)
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.model not in TABLE_MODELS:
            raise InputError(
                f"{self.model!r} takes no table; models for tables are: {', '.join(TABLE_MODELS)}"
            )
        if self.bayesian != "none" and self.model not in WIDTHS:
            raise InputError(f"--bayesian {self.bayesian} needs a dense network, not {self.model}")


@dataclass
class TableClassifier:
    """A fitted model with all that its numbers depend on.

    Attributes
    ----------
    feature_names, class_names : tuple of str
    config : TableTraining
    scaling : FeatureScaling or None
        Of a dense network.
    network : Network or None
    last_layer : (S, K, d + 1) tensor or None
        Samples of a posterior; see `classify.tabular.last_layer`.
    pipeline : sklearn Pipeline or None
        Of a classical algorithm.
    temperature : float
    history : list of dict
    record : dict
    """

    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    config: TableTraining
    scaling: FeatureScaling | None = None
    network: Network | None = None
    last_layer: torch.Tensor | None = None
    pipeline: Any = None
    temperature: float = 1.0
    history: list[dict[str, Any]] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int | None:
        """Trained numbers of a network; a classical algorithm has no such count."""
        return None if self.network is None else count_parameters(self.network)

    def columns_of(self, table: Table) -> np.ndarray:
        """(n, F) the features that the model was trained on, in its order.

        Raises
        ------
        InputError
            If the table lacks one of them.
        """
        left_out = table.provenance.get("left_out", {})
        # Missing everywhere, as single values may be; what was learnt from them still holds.
        unmeasured = {name for name, reason in left_out.items() if reason == HOLDS_NO_VALUE}
        known = {*table.feature_names, *unmeasured}
        absent = [name for name in self.feature_names if name not in known]
        if absent:
            raise InputError(
                f"the table lacks {', '.join(absent)}, which this classifier was trained on"
            )
        columns = [
            np.full(len(table), np.nan) if name in unmeasured else table.column(name)
            for name in self.feature_names
        ]
        return np.stack(columns, axis=1)

    def probabilities(self, rows: Table | np.ndarray) -> np.ndarray:
        """(n, K) float64 probabilities at the fitted temperature; rows sum to 1."""
        scores = self.log_probabilities(rows) / self.temperature
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    def log_probabilities(self, rows: Table | np.ndarray) -> np.ndarray:
        """(n, K) float64 log probabilities before the temperature."""
        features = self.columns_of(rows) if isinstance(rows, Table) else rows
        if len(features) == 0:
            return np.zeros((0, len(self.class_names)))
        if self.network is None:
            prepared = self.pipeline[:-1].transform(features)
            found = algorithms.probabilities(self.pipeline[-1], prepared, len(self.class_names))
        else:
            found = self._of_network(features)
        return np.log(np.maximum(found, SMALLEST_PROBABILITY))

    def _of_network(self, features: np.ndarray) -> np.ndarray:
        assert self.network is not None
        assert self.scaling is not None
        scaled = self.scaling(features)
        if self.last_layer is not None:
            return mean_probabilities(self.last_layer, penultimate_of(self.network, scaled)).numpy()
        if self.config.bayesian == "mc-dropout":
            passes = []
            for draw in range(DROPOUT_PASSES):
                with thinned(self.network.eval(), self.config.seed, draw):
                    logits = logits_of(self.network, scaled)
                passes.append(torch.softmax(logits.double(), dim=1))
            return torch.stack(passes).mean(dim=0).numpy()
        self.network.eval()
        return torch.softmax(logits_of(self.network, scaled).double(), dim=1).numpy()


def train_table_classifier(
    train: Table,
    validation: Table | None,
    config: TableTraining,
    *,
    augment: Augment | None = None,
    progress: bool = True,
) -> TableClassifier:
    """Train one classifier on the rows of ``train`` alone.

    Parameters
    ----------
    validation
        Chooses the epoch of a dense network; classical algorithms do not look at it.
    augment
        Changes the scaled training rows before the answer to imbalance, for example by adding
        generated ones.

    Raises
    ------
    InputError
        If a class has no training row, or the model cannot do what is asked.
    """
    labels = train.known_labels
    classes = len(train.class_names)
    absent = [name for name, n in zip(train.class_names, train.counts(), strict=True) if not n]
    if absent:
        raise InputError(f"class {', '.join(absent)} has no training row")
    features = train.features
    changed = augment or (lambda rows, targets: (rows, targets))
    classifier = TableClassifier(train.feature_names, train.class_names, config)
    if config.model in WIDTHS:
        scaling = scaling_of(features)
        rows, labels = changed(scaling(features), labels)
        rows, targets, weights = balanced_rows(rows, labels, classes, config, progress)
        settings = DenseConfig(
            **(asdict(config.dense) | {"widths": WIDTHS[config.model], "seed": config.seed})
        )
        held_out = None
        if validation is not None:
            held_out = scaling(classifier.columns_of(validation)), validation.known_labels
        trained = train_dense(
            rows, targets, weights, held_out, classes, settings, progress=progress
        )
        classifier.scaling, classifier.network = scaling, trained.network
        classifier.history = trained.history
        classifier.record["training"] = {"kept_step": trained.kept_epoch}
        # Copies and rows that were made are no observations: the posterior counts the real rows.
        counted = weights * (len(features) / len(rows))
        classifier.last_layer = _posterior(trained.network, rows, targets, counted, config)
    else:
        if config.model in algorithms.CROSS_FITTED:
            _refuse_single_rows(train, config.model)
        prepared_by = algorithms.preparation().fit(features)
        rows, held_out = prepared_by.transform(features), None
        if config.model in algorithms.STOPS_EARLY:
            # Before any row is repeated or made: copies of training rows would never say stop.
            aside = algorithms.set_aside(labels, numpy_generator_for(config.seed, "set aside"))
            held_out = rows[aside], labels[aside]
            rows, labels = rows[~aside], labels[~aside]
        rows, labels = changed(rows, labels)
        rows, targets, weights = balanced_rows(rows, labels, classes, config, progress)
        model = algorithms.fit(
            config.model, rows, targets, seed=config.seed, weights=weights, held_out=held_out,
            threads=config.threads,
        )  # fmt: skip
        prepared_by.steps.append(("classify", model))
        classifier.pipeline = prepared_by
        classifier.record["training"] = {}
    classifier.record["training"] |= {"rows": len(labels), "rows_after_balancing": len(targets)}
    return classifier


def _refuse_single_rows(train: Table, model: str) -> None:
    rows, labels = identical_rows(train), train.known_labels
    single = [
        name for k, name in enumerate(train.class_names) if len(np.unique(rows[labels == k])) == 1
    ]
    if single:
        raise InputError(
            f"{model} needs two different training rows of each class, one to learn from and one "
            f"to calibrate, and {', '.join(single)} has one; leave it out with --leave-out, or "
            "choose another --model"
        )


def balanced_rows(
    rows: np.ndarray, labels: np.ndarray, classes: int, config: TableTraining, progress: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scaled training rows after the answer to imbalance: rows, labels, weights (mean 1)."""
    rng = numpy_generator_for(config.seed, "oversampling")
    if config.resample == "gan":
        from gan.tables import TableGanConfig, train_table_gan

        generator = train_table_gan(
            rows, labels, classes, TableGanConfig(seed=config.seed), progress=progress
        )
        made, of_class = [rows], [labels]
        for k, count in enumerate(rows_to_balance(labels, classes).tolist()):
            if count:
                made.append(generator.generate(k, count, derived_seed(config.seed, "rows", k)))
                of_class.append(np.full(count, k))
        rows, labels = np.concatenate(made).astype(rows.dtype), np.concatenate(of_class)
    elif config.resample != "none":
        wanted = rows_to_balance(labels, classes)
        rows, labels = METHODS[config.resample](rows, labels, wanted, rng)
    elif config.balance in ("sampling", "sqrt-sampling"):
        exponent = 0.5 if config.balance == "sqrt-sampling" else 0.0
        rows, labels = copies(rows, labels, rows_to_balance(labels, classes, exponent), rng)
    elif config.balance != "none":
        counts = np.bincount(labels, minlength=classes)
        return rows, labels, class_weights(counts, config.balance)[labels]
    return rows, labels, np.ones(len(labels))


def _posterior(
    network: Network,
    rows: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    config: TableTraining,
) -> torch.Tensor | None:
    head = network.head
    if config.bayesian not in ("laplace", "variational"):
        return None
    assert isinstance(head, torch.nn.Linear)
    inputs, targets = penultimate_of(network, rows), torch.from_numpy(labels)
    random = generator_for(config.seed, f"{config.bayesian} last layer")
    counted = torch.from_numpy(weights)
    if config.bayesian == "laplace":
        return laplace_samples(head, inputs, targets, random, weights=counted)[0]
    return variational_samples(head, inputs, targets, random, weights=counted)


# ------------------------------------------------------------------------------- checkpoint

WEIGHTS = "weights.safetensors"
PIPELINE = "pipeline.skops"
TRUSTED = frozenset(
    {
        "numpy.dtype",
        "collections.OrderedDict",
        "sklearn.tree._tree.Tree",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.metrics._dist_metrics.EuclideanDistance",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.model_selection._split.StratifiedKFold",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
    }
)
"""Types that a pipeline may hold beside those that skops trusts by itself; none runs code."""


def save_table_classifier(
    classifier: TableClassifier, folder: Path, *, overwrite: bool = False
) -> None:
    """Write a whole checkpoint folder, or nothing."""
    with whole_folder(folder, overwrite=overwrite, marks=(WEIGHTS, PIPELINE)) as temporary:
        write_table_checkpoint(classifier, temporary)


def write_table_checkpoint(classifier: TableClassifier, folder: Path) -> None:
    """Write ``config.json`` and the weights or the pipeline into an existing folder."""
    from safetensors.torch import save_file

    if classifier.network is not None:
        state = {k: v.contiguous() for k, v in classifier.network.state_dict().items()}
        if classifier.last_layer is not None:
            state["last_layer_samples"] = classifier.last_layer.contiguous()
        save_file(state, folder / WEIGHTS)
        stored = WEIGHTS
    else:
        import skops.io

        skops.io.dump(classifier.pipeline, folder / PIPELINE)
        stored = PIPELINE
    description = {
        "kind": TABLE_KIND,
        "schema_version": 1,
        "model": classifier.config.model,
        "feature_names": classifier.feature_names,
        "class_names": classifier.class_names,
        "scaling": None if classifier.scaling is None else classifier.scaling.as_json(),
        "temperature": classifier.temperature,
        "training": asdict(classifier.config),
        "weights_sha256": hashlib.sha256((folder / stored).read_bytes()).hexdigest(),
        "record": classifier.record,
    }
    (folder / "config.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    lines = "".join(json.dumps(entry) + "\n" for entry in classifier.history)
    (folder / "log.jsonl").write_text(lines, encoding="utf-8")


def load_table_classifier(folder: Path | str) -> TableClassifier:
    """Load a checkpoint folder; nothing in it can run code.

    Raises
    ------
    InputError
        If it is not a table classifier's checkpoint, is damaged, or holds a foreign type.
    """
    folder = Path(folder)
    if not is_table_checkpoint(folder):
        raise InputError(f"{folder} is not a table classifier; make one with classify-train")
    description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    try:
        training = dict(description["training"])
        dense = DenseConfig(**training.pop("dense") | {"widths": _widths(description)})
        config = TableTraining(**training, dense=dense)
        classifier = TableClassifier(
            tuple(description["feature_names"]),
            tuple(description["class_names"]),
            config,
            temperature=float(description["temperature"]),
            history=[
                json.loads(line)
                for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
            ],
            record=description["record"],
        )
        if description["scaling"] is None:
            classifier.pipeline = _load_pipeline(folder / PIPELINE)
        else:
            classifier.scaling = FeatureScaling.from_json(description["scaling"])
            _load_network(classifier, folder / WEIGHTS)
    except (KeyError, TypeError, ValueError, OSError, RuntimeError, BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder} is a damaged table classifier ({reason})") from None
    return classifier


def _widths(description: dict[str, Any]) -> tuple[int, ...]:
    return WIDTHS.get(description["model"], tuple(description["training"]["dense"]["widths"]))


def _load_network(classifier: TableClassifier, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    classifier.last_layer = state.pop("last_layer_samples", None)
    assert classifier.scaling is not None
    network = dense_network(
        classifier.scaling.outputs,
        len(classifier.class_names),
        WIDTHS[classifier.config.model],
        classifier.config.dense.dropout,
    )
    network.load_state_dict(state)
    classifier.network = network.eval()


def _load_pipeline(path: Path) -> Any:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    foreign = set(skops.io.get_untrusted_types(file=path)) - TRUSTED
    if foreign:
        raise InputError(
            f"{path} holds types that no pipeline of ours has: {', '.join(sorted(foreign))}; "
            "it is not loaded"
        )
    try:
        return skops.io.load(path, trusted=sorted(TRUSTED))
    except UntrustedTypesFoundException as error:
        raise InputError(f"{path} is not loaded: {error}") from None
