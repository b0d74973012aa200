"""A WordPiece vocabulary learned from the training reports, the same on every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

__all__ = ["SPECIAL_TOKENS", "train_wordpiece"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTINUING = 0xF0000  # a character inside a word is moved to this private plane while the merges are learned


def train_wordpiece(texts: Iterable[str], *, vocab_size: int = 4096, min_frequency: int = 2) -> Tokenizer:
    """Learn a lower-casing, accent-stripping BERT tokenizer from texts.

    `tokenizers.trainers.WordPieceTrainer` gives another vocabulary on every run (it numbers the `##` characters in hash
    order, and ties between merges follow the numbers). Its merges are byte-pair merges, and `BpeTrainer` is
    deterministic, so the merges are learned there over words whose continuing characters are marked.

    Args:
        texts: reports, at least one that is not empty.
        vocab_size: entries at most, special tokens included.
        min_frequency: a merge seen fewer times than this is not learned.

    Returns:
        A tokenizer that adds [CLS] and [SEP]; [PAD] is 0.

    Raises:
        ValueError: there are no words in the texts, or vocab_size is smaller than the alphabet needs.
    """
    tokenizer = _bert_tokenizer({token: index for index, token in enumerate(SPECIAL_TOKENS)})
    words = _count_words(texts, tokenizer)
    if not words:
        raise ValueError("No words to learn a vocabulary from: every text is empty. Give the training reports.")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS), min_frequency=min_frequency, show_progress=False
    )
    learner.train_from_iterator((f"{word} " * count for word, count in sorted(words.items())), trainer)
    learned = [token for token, _ in sorted(learner.get_vocab().items(), key=lambda entry: entry[1])]
    if len(learned) + len(SPECIAL_TOKENS) > vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is smaller than the alphabet of these texts ({len(learned)} characters and "
            f"{len(SPECIAL_TOKENS)} special tokens). Raise vocab_size."
        )
    return _bert_tokenizer({token: i for i, token in enumerate([*SPECIAL_TOKENS, *map(_unmark, learned)])})


def _bert_tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer


def _count_words(texts: Iterable[str], tokenizer: Tokenizer) -> Counter[str]:
    words: Counter[str] = Counter()
    for text in texts:
        normalized = tokenizer.normalizer.normalize_str(text)
        words.update(_mark(word) for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalized) if _basic(word))
    return words


def _basic(word: str) -> bool:
    return max(map(ord, word)) < 0x10000  # an emoji is no part of a report's vocabulary: it becomes [UNK]


def _mark(word: str) -> str:
    return word[0] + "".join(chr(ord(character) + _CONTINUING) for character in word[1:])


def _unmark(token: str) -> str:
    plain = "".join(chr(ord(c) - _CONTINUING) if ord(c) >= _CONTINUING else c for c in token)
    return f"##{plain}" if ord(token[0]) >= _CONTINUING else plain
