"""Driving an engine step by step, and counting what the model computes meanwhile."""

import contextlib

from llama_vision.backends.local.sequence import Sequence
from llama_vision.core.reply import Reply


def prepare(engine, request, on_output=lambda output: None):
    """A prepared sequence that is not added yet."""
    return engine.input_processor.process(Sequence(request, on_output))


def add(engine, request, outputs=None):
    """Add a request to the running batch: its sequence, and the list its outputs go to."""
    outputs = [] if outputs is None else outputs
    sequence = prepare(engine, request, outputs.append)
    engine.add_sequences([sequence])
    return sequence, outputs


def run(engine, requests, num_to_add=None):
    """Run requests to their ends; at each step as many join as `num_to_add` says, or as there is room for."""
    outputs = [[] for _ in requests]
    waiting = [prepare(engine, request, its.append) for request, its in zip(requests, outputs, strict=True)]
    while waiting or engine.num_running:
        count = min(engine.num_free, engine.num_free if num_to_add is None else num_to_add())
        engine.add_sequences(waiting[:count])
        del waiting[:count]
        engine.step()
    return [Reply.from_events(events) for events in outputs]


def run_one(engine, request):
    return run(engine, [request])[0]


@contextlib.contextmanager
def _counting(module, count):
    counts = []
    hook = module.register_forward_pre_hook(
        lambda _, args, options: counts.append(count(args, options)), with_kwargs=True
    )
    try:
        yield counts
    finally:
        hook.remove()


def counted_tokens(loaded):
    """The tokens of each forward pass of the text decoder, padding included."""
    return _counting(loaded.model.model.language_model.embed_tokens, lambda args, _: args[0].numel())


def counted_images(loaded):
    """The images of each forward pass of the vision encoder."""
    vision_model = loaded.model.model.vision_model
    return _counting(vision_model.pre_tile_positional_embedding, lambda args, _: len(args[0]))
