"""The names under which clients ask for the model."""

from collections.abc import Sequence

from llama_vision.core.errors import ModelNotFoundError
from llama_vision.providers.local import LOCAL
from llama_vision.providers.servers import OLLAMA

SIZES = {"11b": "llama-3.2-11b-vision", "90b": "llama-3.2-90b-vision"}
"""Short names of the models."""

_OLLAMA_NAME = "llama3.2-vision"
_DEFAULT_TAG = ":latest"


class ServedNames:
    """The names of one model.

    Attributes:
        model: Its id for the local engine.
        listed: The names that clients are shown, the first its own.
    """

    def __init__(self, model: str, further: Sequence[str] = ()) -> None:
        """Collect them.

        Args:
            model: `tiny`, `11b`, `90b`, or what `model=` takes for `provider="local"`.
            further: Names of the user's.
        """
        info = LOCAL.model_info(SIZES.get(model.lower(), model))
        self.model = info.id
        own = (
            info.name.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
            if info.name == info.id
            else info.name
        )
        ollama = next((each.id for each in OLLAMA.models if each.name == info.name), _OLLAMA_NAME)
        self.listed = tuple(dict.fromkeys((own, *further, ollama)))
        self._accepted = {*self.listed, info.id, info.name, _OLLAMA_NAME, model}

    def resolve(self, name: str) -> str:
        """Return the model's id.

        Raises:
            ModelNotFoundError: The name is none of the model's; the text lists those.
        """
        if name not in self._accepted and name.removesuffix(_DEFAULT_TAG) not in self._accepted:
            raise ModelNotFoundError(
                f"There is no model {name[:100]!r} here. There is: {', '.join(self.listed)}. "
                "`llama-vision serve --served-name NAME` adds a name."
            )
        return self.model
