"""Features of any timm model with a local file of weights: the pooled layer before its head."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from fid.full_precision import full_precision
from fid.recipes import to_three_channels
from fid.weights import read_weights
from galaxies.errors import InputError

_TENSORFLOW_CLASSES = 1001
"""Heads of TensorFlow's ImageNet models have one class more, the background."""

_OWN_SETTINGS = ("mean", "std", "side")


class TimmFeatures:
    """A timm model without its head.

    Parameters
    ----------
    model
        Network with ``num_classes=0``.
    name
        The model's name in timm.
    weights_sha256
        Of the file of weights.
    side
        Pixels of the input.
    mean, std
        (3,) normalisation of values in [0, 1].
    device
        Where the network runs.
    settings
        What was changed from the model's defaults, and its own normalisation, for the recipe.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        name: str,
        weights_sha256: str,
        *,
        side: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
        settings: str = "",
    ) -> None:
        self.name = name
        self.weights_sha256 = weights_sha256
        self.device = device
        self.bands: tuple[int, int, int] | None = None
        self._side = side
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)
        self._settings = settings
        self._model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.dimensions = int(getattr(model, "head_hidden_size", None) or model.num_features)  # type: ignore[arg-type]

    @property
    def recipe(self) -> str:
        """Resize and settings."""
        parts = [f"bicubic antialiased to {self._side}"]
        if self._settings:
            parts.append(self._settings)
        if self.bands is not None:
            parts.append(f"bands {' '.join(map(str, self.bands))}")
        return ", ".join(parts)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) uint8 to (n, d) float32."""
        images = to_three_channels(images.to(self.device, non_blocking=True), self.bands)
        unit = images.to(torch.float32).div_(255)
        if unit.shape[-2:] != (self._side, self._side):
            size = (self._side, self._side)
            unit = F.interpolate(unit, size=size, mode="bicubic", antialias=True).clamp_(0, 1)
        x = ((unit - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        with full_precision():
            return self._model(x).to(torch.float32)


def load(argument: str, weights: Path | None, device: torch.device) -> TimmFeatures:
    """Loader of ``timm:NAME[,setting=value,...]``.

    Settings are ``mean``, ``std``, ``side`` and any keyword of the model. A head of 1001 classes
    says that the weights follow TensorFlow's conventions: then, unless set otherwise, the input
    runs from -1 to 1 and the padding is ``same``.
    """
    name, settings = _parse(argument)
    timm = _import_timm()
    if not timm.is_model(name.partition(".")[0]):
        near = timm.list_models(f"*{name.partition('_')[0]}*")[:5]
        hint = f" (for example {', '.join(near)})" if near else ""
        raise InputError(f"timm has no model {name!r}{hint}")
    if weights is None:
        raise InputError(
            f"--features timm:{name} needs --weights FILE with the model's state dict "
            "(.safetensors or .pth); nothing is downloaded"
        )
    state, digest = read_weights(weights)
    if _head_classes(state) == _TENSORFLOW_CLASSES:
        settings = {"mean": 0.5, "std": 0.5, **settings}
    model_settings = {key: value for key, value in settings.items() if key not in _OWN_SETTINGS}
    model, model_settings = _create(timm, name, model_settings, state)
    _load_without_head(model, state, weights, name)
    defaults = timm.data.resolve_data_config({}, model=model)
    applied = {**settings, **model_settings}
    # A later version of timm may bring other ones.
    own = {key: defaults[key] for key in ("mean", "std") if key not in settings}
    described = [f"{key} {value}" for key, value in sorted(applied.items())]
    described += [f"own {key} {' '.join(map(str, value))}" for key, value in own.items()]
    return TimmFeatures(
        model,
        name,
        digest,
        side=int(settings.get("side", defaults["input_size"][-1])),
        mean=_three(settings.get("mean", defaults["mean"])),
        std=_three(settings.get("std", defaults["std"])),
        device=device,
        settings=", ".join(described),
    )


def _create(
    timm: Any, name: str, settings: dict[str, Any], state: Mapping[str, torch.Tensor]
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Build without a head; TensorFlow's padding where the weights and the model ask for it."""
    if _head_classes(state) == _TENSORFLOW_CLASSES and "pad_type" not in settings:
        try:
            wanted = {**settings, "pad_type": "same"}
            return timm.create_model(name, pretrained=False, num_classes=0, **wanted), wanted
        except TypeError:
            pass  # this architecture has no such choice
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **settings), settings
    except (TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--features timm:{name}: {reason}") from None


def _load_without_head(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path, name: str
) -> None:
    needed = model.state_dict()
    missing = [
        key for key in needed if key not in state and not key.endswith("num_batches_tracked")
    ]
    wrong = [key for key in needed if key in state and state[key].shape != needed[key].shape]
    if missing or wrong:
        raise InputError(
            f"{path} does not fit timm's {name}: {len(missing)} tensors are missing and "
            f"{len(wrong)} have another shape (first: {(missing + wrong)[0]})"
        )
    model.load_state_dict({key: state[key] for key in needed if key in state}, strict=False)


def _head_classes(state: Mapping[str, torch.Tensor]) -> int | None:
    heads = ("classifier.bias", "fc.bias", "head.bias", "head.fc.bias")
    return next((len(state[key]) for key in heads if key in state), None)


def _parse(argument: str) -> tuple[str, dict[str, Any]]:
    name, *pairs = argument.split(",")
    if not name:
        raise InputError("--features timm needs a model: timm:NAME, for example timm:resnet18")
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"--features timm:{argument}: {pair!r} is not setting=value")
        try:
            settings[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[key] = value
    return name, settings


def _three(value: Any) -> tuple[float, ...]:
    try:
        values = tuple(float(v) for v in (value if isinstance(value, tuple | list) else [value]))
    except (TypeError, ValueError):
        raise InputError(f"mean and std are numbers, got {value!r}") from None
    return values * 3 if len(values) == 1 else values


def _import_timm() -> Any:
    try:
        import timm
    except ImportError:
        raise InputError("timm features need timm: pip install 'galaxy-augment[timm]'") from None
    return timm
