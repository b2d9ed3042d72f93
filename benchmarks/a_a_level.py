"""How often each method claims an effect where there is none.

Simulates experiments in which nothing happened and counts the claims of augment-and-eval beside
those of the methods that papers use. Prints a Markdown table; the one in
docs/augment-and-eval.md was made by

    python benchmarks/a_a_level.py --tables 1000

and takes about ten minutes on one core.
"""

import argparse

import numpy as np
from tqdm import tqdm

from classify.experiment.null_simulation import (
    METHODS,
    ExchangeableRecipes,
    SameRecipe,
    false_claims,
)

SETTINGS: dict[str, SameRecipe | ExchangeableRecipes] = {
    "A/A, 21 test positives, 10 repeats": SameRecipe(positives=21),
    "A/A, 86 test positives, 10 repeats": SameRecipe(positives=86),
    "A/A, 86 test positives, 3 repeats": SameRecipe(positives=86, repeats=3),
    "A/A, 216 test positives, 10 repeats": SameRecipe(positives=216),
    "A/A, 216 test positives, unstable training": SameRecipe(positives=216, training_spread=0.6),
    "A/A, 86 positives in 5 folds, 5 repeats": SameRecipe(positives=86, repeats=5, folds=5),
    "equal recipes, new data, 2 folds": ExchangeableRecipes(folds=2),
    "equal recipes, new data, 3 folds": ExchangeableRecipes(folds=3),
    "equal recipes, new data, 5 folds": ExchangeableRecipes(),
    "equal recipes, new data, 10 folds": ExchangeableRecipes(folds=10),
    "equal recipes, new data, 2 folds, unlucky generators": ExchangeableRecipes(
        folds=2, fold_noise=2.0
    ),
    "equal recipes, new data, 3 folds, unlucky generators": ExchangeableRecipes(
        folds=3, fold_noise=2.0
    ),
    "equal recipes, new data, 5 folds, unlucky generators": ExchangeableRecipes(fold_noise=2.0),
    "equal recipes, new data, 40 positives, 4 folds": ExchangeableRecipes(
        positives=40, negatives=400, folds=4
    ),
    "equal recipes, new data, a stored split": ExchangeableRecipes(folds=1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=200, help="simulated experiments a row")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"| experiment without an effect | {' | '.join(METHODS)} |")
    print(f"| --- |{' --- |' * len(METHODS)}")
    for name, setting in tqdm(SETTINGS.items(), unit="row"):
        rng = np.random.default_rng(arguments.seed)
        found = false_claims(setting, arguments.tables, rng)
        folds = getattr(setting, "folds", 1)
        cells = [
            "–" if method == "corrected t over folds" and folds == 1 else f"{found[method]:.3f}"
            for method in METHODS
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
