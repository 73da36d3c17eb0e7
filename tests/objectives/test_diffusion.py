"""The denoising loss beside diffusers' own modules, run by hand, on tiny random pipelines."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import promptfuse as pf
from promptfuse.models import DiffusionModel
from promptfuse.objectives.denoising import Draws, denoising_losses
from promptfuse.testing import KnownAnswer, make_models
from tests.conftest import quiet
from tests.diffusion_pipelines import KINDS, write

diffusers = pytest.importorskip("diffusers", reason="pip install 'promptfuse[diffusion]'")

SIZE = 16
WANTED = os.environ.get("PROMPTFUSE_GPU_TESTS") or ("cuda" if torch.cuda.is_available() else "")
TEXTS = ["A brown dog runs.", "", "Café 日本 1999", "dog!", "wow!! a (black) bird?!", "!", 'the "best!" film']


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny pipeline."""
    root = tmp_path_factory.mktemp("pipelines")

    @cache
    def make(kind: str) -> Path:
        with quiet():
            return write(kind, root / kind)

    return make


@pytest.fixture(scope="module")
def diffusion(folder: Callable[[str], Path]) -> Callable[..., DiffusionModel]:
    """A tiny pipeline, loaded once for each type of its parameters."""

    @cache
    def load(kind: str, dtype: torch.dtype = torch.float32) -> DiffusionModel:
        found = pf.load_model(folder(kind), dtype=dtype)
        assert isinstance(found, DiffusionModel)
        return found

    return load


@pytest.fixture(scope="module")
def pipeline(folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """The same pipeline, loaded by diffusers."""

    @cache
    def load(kind: str) -> Any:
        role = diffusers.StableDiffusionXLPipeline if kind == "sdxl" else diffusers.StableDiffusionPipeline
        with quiet():
            return role.from_pretrained(folder(kind))

    return load


@torch.no_grad()
def by_hand(pipe: Any, text: str, photo: Image.Image, timesteps: list[int], seed: int) -> float:
    """The mean squared error of the UNet's predictions, one by one, by the pipeline's own modules."""
    more: dict[str, Any] = {}
    if hasattr(pipe, "text_encoder_2"):
        told, _, pooled, _ = pipe.encode_prompt(text, device="cpu", do_classifier_free_guidance=False)
        sizes = pipe._get_add_time_ids((SIZE, SIZE), (0, 0), (SIZE, SIZE), torch.float32, pooled.shape[1])
        more = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
    else:
        told, _ = pipe.encode_prompt(text, "cpu", 1, False)
    side, (width, height) = min(photo.size), photo.size
    left, top = (width - side) // 2, (height - side) // 2
    square = photo.crop((left, top, left + side, top + side))
    pixels = pipe.image_processor.preprocess(square, SIZE, SIZE)
    clean = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    noises = torch.randn(len(timesteps), *clean.shape[1:], generator=torch.Generator().manual_seed(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Of numpy, about torch's arrays.
        pipe.scheduler.set_timesteps(1000)
    errors = []
    for step, noise in zip(timesteps, noises.split(1), strict=True):
        noisy = pipe.scheduler.add_noise(clean, noise, torch.tensor([step]))
        share = pipe.scheduler.alphas_cumprod[step]
        if isinstance(pipe.scheduler, diffusers.EulerDiscreteScheduler):  # Its noise is added to the photo.
            noisy = noisy * share.sqrt()
        target = noise
        if pipe.scheduler.config.prediction_type == "v_prediction":
            target = share.sqrt() * noise - (1 - share).sqrt() * clean
        found = pipe.unet(noisy, torch.tensor(step), encoder_hidden_states=told, **more).sample
        errors.append(float((found - target).square().mean()))
    return sum(errors) / len(errors)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_the_pipelines_modules_give(
    kind: str, diffusion: Callable[..., Any], pipeline: Callable[[str], Any], photos: list[Image.Image]
) -> None:
    term = pf.DiffusionLoss(diffusion(kind), photos[0], timesteps=[20, 400, 981], seed=3)
    expected = [by_hand(pipeline(kind), text, photos[0], [20, 400, 981], 3) for text in TEXTS]
    assert [term.exact(text) for text in TEXTS] == pytest.approx(expected, abs=1e-5)
    assert term.score(TEXTS).tolist() == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 4) for value in expected}) > 3


def test_several_photos_count_their_mean(
    diffusion: Callable[..., Any], photos: list[Image.Image], score_is_exact: Any
) -> None:
    model = diffusion("sd2")
    term = pf.DiffusionLoss(model, photos, timesteps=2)
    each = [pf.DiffusionLoss(model, photo, timesteps=2).exact("a dog") for photo in photos]
    assert term.exact("a dog") == pytest.approx(sum(each) / 3, abs=1e-5)
    assert max(each) - min(each) > 1e-3
    score_is_exact(term)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_what_is_remembered_change_nothing(
    kind: str, diffusion: Callable[..., Any], photos: list[Image.Image], score_is_exact: Any
) -> None:
    score_is_exact(pf.DiffusionLoss(diffusion(kind), photos[0], timesteps=2))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(
    kind: str,
    diffusion: Callable[..., Any],
    photos: list[Image.Image],
    slope_is_right: Any,
    slot_is_the_next_word: Any,
) -> None:
    slope_is_right(pf.DiffusionLoss(diffusion(kind, torch.float64), photos[0], timesteps=[400], suffix="!"))
    slot_is_the_next_word(pf.DiffusionLoss(diffusion(kind), photos[0], timesteps=[400]))


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_passes_of_any_size_give_the_plain_gradient(
    kind: str, diffusion: Callable[..., Any], photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = diffusion(kind, torch.float64)
    draws = pf.DiffusionLoss(model, photos[:2], timesteps=2).draws
    told = model.outputs(model.encode(TEXTS[:3])).detach()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def gradient(losses: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        given = told.clone().requires_grad_()
        found = losses(given)
        return found.detach(), torch.autograd.grad((weights * found).sum(), given)[0]

    def plainly(given: Tensor) -> Tensor:
        found = [model.predict(draws.latents, draws.timesteps, row.expand(4, -1, -1)) for row in given]
        return torch.stack([(each - draws.targets).square().mean() for each in found])

    expected = gradient(plainly)
    assert float(expected[1].abs().max()) > 1e-4
    predict = DiffusionModel.predict

    def only_two(self: Any, latents: Tensor, *rest: Any) -> Tensor:
        if len(latents) > 2:
            raise RuntimeError("out of memory")
        return predict(self, latents, *rest)

    for rows in (1, 3, 5, 100):
        monkeypatch.setattr(DiffusionModel, "latents_per_pass", lambda *_, rows=rows: rows)
        for made in (predict, only_two):
            monkeypatch.setattr(DiffusionModel, "predict", made)
            found = gradient(lambda given: denoising_losses(model, given, draws))
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(denoising_losses(model, told, draws), expected[0])


def test_a_pass_takes_what_fits(diffusion: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = diffusion("sd1")
    monkeypatch.setattr("promptfuse.models.diffusion.pass_bytes", lambda device: 64 * 2**20)
    reading = model.latents_per_pass(8, 8, gradient=False)
    assert 1 < model.latents_per_pass(8, 8, gradient=True) < reading
    assert model.latents_per_pass(16, 16, gradient=False) == reading // 4
    assert model.latents_per_pass(4096, 4096, gradient=True) == 1


# ------------------------------------------------------------------------------------------- searches


def _planted(model: DiffusionModel, photo: Image.Image, prompt: str) -> pf.DiffusionLoss:
    """The loss of a photo with noise that the model predicts well if told one prompt, and from no other."""
    term = pf.DiffusionLoss(model, photo, weight=20.0, timesteps=[900])
    with torch.no_grad():
        told = model.outputs(model.encode([prompt]))
        targets = model.predict(term.draws.latents, term.draws.timesteps, told)
    # Not perfectly, else the gradient there would be zero.
    targets += 0.1 * torch.randn(targets.shape, generator=torch.Generator().manual_seed(0))
    term.draws = Draws(term.draws.latents, term.draws.timesteps, targets)
    return term


SWAP = {"init": "red dog .", "top_k": 6, "batch": 16}


@pytest.mark.parametrize(
    ("kind", "planted", "methods"),
    [
        ("sd2", "runs runs a", [pf.AutoDAN(8), pf.GCG(**SWAP, transport="t-product")]),
        ("sdxl", "old a a", [pf.AutoDAN(8, transport="effects"), pf.GCG(**SWAP)]),
    ],
    ids=["sd2", "sdxl"],
)
def test_searches_find_the_best_prompt(
    kind: str,
    planted: str,
    methods: list[Any],
    diffusion: Callable[..., Any],
    photos: list[Image.Image],
    tmp_path: Path,
) -> None:
    lm, _ = make_models(tmp_path)
    objective = pf.Objective(pf.Fluency(lm, weight=0.05), _planted(diffusion(kind), photos[0], planted))
    text, value = KnownAnswer(objective).best(3)  # Of all 512 prompts.
    assert text == planted
    rules = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False, max_words=3)
    for method in methods:
        search = pf.Search(objective, method, pf.BeamSearch(4), steps=8, constraints=rules, complete=False)
        result = search.run()
        assert (result.text, result.value) == (text, pytest.approx(value, abs=1e-4)), method


def test_a_file_describes_it(
    promptfuse: Any, folder: Callable[[str], Path], photos: list[Image.Image], tmp_path: Path
) -> None:
    make_models(tmp_path)
    photos[0].save(tmp_path / "photo.png")
    config = tmp_path / "search.yaml"
    config.write_text(
        f"models: {{lm: ./lm, sd: {folder('sd1')}}}\n"
        "terms:\n"
        "  fluency: {kind: Fluency, model: lm}\n"
        "  photo: {kind: DiffusionLoss, model: sd, image: photo.png, timesteps: 2, weight: 3}\n"
        "complete: false\nstopping: {steps: 2}\n"
    )
    code, out, err = promptfuse("optimize", config, "--json")
    assert (code, err) == (0, "")
    assert '"photo"' in out
    whole = config.read_text()
    for changed, message in (
        ("timesteps: 0", "timesteps: must be at least 1, got 0"),
        ("timesteps: [3, -1]", "timesteps: must be at least 0, got -1"),
        ("seed: -1", "seed"),
    ):
        config.write_text(whole.replace("timesteps: 2", changed))
        code, _, err = promptfuse("optimize", config, "--validate")
        assert code == 2
        assert message in err
    config.write_text(whole.replace("model: sd", "model: lm"))
    code, _, err = promptfuse("optimize", config, "--validate")
    assert code == 2
    assert "diffusion" in err


# ------------------------------------------------------------------------------- what decides the losses


def test_what_is_drawn_follows_from_the_seed(
    diffusion: Callable[..., Any], photos: list[Image.Image], same_search: Any
) -> None:
    model, photo = diffusion("sd1"), photos[0]
    term = pf.DiffusionLoss(model, photo, timesteps=8, seed=1)
    assert [step // 125 for step in term.timesteps] == list(range(8))
    assert same_search(term, pf.DiffusionLoss(model, photo, timesteps=8, seed=1))
    again = pf.DiffusionLoss(model, photo, timesteps=term.timesteps, seed=1)
    assert same_search(term, again)
    assert again.exact("a dog") == term.exact("a dog")
    for settings in ({"seed": 2}, {"timesteps": 4}, {"resolution": 32}, {"weight": 2.0}):
        other = pf.DiffusionLoss(model, photo, **{"timesteps": 8, "seed": 1} | settings)  # type: ignore[arg-type]
        assert not same_search(term, other)
        assert "weight" in settings or other.exact("a dog") != pytest.approx(term.exact("a dog"), abs=1e-4)
    assert not same_search(term, pf.DiffusionLoss(model, photos[1], timesteps=8, seed=1))


def test_a_loaded_pipeline_gives_the_same(
    diffusion: Callable[..., Any], pipeline: Callable[[str], Any], photos: list[Image.Image]
) -> None:
    for kind in KINDS:
        model, wrapped = diffusion(kind), pf.load_model(pipeline(kind))
        assert isinstance(wrapped, DiffusionModel)
        assert wrapped.identity == model.identity
        losses = [pf.DiffusionLoss(each, photos[0], timesteps=2).exact("a dog!") for each in (model, wrapped)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not WANTED, reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu(
    kind: str, diffusion: Callable[..., Any], folder: Callable[[str], Path], photos: list[Image.Image]
) -> None:
    there = pf.DiffusionLoss(pf.load_model(folder(kind), device=WANTED), photos[:2], timesteps=2)
    here = pf.DiffusionLoss(diffusion(kind), photos[:2], timesteps=2)
    assert there.score(TEXTS).tolist() == pytest.approx(here.score(TEXTS).tolist(), rel=1e-3)
    probe = here.model.embedding_table[100:102]
    found = there.slot_gradient(["a dog", "dog!"], probe, 2).gradient.cpu()
    expected = here.slot_gradient(["a dog", "dog!"], probe, 2).gradient
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)


def test_half_precision(folder: Callable[[str], Path], photos: list[Image.Image]) -> None:
    model = pf.load_model(folder("sdxl"), dtype=torch.bfloat16)
    assert isinstance(model, DiffusionModel)
    assert {next(part.parameters()).dtype for part in (model.unet, model.text_module)} == {torch.bfloat16}
    assert next(model.vae.parameters()).dtype == torch.float32
    term = pf.DiffusionLoss(model, photos[0], timesteps=[400])
    expected = pf.DiffusionLoss(pf.load_model(folder("sdxl")), photos[0], timesteps=[400]).exact("a dog")
    assert term.exact("a dog") == pytest.approx(expected, rel=0.1)
    found = term.slot_gradient(["a dog"], model.embedding_table[:1], 2)
    assert found.gradient.isfinite().all()


def test_what_the_model_predicts_may_be_the_photo(
    diffusion: Callable[..., Any], photos: list[Image.Image]
) -> None:
    model = diffusion("sd1")
    latents = model.image_latents([photos[0]], SIZE)
    scheduler = diffusers.DDPMScheduler.from_config(model.scheduler.config, prediction_type="sample")
    before, model.scheduler = model.scheduler, scheduler
    try:
        term = pf.DiffusionLoss(model, photos[0], timesteps=[10, 20])
    finally:
        model.scheduler = before
    torch.testing.assert_close(term.draws.targets, latents.expand(2, -1, -1, -1))


def test_what_is_refused(
    diffusion: Callable[..., Any], model: Callable[..., Any], photos: list[Image.Image], tmp_path: Path
) -> None:
    loaded, photo = diffusion("sd1"), photos[0]
    for settings, message in (
        ({"timesteps": 1001}, "timesteps: must be at most 1000, got 1001"),
        ({"timesteps": [5, 1000]}, "timesteps: must be below 1000, got 1000"),
        ({"timesteps": []}, "timesteps: must be a number or a list of numbers"),
        ({"timesteps": True}, "timesteps: must be a number or a list of numbers"),
        ({"seed": 0.5}, "seed: must be a whole number"),
        ({"resolution": 15}, "resolution: must be a multiple of 2, got 15"),
        ({"resolution": 0}, "resolution: must be a multiple of 2, got 0"),
    ):
        with pytest.raises(pf.ConfigError, match=message):
            pf.DiffusionLoss(loaded, photo, **settings)  # type: ignore[arg-type]
    size = loaded.unet.config.sample_size
    loaded.unet.register_to_config(sample_size=None)
    with pytest.raises(pf.ConfigError, match="its UNet does not say for which size it is; give a resolution"):
        pf.DiffusionLoss(loaded, photo)
    pf.DiffusionLoss(loaded, photo, resolution=16, timesteps=1)
    loaded.unet.register_to_config(sample_size=size)
    with pytest.raises(pf.ConfigError, match="image: none given"):
        pf.DiffusionLoss(loaded, [])
    with pytest.raises(pf.ImageError, match="no such file"):
        pf.DiffusionLoss(loaded, tmp_path / "b.png")
    with pytest.raises(pf.ModelError, match=r"of kind diffusion; .* is of kind image-text"):
        pf.DiffusionLoss(model("clip"), photo)
    with pytest.raises(pf.ModelError, match=r"not 'sd'; write load_model\('sd'\)"):
        pf.DiffusionLoss("sd", photo)  # type: ignore[arg-type]
    with pytest.raises(pf.TextError, match="the model reads at most 24"):
        pf.DiffusionLoss(loaded, photo).exact("dog cat " * 30)


def test_draws_are_as_many_as_photos_and_timesteps(
    diffusion: Callable[..., Any], photos: list[Image.Image]
) -> None:
    draws = pf.DiffusionLoss(diffusion("sd1"), photos, timesteps=4).draws
    assert len(draws) == 12
    torch.testing.assert_close(draws.targets[:4], draws.targets[4:8])  # The noise is the same for each photo.
