"""The checkpoint folder of a classifier: safetensors, config.json, log.jsonl, metrics.json.

Loading reads tensors and JSON only, so a checkpoint can never run code.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from classify.classifier import TrainedClassifier
from classify.damage import refuse_damaged
from classify.joint_features import JointFeatures
from classify.networks.registry import NetworkSpecification, build
from classify.normalisation import Normalisation
from classify.tabular.feature_scaling import FeatureScaling
from classify.training_config import TrainingConfig
from galaxies.atomic import whole_folder
from galaxies.command_line import config_as_json
from galaxies.errors import InputError
from galaxies.pixels import Stretch

KIND = "classifier"
SCHEMA_VERSION = 1
WEIGHTS = "weights.safetensors"
MARKS = ("metrics.json",)
"""What a folder of classify-train holds."""


def save_classifier(
    classifier: TrainedClassifier, folder: Path, *, overwrite: bool = False
) -> None:
    """Write a whole checkpoint folder, or nothing."""
    with whole_folder(folder, overwrite=overwrite, marks=(WEIGHTS,)) as temporary:
        write_checkpoint(classifier, temporary)


def write_checkpoint(classifier: TrainedClassifier, folder: Path) -> None:
    """Write the checkpoint's files into an existing folder."""
    state = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in classifier.network.state_dict().items()
    }
    save_file(state, folder / WEIGHTS)
    description = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "network": dataclasses.asdict(classifier.specification),
        "class_names": classifier.class_names,
        "size": classifier.size,
        "normalisation": dataclasses.asdict(classifier.normalisation),
        "mirror_pairs": classifier.mirror_pairs,
        "temperature": classifier.temperature,
        "training": config_as_json(classifier.config),
        "weights_sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        "record": classifier.record,
        "joint_features": None
        if classifier.joint_features is None
        else {
            "names": classifier.joint_features.names,
            "scaling": classifier.joint_features.scaling.as_json(),
        },
    }
    (folder / "config.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    lines = "".join(json.dumps(entry) + "\n" for entry in classifier.history)
    (folder / "log.jsonl").write_text(lines, encoding="utf-8")


def load_classifier(folder: Path | str, device: torch.device | str = "cpu") -> TrainedClassifier:
    """Load a checkpoint folder.

    Raises
    ------
    InputError
        If it is not a classifier's checkpoint, or is damaged.
    """
    folder = Path(folder)
    description = read_description(folder)
    with refuse_damaged(folder, "classifier checkpoint"):
        network_fields = dict(description["network"])
        if network_fields.get("mirror_permutation") is not None:
            network_fields["mirror_permutation"] = tuple(network_fields["mirror_permutation"])
        specification = NetworkSpecification(**network_fields)
        scale = description["normalisation"]
        normalisation = Normalisation(
            tuple(scale["mean"]),
            tuple(scale["std"]),
            Stretch(**scale["stretch"]) if scale["stretch"] else None,
        )
        config = config_from_json(description["training"])
        given = description.get("joint_features")
        joint = given and JointFeatures(
            tuple(given["names"]), FeatureScaling.from_json(given["scaling"])
        )
        network = build(specification)
        state = load_file(folder / WEIGHTS)
        network.load_state_dict(state)
        classifier = TrainedClassifier(
            network=network,
            specification=specification,
            class_names=tuple(description["class_names"]),
            size=int(description["size"]),
            normalisation=normalisation,
            config=config,
            mirror_pairs=tuple((left, right) for left, right in description["mirror_pairs"]),
            history=_read_log(folder / "log.jsonl"),
            temperature=float(description["temperature"]),
            record=description["record"],
            device=torch.device(device),
            joint_features=joint,
        )
    network.to(classifier.device).eval()
    return classifier


def read_description(folder: Path) -> dict[str, Any]:
    """``config.json`` of a classifier's checkpoint, without its weights."""
    path = folder / "config.json"
    if not folder.exists():
        raise InputError(f"{folder} does not exist")
    if not path.is_file():
        raise InputError(f"{folder} is not a checkpoint: it holds no config.json")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON ({error})") from None
    if not isinstance(description, dict) or description.get("kind") != KIND:
        raise InputError(f"{folder} is not a classifier's checkpoint; make one with classify-train")
    return description


def config_from_json(values: dict[str, Any]) -> TrainingConfig:
    """`TrainingConfig` from its JSON form; keys that belong to a command only are left out."""
    known = {field.name for field in dataclasses.fields(TrainingConfig)}
    chosen = {name: value for name, value in values.items() if name in known}
    return TrainingConfig(**chosen)


def _read_log(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
