"""The benchmark: Null-TTA against its rivals at equal cost, with measures that nobody optimised.

A *contender* (`contenders`) turns a budget into an `Arm`: one method with all its settings. A `Plan` (`plan`) holds the
arms, the prompts and the seeds. `run` samples a plan and appends one row per image to a folder (`store`), so that it
can continue after any interruption. `measures` scores the images, `analysis` compares the arms, and `report` writes the
result as HTML and Markdown. The command line is `nulltta bench`.
"""
