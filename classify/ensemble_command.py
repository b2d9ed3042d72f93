"""``classify-train --ensemble``: trained checkpoints become one that answers for all."""

from pathlib import Path
from typing import cast

import torch

from classify.calibration import fit_temperature
from classify.checkpoint import MARKS, load_classifier
from classify.ensemble import Combine, Ensemble, fit_stack
from classify.finishing import finish, report, training_fingerprint
from classify.reference import make_reference
from classify.train import ClassifyTrain
from classify.validation_parts import hold_out_calibration
from galaxies.atomic import whole_folder
from galaxies.command_line import warn
from galaxies.errors import InputError
from galaxies.image_set import ImageSet


def make_ensemble(
    config: ClassifyTrain, out: Path, image_set: ImageSet, device: torch.device
) -> None:
    """Join, calibrate, test once, and write.

    Raises
    ------
    InputError
        If a member was trained on other images than the training split of the data, or chosen by
        another part of the validation split: then it may have seen what it is tested on, or what
        the ensemble is calibrated on.
    """
    folders = [folder.resolve() for folder in config.ensemble]
    if len(set(folders)) < len(folders):
        warn("--ensemble names a checkpoint twice; a copy adds nothing but weight")
    members = tuple(load_classifier(folder, device) for folder in config.ensemble)
    expected = training_fingerprint(image_set)
    for folder, member in zip(config.ensemble, members, strict=True):
        if member.joint_features is not None:
            raise InputError(
                f"{folder} sees features beside each image; an ensemble joins networks of images"
            )
        member.refuse_other_images(image_set)
        if member.class_names != image_set.class_names:
            raise InputError(
                f"{folder} knows the classes {', '.join(member.class_names)}; the data have "
                f"{', '.join(image_set.class_names)}"
            )
        found = (member.record.get("data") or {}).get("training_fingerprint")
        if found != expected:
            raise InputError(
                f"{folder} was trained on other images than the training split of {config.data}, "
                "so it may have seen what it would be tested on; train all members on one split"
            )
        share = (member.record.get("command") or {}).get("calibration_share")
        if config.calibration_share and share != config.calibration_share:
            raise InputError(
                f"{folder} was trained with --calibration-share {share}, so images that calibrate "
                "the ensemble may have chosen its weights; give the same --calibration-share "
                "to the members and the ensemble"
            )
    image_set.side("test")  # where there is none, say so at once
    chooser, calibration = hold_out_calibration(
        image_set.side("validation"), config.calibration_share
    )
    ensemble = Ensemble(members)
    if cast(Combine, config.combine) == "stack":
        assert chooser is not None
        ensemble = fit_stack(ensemble, chooser)
    if calibration is not None:
        scores = ensemble.scores(ensemble.member_probabilities(calibration))
        ensemble.temperature = fit_temperature(scores, calibration.labels)
    reference = make_reference(
        ensemble, image_set.side("train"), calibration, most_examples=config.examples
    )
    ensemble.record["training"] = {
        "parameters": sum(m.record["training"]["parameters"] for m in members),
        "members": [
            {
                "checkpoint": str(folder),
                "network": member.specification.name,
                "seed": member.config.seed,
                # What each member scored when it was made: the test side is not read again.
                "balanced_accuracy": member.record["metrics"]["balanced_accuracy"],
                "recall": {
                    entry["name"]: entry["recall"]
                    for entry in member.record["metrics"]["per_class"]
                },
            }
            for folder, member in zip(config.ensemble, members, strict=True)
        ],
    }
    with whole_folder(out, overwrite=config.overwrite, marks=MARKS) as folder:
        metrics, coverage = finish(ensemble, reference, image_set, config, folder)
    report(config, out, ensemble, metrics, coverage)
