import torch

# The networks here are tiny; threads that wait for each other cost more than they give.
torch.set_num_threads(1)
