"""A small decoder beside a model's own, for the inner steps: diffusers' `AutoencoderTiny`, or the embedded model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nulltta import hub
from nulltta.errors import InvalidValue, first_line
from nulltta.models.frozen import Frozen
from nulltta.models.recording import denoisers

PUBLISHED = "madebyollin/taesd (SD 1.x and 2.x), taesdxl, taesd3, taef1"


def attach(model: Any, source: Any) -> None:
    """Give a model a tiny decoder, for `decode(x0, "tiny")`: it reads the model's own latents, scaled as they are.

    Args:
        model: the model.
        source: a directory or hub id of an `AutoencoderTiny`, or a loaded one.

    Raises:
        InvalidValue: if it does not load, or reads other latents than the model's.
    """
    denoiser = next(iter(denoisers(model.pipeline).values()))
    decoder = source
    if isinstance(source, str | Path):
        decoder = _load(str(source), denoiser.dtype).to(model.pipeline._execution_device)
    wanted = model.latent_shape
    given = decoder.config.get("latent_channels")
    if len(wanted) != 3 or given != wanted[0]:
        raise InvalidValue(
            f"reads latents of {given} channels, and {model.name}'s have {wanted}: "
            f"take the one made for it, such as {PUBLISHED}",
            field="tiny_decoder",
        )
    model.tiny_decoder = Frozen(decoder)


def _load(source: str, dtype: torch.dtype) -> Any:
    from diffusers import AutoencoderTiny

    from nulltta.embedded.autoencoder import PatchAutoencoder

    kind: Any = PatchAutoencoder if source == str(EMBEDDED) else AutoencoderTiny
    try:
        local = Path(source).is_dir() or not hub.reachable()
        return kind.from_pretrained(source, dtype=dtype, local_files_only=local)
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidValue(f"'{source}' does not load: {first_line(error)}", field="tiny_decoder") from error


EMBEDDED = Path(__file__).parent.parent / "embedded" / "weights" / "tiny"
