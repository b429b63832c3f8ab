"""The settings of a method, the presets of families of models, and checks of fields. Nothing here imports torch."""

from nulltta.config.checks import number, one_of, whole
from nulltta.config.effects import KEEPING, given_in_vain, refuse_without_effect, without_effect
from nulltta.config.settings import Directions, FormName, NullTTAConfig, without_none

__all__ = ["KEEPING", "Directions", "FormName", "NullTTAConfig", "given_in_vain", "number", "one_of",
           "refuse_without_effect", "whole", "without_effect", "without_none"]  # fmt: skip
