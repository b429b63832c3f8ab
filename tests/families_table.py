"""Measure every pipeline class of the tests and write the tables of docs/families.md: `python -m tests.families_table`.

What was measured is kept in studies/results/families.json, so that a run which ends goes on where it was. Give names
of classes to measure them anew; with --write the tables are written from what is there, and nothing is measured.
"""

from __future__ import annotations

import argparse
import inspect
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import nulltta
from nulltta import NullText, NullTTAConfig, NullTTAError, Result, align
from nulltta.errors import first_line
from nulltta.models.checks import require_supported
from nulltta.models.recording import denoisers
from nulltta.null_text.replay import replay
from nulltta.testing.stock import stock_images

from .tiny_pipelines import FAMILY_PIPELINES, PIPELINES, TinyPipeline, comparable

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "studies" / "results" / "families.json", ROOT / "docs" / "families.md"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SETTINGS = NullTTAConfig(num_inference_steps=3, inner_steps=(1, 1), num_particles=1, guidance_scale=4.0, eta=0.0)
HEADING = "## Measured\n"
EXPLANATION = """
Written by `python -m tests.families_table`, on the tiny checkpoints of the tests, with 3 steps, η = 0 and a
guidance scale of 4 on the CPU. A number is the largest difference of two images' pixels, which lie in [0, 1];
under *align* it is the gain in brightness. *plain*: a plain run and the stock call. *apply*: a run under the
learnt null text and the stock call under it. *replay*: the aligned image and its exact replay from a file. *size*:
as *plain*, at another size. *offload*, *compile*: the aligned image with sequential offloading, or a compiled
denoiser, and without. *LoRA*: as *plain*, with an adapter of random weights.
"""
PICTURES = ("image", "control_image", "mask_image", "video")
Load = Callable[[], tuple[Any, dict[str, Any]]]


def difference(a: torch.Tensor, b: torch.Tensor) -> str:
    """The largest difference of two images' pixels, which are in [0, 1]."""
    return f"{float((a.float() - b.float().reshape(a.shape)).abs().max()):.0e}"


def measure(case: TinyPipeline, folder: Path, dtype: torch.dtype) -> dict[str, str]:
    """Every cell of one class in one dtype: a difference, or why there is none."""

    def load() -> tuple[Any, dict[str, Any]]:
        pipeline, call = case.load(folder, dtype=dtype)
        comparable(pipeline)
        return pipeline, call

    pipeline, call = load()
    try:
        model: Any = nulltta.load_model(pipeline, **call)
        result = align(model, "a cat", "brightness", config=SETTINGS, seed=3)
    except NullTTAError as error:
        return {"refused": first_line(error)}
    cells = {
        "plain": difference(result.baseline, stock_images(model, "a cat", "", SETTINGS, seed=3)),
        "align": f"{float(result.rewards - result.baseline_rewards):+.0e}",
    }
    cells |= {name: _tried(lambda each=each: each(model, result, load)) for name, each in CELLS.items()}
    given = [name for name in PICTURES if name in call]
    cells["image input"] = f"`{given[0]}`, as in all cells" if given else "the call takes none here"
    return cells


def _tried(cell: Callable[[], str]) -> str:
    try:
        return cell()
    except (NullTTAError, RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        return f"refused: {first_line(error)}" if isinstance(error, NullTTAError) else f"fails: {first_line(error)}"


def _apply(model: Any, result: Result, load: Load) -> str:
    """Our image under the null text, and the stock call's."""
    del load
    null = result.null_text[0]
    with null.apply(model.pipeline):
        theirs = stock_images(model, "a cat", "", SETTINGS, seed=3)
    return difference(replay(model, null, seeds=[3]), theirs)


def _replay(model: Any, result: Result, load: Load) -> str:
    """The aligned image, and the exact replay of the null text from a file, by a model loaded anew."""
    del model
    pipeline, call = load()
    with tempfile.TemporaryDirectory() as folder:
        result.null_text[0].save(Path(folder) / "null.safetensors", noise=True)
        kept = NullText.load(Path(folder) / "null.safetensors", pipeline)
    return difference(replay(nulltta.load_model(pipeline, **call), kept, exact=True), result.images)


def _size(model: Any, result: Result, load: Load) -> str:
    """Plain sampling and the stock call at another size."""
    del model, result
    pipeline, call = load()
    if "height" not in inspect.signature(type(pipeline).__call__).parameters:
        return "the call's picture gives it"
    size = {"height": int(call.get("height") or 16), "width": 2 * int(call.get("width") or call.get("height") or 16)}
    if "resolutions" in vars(pipeline):
        return "one of the pipeline's own resolutions"
    return _plain(pipeline, call | size)


def _plain(pipeline: Any, call: Mapping[str, Any]) -> str:
    model: Any = nulltta.load_model(pipeline, **call)
    ours = align(model, "a cat", "brightness", config=SETTINGS, seed=3, method="plain").images
    return difference(ours, stock_images(model, "a cat", "", SETTINGS, seed=3))


def _aligned(pipeline: Any, call: Mapping[str, Any], result: Result) -> str:
    """A run on this pipeline, and the run on the pipeline as it was loaded."""
    again = align(nulltta.load_model(pipeline, **call), "a cat", "brightness", config=SETTINGS, seed=3)
    return difference(again.images, result.images)


def _offload(model: Any, result: Result, load: Load) -> str:
    """Under accelerate's sequential offloading of denoiser and decoder, which takes each layer's weights away."""
    from accelerate import cpu_offload

    del model
    pipeline, call = load()
    for part in (*denoisers(pipeline).values(), pipeline.vae):
        cpu_offload(part, torch.device("cpu"))
    return _aligned(pipeline, call, result)


def _compile(model: Any, result: Result, load: Load) -> str:
    """With the denoiser compiled; the back end traces and differentiates, and leaves the kernels as they are."""
    del model
    pipeline, call = load()
    torch._dynamo.reset()
    for part in denoisers(pipeline).values():
        part.compile(backend="aot_eager")
    return _aligned(pipeline, call, result)


def _lora(model: Any, result: Result, load: Load) -> str:
    """Plain sampling and the stock call, with a LoRA of random weights on the denoiser."""
    del model, result
    try:
        from peft import LoraConfig
    except ImportError:
        return "not measured: peft is not installed"
    pipeline, call = load()
    for part in denoisers(pipeline).values():
        names = {name.rsplit(".", 1)[-1] for name, each in part.named_modules() if isinstance(each, torch.nn.Linear)}
        part.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=sorted(names)))
    return _plain(pipeline, call)


CELLS: Mapping[str, Callable[[Any, Result, Load], str]] = {
    "apply": _apply, "replay": _replay, "size": _size, "offload": _offload, "compile": _compile, "LoRA": _lora,
}  # fmt: skip
COLUMNS = ("plain", "align", *CELLS, "image input")


def others() -> tuple[dict[str, str], list[str]]:
    """Of the installed diffusers' other classes that take a prompt: the reasons of those refused by their call, and the
    names of those that were not tried.
    """  # fmt: skip
    import diffusers

    refused, untried = {}, []
    tested = {case.name for case in (*FAMILY_PIPELINES, *PIPELINES)}
    for name in sorted(set(dir(diffusers)) - tested):
        kind = getattr(diffusers, name) if name.endswith("Pipeline") else None
        if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
            continue
        if "prompt" not in inspect.signature(kind.__call__).parameters or "Audio" in name or "Music" in name:
            continue
        try:
            require_supported(name, kind)
            untried.append(name)
        except NullTTAError as error:
            refused[name] = first_line(error)
    return refused, untried


def page(measured: Mapping[str, Any]) -> str:
    """The tables, in Markdown."""
    lines = ["| pipeline | dtype | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    refused = {}
    for case in (*FAMILY_PIPELINES, *PIPELINES):
        for dtype in DTYPES:
            cells = measured[case.name][dtype]
            if "refused" in cells:
                refused.setdefault(case.name, cells["refused"])
                continue
            lines.append(f"| `{case.name}` | {dtype} | " + " | ".join(cells[column] for column in COLUMNS) + " |")
    by_call, untried = others()
    refused |= by_call
    lines += ["", f"### Refused, with the reason ({len(refused)})", "", "| pipeline | reason |", "|---|---|"]
    lines += [f"| `{name}` | {reason} |" for name, reason in sorted(refused.items())]
    lines += [
        "",
        f"### Not tried ({len(untried)})",
        "",
        "These are accepted if they pass the proof, and refused with the",
    ]
    lines += ["reason if not: " + ", ".join(f"`{name}`" for name in untried) + "."]
    return "\n".join(lines)


def write(measured: Mapping[str, Any]) -> None:
    """Put the tables at the end of the page, in the place of those of an earlier run."""
    text = PAGE.read_text().split(HEADING)[0].rstrip()
    PAGE.write_text(f"{text}\n\n{HEADING}{EXPLANATION}\n{page(measured)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    asked = parser.parse_args()
    measured: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    warnings.simplefilter("ignore")
    cases = [] if asked.write else [*FAMILY_PIPELINES, *PIPELINES]
    with tempfile.TemporaryDirectory() as folder:
        for dtype in asked.dtype or DTYPES:
            for case in cases:
                row = measured.setdefault(case.name, {})
                if case.name in asked.names or (dtype not in row and not asked.names):
                    row[dtype] = measure(case, Path(folder) / dtype, DTYPES[dtype])
                    RESULTS.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")
                    print(case.name, dtype, row[dtype], flush=True)
    if asked.write:
        write(measured)


if __name__ == "__main__":
    main()
