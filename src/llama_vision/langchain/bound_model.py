"""A `ChatLlamaVision` with arguments bound to it, such as tools, which its batch API gets too."""

from collections.abc import Sequence
from typing import Any, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableBinding
from typing_extensions import override

from llama_vision.backends.batches import BatchJob


class BoundModel(RunnableBinding[LanguageModelInput, AIMessage]):
    """LangChain's binding, which would forward `submit_batch` and `batch_job` to the model without what is bound."""

    @classmethod
    @override
    def lc_id(cls) -> list[str]:
        return RunnableBinding.lc_id()

    def submit_batch(self, inputs: Sequence[LanguageModelInput], **kwargs: Any) -> BatchJob[AIMessage]:
        """See `ChatLlamaVision.submit_batch`."""
        return cast("Any", self.bound).submit_batch(inputs, **{**self.kwargs, **kwargs})

    async def asubmit_batch(self, inputs: Sequence[LanguageModelInput], **kwargs: Any) -> BatchJob[AIMessage]:
        """See `ChatLlamaVision.submit_batch`."""
        return await cast("Any", self.bound).asubmit_batch(inputs, **{**self.kwargs, **kwargs})

    def batch_job(self, batch_id: str, **kwargs: Any) -> BatchJob[AIMessage]:
        """See `ChatLlamaVision.batch_job`."""
        return cast("Any", self.bound).batch_job(batch_id, **{**self.kwargs, **kwargs})
