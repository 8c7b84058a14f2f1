"""Progress as occasional lines of text, for logs that cannot redraw a bar."""

from __future__ import annotations

from collections.abc import Callable

from trt_llm_pipeline.units import in_words

_EVERY_S = 5.0


def throttled(
    log: Callable[[str], None], clock: Callable[[], float]
) -> Callable[[str, int, int | None], None]:
    """A progress callback that logs a line every few seconds.

    Args:
        log: takes the lines.
        clock: the time in seconds.

    Returns:
        A function of the stage, the bytes that are done, and all bytes or None.
    """
    next_line = clock() + _EVERY_S

    def report(stage: str, done: int, total: int | None) -> None:
        nonlocal next_line
        now = clock()
        if now < next_line:
            return
        next_line = now + _EVERY_S
        if total:
            log(f"{stage}: {in_words(done)} of {in_words(total)} ({100 * done // total}%)")
        else:
            log(f"{stage}: {in_words(done)}")

    return report
