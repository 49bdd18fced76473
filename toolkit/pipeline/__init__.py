"""Pipelines: what a YAML file may say (`spec`) and what carries it out (`runner`)."""

import os

# A thread of OpenMP's that waits for another turns 300,000 times in a busy loop before it sleeps. Beside another
# program it burns the core that the other thread needs, and training took three times as long. 1,000 turns are what
# OpenMP takes by itself where it knows of more threads than cores. It reads this once, when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
