"""Many prompts from a file, on one machine or on a Ray cluster: resumable, a row at a time.

`rows` reads the file, `tasks` says what each row asks for, `folder` is where finished rows are kept, `worker` does
them, `engines` and `on_ray` hand them to workers, `run` puts it together.
"""
