"""CUDA graphs of the training step: one launch instead of hundreds.

At 64x64 a step is bound by the launches of its several hundred small kernels. Captured, the
whole step (both networks, both optimizers, augmentation, averages) is one launch. Random
numbers are drawn into static buffers before each replay, so eager and captured steps see the
same ones.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from gan.step import TrainingStep
from gan.synchronised_norm import is_distributed

WARM_UP_STEPS = 3
"""Eager steps of each kind before a capture: cuDNN chooses its kernels and workspaces grow."""


class EagerStepper:
    """Runs each step kernel by kernel."""

    name = "eager"

    def __init__(self, step: TrainingStep) -> None:
        self._step = step

    def advance(self, number: int) -> None:
        """Run step ``number`` (from 0)."""
        self._step.draw()
        self._step.run(self._step.is_penalised(number))


class GraphStepper:
    """Captures each kind of step (plain, penalised) after real warm-up steps, then replays it.

    When a capture fails, the steps of that kind go on eagerly and ``reason`` says why; nothing is
    lost, since a capture computes nothing.
    """

    def __init__(self, step: TrainingStep) -> None:
        self._step = step
        self._graphs: dict[bool, torch.cuda.CUDAGraph] = {}
        self._warmed = {True: 0, False: 0}
        self._pool: Any = None
        self._stream = torch.cuda.Stream(step.device)
        self._reasons: dict[bool, str] = {}

    @property
    def reason(self) -> str | None:
        """Why some steps are not captured, for each kind of them; ``None`` where nothing failed."""
        kinds = {False: "plain", True: "penalised"}
        told = [f"{kinds[kind]} steps: {why}" for kind, why in sorted(self._reasons.items())]
        return "; ".join(told) or None

    @property
    def name(self) -> str:
        """How steps run now."""
        if self.reason:
            return f"CUDA graphs, but {self.reason}" if self._graphs else f"eager ({self.reason})"
        return "CUDA graphs" if self._graphs else "eager (warming up)"

    def advance(self, number: int) -> None:
        """Run step ``number`` (from 0) without waiting for the device."""
        penalised = self._step.is_penalised(number)
        self._step.draw()
        graph = self._graphs.get(penalised)
        failed = penalised in self._reasons
        if graph is None and not failed and self._warmed[penalised] >= WARM_UP_STEPS:
            graph = self._capture(penalised)
        if graph is not None:
            graph.replay()
            return
        self._warmed[penalised] += 1
        # Warm-up belongs on a side stream, as the capture itself.
        self._stream.wait_stream(torch.cuda.current_stream(self._step.device))
        with torch.cuda.stream(self._stream):
            self._step.run(penalised)
        torch.cuda.current_stream(self._step.device).wait_stream(self._stream)

    def _capture(self, penalised: bool) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        try:
            torch.cuda.synchronize(self._step.device)
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                self._step.run(penalised)
        except RuntimeError as error:
            self._reasons[penalised] = f"capture failed: {first_cause(error)[:200]}"
            torch.cuda.synchronize(self._step.device)
            return None
        self._pool = self._pool or graph.pool()
        self._graphs[penalised] = graph
        return graph


def first_cause(error: BaseException) -> str:
    """First line of the error that came first: leaving a failed capture raises again."""
    while error.__context__ is not None:
        error = error.__context__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def make_stepper(step: TrainingStep, graphs: bool | None) -> EagerStepper | GraphStepper:
    """Graphs on CUDA in a single process unless ``graphs`` is false; eager steps elsewhere."""
    usable = step.device.type == "cuda" and not is_distributed()
    if usable and graphs is not False:
        return GraphStepper(step)
    return EagerStepper(step)


@contextlib.contextmanager
def fast_kernels(device: torch.device) -> Iterator[None]:
    """On CUDA: kernels chosen by timing, and TF32; afterwards as before, for other trainings."""
    if device.type != "cuda":
        yield
        return
    benchmark, matmul = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    torch.backends.cudnn.benchmark = True  # shapes never change
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        torch.set_float32_matmul_precision(matmul)
