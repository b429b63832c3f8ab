"""Measure every pipeline class of the tests and write the tables of docs/families.md: `python -m tests.families_table`.

Each cell is saved in studies/results/families.json as soon as it is measured, and a later run measures what is missing.
Name classes to measure them anew. With --write, the tables are written from the file and nothing is measured.
"""

from __future__ import annotations

import argparse
import datetime
import inspect
import itertools
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers import __version__ as diffusers_version

import nulltta
from nulltta import NullText, NullTTAConfig, NullTTAError, Result, align
from nulltta.errors import first_line
from nulltta.files import atomic
from nulltta.models.checks import require_supported
from nulltta.models.recording import denoisers
from nulltta.null_text.replay import replay
from nulltta.quiet import quiet_libraries
from nulltta.testing.stock import stock_images

from .derived_diffusions import DIFFUSIONS
from .derived_pipelines import DERIVED
from .families_page import document
from .further_images import NEW_IMAGES
from .further_videos import NEW_VIDEOS
from .latest_videos import LATEST_VIDEOS
from .tiny_image_edits import EDITS
from .tiny_images import IMAGES
from .tiny_pipelines import FAMILY_PIPELINES, PIPELINES, TinyPipeline, comparable
from .video_pipelines import VIDEOS

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "studies" / "results" / "families.json", ROOT / "docs" / "families.md"
CASES = (
    *FAMILY_PIPELINES, *PIPELINES, *DERIVED, *DIFFUSIONS, *IMAGES, *NEW_IMAGES, *EDITS, *VIDEOS, *NEW_VIDEOS,
    *LATEST_VIDEOS,
)  # fmt: skip
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PROMPT, SEED = "a cat", 3
SETTINGS = NullTTAConfig(num_inference_steps=3, inner_steps=(1, 1), num_particles=1, guidance_scale=4.0, eta=0.0)
PICTURES = ("image", "control_image", "mask_image", "video")
ATTENTION = re.compile(r"to_(q|k|v|out\.0)$")
FAULTS = ("refused", "fails", "diffusers fails")
Results: TypeAlias = dict[str, dict[str, dict[str, str]]]
"""The cells by class, dtype and column, and the "date" of each row."""


def difference(a: torch.Tensor, b: torch.Tensor) -> str:
    """Return the largest difference of two images' pixels, which are in [0, 1]."""
    return f"{float((a.float() - b.float().reshape(a.shape)).abs().max()):.0e}"


@dataclass(frozen=True)
class Subject:
    """One class in one dtype: how its pipeline is loaded, and its model and result, once a cell needs them.

    Attributes:
        case: the class.
        folder: where its tiny checkpoint is kept.
        dtype: of the weights.
    """

    case: TinyPipeline
    folder: Path
    dtype: torch.dtype

    def load(self) -> tuple[Any, dict[str, Any]]:
        """Load the pipeline anew, and return it with its call's arguments."""
        pipeline, call = self.case.load(self.folder, dtype=self.dtype)
        comparable(pipeline)
        return pipeline, call

    @cached_property
    def model(self) -> Any:
        """The model of a pipeline as it was loaded."""
        pipeline, call = self.load()
        return nulltta.load_model(pipeline, **call)

    @property
    def settings(self) -> NullTTAConfig:
        """Of a run: guided inside attention where the call has no null branch."""
        return replace(SETTINGS, guidance=self.case.guidance, num_inference_steps=self.case.steps)

    def aligned(self, model: Any) -> Result:
        """One aligned image of a model."""
        return align(model, PROMPT, "brightness", config=self.settings, seed=SEED)

    @cached_property
    def result(self) -> Result:
        """That of the model as it was loaded."""
        return self.aligned(self.model)

    def stock(self, model: Any) -> torch.Tensor:
        """The image of a model's stock call."""
        return stock_images(model, PROMPT, "", self.settings, seed=SEED)

    def against_stock(self, model: Any) -> str:
        """The difference of a plain run, with next to no guidance inside attention, and the stock call."""
        config = self.settings if self.case.guidance == "cfg" else replace(self.settings, nag_scale=1e-6)
        plain = align(model, PROMPT, "brightness", config=config, seed=SEED, method="plain").images
        return difference(plain, self.stock(model))


def measure(subject: Subject, column: str) -> str:
    """Return a cell: a difference, or the text of what was raised instead."""
    try:
        return COLUMNS[column](subject)
    except NullTTAError as error:
        theirs = first_line(error).removeprefix(f"{subject.case.name}'s own call failed: ")
        return f"refused: {theirs}" if theirs == first_line(error) else f"diffusers fails: {theirs}"
    except Exception as error:  # whatever diffusers, accelerate, peft or torch raises is the finding
        return f"fails: {type(error).__name__}: {first_line(error)}"


def _plain(subject: Subject) -> str:
    """A plain run, and the stock call."""
    return subject.against_stock(subject.model)


def _align(subject: Subject) -> str:
    """The gain in the reward."""
    return f"{float(subject.result.rewards - subject.result.baseline_rewards):+.0e}"


def _apply(subject: Subject) -> str:
    """A run under the learnt null text, and the stock call under it."""
    null = subject.result.null_text[0]
    with null.apply(subject.model.pipeline):
        theirs = subject.stock(subject.model)
    return difference(replay(subject.model, null, seeds=[SEED]), theirs)


def _replay(subject: Subject) -> str:
    """The aligned image, and the exact replay of the null text from a file, by a model loaded anew."""
    pipeline, call = subject.load()
    with tempfile.TemporaryDirectory() as folder:
        subject.result.null_text[0].save(Path(folder) / "null.safetensors", noise=True)
        kept = NullText.load(Path(folder) / "null.safetensors", pipeline)
    return difference(replay(nulltta.load_model(pipeline, **call), kept, exact=True), subject.result.images)


def _size(subject: Subject) -> str:
    """As `_plain`, at twice the width."""
    pipeline, call = subject.load()
    if "height" not in inspect.signature(type(pipeline).__call__).parameters:
        return "set by the picture"
    if "resolutions" in vars(pipeline):
        return "one of the pipeline's own"
    size = {"height": int(call.get("height") or 16), "width": 2 * int(call.get("width") or call.get("height") or 16)}
    return subject.against_stock(nulltta.load_model(pipeline, **call | size))


def _offload(subject: Subject) -> str:
    """Under accelerate's sequential offloading of denoiser and decoder, which takes each layer's weights away."""
    from accelerate import cpu_offload

    pipeline, call = subject.load()
    for part in (*denoisers(pipeline).values(), pipeline.vae):
        cpu_offload(part, torch.device("cpu"))
    return difference(subject.aligned(nulltta.load_model(pipeline, **call)).images, subject.result.images)


def _compile(subject: Subject) -> str:
    """The gradient at the null text, relative to its largest element, with the denoiser traced by TorchDynamo, and
    without; the back end "eager" leaves the kernels as they are. Only in float32, because a trace takes long."""
    if subject.dtype != torch.float32:
        return "traced in fp32"
    pipeline, call = subject.load()
    model: Any = nulltta.load_model(pipeline, **call)
    expected = _gradient(model)
    torch._dynamo.reset()
    for part in denoisers(pipeline).values():
        part.compile(backend="eager")
    return f"{float((_gradient(model) - expected).abs().max() / expected.abs().max()):.0e}"


def _gradient(model: Any) -> torch.Tensor:
    """The gradient of a prediction's sum at the null text."""
    _, null = model.encode([PROMPT], [""])
    x, step = model.initial_latents(1, torch.Generator().manual_seed(SEED)), model.schedule(2)[0]
    with torch.enable_grad():
        leaf = {name: tensor.requires_grad_(tensor.is_floating_point()) for name, tensor in null.items()}
        wanted = [tensor for tensor in leaf.values() if tensor.requires_grad]
        gradients = torch.autograd.grad(model.predict(x, step, leaf).sum(), wanted)
    return torch.cat([gradient.flatten() for gradient in gradients])


def _lora(subject: Subject) -> str:
    """As `_plain`, with a LoRA of random weights on the denoiser's attention, or on all its linear layers."""
    from peft import LoraConfig

    pipeline, call = subject.load()
    for part in denoisers(pipeline).values():
        if not hasattr(part, "add_adapter"):
            return "diffusers adds none here"
        linear = [name for name, each in part.named_modules() if isinstance(each, torch.nn.Linear)]
        attention = [name for name in linear if ATTENTION.search(name)]
        options = {"r": 2, "lora_alpha": 1, "init_lora_weights": False}  # of half its random size: tiny nets are loud
        part.add_adapter(LoraConfig(**options, target_modules=attention or linear))
    return subject.against_stock(nulltta.load_model(pipeline, **call))


def _image_input(subject: Subject) -> str:
    """Which picture every other cell of the row was measured with."""
    given = [name for name in PICTURES if name in subject.model.stock.options]
    return f"`{given[0]}`, in all cells" if given else "none in this call"


COLUMNS: Mapping[str, Callable[[Subject], str]] = {
    "plain": _plain, "align": _align, "apply": _apply, "replay": _replay, "size": _size, "offload": _offload,
    "LoRA": _lora, "image input": _image_input, "compile": _compile,
}  # fmt: skip
"""Tracing takes half of the time, so a run measures the last one after all others of a dtype."""


def others() -> tuple[dict[str, str], list[str]]:
    """Look at the installed diffusers' other classes whose call takes a prompt.

    Returns:
        The reason by the name of each class that is refused before anything is loaded, and the names of the rest.
    """
    import diffusers

    refused, untried = {}, []
    for name in sorted(set(dir(diffusers)) - {case.name for case in CASES}):
        kind = getattr(diffusers, name) if name.endswith("Pipeline") else None
        if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
            continue
        accepted = inspect.signature(kind.__call__).parameters
        sounds = "Audio" in name or "Music" in name or "audio_duration" in accepted
        if "prompt" not in accepted or sounds:
            continue
        try:
            require_supported(name, kind)
        except NullTTAError as error:
            refused[name] = first_line(error).removeprefix(f"{name} is not supported: ")
            continue
        if reason := _unbuilt(kind):
            refused[name] = reason
        else:
            untried.append(name)
    return refused, untried


def _unbuilt(kind: type) -> str:
    """Why no checkpoint of a class can be built or differentiated here; empty if one can."""
    for sign, library in {"CosmosSafetyChecker": "cosmos_guardrail", "is_torchvision_available": "torchvision"}.items():
        if hasattr(sys.modules[kind.__module__], sign) and find_spec(library) is None:
            return f"not tried: diffusers does not load it without {library}"
    if hasattr(sys.modules[kind.__module__], "Blip2QFormerModel"):
        return "not tried: its Q-Former fetches a tokenizer from the hub when it is made"
    if hasattr(sys.modules[kind.__module__], "UniDiffuserTextDecoder"):
        return "not tried: diffusers does not save its text decoder, two of whose tensors share memory"
    if "OnnxRuntimeModel" in str(inspect.signature(kind.__init__)):
        return "its networks are ONNX files, which give no gradient"
    return ""


def saved() -> dict[str, Any]:
    """Return what earlier runs measured."""
    return dict(json.loads(RESULTS.read_text())) if RESULTS.exists() else {"classes": {}}


def save(measured: Results) -> None:
    """Save the cells, and what they were measured with."""
    settings = {"steps": SETTINGS.num_inference_steps, "scale": SETTINGS.guidance_scale, "diffusers": diffusers_version}
    names = [case.name for case in CASES]
    about = {"settings": settings, "columns": list(COLUMNS), "dtypes": list(DTYPES), "cases": names}
    with atomic(RESULTS) as temporary:
        temporary.write_text(json.dumps({**saved(), **about, "classes": measured}, indent=1) + "\n")


def write() -> None:
    """Look through the classes of diffusers, and write the page."""
    results = saved()
    results["refused"], results["untried"] = others()
    order = {case.name: i for i, case in enumerate(CASES)}
    results["classes"] = dict(sorted(results["classes"].items(), key=lambda each: order[each[0]]))
    with atomic(RESULTS) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(document(PAGE.read_text(), results))


def missing(
    measured: Results, names: Collection[str], dtypes: Collection[str]
) -> Iterator[tuple[TinyPipeline, str, str]]:
    """Yield the class, the dtype and the column of each cell to measure: those named, or those not measured yet."""
    quick, slow = list(COLUMNS)[:-1], list(COLUMNS)[-1:]
    for dtype, columns, case in itertools.product(dtypes, (quick, slow), CASES):
        done = () if case.name in names else measured.get(case.name, {}).get(dtype, {})
        if not names or case.name in names:
            yield from ((case, dtype, column) for column in columns if column not in done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CLASS", help="measure these classes anew")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="of the weights; default: all")
    parser.add_argument("--write", action="store_true", help="only write the tables")
    asked = parser.parse_args()
    if asked.write:
        write()
        return
    measured: Results = saved()["classes"]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        cells = missing(measured, asked.names, asked.dtype or DTYPES)
        for (case, dtype), group in itertools.groupby(list(cells), key=lambda cell: cell[:2]):
            subject = Subject(case, Path(folder) / dtype, DTYPES[dtype])
            row = measured.setdefault(case.name, {}).setdefault(dtype, {})
            for _, _, column in group:
                fault = row.get("plain", "") if column != "plain" else ""
                row[column] = fault if fault.startswith(FAULTS) else measure(subject, column)
            row["date"] = datetime.date.today().isoformat()
            save(measured)
            print(case.name, dtype, row, flush=True)


if __name__ == "__main__":
    main()
