"""The network learns with the same passes as it answers with, and it does learn."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import MllamaForConditionalGeneration

from training.batches import LONG_IMAGES, BatchMaker
from training.conversations import ConversationWriter
from training.foundation import write_foundation
from training.network import decode_text, encode_images, init_network
from training.train import FIRST, Plan, Trainer, main


@pytest.fixture(scope="module")
def network():
    loaded = MllamaForConditionalGeneration.from_pretrained(FIRST, dtype=torch.float32).eval()
    loaded.set_attn_implementation("eager")
    return loaded


@pytest.fixture(scope="module")
def talks():
    return BatchMaker(FIRST, 7).talks()


def hidden(network, batch):
    with torch.no_grad():
        seen = network.model.multi_modal_projector(encode_images(network, torch.from_numpy(batch.tiles)))
        blind = len(batch.ids) - len(seen)
        states = torch.cat([seen, seen.new_zeros(blind, *seen.shape[1:])])
        sees = torch.from_numpy(batch.image_mask)
        return decode_text(network.model.language_model, torch.from_numpy(batch.ids), states, sees)


@pytest.mark.slow
def test_rows_without_a_image_are_as_if_there_were_no_images(network, talks):
    both = hidden(network, talks)[LONG_IMAGES:]
    with torch.no_grad():
        alone = decode_text(
            network.model.language_model, torch.from_numpy(talks.ids[LONG_IMAGES:]), None, None
        )
        theirs = network.model.language_model(torch.from_numpy(talks.ids[LONG_IMAGES:])).last_hidden_state
    torch.testing.assert_close(both, alone, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(alone, theirs, atol=2e-4, rtol=1e-4)


@pytest.mark.slow
def test_words_before_a_image_do_not_see_it(network, talks):
    other = replace(talks, tiles=255 - talks.tiles)
    one, two = hidden(network, talks)[:LONG_IMAGES], hidden(network, other)[:LONG_IMAGES]
    sees = torch.from_numpy(talks.image_mask[:LONG_IMAGES, :, 0]) > 0
    assert (~sees).any(1).all()
    torch.testing.assert_close(one[~sees], two[~sees], atol=0, rtol=0)
    assert (one[sees] - two[sees]).abs().max() > 0.1


def test_images_are_seen_as_the_model_sees_them(network, talks):
    count = len(talks.tiles)
    ones = torch.ones(count, 1, dtype=torch.long)
    pixels = torch.from_numpy(talks.tiles / np.float32(127.5) - 1)[:, None, None].float()
    with torch.no_grad():
        theirs = network.model.vision_model(pixels, aspect_ratio_ids=ones, aspect_ratio_mask=ones[..., None])
        ours = encode_images(network, torch.from_numpy(talks.tiles))
    torch.testing.assert_close(ours, theirs.last_hidden_state.flatten(1, 3), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_few_steps_make_it_better_and_the_same_steps_make_the_same(tmp_path, capsys):
    """Both phases run, from nothing: a tokenizer, a folder that can be loaded, and a loss that falls."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        main(
            [
                str(folder),
                "--from-nothing",
                "--plainly",
                "--seeing",
                "2",
                "--together",
                "2",
                "--talks",
                "0.5",
            ]
        )
    states = [
        MllamaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).state_dict()
        for folder in folders
    ]
    assert states[0].keys() == states[1].keys()
    for name, weights in states[0].items():
        torch.testing.assert_close(weights, states[1][name], atol=0, rtol=0)
    assert '"phase": "together"' in capsys.readouterr().out


@pytest.mark.slow
def test_learning_one_batch_over_and_over_lowers_its_loss(tmp_path):
    write_foundation(tmp_path)
    trainer = Trainer(tmp_path, Plan(compiled=False), continued=False)
    batch = BatchMaker(tmp_path, 1).talks()
    every = list(trainer.network.parameters())
    optimizer, losses = torch.optim.AdamW(every, lr=1e-3), []
    for _ in range(6):
        loss = trainer.language_loss(trainer.encode(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_starting_values_leave_the_image_visible(tmp_path):
    write_foundation(tmp_path)
    made = init_network(MllamaForConditionalGeneration.config_class.from_pretrained(tmp_path))
    gates = [
        weights.item() for name, weights in made.named_parameters() if "gate" in name and weights.numel() == 1
    ]
    assert gates
    assert all(gate == 1 for gate in gates)


@pytest.mark.slow
def test_a_new_tokenizer_reads_back_what_it_wrote(tmp_path):
    write_foundation(tmp_path)
    writer = ConversationWriter(BatchMaker(tmp_path, 1)._writer._tokenizer, random.Random(1))
    for lesson in (writer.with_tools(500), writer.with_words(200)):
        text = writer._tokenizer.decode(lesson.ids, skip_special_tokens=False)
        assert text.startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n")
