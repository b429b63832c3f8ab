"""The scenes world: coloured shapes at free places, with prompts that ask for numbers, colours and positions."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
