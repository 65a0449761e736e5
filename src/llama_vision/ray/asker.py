"""`BatchAsker`: batch inference, one request for each row of a batch of columns."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel

from llama_vision.adaptation.validate import validate_request
from llama_vision.backends import Limits, create_backend
from llama_vision.captions import DEFAULT_CONCURRENCY, DEFAULT_PROMPT
from llama_vision.captions.runner import check_concurrency
from llama_vision.core.backend import Backend
from llama_vision.core.call_options import SAMPLING_OPTIONS, build_request
from llama_vision.core.errors import ConfigurationError, UnsupportedInputError
from llama_vision.core.messages import single_turn_messages
from llama_vision.core.request import ChatRequest
from llama_vision.providers.base_url import resolve_base_url
from llama_vision.providers.defaults import default_model, default_provider
from llama_vision.providers.route import ProviderChoice, first_provider, resolve_provider
from llama_vision.ray.cells import parse_images, parse_prompt
from llama_vision.ray.columns import ColumnBatch, as_column_batch
from llama_vision.ray.rows import COLUMN_TYPES, ask_row
from llama_vision.ray.run_rows import run_rows
from llama_vision.structured.extract import append_instructions
from llama_vision.structured.method import StructuredOutputPlan, plan_structured_output
from llama_vision.structured.output_schema import OutputSchema

_LOCAL_CONCURRENCY = 32
"""The local model runs as many together as fit, and queues the others."""

_WITHOUT_IMAGES = "To ask without images, give image_column=None."

_REQUEST_OPTIONS = SAMPLING_OPTIONS | {"stop", "extra_body"}
# The others are parameters of `BatchAsker`, or can't be sent to another process: a header may be a key, a client is a socket.
_BACKEND_OPTIONS = frozenset(inspect.signature(create_backend).parameters) - {
    *("provider", "api_key", "headers", "http_client", "http_async_client", "limits", "counters")
}


class BatchAsker:
    """Asks a model about each row of a batch, concurrently, and adds its replies in new columns.

    For Ray Data's `map_batches` (or use `ask_dataset`), and for whatever else works on column batches: a pandas DataFrame,
    a pyarrow Table, or a dictionary of arrays or lists:

        ask = BatchAsker("What color is it?", provider="deepinfra")
        frame = ask(frame)                                    # pandas
        ddf.map_partitions(ask, meta=ask(ddf.head(0)))        # Dask
        df.mapInPandas(lambda frames: map(ask, frames), ...)  # Spark, with the schema of the new columns

    Rows keep their order and all their cells. The new columns, with None where there is no value:

    - `text`: the reply's text; of a failed one what had arrived.
    - `json`, with a `schema` only: JSON text that is valid. It stays text because a column has one type, in all batches.
    - `finish_reason`: such as `stop`, or `length` for a reply that was cut off at `max_tokens`.
    - `input_tokens`, `output_tokens`, `cost_usd` (US dollars), `cost_is_estimate`: of all requests of the row.
    - `seconds`: their wall time.
    - `error_type`, `error`: the name of the error (see `llama_vision.core.errors`) and its text.

    The local model is loaded once in a process, with the first batch. An instance can be pickled, and holds no key, no
    connection and no weights.

    Args:
        prompt: What to ask about each row. Default: a description of the image, unless there is a `prompt_column`.
        provider: As for `ChatLlamaVision`: a name, a record, or several. Default: `$LLAMA_VISION_PROVIDER`, else `"local"`.
        model: As for `ChatLlamaVision`. Default: `$LLAMA_VISION_MODEL`, else the provider's first.
        prompt_column: The column of prompts, in place of `prompt`.
        image_column: The column of images; None asks without. A cell holds bytes, a path, a URL, a PIL image, an array
            (height x width x 3, of bytes), `{"bytes": ..., "path": ...}`, a list of several of these, or nothing.
            Text that is no URL is read as a path: pass no paths that came from someone else.
        schema: Structured output: a pydantic class or a JSON schema. Replies are requested by the provider's best method,
            validated, and requested again up to twice.
        system: The system prompt.
        concurrency: The maximum number of rows in flight. Default: 32 for the local model, 8 elsewhere.
        on_error: `"keep"` keeps failures in their rows; `"raise"` raises the first one.
        prefix: Prefix of the names of the new columns.
        api_key: A function that returns the provider's key, called in the worker. Default: the provider's own environment
            variables there. A key itself is refused: it would be pickled, and sent to every worker.
        max_cost_usd: US dollars that the calls of this instance may cost together, in one process; `ask_dataset` shares it
            out among its actors. Rows beyond it fail with `BudgetExceededError`.
        requests_per_minute: Calls in any 60 seconds, likewise; the others wait.
        **options: Options of a call (`max_tokens`, `temperature`, `stop`, `extra_body`, ...), and of
            `llama_vision.backends.create_backend` (`base_url`, `account_id`, `timeout`, `max_retries`, `images`, ...).

    Raises:
        ConfigurationError: Something does not fit together.
        UnsupportedInputError: The provider can't do it.
    """

    def __init__(
        self,
        prompt: str | None = None,
        *,
        provider: ProviderChoice | None = None,
        model: str | None = None,
        prompt_column: str | None = None,
        image_column: str | None = "image",
        schema: type[BaseModel] | Mapping[str, Any] | None = None,
        system: str | None = None,
        concurrency: int | None = None,
        on_error: Literal["keep", "raise"] = "keep",
        prefix: str = "",
        api_key: Callable[[], str] | None = None,
        max_cost_usd: float | None = None,
        requests_per_minute: int | None = None,
        **options: Any,
    ) -> None:
        self.route = resolve_provider(provider or default_provider(options.get("base_url")))
        self.provider = first_provider(self.route)
        self._limits = Limits(max_cost_usd=max_cost_usd, requests_per_minute=requests_per_minute)
        self.model = self.provider.model_info(model or default_model(self.provider)).id
        self._prompt = _checked_prompt(prompt, prompt_column)
        self._prompt_column = prompt_column
        self._image_column = image_column
        self._plan = None if schema is None else self._make_plan(schema)
        self._system = system
        default = _LOCAL_CONCURRENCY if self.provider.dialect is None else DEFAULT_CONCURRENCY
        self._concurrency = default if concurrency is None else concurrency
        self._on_error = on_error
        self._prefix = prefix
        self._api_key = _checked_key(api_key)
        self._request_options = {name: options.pop(name) for name in _REQUEST_OPTIONS & options.keys()}
        self._backend_options = options
        self._backend: Backend | None = None
        self._check()

    def __repr__(self) -> str:
        column = self._prompt_column
        about = repr(self._prompt) if column is None else f"prompt_column={column!r}"
        return f"BatchAsker({about}, provider={self.route.name!r}, model={self.model!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_backend": None}

    def __call__(self, batch: Any) -> Any:
        """Ask about each row.

        Args:
            batch: A pandas DataFrame, a pyarrow Table, or a dictionary of arrays or lists. It is not changed.

        Returns:
            The same kind of batch, with the new columns.

        Raises:
            ConfigurationError: It is no batch, lacks a column, or has one of the new ones.
            LlamaVisionError: With `on_error="raise"`, what went wrong with a row.
        """
        columns = as_column_batch(batch)
        added = [name for name in COLUMN_TYPES if name != "json" or self._plan is not None]
        self._check_names(columns, added)
        prompts: Sequence[Any] = [self._prompt] * columns.num_rows
        if self._prompt_column is not None:
            prompts = columns.read(self._prompt_column)
        images: Sequence[Any] = [None] * columns.num_rows
        if self._image_column is not None:
            images = columns.read(self._image_column)
        rows = [
            partial(ask_row, self._get_backend(), partial(self._request, prompt, image), self._plan)
            for prompt, image in zip(prompts, images, strict=True)
        ]
        results = run_rows(rows, concurrency=self._concurrency, keep=self._on_error == "keep")
        cells = [result.cells() for result in results]
        return columns.with_columns(
            {f"{self._prefix}{name}": (COLUMN_TYPES[name], [row[name] for row in cells]) for name in added}
        )

    def _check_names(self, columns: ColumnBatch, added: list[str]) -> None:
        for name in (self._prompt_column, self._image_column):
            if name is not None and name not in columns.names:
                advice = f" {_WITHOUT_IMAGES}" if name == self._image_column else ""
                raise ConfigurationError(
                    f"The batch has no column {name!r}. Its columns are: {', '.join(columns.names)}.{advice}"
                )
        if existing := [
            name for name in (f"{self._prefix}{name}" for name in added) if name in columns.names
        ]:
            raise ConfigurationError(
                f"The batch has the columns {', '.join(existing)} already. Give another prefix=... for the new ones."
            )

    def _request(self, prompt: object, image: object) -> ChatRequest:
        text = parse_prompt(prompt)
        if self._plan is not None and self._plan.instructions:
            text = append_instructions(text, self._plan.instructions)
        options = self._plan.merge_options(self._request_options) if self._plan else self._request_options
        messages = single_turn_messages(text, parse_images(image), self._system)
        return build_request(self.model, messages, options)

    def _make_plan(self, schema: object) -> StructuredOutputPlan:
        return plan_structured_output(OutputSchema.from_schema(schema), "auto", self.provider, self.model)

    def _get_backend(self) -> Backend:
        """Create the backend in the process that uses it; threads may race, since it holds no state yet."""
        if self._backend is None:
            key = None if self._api_key is None else self._api_key()
            self._backend = create_backend(
                self.route, api_key=key, limits=self._limits, **self._backend_options
            )
        return self._backend

    def _check(self) -> None:
        """Refuse what would fail in every row."""
        check_concurrency(self._concurrency)
        if self._on_error not in ("keep", "raise"):
            raise ConfigurationError(f"on_error is 'keep' or 'raise', and not {self._on_error!r}.")
        if unknown := sorted(self._backend_options.keys() - _BACKEND_OPTIONS):
            raise ConfigurationError(
                f"There is no option {', '.join(unknown)}. Known are: {', '.join(sorted(_REQUEST_OPTIONS | _BACKEND_OPTIONS))}."
            )
        validate_request(self.provider, self._request(self._prompt or DEFAULT_PROMPT, None))
        if self._image_column is not None and self.provider.image_rules.max_count == 0:
            raise UnsupportedInputError(
                f"{self.provider.title} takes no images. {self.provider.image_rules.alternative} {_WITHOUT_IMAGES}"
            )
        resolve_base_url(self.provider, self._backend_options.get("base_url"))
        if self.provider.dialect is not None:  # the local one may need what only the workers have
            create_backend(self.route, **self._backend_options)


def _checked_prompt(prompt: str | None, column: str | None) -> str | None:
    if prompt is not None and column is not None:
        raise ConfigurationError(
            f"There is a prompt for all rows and a prompt_column, {column!r}: give one of both."
        )
    return DEFAULT_PROMPT if prompt is None and column is None else prompt


def _checked_key(key: object) -> Any:
    if key is None or callable(key):
        return key
    raise ConfigurationError(  # without the key in its text
        "A key would be pickled, and sent to every worker as it is. Set the provider's variable in the environment of the "
        "workers, or give a function that returns the key: api_key=lambda: os.environ['MY_KEY']."
    )
