"""A `ChatLlamaVision` with arguments bound to it, such as tools, which its batch API gets too."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import LanguageModelInput, chat_models
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableBinding

if TYPE_CHECKING:
    from llama_vision.backends.batches import BatchJob

# LangChain's own for chat models, which it exports under no public name; versions before 1.8 have none.
_Binding: Any = getattr(chat_models, "_ChatModelBinding", RunnableBinding)


class BoundModel(_Binding):
    """LangChain's binding, which would forward `submit_batch` and `batch_job` to the model without what is bound."""

    @classmethod
    def lc_id(cls) -> list[str]:
        """Be saved as LangChain's binding."""
        return _Binding.lc_id()

    def submit_batch(self, inputs: Sequence[LanguageModelInput], **kwargs: Any) -> "BatchJob[AIMessage]":
        """See `ChatLlamaVision.submit_batch`."""
        return self.bound.submit_batch(inputs, **{**self.kwargs, **kwargs})

    async def asubmit_batch(
        self, inputs: Sequence[LanguageModelInput], **kwargs: Any
    ) -> "BatchJob[AIMessage]":
        """See `ChatLlamaVision.submit_batch`."""
        return await self.bound.asubmit_batch(inputs, **{**self.kwargs, **kwargs})

    def batch_job(self, batch_id: str, **kwargs: Any) -> "BatchJob[AIMessage]":
        """See `ChatLlamaVision.batch_job`."""
        return self.bound.batch_job(batch_id, **{**self.kwargs, **kwargs})
