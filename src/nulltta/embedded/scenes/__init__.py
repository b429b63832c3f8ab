"""The scenes world: coloured shapes at free places, with prompts that ask for numbers, colours and positions."""
