"""What stands in front of the texts that a causal language model reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import promptfuse as pf
from promptfuse.errors import ConfigError, TextError
from promptfuse.models import CausalLM, load_model

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TURNS = "{% for m in messages %}{{ '<t>' + m['content'] + '</t>' }}{% endfor %}"
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def chat_model(
    bos: str | None,
    eos: str,
    extra: tuple[str, ...] = (),
    template: str | None = None,
    own: bool = False,
) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """A byte-level model with these special tokens; with ``own`` its tokenizer puts ``bos`` in front."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = [name for name in dict.fromkeys((bos, eos, *extra)) if name is not None]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    if own and bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, model_max_length=64
    )
    fast.chat_template = template
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=len(fast), n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5,
        bos_token_id=fast.bos_token_id, eos_token_id=fast.eos_token_id,
    )  # fmt: skip
    return GPT2LMHeadModel(config), fast


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        # A chat token, by its name or by the template; the separator of documents where there is one.
        ({"bos": "<|im_start|>", "eos": "<|im_end|>", "extra": ("<|endoftext|>",)}, "<|endoftext|>"),
        ({"bos": "<|im_start|>", "eos": "<|im_end|>"}, "none"),
        ({"bos": "<start_of_turn>", "eos": "<end_of_turn>", "extra": ("<s>",)}, "<s>"),
        ({"bos": "<t>", "eos": "</t>", "template": TURNS}, "none"),
        ({"bos": "<|user|>", "eos": "</s>"}, "</s>"),
        ({"bos": None, "eos": "<|im_end|>", "extra": ("<|endoftext|>",)}, "<|endoftext|>"),
        ({"bos": None, "eos": "<|eot_id|>"}, "none"),
        ({"bos": "<|im_start|>", "eos": "<|im_end|>", "own": True}, "none"),
        # Plain begin-of-text tokens stay, whatever the chat template makes of them.
        ({"bos": "<t>", "eos": "</t>"}, "<t>"),
        ({"bos": "<t>", "eos": "</t>", "template": TURNS, "own": True}, "<t>"),
        ({"bos": "<s>", "eos": "</s>", "template": LLAMA2}, "<s>"),
        ({"bos": "<bos>", "eos": "<eos>", "extra": ("<start_of_turn>",)}, "<bos>"),
        (
            {"bos": "<|begin_of_text|>", "eos": "<|eot_id|>", "extra": ("<|end_of_text|>",)},
            "<|begin_of_text|>",
        ),
        ({"bos": "<|endoftext|>", "eos": "<|endoftext|>", "template": CHATML}, "<|endoftext|>"),
        ({"bos": None, "eos": "<|endoftext|>"}, "<|endoftext|>"),
        ({"bos": None, "eos": "</s>"}, "</s>"),
    ],
)
def test_what_is_put_in_front_of_plain_text(tokens: dict[str, Any], shown: str) -> None:
    module, tokenizer = chat_model(**tokens)
    lm = CausalLM(module, tokenizer, "chat")
    assert lm.shown_start == shown
    expected = [] if shown == "none" else [tokenizer.convert_tokens_to_ids(shown)]
    assert list(lm.start_ids) == expected
    assert lm.token_rows(["ab"])[0] == [[*expected, *lm.plain_ids(["ab"])[0]]]


def test_the_start_can_be_chosen() -> None:
    module, tokenizer = chat_model("<|im_start|>", "<|im_end|>", ("<|endoftext|>",), CHATML)
    bos, eos, document = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])

    def starting(start: str) -> CausalLM:
        return CausalLM(module, tokenizer, "chat", start=start)

    assert starting("bos").start_ids == (bos,)
    assert starting("none").start_ids == ()
    assert starting("<|endoftext|>").start_ids == (document,)
    for start in ("<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "chat"):
        lm = starting(start)
        assert lm.start_ids == (bos, *starting("none").plain_ids(["user\n"])[0])
        assert lm.closing == "<|im_end|>\n<|im_start|>assistant\n"
        term = pf.TargetContinuation(lm, "Sure")
        (row,), ((first, last),) = term.rows(["ab"])
        assert tokenizer.decode(row) == ("<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\nSure")
        assert tokenizer.decode(row[first:last]) == "Sure"
        (plain,) = starting("none").plain_ids(["<|im_start|>user\nab"])
        with torch.no_grad():
            chances = module(torch.tensor([plain])).logits[0].log_softmax(-1)
        nll = -sum(float(chances[at - 1, plain[at]]) for at in (-2, -1)) / 2
        assert pf.Fluency(lm).exact("ab") == pytest.approx(nll, abs=1e-5)
    assert eos in starting("auto").end_ids
    assert document in starting("auto").end_ids
    for start, said in {
        "<s>": "is not a token of chat", "a {} b {}": "several slots", "<|im_start": "nor a template",
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            starting(start)
    plain, bare = chat_model(None, "<|endoftext|>")
    for start, said in {"bos": "no begin-of-text token", "chat": "no chat template"}.items():
        with pytest.raises(ConfigError, match=said):
            CausalLM(plain, bare, "bare", start=start)


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "qwen2"])
def test_a_text_that_brings_its_own_begin_mark_gets_no_second_one(
    name: str, model: Callable[..., Any]
) -> None:
    lm = model(name)
    begin = lm.tokenizer.convert_ids_to_tokens(list(lm.start_ids))[0]
    bare, brought = lm.token_rows(["a dog"]), lm.token_rows([f"{begin}a dog"])
    assert brought[0][0].count(lm.start_ids[0]) == 1
    assert brought[1] == [(1, len(brought[0][0]))]
    same = brought[0] == bare[0]  # SentencePiece reads the first word behind a special token otherwise.
    rows = [brought[0][0], brought[0][0][1:]]
    torch.testing.assert_close(*lm.next_log_probabilities(rows), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*lm.next_log_probabilities(rows, reuse=False), atol=1e-5, rtol=1e-5)
    target = pf.TargetContinuation(lm, " in the park.", prefix=begin)
    (row,), _ = target.rows(["a dog"])
    assert row.count(lm.start_ids[0]) == 1
    if same:
        plain = pf.TargetContinuation(lm, " in the park.").exact("a dog")
        assert target.exact("a dog") == pytest.approx(plain, abs=1e-5)
    for term in (target, pf.Fluency(lm, prefix=f"{begin}It is: "), pf.Fluency(lm, context=f"{begin}It is:")):
        assert term.score(["a dog", "two dogs"], parents=["a", "two"]).tolist() == pytest.approx(
            [term.exact("a dog"), term.exact("two dogs")], abs=1e-4
        )
    fluency = pf.Fluency(lm, context=f"{begin}It is:")
    assert fluency.lm.start_ids.count(lm.start_ids[0]) == 1


def test_a_chat_template_brings_its_own_beginning() -> None:
    tokens = ("<|im_start|>", "<|endoftext|>")
    module, tokenizer = chat_model(None, "<|im_end|>", tokens, CHATML)
    lm = CausalLM(module, tokenizer, "chat")
    begin, document = tokenizer.convert_tokens_to_ids(list(tokens))
    assert lm.start_ids == (document,)
    term = pf.TargetContinuation(lm, "ok", prefix="<|im_start|>user\n", suffix="<|im_end|>\n")
    (row,), _ = term.rows(["ab"])
    assert row[0] == begin
    assert document not in row


def test_a_start_is_for_causal_models(checkpoint: Callable[[str], Path]) -> None:
    assert load_model(checkpoint("gpt2"), start="none").start_ids == ()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="not a causal LM"):
        load_model(checkpoint("bert"), start="bos")


def test_a_context_behind_which_there_is_no_room(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    with pytest.raises(TextError, match=r"the context 'dog .*' has \d+ tokens, the model takes 40"):
        pf.Fluency(lm, context="dog cat " * 60)


def test_results_and_files_tell_the_start(
    checkpoint: Callable[[str], Path], promptfuse: Any, tmp_path: Path
) -> None:
    module, tokenizer = chat_model("<|im_start|>", "<|im_end|>", ("<|endoftext|>",), CHATML)
    module.save_pretrained(tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")
    lm = load_model(tmp_path / "chat")
    result = pf.optimize(pf.Objective(pf.Fluency(lm)), pf.AutoDAN(2), pf.Greedy(), steps=2)
    assert result.models["fluency"]["start"] == "<|endoftext|>"
    preset = tmp_path / "preset.yaml"
    preset.write_text(f"base: mini\nlm: {tmp_path / 'chat'}\n")
    code, out, _ = promptfuse("models", str(preset))
    assert code == 0
    assert 'texts begin with: "<|endoftext|>"' in out
    preset.write_text(f"base: mini\nlm: {tmp_path / 'chat'}\nlm_start: bos\n")
    code, out, _ = promptfuse("models", str(preset), "--json")
    assert [json.loads(line).get("start") for line in out.splitlines()] == ["<|im_start|>", None, None]
    config = tmp_path / "search.yaml"
    config.write_text(
        "models: {lm: {name: ./chat, start: none}}\nterms: {fluency: {kind: Fluency, model: lm}}\n"
        "prefix: ab\nstopping: {steps: 2}\nmethod: {kind: AutoDAN, candidates: 2}\n"
    )
    code, out, err = promptfuse("optimize", str(config), "--json")
    assert code == 0, err
    assert json.loads(out)["models"]["fluency"]["start"] == "none"
