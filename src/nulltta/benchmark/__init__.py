"""The benchmark: Null-TTA against its rivals at equal cost, with measures that nobody optimised.

A *contender* (`contenders`) makes of a budget an `Arm`: one method with all its settings. A `Plan` holds the arms, the
prompts and the seeds; `run` samples them, a row an image, and can go on after any interruption; `measures` says what
is measured, `analysis` what the rows show, and `report` writes it down. `nulltta bench --help` is the way in.
"""
