"""What convolutions learn."""

import torch


def learnt(conv, tensors, how, given, *, threads=1):
    """The output, and what is learnt of the images, the weights and the bias."""
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        y = conv(*tensors, *how)
        return [y.detach(), *torch.autograd.grad(y, tensors, given.to(y.dtype))]
    finally:
        torch.set_num_threads(before)
