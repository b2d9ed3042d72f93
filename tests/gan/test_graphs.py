"""What is said of captures that fail, with a stand-in for the device."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from gan.graphs import WARM_UP_STEPS, GraphStepper, first_cause


class Stream:
    def __init__(self, device=None):
        pass

    def wait_stream(self, other):
        pass


class Graph:
    replays = 0

    def pool(self):
        return 0

    def replay(self):
        Graph.replays += 1


@pytest.fixture
def stepper(monkeypatch):
    """A stepper of plain and penalised steps in turn, whose penalised steps cannot be captured."""
    capturing = []

    def run(penalised):
        if capturing and penalised:
            raise RuntimeError("operation not permitted")

    @contextlib.contextmanager
    def capture(graph, pool, stream):
        capturing.append(True)
        try:
            yield
        finally:
            capturing.clear()

    fakes = {
        "Stream": Stream,
        "CUDAGraph": Graph,
        "graph": capture,
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": Stream,
        "synchronize": lambda device: None,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    Graph.replays = 0
    return GraphStepper(
        SimpleNamespace(
            device="cuda", run=run, draw=lambda: None, is_penalised=lambda number: number % 2 == 0
        )
    )


def test_a_failed_capture_is_told_of_its_kind_of_step_alone(stepper):
    assert stepper.reason is None
    for number in range(2 * WARM_UP_STEPS + 6):
        stepper.advance(number)
    assert stepper.reason == "penalised steps: capture failed: operation not permitted"
    assert stepper.name == f"CUDA graphs, but {stepper.reason}"
    assert Graph.replays == 3  # the plain steps after their warm-up


def test_the_first_error_of_a_failed_capture_is_the_one_that_is_told():
    """Leaving the capture raises a second one, which says only that there was a first."""

    def capture() -> None:
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    with pytest.raises(RuntimeError, match="previous error") as told:
        capture()
    assert first_cause(told.value) == "operation not permitted when stream is capturing"
    assert first_cause(ValueError()) == "ValueError"
