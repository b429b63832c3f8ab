"""`nulltta ui`: a web page that shows the steps of a run as they are made.

`engine` holds the models and rewards, `form` is what a visitor filled in, `run` and `replay` sample, and `history`
keeps finished runs as files. `show` and `plots` turn results into HTML, from the files in `templates` and `assets`.
Only `app`, `page`, `wiring`, `events`, `form_events` and `theme` depend on Gradio.
"""
