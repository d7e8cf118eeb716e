"""One thread for each process: pytest runs as many processes as there are cores, and their threads would fight."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start; and here, where torch comes later

import torch

torch.set_num_threads(1)
