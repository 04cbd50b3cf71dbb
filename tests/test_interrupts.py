import os
import signal

import pytest

from mvsa_tune import machine


class Swallows:
    """An object in whose destructor exceptions are lost, as Python has it."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))  # the signal is handled here


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_is_swallowed_is_remembered() -> None:
    with machine.interruptible():
        machine.check_interrupted()
        Swallows()
        with pytest.raises(KeyboardInterrupt):
            machine.check_interrupted()
    with machine.interruptible():
        machine.check_interrupted()  # forgotten by the next command


def test_sigterm_interrupts_as_ctrl_c_does_and_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with machine.interruptible(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(1000))
    assert signal.getsignal(signal.SIGTERM) is before
