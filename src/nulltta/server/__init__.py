"""`nulltta serve`: images over HTTP, in the shape of OpenAI's images API.

`settings` what the operator decides; `app` the routes; `engine` the model, its rewards, the queue and the one thread
that samples; `middleware` what every request goes through; the rest is one thing a file.
"""
