"""The parts of the training code that a wrong figure would not show."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from transformers import MobileNetV2Model

from training import teacher as distillation
from training import vision
from training.clip_batches import ClipBatches
from training.common import Optimisers, Run, length_batches, rate
from training.data import clean_caption, detokenise
from training.losses import TEACHER_TEMPERATURE, contrast, same_neighbours
from training.opinions import NEGATIVE_ANY, NEGATIVE_LIVING, POSITIVE_ANY, POSITIVE_LIVING, choose
from training.variants import Captions


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


def test_soft_targets_are_the_teachers_but_not_for_photos_of_one_class():
    torch.manual_seed(0)
    texts, images = (functional.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    owner, alone, alike = torch.arange(5), torch.eye(5, dtype=torch.bool), torch.rand(5, 5)
    scale = torch.tensor(7.0)
    hard = contrast(texts, images, owner, alone, scale)
    assert torch.allclose(contrast(texts, images, owner, alone, scale, alike, 0.0), hard)
    logits, target = 7 * texts @ images.T, alike / TEACHER_TEMPERATURE
    soft = -(target.softmax(1) * logits.log_softmax(1)).sum(1).mean() / 2
    soft -= (target.T.softmax(1) * logits.T.log_softmax(1)).sum(1).mean() / 2
    assert torch.allclose(contrast(texts, images, owner, alone, scale, alike, 1.0), soft, atol=1e-5)
    half = contrast(texts, images, owner, alone, scale, alike, 0.5)
    assert torch.allclose(half, (hard + soft) / 2, atol=1e-5)
    same = alone.clone()
    same[0, 1] = same[1, 0] = True
    assert torch.isfinite(contrast(texts, images, owner, same, scale, alike, 0.5))


def test_neighbours_as_the_teacher_has_them_cost_nothing():
    torch.manual_seed(0)
    teacher = functional.normalize(torch.randn(6, 4), dim=-1)
    turned = teacher @ torch.linalg.qr(torch.randn(4, 4))[0]
    scale = torch.tensor(1 / TEACHER_TEMPERATURE)
    assert float(same_neighbours(turned, teacher, scale)) == pytest.approx(0, abs=1e-4)
    assert float(same_neighbours(turned.flip(0), teacher, scale)) > 0.1


def test_damaged_captions_keep_most_of_their_words():
    rng = random.Random(0)
    text = "A brown dog runs through the tall green grass."
    words, weights = ["purple", "train"], [1.0, 2.0]
    found = [distillation.damage(text, words, weights, rng) for _ in range(300)]
    assert sum(one.rstrip(".") != text.rstrip(".") for one in found) > 290
    known = set(text.rstrip(".").split()) | set(words)
    assert all(set(one.rstrip(".").split()) <= known for one in found)
    assert any("train" in one for one in found)


@pytest.fixture
def small_data(tmp_path):
    """Two captioned photos, two classes, and what the teacher and the frozen head made of them."""
    data = tmp_path / "data"
    tiny = data / "labelled" / "tiny_imagenet"
    for folder in (data / "flickr8k", data / "text", data / "labelled" / "imagenet_one_per_class"):
        folder.mkdir(parents=True)
    captions = [["A dog runs.", "The dog is fast."], ["Two boats.", "Boats on water."]]
    rows = [{"file": f"{n}.jpg", "split": "train", "captions": each} for n, each in enumerate(captions)]
    (data / "flickr8k" / "captions.json").write_text(json.dumps(rows))
    (data / "text" / "coco_val2017_captions.txt").write_text("A red bus.\n")
    for synset in ("n1", "n2"):
        (tiny / synset).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (8, 8)).save(tiny / synset / f"{number}.JPEG")
    (tiny / "labels.json").write_text(json.dumps({"n1": "goldfish, Carassius", "n2": "owl"}))
    work = tmp_path / "work"
    work.mkdir()
    texts = distillation.make_texts(data, Captions(), seed=0)
    (work / "texts.json").write_text(json.dumps(vars(texts)))
    generator = np.random.default_rng(0)
    np.save(work / "teacher.npy", generator.normal(size=(len(texts.all), 6)).astype(np.float16))
    (work / "teacher.done").write_text(f"{len(texts.all)} {distillation.checksum(texts.all)}")
    np.save(work / "flickr_train.npy", np.arange(4.0).reshape(2, 2, 1, 1, 1).astype(np.float16))
    np.save(work / "labelled.npy", (10 + np.arange(24.0)).reshape(24, 1, 1, 1, 1).astype(np.float16))
    return data, work


def test_batches_hold_each_photo_with_its_own_captions_and_their_teacher(small_data):
    data, work = small_data
    texts, rows = distillation.load(work)
    for step in range(4):
        batches = ClipBatches(data, work, work, Captions(), (2, 3, 2))
        batch = batches(step, "cpu")
        assert batch.hidden.shape == (5, 1, 1, 1)
        photos = [int(value) // 2 for value in batch.hidden[:2].flatten()]
        assert sorted(photos) == [0, 1]
        assert batch.owner.tolist() == [0, 0, 1, 1, 2, 3, 4]
        size = distillation.VARIANTS
        for number, (text, owner) in enumerate(zip(batch.texts[:4], batch.owner.tolist(), strict=False)):
            first = photos[owner] * 2 * size
            own = [first + at for at in range(2 * size) if texts.captions[first + at] == text]
            close = functional.cosine_similarity(
                batch.teacher[number], torch.from_numpy(rows[own].astype(np.float32))
            )
            assert float(close.max()) > 0.999
        assert set(batch.texts[-2:]) <= set(texts.other)
        assert len(batch.teacher) == len(batch.texts) == 9
        again = batches(step, "cpu")
        assert again.texts == batch.texts
        assert torch.equal(again.hidden, batch.hidden)


def test_texts_that_the_teacher_has_not_read_are_refused(small_data):
    _, work = small_data
    texts, _ = distillation.load(work)
    for done in (f"1 {distillation.checksum(texts.all)}", f"{len(texts.all)} {distillation.checksum(['x'])}"):
        (work / "teacher.done").write_text(done)
        with pytest.raises(SystemExit, match="run training\\.teacher again"):
            distillation.load(work)


def test_texts_of_photos_that_are_left_out_are_never_drawn(small_data):
    data, work = small_data
    batches = ClipBatches(data, work, work, Captions(), (1, 1, 64), leave=1)
    texts, _ = distillation.load(work)
    # One caption of COCO, then damaged ones of two train photos' two captions each.
    allowed = {texts.other[index] for index in (0, 1, 2, 5)}
    assert {text for step in range(4) for text in batches(step, "cpu").texts[-64:]} == allowed
    assert not {text for step in range(4) for text in batches(step, "cpu").texts[:2]} & set(
        texts.captions[2 * distillation.VARIANTS :]
    )
