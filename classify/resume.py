"""``state.pt``: all that an exact continuation of a training run needs.

Random draws are keyed by (seed, purpose, step), so no random state is saved.
"""

import contextlib
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from galaxies.atomic import folder_lock, whole_file
from galaxies.command_line import config_as_json
from galaxies.errors import InputError

if TYPE_CHECKING:
    from classify.training import _Run

STATE = "state.pt"


@contextlib.contextmanager
def work_place(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; afterwards it stays only if a state to continue is there.

    The folders above that were made for it go with it, unless something else uses them by now.
    """
    made = [above for above in folder.absolute().parents if not above.exists()]
    with folder_lock(folder):
        try:
            yield
        finally:
            if not (folder / STATE).is_file():
                shutil.rmtree(folder, ignore_errors=True)
                for above in made:
                    with contextlib.suppress(OSError):
                        above.rmdir()


def save_state(run: "_Run", step: int, folder: Path) -> None:
    """Write the state after ``step`` steps; the file is whole or the previous one."""
    state = {
        "step": step,
        "config": config_as_json(run.config),
        "class_names": list(run.classifier.class_names),
        "network": run.network.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "best": run.best.state_dict(),
        "history": run.history,
        "since_look": {"steps": run.steps_since_look, "loss": run.loss_since_look},
        "rows": [phase.rows.shape[0] for phase in run.phases],
        "data": run.data_digest(),
    }
    with whole_file(folder / STATE, overwrite=True) as temporary:
        torch.save(state, temporary)


def load_state(run: "_Run", folder: Path) -> int:
    """Continue from the folder's state; returns the steps made, 0 where there is no state.

    Raises
    ------
    InputError
        If the state is damaged, or belongs to a run with other settings or data: names them.
    """
    path = folder / STATE
    if not path.is_file():
        return 0
    try:
        state: dict[str, Any] = torch.load(path, map_location=run.device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is damaged ({reason}); remove it to start anew") from None
    given = config_as_json(run.config)
    changed = [name for name in given if given[name] != state["config"].get(name)]
    if changed:
        listed = ", ".join(f"{n} was {state['config'].get(n)}, is {given[n]}" for n in changed)
        raise InputError(f"cannot resume {folder} with other settings: {listed}")
    names = list(run.classifier.class_names)
    if state.get("data") != run.data_digest() or state["class_names"] != names:
        raise InputError(
            f"cannot resume {folder}: the images that it learns from or chooses by (--data, its "
            "split, --synthetic, --calibration-share) are others than before"
        )
    step = int(state["step"])
    if any(phase.head_only and phase.first < step for phase in run.phases):
        run.network.trunk.requires_grad_(False)
        run.optimiser = run._optimiser(head_only=True)
    run.network.load_state_dict(state["network"])
    run.optimiser.load_state_dict(state["optimiser"])
    run.best.load_state_dict(state["best"])
    run.history.extend(state["history"])
    if "since_look" in state:
        run.steps_since_look = int(state["since_look"]["steps"])
        run.loss_since_look.copy_(state["since_look"]["loss"])
    return step
