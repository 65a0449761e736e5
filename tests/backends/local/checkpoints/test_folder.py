"""Folders that are not whole, or of another kind, are refused with the next step; fine-tunes with other vocabularies load."""

import errno
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llama_vision import ChatRequest, Message, SamplingParams, Text
from llama_vision.backends.local import LocalBackend, LocalSettings
from llama_vision.backends.local.checkpoints.checkpoint import parameter_name
from llama_vision.backends.local.load_errors import load_error
from llama_vision.backends.local.model_loader import TINY_MODEL_PATH, load_model
from llama_vision.core.errors import LocalModelError
from llama_vision.providers import find_provider

CPU = LocalSettings(device="cpu", dtype="float32")
EMBEDDING = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(TINY_MODEL_PATH, tmp_path / "model")


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **text):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= text
    (folder / "config.json").write_text(json.dumps(config))


def in_shards(folder):
    """Split the weights into three files, as large checkpoints are."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, weight_map = sorted(weights), {}
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        part = {name: weights[name] for name in names[number::3]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def answer(folder):
    request = ChatRequest(
        str(folder), (Message("user", (Text("Say hi"),)),), sampling=SamplingParams(temperature=0)
    )
    return LocalBackend(find_provider("local"), local=LocalSettings(device="cpu")).complete(request).text


def test_weights_in_several_files_are_read(folder):
    in_shards(folder)
    assert answer(folder) == "Hi"


def test_names_of_either_layout_are_read(folder):
    """Meta's, as the hub and the tiny model have them, and those of transformers 5."""

    def rename(weights):
        for name in list(weights):
            weights[parameter_name(name)] = weights.pop(name)
        assert "model.language_model.embed_tokens.weight" in weights

    change_weights(folder, rename)
    assert answer(folder) == "Hi"


def with_a_shard_missing(folder):
    in_shards(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()


def with_a_shard_cut_off(folder):
    in_shards(folder)
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def with_a_pointer(folder):
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"
    )


def with_pickles(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def in_metas_layout(folder):
    (folder / "model.safetensors").rename(folder / "consolidated.pth")
    (folder / "params.json").write_text("{}")


def with_more_tokens_than_rows(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    last = tokenizer["added_tokens"][-1]
    tokenizer["added_tokens"] += [last | {"id": new, "content": f"<|{new}|>"} for new in range(1025, 1033)]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


DAMAGED = [
    (
        with_a_shard_missing,
        r"downloaded in part: 1 of 3 files are missing \(model-00002.*once more; `hf download`",
    ),
    (
        with_a_shard_cut_off,
        r"model-00002\S+ can't be loaded: it is cut off after [\d,]+ bytes of [\d,]+\. Delete this file",
    ),
    (with_a_pointer, "Git's pointer to the weights. Run `git lfs pull`"),
    (with_pickles, "pytorch_model.bin is a pickle.*save_pretrained"),
    (in_metas_layout, "Meta's own layout.*meta-llama/Llama-3.2-11B-Vision-Instruct"),
    (with_more_tokens_than_rows, "token ids up to 1032, and its embedding 1032 rows"),
]


@pytest.mark.parametrize(("damage", "text"), DAMAGED, ids=[damage.__name__ for damage, _ in DAMAGED])
def test_a_damaged_folder_is_refused_with_the_next_step(folder, damage, text):
    damage(folder)
    with pytest.raises(LocalModelError, match=text) as caught:
        load_model(str(folder), CPU)
    assert "Download it again" not in str(caught.value)


def test_a_full_disk_says_so():
    full = OSError(errno.ENOSPC, "No space left on device")
    error = RuntimeError("Data processing error")
    error.__cause__ = full
    text = "acme/model can't be loaded: the disk is full. Make room.*HF_HOME.*resumes"
    for one in (full, error):
        with pytest.raises(LocalModelError, match=text):
            raise load_error("acme/model", torch.device("cpu"), one)


@pytest.mark.parametrize(
    "rows", [1024 + 8, 1100, 1024 + 64 + 8], ids=["as ever", "no spare rows", "spare rows"]
)
def test_a_fine_tune_with_another_vocabulary_loads(folder, rows):
    """transformers' `resize_token_embeddings` gives embedding and LM head the same number of rows."""
    head_rows = 1024 if rows == 1024 + 8 else 1100

    def resize(weights):
        for name, count in ((EMBEDDING, max(rows, head_rows)), (HEAD, head_rows)):
            old = weights[name]
            new = torch.zeros(count, old.shape[1], dtype=old.dtype)
            new[: len(old)] = old[:count]
            if name == HEAD:
                new[len(old) :] = -old.abs().amax(0)
            weights[name] = new

    change_weights(folder, resize)
    loaded = load_model(str(folder), CPU)
    assert loaded.model.lm_head.weight.shape[0] == head_rows == loaded.model.config.text_config.vocab_size
    assert loaded.model.model.language_model.embed_tokens.num_embeddings == max(rows, head_rows)
    assert answer(folder).startswith("Hi")


def test_tied_embeddings_load(folder):
    change_config(folder, tie_word_embeddings=True)
    change_weights(folder, lambda weights: weights.pop(HEAD))
    model = load_model(str(folder), CPU).model
    assert torch.equal(model.lm_head.weight, model.model.language_model.embed_tokens.weight)


def test_a_checkpoint_without_generation_config_loads(folder):
    (folder / "generation_config.json").unlink()
    assert load_model(str(folder), CPU).eos_token_ids == load_model("tiny", CPU).eos_token_ids


def test_weights_stay_as_they_are_when_the_file_changes(folder):
    loaded = load_model(str(folder), LocalSettings(device="cpu", dtype="bfloat16"))
    before = loaded.model.lm_head.weight.clone()
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(10)
    assert torch.equal(loaded.model.lm_head.weight, before)
