"""Models: any stock diffusers pipeline as a `GuidedModel`, by observation.

`load_model` finds a pipeline; `ObservedModel` answers for it; what it knows of the pipeline it has seen in recordings.
"""

from nulltta.models.loading import load_model
from nulltta.models.observed import ObservedModel
from nulltta.models.sources import EMBEDDED

__all__ = ["EMBEDDED", "ObservedModel", "load_model"]
