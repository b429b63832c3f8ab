"""What a model, a reward or a method from outside this package is tested with.

A contract is a class of pytest tests. Subclass it in a test module of your own, and give it what it tests as a fixture:

    import pytest
    from nulltta.testing import MeasureContract, MethodContract, ModelContract, RewardContract

    class TestMyModel(ModelContract):
        @pytest.fixture(scope="class")
        def model(self):
            return MyModel("checkpoint")

    class TestMyReward(RewardContract):
        @pytest.fixture
        def reward(self):
            return MyReward()

    class TestMyMeasure(MeasureContract):
        @pytest.fixture
        def measure(self):
            return my_measure

    class TestMyMethod(MethodContract):
        @pytest.fixture(params=[MyMethod(), MyMethod(strength=2.0)], ids=str)
        def method(self, request):
            return request.param

`LatentRewardContract` is `RewardContract` for a reward that reads latents.

`Gaussian` is a model whose every distribution is known in closed form, for tests of what a method samples, and
`nearness` is a quadratic reward for it. `FamilyCase` says how one family's stock pipeline is called. This package needs
pytest; nothing else in nulltta does.
"""

# ruff: noqa: E402 - assertions are rewritten in what is imported after the call only
import pytest

pytest.register_assert_rewrite(*(f"nulltta.testing.{name}" for name in ("measures", "methods", "models", "rewards")))

from nulltta.testing.cases import FamilyCase
from nulltta.testing.gaussian import Gaussian, nearness
from nulltta.testing.measures import MeasureContract
from nulltta.testing.methods import MethodContract
from nulltta.testing.models import ModelContract
from nulltta.testing.rewards import LatentRewardContract, RewardContract

__all__ = [
    "FamilyCase", "Gaussian", "LatentRewardContract", "MeasureContract", "MethodContract", "ModelContract",
    "RewardContract", "nearness",
]  # fmt: skip
