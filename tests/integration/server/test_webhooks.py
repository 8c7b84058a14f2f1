"""Webhooks of a build, sent to a real receiver."""

from __future__ import annotations

from tests.integration.conftest import Service
from trt_llm_pipeline.testing.webhooks import WebhookReceiver


def test_receiver_is_told_of_the_start_the_log_and_the_end(service: Service) -> None:
    service.cog.wait_until_ready()
    with WebhookReceiver() as receiver:
        body = {
            "input": {"config": "./examples/gpt/config.yaml"},
            "webhook": receiver.url,
            "webhook_events_filter": ["start", "logs", "completed"],
        }
        status, _ = service.cog.request("POST", "/predictions", body, headers={"Prefer": "respond-async"})
        assert status == 202
        events = [receiver.events.get(timeout=120)]
        while events[-1]["status"] not in ("succeeded", "failed", "canceled"):
            events.append(receiver.events.get(timeout=120))
        service.cog.wait_until_ready()
    assert events[0]["status"] in ("starting", "processing")
    assert events[-1]["status"] == "succeeded"
    assert events[-1]["logs"].startswith("toolchain cpu")
    assert events[-1]["output"].startswith("data:")
