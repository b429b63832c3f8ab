"""Write what `tests.families_table` measured into docs/families.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

HEADING = "## Measured\n"
EXPLANATION = """
Measured on the tiny checkpoints of the tests, with {steps} denoising steps (one for latent consistency models, whose
own steps draw noise), η = 0 and a guidance scale of {scale:g}, on a CPU, with diffusers {diffusers} ({dates}). A number
is the largest difference between two images whose pixels are in [0, 1]; under *align* it is the gain in brightness.

| column | what is compared |
|---|---|
| plain | plain sampling and the stock call |
| align | the mean brightness of the aligned image and of plain sampling |
| apply | sampling under the learnt null text and the stock call inside `NullText.apply` |
| replay | the aligned image and its exact replay from a file, by a pipeline that was loaded anew |
| size | as *plain*, at twice the width |
| offload | the aligned image with the denoiser and the decoder under sequential offloading, and without |
| LoRA | as *plain*, with an adapter of random weights on the denoiser |
| image input | which picture the call of the row is given |
| compile | the gradient at the null text, in float32, with the denoiser traced by TorchDynamo, and without |

The difference under *compile* is relative to the gradient's largest element; it is measured in float32 only, because a
trace takes as long as the rest of a row. "diffusers fails" means that the
pipeline's own call raised what follows.

In half precision a stock call also rounds the latents between two steps, which are kept in float32 here, so that
*plain*, *apply*, *size* and *LoRA* differ by about the precision of the type.

`python -m tests.families_table` measures what is not in `studies/results/families.json` yet, and may be stopped and
continued; with names of classes it measures these anew, and with `--write` it writes this section. A class takes about
10 s of processor time in each dtype, so that continuous integration only checks that this section is what the results
say. It follows the stock call of many classes in float32 (`tests/contracts`, `tests/models/test_further_pipelines.py`).
"""
REFUSED = ("refused: ", "diffusers fails: ")
"""What a cell begins with that holds no measurement."""
LONGEST = 200
"""The most characters of a cell."""


def document(text: str, results: Mapping[str, Any]) -> str:
    """Return the text of the page with its last section written from the results.

    Args:
        text: of the page as it is.
        results: as `tests.families_table` saves them.
    """
    head = text.split(HEADING)[0].rstrip()
    dates = sorted({row["date"] for rows in results["classes"].values() for row in rows.values()})
    about = {**results["settings"], "dates": dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"}
    return f"{head}\n\n{HEADING}{EXPLANATION.format(**about)}\n" + "\n".join(_tables(results)) + "\n"


def _tables(results: Mapping[str, Any]) -> Iterator[str]:
    classes, columns, dtypes = results["classes"], results["columns"], results["dtypes"]
    refused = {name: _reason(rows) for name, rows in classes.items() if all(map(_is_refused, rows.values()))}
    accepted = {name: rows for name, rows in classes.items() if name not in refused}
    yield f"### Accepted: {len(accepted)} classes\n"
    yield f"| pipeline | dtype | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 2) + "|"
    for name, rows in accepted.items():
        for dtype in (dtype for dtype in dtypes if dtype in rows):
            yield f"| `{name}` | {dtype} | {' | '.join(_cell(rows[dtype], column) for column in columns)} |"
    for dtype in dtypes:
        waiting = [name for name in results["cases"] if name not in refused and dtype not in classes.get(name, {})]
        if waiting:
            yield f"\nNot measured yet in {dtype}: {', '.join(f'`{name}`' for name in waiting)}."
    refused |= results["refused"]
    yield f"\n### Refused, with the reason: {len(refused)} classes\n"
    yield "| pipeline | reason |\n|---|---|"
    yield from (f"| `{name}` | {_escaped(reason)} |" for name, reason in sorted(refused.items()))
    if not (untried := results["untried"]):
        return
    yield f"\n### Not in the tests: {len(untried)} classes\n"
    yield "No tiny checkpoint of these is in the tests. Like any pipeline, they are accepted if they pass the proof,"
    yield f"and refused with the reason if not: {', '.join(f'`{name}`' for name in untried)}."


def _is_refused(row: Mapping[str, str]) -> bool:
    return row.get("plain", "").startswith(REFUSED)


def _reason(rows: Mapping[str, Mapping[str, str]]) -> str:
    return next(iter(rows.values()))["plain"].removeprefix(REFUSED[0])


def _cell(row: Mapping[str, str], column: str) -> str:
    return _escaped(row.get(column, "not measured yet"))


def _escaped(text: str) -> str:
    short = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return short.replace("|", "\\|").replace("<", "&lt;")
