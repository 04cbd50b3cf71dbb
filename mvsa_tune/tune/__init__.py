"""Ray Tune: the plan of a sweep, its trials, schedulers, searchers, and what is recorded of them."""
