"""The same models over columns: batches of a Ray Dataset, of pandas, of pyarrow. Loads none of the three."""

from llama_vision.ray.asker import BatchAsker
from llama_vision.ray.dataset import ask_dataset

__all__ = ["BatchAsker", "ask_dataset"]
