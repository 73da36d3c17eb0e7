"""Plain samples of a language model, for the best-of-n baselines."""

from __future__ import annotations

import re

import torch

from promptfuse.models import CausalLM


@torch.no_grad()
def sample_captions(lm: CausalLM, count: int, seed: int, batch: int = 500, longest: int = 24) -> list[str]:
    """Ancestral samples at temperature 1, each to its first sentence end; cut-off ones are left out."""
    torch.manual_seed(seed)
    texts: list[str] = []
    while len(texts) < count:
        start = torch.tensor([list(lm.start_ids)] * batch, device=lm.device)
        rows = lm.module.generate(
            start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            top_k=0,
            max_new_tokens=longest,
            pad_token_id=lm.pad_id,
        )
        for row in lm.tokenizer.batch_decode(rows[:, start.shape[1] :], skip_special_tokens=True):
            sentence = re.match(r"[^.!?\n]*[^.!?\s][^.!?\n]*[.!?]", row)
            if sentence:
                texts.append(sentence.group().strip())
    return texts[:count]
