"""`ask_dataset`: a model's replies about the rows of a Ray Dataset."""

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from llama_vision.backends.local.config import TINY_MODEL
from llama_vision.core.errors import ConfigurationError, MissingDependencyError
from llama_vision.ray.asker import BatchAsker

if TYPE_CHECKING:
    from ray.data import Dataset

DEFAULT_BATCH_SIZE = 64
"""Rows. Twice the local concurrency, so that a batch's tail is not all waiting; few are repeated after a crash."""


def ask_dataset(
    dataset: "Dataset",
    prompt: str | None = None,
    *,
    actors: int | tuple[int, int] = 1,
    batch_size: int = DEFAULT_BATCH_SIZE,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    **asker: Any,
) -> "Dataset":
    """Ask about each row of a Ray Dataset, lazily: it runs when the rows are taken, displayed or written.

        answers = ask_dataset(ray.data.read_images("photos"), "What is it?", actors=4, model="llama-3.2-11b-vision")
        answers.write_parquet("answers")

    Each actor loads the model and sends the rows of a batch concurrently. An error is kept in its row; if an actor dies,
    Ray starts another with the same rows, which hosted providers bill again.

    Rows keep their order within a block. Among blocks Ray keeps it only if that was set before:
    `ray.data.DataContext.get_current().execution_options.preserve_order = True`.

    Args:
        dataset: The rows, with a column `image` or the one that `image_column` names.
        prompt: What to ask about each row; as for `BatchAsker`.
        actors: The number of actors, or its minimum and maximum.
        batch_size: Rows of a batch.
        num_cpus: CPUs reserved for each actor; for the local model also its threads. Default: 1, or less if all actors
            would hold more than half of the cluster's: tasks that read and shuffle would wait forever for one.
        num_gpus: GPUs reserved for each actor; a fraction lets several share one. Default: 1 for the local model where the
            cluster has any; 0 for `tiny` and for hosted models.
        **asker: Further arguments of `BatchAsker`.

    Returns:
        The dataset with the columns of `BatchAsker`.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigurationError: Something does not fit together.
        UnsupportedInputError: The provider can't do it.
    """
    try:
        from ray import cloudpickle  # noqa: PLC0415 - takes a second; `BatchAsker` does without
        from ray.data import ActorPoolStrategy  # noqa: PLC0415 - as above
    except ImportError as missing:
        raise MissingDependencyError(
            "Ray Data is not installed: pip install 'llama-vision[ray]'"
        ) from missing
    checked = BatchAsker(prompt, **asker)
    # Resolved here: the environment of the workers may name others.
    asker |= {"provider": checked.route, "model": checked.model}
    _check_picklable(cast("Any", cloudpickle), asker)
    min_actors, max_actors = (actors, actors) if isinstance(actors, int) else actors
    if not 1 <= min_actors <= max_actors or batch_size < 1:
        raise ConfigurationError(
            f"actors={actors!r} and batch_size={batch_size} leave nobody to ask, or nothing to ask about."
        )
    asker |= share_limits(asker, max_actors)
    if num_gpus is None:
        local = checked.provider.dialect is None and checked.model != TINY_MODEL
        num_gpus = 1 if local and _cluster_resource("GPU", 0) else 0
    untyped = cast("Any", dataset)
    return untyped.map_batches(
        BatchAsker,
        fn_constructor_args=(prompt,),
        fn_constructor_kwargs=asker,
        compute=ActorPoolStrategy(min_size=min_actors, max_size=max_actors),
        batch_size=batch_size,
        batch_format="pyarrow",  # keeps the types of all columns, also where a batch has no value for one
        udf_modifying_row_count=False,  # so that Ray applies a `limit` of a batch or more before anything is asked
        num_cpus=_cpus_per_actor(num_cpus, max_actors),
        num_gpus=num_gpus or None,
    )


def share_limits(asker: Mapping[str, Any], num_actors: int) -> dict[str, Any]:
    """Share the limits of the whole run out among the actors, which know nothing of each other."""
    shares: dict[str, Any] = {}
    if (budget := asker.get("max_cost_usd")) is not None:
        shares["max_cost_usd"] = budget / num_actors
    if (rate := asker.get("requests_per_minute")) is not None:
        if rate < num_actors:
            raise ConfigurationError(
                f"requests_per_minute={rate} is less than one for each of {num_actors} actors."
            )
        shares["requests_per_minute"] = rate // num_actors
    return shares


def _check_picklable(cloudpickle: Any, options: Mapping[str, Any]) -> None:
    """Name the option that can't be pickled; Ray says so later, in three pages."""
    for name, value in options.items():
        try:
            cloudpickle.dumps(value)
        except Exception as error:
            raise ConfigurationError(
                f"{name}=... can't be sent to other processes: {error}. Classes and functions have to be at the top of a "
                "module, a script or a notebook, and not inside of a function."
            ) from error


def _cpus_per_actor(num_cpus: float | None, actors: int) -> float:
    """Leave CPUs to the tasks that feed the actors."""
    cluster_cpus = _cluster_resource("CPU", os.cpu_count() or 1)
    if num_cpus is None:
        return min(1.0, max(int(cluster_cpus / 2 / actors * 1000) / 1000, 0.001))
    if num_cpus * actors >= cluster_cpus:
        warnings.warn(
            f"{actors} actors with num_cpus={num_cpus:g} take all of the cluster's {cluster_cpus:g} processors: a task that "
            "reads or shuffles rows then waits for ever, unless the cluster grows. Give less.",
            stacklevel=3,
        )
    return num_cpus


def _cluster_resource(resource: str, default: float) -> float:
    """Return the cluster's amount of a resource, without starting a cluster."""
    import ray  # noqa: PLC0415 - as above

    untyped = cast("Any", ray)
    return untyped.cluster_resources().get(resource, 0) if untyped.is_initialized() else default
