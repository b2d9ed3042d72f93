"""Where one unit is trained: the images in memory, the sides of its fold, and what arms add."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classify.borrowed_features import with_borrowed_features
from classify.determinism import derived_seed, numpy_generator_for
from classify.experiment.added_images import (
    CANDIDATES_PER_KEPT,
    at_equal_dose,
    filtered,
    generate_images,
    is_checkpoint,
    joined,
    noisy_copies,
)
from classify.experiment.arms import Arm
from classify.experiment.division import Division, Setting
from classify.experiment.generators import (
    GeneratorUnit,
    TrainGeneratorFunction,
    run_generator_unit,
)
from classify.experiment.generators import (
    train_generator as train_fold_generator,
)
from classify.experiment.kept_classifiers import (
    KeptClassifiers,
    TrainFunction,
    selector_training,
)
from classify.experiment.measures import FoldPredictions
from classify.experiment.protocol import data_digest, image_units
from classify.experiment.smote import retrain_head_with_smote
from classify.experiment.training_names import as_named, identity, with_own_precision
from classify.experiment.units import ClassifierUnit, UnitOutput
from classify.features import STEPS as JUDGE_STEPS
from classify.features import judge_training
from classify.joint_features import JOINT_NETWORKS, joint_features_of
from classify.networks.registry import NetworkSpecification, build
from classify.synthetic import align_classes
from classify.training import TrainedClassifier, TrainingConfig, train_classifier
from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from gan.networks import SIZES

GenerateFunction = Callable[[Path, str, int, int, torch.device], ImageSet]
"""(checkpoint, class name, count, seed, device) -> that many generated images."""


class Laboratory(Division):
    """Trains units of one experiment.

    Parameters
    ----------
    image_set
        Real images; read into memory.
    setting
        Shared by all units.
    units
        (N,) from `classify.experiment.leaks.check_leaks`; by default groups and exact duplicates.
    train, generate, train_generator
        Replaceable for tests and other trainers.
    """

    def __init__(
        self,
        image_set: ImageSet,
        setting: Setting,
        *,
        units: np.ndarray | None = None,
        train: TrainFunction = train_classifier,
        generate: "GenerateFunction | None" = None,
        train_generator: "TrainGeneratorFunction | None" = None,
    ) -> None:
        self.image_set = image_set.in_memory()
        fingerprints = self.image_set.fingerprints()
        super().__init__(
            self.image_set,
            setting,
            data_digest(self.image_set, fingerprints),
            image_units(self.image_set, fingerprints) if units is None else units,
        )
        # With a cluster this process may lack what its workers have; it measures all the same.
        self.device = torch.device(
            "cpu" if setting.device != "cpu" and not torch.cuda.is_available() else setting.device
        )
        self._train = train
        self._generate = generate or generate_images
        self._train_generator = train_generator or train_fold_generator
        self._kept = KeptClassifiers(self.image_set, self.digest, setting, train)

    def training_of(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Every field of the training configuration of an arm; a new head trains within it."""
        shared = self.setting.training
        steps = shared["steps"]
        if arm.added is not None:
            steps -= self.details_of(arm).get("head_steps", 0)
        config = TrainingConfig(
            **{
                **shared,
                **arm.settings,
                "steps": steps,
                "retrain_head_steps": round(arm.head_share * shared["steps"]),
                "seed": seed,
            }
        )
        return identity(with_own_precision(config, self.setting.device))

    def refuse_unbuildable(self) -> None:
        """Refuse a network that does not exist, or that these images cannot be given to."""
        if self._train is not train_classifier:
            return
        model, images = self.setting.training["model"], self.image_set
        table = joint_features_of(images).scaling.outputs if model in JOINT_NETWORKS else 0
        specification = NetworkSpecification(
            name=model,
            channels=images.channels,
            size=images.size,
            classes=len(images.class_names),
            mirror_permutation=tuple(images.mirror_permutation().tolist()),
            table_columns=table,
        )
        build(specification)

    @property
    def generator_sizes(self) -> tuple[int, Sequence[int]]:
        """Another trainer than `gan.trainer` has sizes of its own."""
        own = self._train_generator is train_fold_generator
        return self.image_set.size, SIZES if own else ()

    def details_of(self, arm: Arm) -> dict[str, Any]:
        """SMOTE spends a quarter of the steps on its head; two rules that changed are named.

        They stand only where they apply, so all other runs from before are found again.
        """
        if arm.added is None:
            return {}
        if arm.added.kind == "smote":
            return {"head_steps": max(1, self.setting.training["steps"] // 4)}
        details: dict[str, Any] = {}
        index = self.setting.class_index
        if arm.added.keep_above and self.mirror_permutation[index] != index:
            details["copies_of"] = "class and twin"
        mixes = arm.settings.get("mixup") or arm.settings.get("cutmix")
        if mixes and arm.settings.get("synthetic_weight", 1.0) != 1.0:
            details["mixed_weights"] = True
        return details

    @property
    def mirror_permutation(self) -> list[int]:
        """(K,) class of the mirror image of each class."""
        return self.image_set.mirror_permutation().tolist()

    def run(self, unit: ClassifierUnit) -> UnitOutput:
        """Train one unit and let it speak of its validation and test images."""
        if unit.data != self.digest:
            raise InputError("the image set changed since the experiment was planned")
        self._refuse_other_device()
        begun = time.perf_counter()
        torch.set_num_threads(self.setting.threads)
        train_rows, validation_rows, test_rows = self.sides(unit.fold, unit.repeat, unit.keep)
        config = as_named(TrainingConfig(**unit.training), self.device.type)
        train = self.image_set.select(train_rows)
        validation = self.image_set.select(validation_rows)
        note: dict[str, Any] = {}
        added: ImageSet | None = None
        if unit.images is not None and unit.images["kind"] != "smote":
            added, note = self._added_images(unit, train)
            if self._sees_features and not added.feature_names:  # before the donors leave
                added = with_borrowed_features(added, train, config.seed)
            if unit.images["instead"]:
                train = train.select(train.labels != self.setting.class_index)
        counts = train.counts() + (0 if added is None else added.counts())
        begun_training = time.perf_counter()
        classifier = self._train(
            train, validation, config, synthetic=added, device=self.device, progress=False
        )
        training_seconds = time.perf_counter() - begun_training
        if unit.images is not None and unit.images["kind"] == "smote":
            note = retrain_head_with_smote(
                classifier, train, self.setting.class_index, **_smote_arguments(unit)
            )
        test = self.image_set.select(test_rows)
        predictions = FoldPredictions(
            validation_rows=validation_rows,
            validation_labels=validation.labels,
            validation_probabilities=classifier.probabilities(validation).numpy(),
            test_rows=test_rows,
            test_labels=test.labels,
            test_probabilities=classifier.probabilities(test).numpy(),
        )
        metrics = {
            "seconds": time.perf_counter() - begun,
            "training_seconds": training_seconds,
            "device": str(self.device),
            "torch": torch.__version__,
            "training_counts": counts.tolist(),
            "training": classifier.record.get("training", {}),
            "added": note,
        }
        return UnitOutput(predictions, metrics)

    def run_generator(self, unit: GeneratorUnit) -> bool:
        """Train one generator; ``False`` where another process is at it."""
        self._refuse_other_device()
        fold = self.folds(unit.keep)[unit.fold]
        setting = self.setting
        torch.set_num_threads(setting.threads)
        return run_generator_unit(
            unit, self.image_set, fold, setting.folder, setting.device, self._train_generator
        )

    def _refuse_other_device(self) -> None:
        if self.device.type != torch.device(self.setting.device).type:
            raise InputError(
                f"this training is to run on {self.setting.device}, which this machine does not "
                "have; give the workers that have it a resource and name it with --dask-resources"
            )

    @property
    def _sees_features(self) -> bool:
        return self.setting.training["model"] in JOINT_NETWORKS

    def selector(self, fold: int, keep: int | None) -> TrainedClassifier:
        """The classifier of a fold's real training images that filters and judges.

        It sees images alone, also where the arms see features as well: what it judges has none.
        """
        config = selector_training(self.setting, fold)
        return self._kept.get("selector", self.folds(keep)[fold], config, self.device)

    def judge(self, fold: int, keep: int | None) -> TrainedClassifier:
        """The classifier whose features measure generated images.

        As `classify.features.train_extractor`: unlike the selector it must not know the training
        images by heart, or images like them, the best that there can be, look bad.
        """
        seed = derived_seed(self.setting.seed, "judge", fold) % 2**31
        config = judge_training(seed, min(JUDGE_STEPS, self.setting.training["steps"]))
        return self._kept.get("judge", self.folds(keep)[fold], config, self.device)

    def class_and_twin(self, rows: np.ndarray) -> ImageSet:
        """Images of the class among ``rows``, and of its mirror twin where it has one.

        A generator with symmetries learns a clockwise spiral from mirrored anticlockwise ones
        too, so a copy of one of these is no new image.
        """
        index = self.setting.class_index
        twin = int(self.image_set.mirror_permutation()[index])
        return self.image_set.select(rows).of_classes(sorted({index, twin}))

    def generated(
        self, path: str, count: int, seed: int, class_name: str | None = None
    ) -> ImageSet:
        """``count`` generated images of a class (the one at stake), labelled as in the real set."""
        name = class_name or self.class_name
        images = self._generate(Path(path), name, count, seed, self.device)
        return align_classes(images, self.image_set.class_names)

    def generated_up_to(self, path: str, count: int, seed: int) -> ImageSet:
        """As `generated`, but all images of a synthetic set that holds fewer."""
        return self.generated(path, self.at_hand(path, count), seed)

    def at_hand(self, path: str, count: int) -> int:
        """``count``, or how many images of the class a synthetic set holds if fewer."""
        if is_checkpoint(Path(path)):
            return count
        from galaxies.sources import open_image_set

        return min(count, len(open_image_set(path).of_classes([self.class_name])))

    def _added_images(
        self, unit: ClassifierUnit, train: ImageSet
    ) -> tuple[ImageSet, dict[str, Any]]:
        assert unit.images is not None
        wanted = unit.images
        kind, count, seed = wanted["kind"], wanted["count"], wanted["seed"]
        random = numpy_generator_for(seed, kind)
        if kind == "gan":
            if wanted.get("every_class"):
                return self._of_every_class(unit)
            if wanted["keep_above"]:
                return self._filtered(unit)
            return self.generated(unit.generator_path, count, seed), {"count": count}
        if kind == "real":
            pool = self.folds(unit.keep)[unit.fold].held_back
            rows = np.sort(random.permutation(pool)[:count])
            return self.image_set.select(rows), {"count": count, "of": len(pool)}
        own = train.of_classes([self.setting.class_index])
        return noisy_copies(own, count, random), {"count": count, "of": len(own)}

    def _of_every_class(self, unit: ClassifierUnit) -> tuple[ImageSet, dict[str, Any]]:
        """Generated images of all classes, as many per real one as the class at stake gets."""
        assert unit.images is not None
        fold = self.folds(unit.keep)[unit.fold]
        names = self.image_set.class_names
        real = np.bincount(self.image_set.labels[fold.train], minlength=len(names))
        counts = at_equal_dose(real, self.setting.class_index, unit.images["count"])
        seed = unit.images["seed"]
        made = [
            self.generated(unit.generator_path, int(count), seed, name)
            for name, count in zip(names, counts, strict=True)
            if count
        ]
        return joined(made), {"count": int(counts.sum()), "per_class": counts.tolist()}

    def _filtered(self, unit: ClassifierUnit) -> tuple[ImageSet, dict[str, Any]]:
        """Generated images of the class that pass the filter."""
        assert unit.images is not None
        wanted, index = unit.images, self.setting.class_index
        count = wanted["count"]
        candidates = self.generated_up_to(
            unit.generator_path, CANDIDATES_PER_KEPT * count, wanted["seed"]
        )
        probabilities = self.selector(unit.fold, unit.keep).probabilities(candidates)
        fold = self.folds(unit.keep)[unit.fold]
        return filtered(
            candidates,
            probabilities[:, index].numpy(),
            count,
            wanted["keep_above"],
            real=self.class_and_twin(fold.train),
            held_out=self.image_set.select(fold.validation).of_classes([index]),
        )


def _smote_arguments(unit: ClassifierUnit) -> dict[str, Any]:
    assert unit.images is not None
    return {
        "count": unit.images["count"],
        "seed": unit.images["seed"],
        "steps": unit.images["head_steps"],
        "batch_size": unit.training["batch_size"],
        "learning_rate": unit.training["learning_rate"],
    }
