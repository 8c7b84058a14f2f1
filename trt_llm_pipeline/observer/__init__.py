"""Who is told what a build does, and how that is said in lines."""

from trt_llm_pipeline.observer.lines import Heartbeat, Lines
from trt_llm_pipeline.observer.observer import (
    Clock,
    Observer,
    RedactedObserver,
    Stage,
    StageState,
)

__all__ = ["Clock", "Heartbeat", "Lines", "Observer", "RedactedObserver", "Stage", "StageState"]
