import pytest
from tokenizers import Tokenizer
from transformers import AutoProcessor, logging

from llama_vision.backends.local.loading import TINY


@pytest.fixture(scope="session")
def tiny_image_processor():
    logging.disable_progress_bar()
    return AutoProcessor.from_pretrained(TINY).image_processor


@pytest.fixture(scope="session")
def tiny_tokenizer():
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer
