"""What is free on a device is known before a model is loaded."""

import torch

from llama_vision.backends.local.devices import free_memory, system_memory


def test_free_memory_of_the_cpu_is_known():
    assert 10**7 < (free_memory(torch.device("cpu")) or 0) <= (system_memory() or 10**14)
    assert free_memory(torch.device("meta")) is None
