"""What a model, a reward or a method from outside this package is tested with."""

from nulltta.testing.gaussian import Gaussian, nearness

__all__ = ["Gaussian", "nearness"]
