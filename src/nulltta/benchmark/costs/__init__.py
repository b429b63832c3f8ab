"""What one image costs: meters, models of real sizes with random weights, and the published loop as a reference.

The scripts under `studies/` measure with these parts; nothing else in the package needs them.
"""
