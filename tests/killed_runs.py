"""Starts runs of an evaluation and kills them at random moments; prints how often, and how many runs came to an end.

    python killed_runs.py ROOT MODEL OUT KILLS SEED

The modules are loaded once and every run is a fork, so that a kill costs milliseconds and not the loading of torch. A
run that comes to its end leaves OUT/0, OUT/1, ... and the next one starts in a new folder.
"""

import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import torch
from helpers_evaluate import run

from diffseg.datasets import open_dataset


def main(root, model, out, kills, seed):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data, rng, ended, longest = open_dataset("cityscapes", root), random.Random(seed), 0, None
    while kills:
        started = time.monotonic()
        child = os.fork()
        if not child:
            run(data, model, Path(out) / str(ended), device="cpu")
            os._exit(0)
        if longest is not None:
            time.sleep(rng.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        longest = longest or time.monotonic() - started  # the first run is left alone, to learn how long one takes
        if os.WIFSIGNALED(status):
            kills -= 1
        elif os.waitstatus_to_exitcode(status):
            sys.exit(f"a run ended with {status}")
        else:
            ended += 1
    run(data, model, Path(out) / str(ended), device="cpu")
    print(ended + 1)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]))
