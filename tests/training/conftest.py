import pytest
from tokenizers import Tokenizer
from transformers import AutoProcessor, logging

from llama_vision.backends.local.model_loader import TINY_MODEL_PATH


@pytest.fixture(scope="session")
def tiny_image_processor():
    logging.disable_progress_bar()
    return AutoProcessor.from_pretrained(TINY_MODEL_PATH).image_processor


@pytest.fixture(scope="session")
def tiny_tokenizer():
    tokenizer = Tokenizer.from_file(str(TINY_MODEL_PATH / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer
