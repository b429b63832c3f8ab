"""Aligning batches of rows with a loaded model and reward."""

from __future__ import annotations

from collections.abc import Sequence

from nulltta.alignment import expected_steps
from nulltta.batch.folder import BatchFolder, BatchOutcome, OnAdvance
from nulltta.batch.tasks import RowFailure, RowTask
from nulltta.config import given_in_vain
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.evaluation.comparison import Comparison
from nulltta.runs.loading import load
from nulltta.runs.request import RunSettings


class BatchWorker:
    """Aligns batches of rows and writes each finished row to the folder.

    Args:
        settings: the settings that all rows share.
        folder: where finished rows are written.

    Raises:
        InvalidValue: if a setting is wrong.
        LoadError: if the model or a reward does not load.
    """

    def __init__(self, settings: RunSettings, folder: BatchFolder) -> None:
        self.folder = folder
        self._loaded = load(settings)
        self._usual = settings.usual

    def work(self, batch: Sequence[RowTask], on_advance: OnAdvance | None = None) -> BatchOutcome:
        """Finish the rows of a batch that are not finished yet.

        If the batch fails, its rows are tried one by one, because one row may be to blame or the batch too large.

        Args:
            batch: rows with the same settings and the same negative prompt.
            on_advance: called after each denoising step.

        Returns:
            What became of each row.

        Raises:
            InvalidValue: if a file cannot be written.
        """
        outcome = BatchOutcome({task.row: record for task in batch if (record := self.folder.record(task)) is not None})
        waiting = [task for task in batch if task.row not in outcome.finished]
        if not waiting:
            return outcome
        try:
            comparisons = self._compare(waiting, on_advance or (lambda _: None))
        except Exception as error:  # whatever a reward or a model raises, the other rows go on
            if len(waiting) == 1:
                outcome.failures.append(RowFailure(waiting[0].row, waiting[0].id, _reason(error)))
                return outcome
            for part in (self.work([task], on_advance) for task in waiting):
                outcome.finished.update(part.finished)
                outcome.failures.extend(part.failures)
            return outcome
        for task, comparison in zip(waiting, comparisons, strict=True):
            outcome.finished[task.row] = self.folder.commit(task, comparison)
        return outcome

    def _compare(self, batch: Sequence[RowTask], on_advance: OnAdvance) -> list[Comparison]:
        shared = batch[0].request
        config = shared.settings.config
        reward, started = self._loaded.reward, self._loaded.start is not None
        vain = given_in_vain(
            config, self._usual, shared.settings.method, differentiable=reward.differentiable, started=started
        )
        if own := next((name for name in vain if any(name in task.own for task in batch)), None):
            raise InvalidValue(vain[own], own)
        share = len(batch) / expected_steps(shared.settings.method, config)
        return self._loaded.compare(
            [task.prompt for task in batch], seed=[task.request.seed for task in batch],
            negative_prompt=shared.negative_prompt, config=config, on_step=lambda _: on_advance(share),
        )  # fmt: skip


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if isinstance(error, NullTTAError) else f"{type(error).__name__}: {words}"
