"""What does a batch of rows: a model, a reward, and the folder that the rows go to."""

from __future__ import annotations

from collections.abc import Sequence

from nulltta.batch.folder import Advance, Folder, Outcome
from nulltta.batch.tasks import Failure, Task
from nulltta.errors import NullTTAError
from nulltta.evaluation.comparison import Comparison
from nulltta.runs.loading import load
from nulltta.runs.request import RunSettings


class Worker:
    """Aligns rows that share their settings and writes each to the folder.

    Raises:
        NullTTAError: the model or a reward does not load.
    """

    def __init__(self, settings: RunSettings, folder: Folder) -> None:
        self.folder = folder
        self._loaded = load(settings)

    def work(self, batch: Sequence[Task], advance: Advance | None = None) -> Outcome:
        """Finish the rows of a batch that are not finished yet.

        Where a batch fails, its rows are tried one by one: it may be one row's fault, or too many for the memory.

        Raises:
            NullTTAError: a file cannot be written.
        """
        outcome = Outcome({task.row: record for task in batch if (record := self.folder.record(task)) is not None})
        waiting = [task for task in batch if task.row not in outcome.finished]
        if not waiting:
            return outcome
        try:
            comparisons = self._compare(waiting, advance or (lambda _: None))
        except Exception as error:  # whatever a reward or a model raises for a row, the other rows go on
            if len(waiting) == 1:
                outcome.failures.append(Failure(waiting[0].row, waiting[0].id, _reason(error)))
                return outcome
            for part in (self.work([task], advance) for task in waiting):
                outcome.finished.update(part.finished)
                outcome.failures.extend(part.failures)
            return outcome
        for task, comparison in zip(waiting, comparisons, strict=True):
            outcome.finished[task.row] = self.folder.commit(task, comparison)
        return outcome

    def _compare(self, batch: Sequence[Task], advance: Advance) -> list[Comparison]:
        shared = batch[0].request
        config = shared.settings.config
        share = len(batch) / config.num_inference_steps
        return self._loaded.compare(
            [task.prompt for task in batch], seed=[task.request.seed for task in batch],
            negative_prompt=shared.negative_prompt, config=config, on_step=lambda _: advance(share),
        )  # fmt: skip


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if isinstance(error, NullTTAError) else f"{type(error).__name__}: {words}"
