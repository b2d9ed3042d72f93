"""The arms of experiments on tables: the answers to imbalance that rows of numbers allow.

The same names as for images wherever they mean the same. An algorithm is a part as well:
``random-forest+gan@1`` adds generated rows to a random forest, and its baseline is
``random-forest``.
"""

from classify.experiment.arms import MODIFIERS, ArmVocabulary
from classify.tabular.options import TABLE_MODELS

_BALANCE = {
    "plain": ({}, None, 0.0, "rows as they come"),
    "class-weights": ({"balance": "class-weights"}, None, 0.0, "rows weighted by 1/count"),
    "effective-number": (
        {"balance": "effective-number"}, None, 0.0, "rows weighted by the effective number",
    ),
    "sqrt-sampling": (
        {"balance": "sqrt-sampling"}, None, 0.0, "rows of rare classes repeated, by the root",
    ),
    "balanced": (
        {"balance": "sampling"}, None, 0.0, "rows repeated until every class is as large",
    ),
    "logit-adjusted": ({}, None, 1.0, "logit adjustment after training; value: tau"),
}  # fmt: skip

TABLE_ARMS = ArmVocabulary(
    techniques={
        **_BALANCE,
        **{
            name: ({"model": name}, None, 0.0, words.replace(";", ","))
            for name, words in TABLE_MODELS.items()
        },
    },
    modifiers={
        "only": (0.0, "added rows instead of the real ones of the class"),
        "again": MODIFIERS["again"],
    },
    groups={
        "classic": "plain,class-weights,effective-number,sqrt-sampling,balanced,logit-adjusted,"
        "smote@balance,borderline-smote@balance,adasyn@balance,placebo@1",
        "doses": "gan@0.25,gan@0.5,gan@1,gan@2,gan@balance",
        "generated": "gan@0.5,gan@1,gan@balance,best+gan@1",
        "full": "classic,doses,best+gan@1",
    },
    kinds={
        "gan": "generated rows",
        "placebo": "noisy copies of real rows",
        "smote": "rows of SMOTE",
        "borderline-smote": "rows of Borderline-SMOTE",
        "adasyn": "rows of ADASYN",
        "real": "further real rows",
    },
    noun="rows",
    plain={"balance": "none"},
)
