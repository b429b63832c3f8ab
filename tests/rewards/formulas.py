"""The known rewards that are formulas of the pixels, and load nothing."""

from nulltta.embedded.worlds import WORLDS
from nulltta.rewards import REWARDS

_SCORERS = {scorer for world in WORLDS.values() for scorer in (world.target, *world.held_out)}
FORMULAS = [name for name, known in REWARDS.items() if not known.files and name not in _SCORERS]
FORMULAS[FORMULAS.index("target-colour")] += ":#ff8800"
