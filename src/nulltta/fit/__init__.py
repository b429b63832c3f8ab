"""Learning a null text once, for all prompts: `nulltta fit`."""
