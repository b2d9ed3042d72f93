"""A first Ctrl-C is noted and answered, a second one interrupts."""

import os
import signal

import pytest

from galaxies.stop_requests import stop_requests


def test_the_first_is_answered_and_the_second_interrupts(capfd: pytest.CaptureFixture[str]) -> None:
    with stop_requests() as received:
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGINT]
        assert "stopping when this step or evaluation has ended" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_request_to_terminate_is_noted_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with stop_requests() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
    assert capfd.readouterr().err == ""
