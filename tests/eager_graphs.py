"""CUDA graphs without a GPU: everything about them but the capture."""

from llama_vision.backends.local.cuda_graphs import CudaGraphRunner


class EagerGraph:
    """A CUDA graph without a GPU: replay runs the work again on the static inputs."""

    def __init__(self, work):
        self.work, self.outputs = work, work()

    def replay(self):
        for output, new in zip(self.outputs, self.work(), strict=True):
            output.copy_(new)


class EagerGraphs(CudaGraphRunner):
    """A runner of such graphs: batch sizes, static inputs, padding rows."""

    def _capture(self, work):
        graph = EagerGraph(work)
        return graph, graph.outputs
