"""Other methods to compare Null-TTA with, each a callable (Problem) -> Stream as `null_tta` is.

`align(..., method="best-of-n")` runs a method with its published settings, `align(..., method=BestOfN(samples=4))` with
others. A setting in the unit of a reward has to be chosen anew for every reward.
"""

from nulltta.baselines.best_of_n import BestOfN
from nulltta.baselines.catalogue import BASELINES, Baseline, Cost
from nulltta.baselines.date import DATE
from nulltta.baselines.dno import DNO
from nulltta.baselines.dps import DPS
from nulltta.baselines.lidar import LiDAR
from nulltta.baselines.noise_tilt import NoiseTilt
from nulltta.baselines.prompt_embedding import prompt_embedding
from nulltta.baselines.reno import ReNO
from nulltta.baselines.shared_null import shared_null
from nulltta.baselines.smc import DAS, FKSteering

__all__ = [
    "BASELINES",
    "DAS",
    "DATE",
    "DNO",
    "DPS",
    "Baseline",
    "BestOfN",
    "Cost",
    "FKSteering",
    "LiDAR",
    "NoiseTilt",
    "ReNO",
    "prompt_embedding",
    "shared_null",
]
