"""On a GPU: captured steps equal eager ones, and nothing waits for the device."""

import pytest
import torch

from gan.graphs import EagerStepper, GraphStepper, make_stepper

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("recipe", ["tail", "dcgan"])
def test_captured_steps_equal_eager_ones(make_step, recipe):
    """One replayed step of each kind from the same state, to a small share of what it moves."""
    torch.backends.cudnn.allow_tf32 = False  # else two orders of the same sum differ by 1e-3
    flags = {"recipe": recipe, "penalty_every": 2}
    eager, captured = make_step(device="cuda", **flags), make_step(device="cuda", **flags)
    graphs = GraphStepper(captured)
    plain = EagerStepper(eager)
    for number in range(16):
        graphs.advance(number)
    assert graphs.reason is None
    assert graphs.name == "CUDA graphs"
    for number in (16, 17):
        before = captured.snapshot()
        eager.restore(before)
        plain.advance(number)
        graphs.advance(number)
        left, right = eager.snapshot(), captured.snapshot()
        assert torch.equal(left["random"], right["random"])
        assert torch.equal(left["step_count"], right["step_count"])
        for part in ("generator.", "discriminator."):
            names = [name for name in left if name.startswith(part) and name in before]
            moved = sum((left[name] - before[name]).square().sum() for name in names).sqrt()
            apart = sum((left[name] - right[name]).square().sum() for name in names).sqrt()
            assert moved > 0
            assert apart < 0.1 * moved, part


def test_draws_advance_between_replays(make_step):
    step = make_step(device="cuda", recipe="dcgan")
    stepper = GraphStepper(step)
    seen = []
    for number in range(8):
        stepper.advance(number)
        seen.append(step.normals.clone())
    assert len({tuple(values.flatten()[:4].tolist()) for values in seen}) == 8


def test_restoring_into_captured_graphs(make_step):
    step = make_step(device="cuda", recipe="dcgan")
    stepper = GraphStepper(step)
    for number in range(6):
        stepper.advance(number)
    snapshot = step.snapshot()
    stepper.advance(6)
    moved = step.snapshot()["step_count"]
    step.restore(snapshot)
    assert step.snapshot()["step_count"] == moved - 1
    stepper.advance(6)
    assert step.snapshot()["step_count"] == moved


def test_no_step_waits_for_the_device(make_step):
    step = make_step(device="cuda")
    stepper = make_stepper(step, graphs=False)
    stepper.advance(0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(1, 9):
            stepper.advance(number)
    finally:
        torch.cuda.set_sync_debug_mode("default")
