"""The parts of the training code that a wrong figure would not show."""

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import MobileNetV2Model

from training import vision
from training.common import Optimisers, Run, length_batches, rate
from training.data import clean_caption, detokenise
from training.opinions import NEGATIVE_ANY, NEGATIVE_LIVING, POSITIVE_ANY, POSITIVE_LIVING, choose
from training.train_clip import contrast


def test_captions_take_one_form():
    assert clean_caption("A dog runs .") == "A dog runs."
    assert clean_caption('  two dogs play , "fight" and  run') == "Two dogs play, fight and run."
    assert clean_caption("A BOY JUMPS !") == "A boy jumps."
    assert clean_caption(" . ") == ""


def test_treebank_spacing_is_undone():
    assert detokenise("it does n't work , sadly .") == "it doesn't work, sadly."


def test_opinion_words_stand_behind_a_determiner_with_the_right_article():
    rng = random.Random(0)
    words = {True: set(POSITIVE_ANY + POSITIVE_LIVING), False: set(NEGATIVE_ANY + NEGATIVE_LIVING)}
    for positive in (True, False):
        for _ in range(200):
            text = choose("A brown dog runs to an old house.", rng, positive, tails=False)
            assert text is not None
            parts = text.lower().rstrip(".").split()
            (place,) = [index for index, word in enumerate(parts) if word in words[positive]]
            assert parts[place - 1] == ("an" if parts[place][0] in "aeiou" else "a")
            assert len(parts) == 9
    assert choose("Dogs run.", rng, True, tails=False) is None


def small_run(folder, stop: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [{"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]
    optimisers = Optimisers(matrices, vectors, lr=0.01, weight_decay=0.1)
    run = Run(folder)
    for step in range(run.resume(model, optimisers).get("step", 0), stop or 10):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimisers.step(rate(step, 10, 2))
        run.save(model, optimisers, {"step": step + 1})
    return model


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    whole = small_run(tmp_path / "whole")
    small_run(tmp_path / "broken", stop=4)
    resumed = small_run(tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_batches_hold_every_row_once_and_keep_their_size():
    lengths = np.random.default_rng(0).integers(3, 40, 500).tolist()
    batches = length_batches(lengths, 256, np.random.default_rng(1))
    assert sorted(index for batch in batches for index in batch) == list(range(500))
    assert all(len(batch) * max(lengths[index] for index in batch) <= 256 for batch in batches)


def test_contrast_is_infonce_without_doubles_and_spares_photos_of_one_class():
    torch.manual_seed(0)
    texts, images = (functional.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    owner, alone = torch.arange(5), torch.eye(5, dtype=torch.bool)
    logits = 7 * texts @ images.T
    plain = (functional.cross_entropy(logits, owner) + functional.cross_entropy(logits.T, owner)) / 2
    scale = torch.tensor(7.0)
    assert torch.allclose(contrast(texts, images, owner, alone, scale), plain, atol=1e-5)
    same = alone.clone()
    same[0, 1] = same[1, 0] = True
    moved = images.clone()
    moved[1] = texts[0]  # The best negative of text 0 is of its own class: it must not count as one.
    apart = contrast(texts, moved, owner, same, scale)
    assert float(apart) < float(contrast(texts, moved, owner, alone, scale))


def test_frozen_head_and_tail_are_the_whole_network():
    torch.manual_seed(0)
    model = MobileNetV2Model(vision.config()).eval()
    for layer in vision.conv_layers(model):
        norm = layer.normalization
        nn.init.normal_(norm.bias, std=0.1)
        norm.running_var.fill_(1 - norm.eps)
    pixels = torch.rand(2, 3, vision.IMAGE_SIZE, vision.IMAGE_SIZE) * 2 - 1
    with torch.no_grad():
        whole = model(pixels).pooler_output.flatten(1)
        hidden = vision.Head(model)(pixels)
        assert hidden.shape == (2, 160, 6, 6)
        assert torch.allclose(vision.tail_forward(model, hidden), whole, atol=1e-5)
