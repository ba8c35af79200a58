"""Imports what every measured process needs and starts nothing: they are forked from one that did this."""

import gc

import psutil  # noqa: F401
import safetensors.torch  # noqa: F401
import torch
import torch.distributed.checkpoint

from benchmarks.pause import measure  # noqa: F401
from ipyrescue import checkpointing, restoring  # noqa: F401

torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # the first optimizer imports a good part of torch
# A full collection walks a million objects of these libraries; in the middle of a measurement it would be noise.
gc.collect()
gc.freeze()
