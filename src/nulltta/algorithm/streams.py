"""Running a method: its stream of steps is iterated, its outcome and trace are kept."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from nulltta.algorithm.memory import ANY_RUN, TINY_DECODER
from nulltta.algorithm.problem import Problem
from nulltta.contracts import OnStep, Outcome, Step, Stream
from nulltta.errors import out_of_memory_as_error


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
        problem: that problem, so that `OutOfMemory` can name what saves memory for its model.

    Attributes:
        trace: the steps so far, without previews.
        outcome: what the method returned; set at the end.
    """

    outcome: Outcome

    def __init__(self, stream: Stream, problem: Problem | None = None) -> None:
        self.trace: list[Step] = []
        self._stream, self._problem = stream, problem

    def __iter__(self) -> Iterator[Step]:
        p = self._problem
        spare = p is not None and "tiny" in p.model.details and p.config.inner_decoder != "tiny"
        with out_of_memory_as_error(*((TINY_DECODER, *ANY_RUN) if spare else ANY_RUN)):
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
