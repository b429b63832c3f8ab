"""`nulltta ui`: a web page that shows the steps of a run as they are made.

`engine` holds the models and rewards, `run` and `replay` sample, and `history` keeps the runs of a session. `show` and
`plots` turn results into HTML. Only `app`, `page`, `events` and `theme` depend on Gradio.
"""
