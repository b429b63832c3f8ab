"""Running a method: its stream of steps is iterated, its outcome and trace are kept."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from nulltta.algorithm.memory import out_of_memory_as_error
from nulltta.contracts import OnStep, Outcome, Step, Stream


class MethodRun:
    """An iterable over a method's steps that keeps what the method returns.

        run = MethodRun(null_tta(problem))
        for step in run:
            print(step.index)
        images = run.outcome.candidates

    Iterating raises `OutOfMemory` if memory runs out. A loop that is left early leaves `outcome` unset; `close` then
    ends the method.

    Args:
        stream: what the method returned for a problem.

    Attributes:
        trace: the steps so far, without previews.
        outcome: what the method returned; set at the end.
    """

    outcome: Outcome

    def __init__(self, stream: Stream) -> None:
        self.trace: list[Step] = []
        self._stream = stream

    def __iter__(self) -> Iterator[Step]:
        with out_of_memory_as_error():
            for step in self._steps():
                self.trace.append(step.without_preview())
                yield step

    def finish(self, on_step: OnStep | None = None) -> Outcome:
        """Run the method to its end, calling `on_step` after each step, and return its outcome."""
        for step in self:
            if on_step is not None:
                on_step(step)
        return self.outcome

    def close(self) -> None:
        """End a method that was left early."""
        self._stream.close()

    def _steps(self) -> Generator[Step, None, None]:
        self.outcome = yield from self._stream
