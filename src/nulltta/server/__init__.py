"""`nulltta serve`: an HTTP server that follows OpenAI's images API.

A request passes through `middleware` (logging, authentication, body size), is parsed by `schemas` and checked by
`limits`. `engine` turns it into an `ImageJob` (`jobs`) and puts it into the `job_queue`, from which the single thread
of `worker` takes jobs that can be sampled together. `responses` turns the result into JSON or a stream of events.
`app` holds the routes, `settings` the operator's choices, and `run` and `ray_deployment` start and stop it all.
"""
