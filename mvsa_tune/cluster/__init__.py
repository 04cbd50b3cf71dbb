"""Ray on this machine or a cluster of them, and what a trial gets of it."""
