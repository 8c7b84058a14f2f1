"""Stopping what waits."""

from __future__ import annotations

import pytest

from trt_llm_pipeline.net.stopping import Stopped, StopSwitch, run_interruptibly


class TestStopping:
    def test_a_thrown_switch_refuses_waits_and_connections(self) -> None:
        stop = StopSwitch()
        stop.throw()
        with pytest.raises(Stopped):
            stop.wait(60)
        with pytest.raises(Stopped):
            stop.check()

    def test_an_interruptible_call_hands_over_value_and_error(self) -> None:
        assert run_interruptibly(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            run_interruptibly(lambda: 1 // 0)
