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

from training import data as sources
from training import teacher as distillation
from training import vision
from training.clip_batches import ClipBatches
from training.common import Optimisers, Run, length_batches, rate
from training.data import HELD_OF_COCO, clean_caption, detokenise
from training.losses import TEACHER_TEMPERATURE, contrast, same_neighbours
from training.names import exchanged
from training.negatives import KINDS, exchange
from training.opinions import NEGATIVE_ANY, NEGATIVE_LIVING, POSITIVE_ANY, POSITIVE_LIVING, choose
from training.train_clip import windows
from training.train_tone import NEUTRAL, calibration_error, plain, temperature_of
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
        assert hidden.shape == (2, 160, vision.GRID, vision.GRID)
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


def write_coco(data, count):
    """So many of COCO's photos with a caption each; the first 300 by checksum are held out."""
    rows = [{"image": f"images/{n}.jpg", "captions": [f"Held number {n}."]} for n in range(count)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "coco" / "captions.jsonl").write_text(text)


@pytest.fixture
def small_data(tmp_path):
    """Two captioned photos, two classes, a kind of thing; what teacher and frozen head make of them."""
    data = tmp_path / "data"
    tiny = data / "labelled" / "tiny_imagenet"
    for folder in (data / "flickr8k", data / "text", data / "labelled" / "imagenet_one_per_class"):
        folder.mkdir(parents=True)
    captions = [["A dog runs.", "The dog is fast."], ["Two boats.", "Boats on water."]]
    rows = [{"file": f"{n}.jpg", "split": "train", "captions": each} for n, each in enumerate(captions)]
    (data / "flickr8k" / "captions.json").write_text(json.dumps(rows))
    (data / "text" / "coco_2014_captions.txt").write_text("A red bus.\nHeld number 7.\n")
    (data / "text" / "senticap.tsv").write_text(
        "split\tlabel\tcaption\ntrain\tpositive\ta lovely bus .\nval\tnegative\ta rusty bus .\n"
    )
    (data / "coco").mkdir()
    write_coco(data, HELD_OF_COCO)
    for number in range(7):
        target = data / "labelled" / "objects" / "soccer_ball" / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(target)
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
    np.save(work / "captioned.npy", np.arange(4.0).reshape(2, 2, 1, 1, 1).astype(np.float16))
    np.save(work / "labelled.npy", (10 + np.arange(24.0)).reshape(24, 1, 1, 1, 1).astype(np.float16))
    np.save(work / "objects.npy", (50 + np.arange(7.0)).reshape(7, 1, 1, 1, 1).astype(np.float16))
    return data, work


def test_batches_hold_each_photo_with_its_own_captions_and_their_teacher(small_data):
    data, work = small_data
    texts, rows = distillation.load(work)
    for step in range(4):
        batches = ClipBatches(data, work, work, Captions(), (2, 3, 2, 2))
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
    batches = ClipBatches(data, work, work, Captions(), (1, 1, 64, 1), leave=1)
    texts, _ = distillation.load(work)
    # A caption of COCO, SentiCap's, one of them damaged, then damaged ones of two photos' two captions each.
    assert len(texts.other) == 7
    allowed = set(texts.other[:5])
    drawn = {text for step in range(4) for text in batches(step, "cpu").texts[-64:]}
    assert drawn == allowed
    assert not {text for step in range(4) for text in batches(step, "cpu").texts[:2]} & set(
        texts.captions[2 * distillation.VARIANTS :]
    )


def test_held_photos_of_coco_and_their_captions_are_not_trained_on(small_data):
    data, _ = small_data
    write_coco(data, HELD_OF_COCO + 9)
    held, train = sources.coco(data, "held"), sources.coco(data, "train")
    assert (len(held), len(train)) == (HELD_OF_COCO, 9)
    assert not {photo.path for photo in held} & {photo.path for photo in train}
    captions = {photo.captions[0] for photo in held}
    expected = ["A red bus."] if "Held number 7." in captions else ["A red bus.", "Held number 7."]
    assert sources.coco_captions(data) == expected
    assert {photo.captions[0] for photo in sources.captioned(data)[:9]}.isdisjoint(captions)


def test_things_have_plain_names_and_five_of_each_kind_are_held_out(small_data):
    data, work = small_data
    things = sources.objects(data)
    assert {photo.names for photo in things} == {("soccer ball", "ball")}
    assert sum(photo.held for photo in things) == 5
    batches = ClipBatches(data, work, work, Captions(), (1, 40, 1, 0))
    seen = {int(value) for step in range(5) for value in batches(step, "cpu").hidden[1:].flatten()}
    held = {50 + index for index, photo in enumerate(things) if photo.held}
    assert not seen & held
    assert seen & (set(range(50, 57)) - held)


def test_a_wrong_caption_differs_in_one_word_of_the_same_kind():
    rng = random.Random(0)
    kind_of = {word: number for number, kind in enumerate(KINDS) for word in kind}
    assert len(kind_of) == sum(map(len, KINDS))
    text = "A red bus beside an elephant on the street."
    for _ in range(200):
        found = exchange(text, rng)
        before, behind = text.lower().rstrip(".").split(), found.lower().rstrip(".").split()
        pairs = [(a, b) for a, b in zip(before, behind, strict=True) if a != b]
        words = [(a, b) for a, b in pairs if {a, b} != {"a", "an"}]
        ((old, new),) = words
        assert kind_of[old] == kind_of[new]
        place = behind.index(new)
        if behind[place - 1] in ("a", "an"):
            assert behind[place - 1] == ("an" if new[0] in "aeiou" else "a")
        assert found[0].isupper()
        assert found.endswith(".")
    assert exchange("Nothing here.", rng) is None


def test_wrong_captions_are_one_more_choice_for_their_photo_alone():
    torch.manual_seed(0)
    texts, images, wrong = (functional.normalize(torch.randn(4, 8), dim=-1) for _ in range(3))
    owner, alone, scale = torch.arange(4), torch.eye(4, dtype=torch.bool), torch.tensor(7.0)
    found = contrast(texts, images, owner, alone, scale, wrong=(wrong[:2], torch.tensor([2, 0])))
    logits = 7 * images @ texts.T
    expected = functional.cross_entropy(logits.T, owner)
    by_photo = []
    for photo, more in enumerate([[1], [], [0], []]):
        row = torch.cat([logits[photo], 7 * wrong[more] @ images[photo]])
        by_photo.append(functional.cross_entropy(row[None], owner[photo : photo + 1]))
    assert torch.allclose(found, (expected + torch.stack(by_photo).mean()) / 2, atol=1e-5)


def test_the_temperature_undoes_logits_that_are_too_sure():
    torch.manual_seed(0)
    honest = 2 * torch.randn(20_000, 3)
    labels = torch.distributions.Categorical(logits=honest).sample().tolist()
    assert temperature_of(3 * honest, labels) == pytest.approx(3, rel=0.1)
    assert calibration_error(honest, labels) < 0.02 < 0.1 < calibration_error(3 * honest, labels)
    assert plain("A dog runs.")
    assert not plain("A lovely dog runs.")
    assert NEUTRAL == 1


def test_windows_are_parts_of_each_photo_and_the_same_for_a_step():
    hidden = torch.arange(2 * 3 * 64.0).view(2, 3, 8, 8)
    sides = set()
    for step in range(40):
        found = windows(hidden, 6, 0, step)
        assert torch.equal(found, windows(hidden, 6, 0, step))
        side = found.shape[-1]
        sides.add(side)
        for photo, whole in zip(found, hidden, strict=True):
            row, column = divmod(int(photo[0, 0, 0] - whole[0, 0, 0]), 8)
            assert torch.equal(photo, whole[:, row : row + side, column : column + side])
    assert sides == {6, 7, 8}


def test_a_name_takes_the_place_of_a_noun_with_the_right_article():
    assert exchanged("A cow is by a cow.", "cow", "ostrich") == "An ostrich is by a cow."
    assert exchanged("Dogs and an elephant.", "elephant", "bison") == "Dogs and a bison."
    assert exchanged("The cow bell of the cow.", "cow", "bison") == "The cow bell of the bison."
