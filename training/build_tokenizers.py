"""Train the three tokenizers, one of each family.

    python -m training.build_tokenizers --data DATA --out src/promptfuse/mini

Only the text of the training splits is read.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, CLIPTokenizer, GPT2Tokenizer

from training import data as sources
from training.opinions import choose

END_OF_TEXT = "<|endoftext|>"


def caption_texts(data: Path) -> list[str]:
    """All training captions in their clean form."""
    found = [text for photo in sources.flickr8k(data, "train") for text in photo.captions]
    return [text for text in map(sources.clean_caption, found + sources.coco_captions(data)) if text]


def opinion_texts(data: Path, seed: int = 0) -> list[str]:
    """Captions with opinion words."""
    rng = random.Random(seed)
    made = (choose(text, rng, rng.random() < 0.5) for text in caption_texts(data) if rng.random() < 0.3)
    return [text for text in made if text]


def review_texts(data: Path) -> list[str]:
    """SST-2 phrases and short sentences of IMDB reviews."""
    found = [sources.detokenise(text) for text, _ in sources.labelled_text(data / "text/sst2/train.tsv")]
    for text, _ in sources.labelled_text(data / "text/imdb_10k.tsv"):
        found += [part for part in sources.sentences(text) if 4 <= len(part.split()) <= 25]
    return found


def byte_level(texts: list[str], size: int) -> GPT2Tokenizer:
    """Byte-level BPE, cased, as GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return GPT2Tokenizer(tokenizer_object=tokenizer, model_max_length=128)


def clip_style(texts: list[str], size: int) -> CLIPTokenizer:
    """Lower-casing byte-level BPE with end-of-word marks, as CLIP's."""
    start = "<|startoftext|>"
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END_OF_TEXT))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(alphabet),
        special_tokens=[start, END_OF_TEXT],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer knows single bytes only inside words; every byte may also end one.
    state = json.loads(tokenizer.to_str())
    vocab = state["model"]["vocab"]
    for byte in alphabet:
        vocab.setdefault(f"{byte}</w>", len(vocab))
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {END_OF_TEXT}",
        pair=f"{start} $A {END_OF_TEXT} {start} $B {END_OF_TEXT}",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (start, END_OF_TEXT)],
    )
    return CLIPTokenizer(tokenizer_object=tokenizer, model_max_length=48)


def word_piece(texts: list[str], size: int) -> BertTokenizer:
    """WordPiece, lower-cased, as BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return BertTokenizer(tokenizer_object=tokenizer, do_lower_case=True, model_max_length=128)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    captions, opinions = caption_texts(args.data), opinion_texts(args.data)
    reviews = review_texts(args.data)
    names = [name for photo in sources.labelled_photos(args.data) for name in photo.names]
    half = reviews[:: max(1, len(reviews) // 60_000)]
    byte_level(captions * 2 + opinions + half, 8192).save_pretrained(args.out / "lm")
    clip_style(captions * 2 + opinions + names, 6144).save_pretrained(args.out / "clip")
    word_piece(captions + opinions * 2 + reviews, 8192).save_pretrained(args.out / "tone")


if __name__ == "__main__":
    main()
