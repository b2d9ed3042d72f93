"""Every choice that concerns a table, as flags of ``classify-train``; images ignore them."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from galaxies.errors import InputError

Resample = Literal["none", "smote", "borderline-smote", "adasyn", "gan"]
Bayesian = Literal["none", "mc-dropout", "laplace", "variational"]

_Columns = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="COLUMN")]

TABLE_MODELS: dict[str, str] = {
    "logistic-regression": "linear, on standardised features",
    "random-forest": "200 trees",
    "gradient-boosting": "histogram gradient boosting, early stopping on a tenth of the training",
    "svm": "radial kernel, probabilities by Platt's sigmoid in cross-fitting",
    "nearest-neighbours": "15 neighbours, weighted by distance",
    "lightgbm": "leaf-wise boosted trees (extra boost)",
    "dense": "dense network of MargNet: 1024-256-128-64-32, 331,331 parameters at 24 features",
    "dense-small": "dense network 128-64, for tables of a few thousand rows",
}
"""Models that take a table, and what they are."""


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    """Which columns of a table play which part."""

    class_column: str | None = None
    """Tables: column of the class; class, label, target_class or type are found by name."""
    id_column: str | None = None
    """Tables: column of unique names."""
    group_column: str | None = None
    """Tables: column whose equal values a split keeps on one side."""
    split_column: str | None = None
    """Tables: column with a published split: train, validation or test."""
    columns: tuple[str, ...] = ()
    """Tables: use only these columns as features."""
    exclude_column: _Columns = ()
    """Tables: never use this column; may be repeated."""
    allow_column: _Columns = ()
    """Tables: use this column although it gives the class away (a redshift, a plate, a fibre),
    names a row, or says where it lies; may be repeated."""


@dataclass(frozen=True, kw_only=True)
class TableOptions(ColumnOptions):
    """Flags that apply where ``--data`` is a table (CSV, Parquet, FITS, .npz)."""

    features: Literal["plain", "colours"] = "plain"
    """Tables: colours adds differences of neighbouring magnitudes (u-g, g-r, ...) and their
    errors."""
    resample: Resample = "none"
    """Tables: new rows for the rare classes, in place of --balance: SMOTE (Chawla et al. 2002),
    Borderline-SMOTE (Han et al. 2005), ADASYN (He et al. 2008), or a conditional GAN."""
    bayesian: Bayesian = "none"
    """Dense networks: mean over an approximate posterior: MC dropout (Gal & Ghahramani 2016),
    last-layer Laplace (Daxberger et al. 2021), or a variational last layer (Blundell 2015)."""
    epochs: int = 200
    """Dense networks: most walks through the training rows; --batch-size and --learning-rate
    default to 256 and 0.001 for tables."""
    table_patience: int = 30
    """Dense networks: stop after so many epochs without a lower validation loss, and restore the
    weights of the lowest."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"--epochs must be at least 1, got {self.epochs}")
        if self.table_patience < 1:
            raise InputError(f"--table-patience must be at least 1, got {self.table_patience}")
