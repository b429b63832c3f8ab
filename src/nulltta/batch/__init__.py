"""`nulltta batch`: many prompts from a table, on one machine or on a Ray cluster, resumable row by row.

`table` reads the rows, `tasks` turns each into a checked request, `folder` keeps the results and `worker` aligns
batches of rows. `run` puts them together with one worker in this process, `ray_engine` with many on a cluster.
"""
