"""How often each method claims an effect where there is none, and how often one is seen.

Simulates experiments in which nothing happened and counts the claims of augment-and-eval beside
those of the methods that papers use; then experiments with an effect, and counts how often the
intervals cover it and what is said of it. Prints two Markdown tables; those in
docs/augment-and-eval.md were made by

    python benchmarks/a_a_level.py --tables 1000

and take about twenty minutes on one core.
"""

import argparse

import numpy as np
from tqdm import tqdm

from classify.experiment.null_simulation import (
    METHODS,
    EqualRecipesInGroups,
    ExchangeableRecipes,
    SameRecipe,
    Setting,
    false_claims,
    sharpness,
)

NOTHING: dict[str, Setting] = {
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
    "equal recipes, 236 positives in 9 unequal groups": EqualRecipesInGroups(),
    "equal recipes, 236 positives in 9 equal groups": EqualRecipesInGroups(sizes=(26,) * 9),
    "equal recipes, 90 positives in 3 equal groups": EqualRecipesInGroups(sizes=(30,) * 3),
}

SOMETHING: dict[str, Setting] = {
    "new data, 86 positives, 3 folds": ExchangeableRecipes(folds=3, advantage=0.05),
    "new data, 86 positives, 5 folds": ExchangeableRecipes(advantage=0.05),
    "new data, 86 positives, 5 folds, more": ExchangeableRecipes(advantage=0.1),
    "new data, 400 positives, 5 folds": ExchangeableRecipes(
        positives=400, negatives=1600, advantage=0.05
    ),
    "new data, 400 positives, 5 folds, more": ExchangeableRecipes(
        positives=400, negatives=1600, advantage=0.1
    ),
}

CLAIMS = ("helped", "harmed", "no detectable effect", "too small to tell")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=200, help="simulated experiments a row")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"| experiment without an effect | {' | '.join(METHODS)} |")
    print(f"| --- |{' --- |' * len(METHODS)}")
    for name, setting in tqdm(NOTHING.items(), unit="row"):
        rng = np.random.default_rng(arguments.seed)
        found = false_claims(setting, arguments.tables, rng)
        folds = getattr(setting, "folds", 1)
        cells = [
            "–" if method == "corrected t over folds" and folds == 1 else f"{found[method]:.3f}"
            for method in METHODS
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(
        "\n| experiment with an effect | effect, points | 95 % intervals that cover it | p <= .05 |"
        f" {' | '.join(CLAIMS)} |"
    )
    print(f"| --- |{' --- |' * (3 + len(CLAIMS))}")
    for name, setting in tqdm(SOMETHING.items(), unit="row"):
        rng = np.random.default_rng(arguments.seed)
        told = sharpness(setting, arguments.tables, rng)
        shares = [told.coverage, told.significant, *(told.claims.get(one, 0) for one in CLAIMS)]
        cells = [f"{100 * told.effect:.1f}", *(f"{share:.3f}" for share in shares)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
