"""Text to tokens: what is kept of a review that is too long, for BERT's kind of tokenizer and for RoBERTa's."""

import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from src.data import tokenization
from src.data.tokenization import Encoder, Truncation, check_length, cut, token_ids, tokenizer_facts
from src.system.errors import UserError
from tests.models.families import save_roberta_tokenizer, word_level_tokenizer
from tests.synthetic import synthetic_reviews

TEXTS = [
    *synthetic_reviews(40)["text"],
    "good",
    "a <br /><br /> b",
    "naïve café — “quoted” 🎬 日本",
    " dull ",
    "x" * 300,
]


@pytest.fixture(scope="module")
def bert_tokenizer(tiny_bert: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.fixture(scope="module")
def roberta_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(save_roberta_tokenizer(tmp_path_factory.mktemp("roberta")))


@pytest.fixture(params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return request.getfixturevalue(f"{request.param}_tokenizer")


@pytest.mark.parametrize("max_length", [8, 9, 33, 128])
def test_head_is_the_tokenizers_own_truncation(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    expected = tokenizer(TEXTS, truncation=True, max_length=max_length)["input_ids"]
    assert Encoder(tokenizer, max_length, "head").encode(TEXTS) == [[ids] for ids in expected]


def test_facts_of_a_tokenizer_stay_when_it_is_used(tokenizer: PreTrainedTokenizerBase) -> None:
    """Use changes what it says of truncation and padding, with which some are published."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(20)
    tokenizer.backend_tokenizer.enable_padding(length=20)
    published = tokenizer_facts(tokenizer)
    Encoder(tokenizer, 33, "head").encode(TEXTS)
    assert tokenizer_facts(tokenizer) == published
    tokenizer.add_tokens(["quoted"])
    assert tokenizer_facts(tokenizer) != published


@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail"])
def test_special_tokens_are_kept(tokenizer: PreTrainedTokenizerBase, truncation: Truncation) -> None:
    whole = tokenizer(TEXTS)["input_ids"]
    for [ids], uncut in zip(Encoder(tokenizer, 16, truncation).encode(TEXTS), whole, strict=True):
        assert len(ids) == min(16, len(uncut))
        assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        body, uncut_body = ids[1:-1], uncut[1:-1]
        if len(uncut) <= 16:
            assert ids == uncut
        elif truncation == "tail":
            assert body == uncut_body[-14:]
        elif truncation == "head_tail":
            assert body == uncut_body[:4] + uncut_body[-10:]


@pytest.mark.parametrize("max_length", [8, 16, 128])
def test_windows_hold_all_of_a_text_each_with_special_tokens(
    tokenizer: PreTrainedTokenizerBase, max_length: int
) -> None:
    whole = tokenizer(TEXTS)["input_ids"]
    for windows, uncut in zip(Encoder(tokenizer, max_length, "windows").encode(TEXTS), whole, strict=True):
        assert all(len(ids) <= max_length for ids in windows)
        assert {(ids[0], ids[-1]) for ids in windows} == {(tokenizer.cls_token_id, tokenizer.sep_token_id)}
        assert [id_ for ids in windows for id_ in ids[1:-1]] == uncut[1:-1]
        if len(uncut) <= max_length:
            assert windows == [uncut]


@given(length=st.integers(0, 700), room=st.integers(1, 510))
def test_windows_are_as_few_and_as_alike_as_can_be(length: int, room: int) -> None:
    windows = cut(list(range(length)), room, "windows")
    assert [token for window in windows for token in window] == list(range(length))
    assert len(windows) == max(1, -(-length // room))
    sizes = {len(window) for window in windows}
    assert max(sizes) <= room
    assert max(sizes) - min(sizes) <= 1


def test_head_tail_of_512_is_128_and_382() -> None:
    [kept] = cut(list(range(1000)), 510, "head_tail")
    assert kept == [*range(128), *range(1000 - 382, 1000)]


@given(length=st.integers(0, 700), room=st.integers(1, 510), truncation=st.sampled_from(["head", "tail", "head_tail"]))
def test_cut_keeps_as_much_as_there_is_room_for(length: int, room: int, truncation: Truncation) -> None:
    body = list(range(length))
    [kept] = cut(body, room, truncation)
    assert len(kept) == min(length, room)
    assert kept == sorted(set(kept)), "tokens repeated or out of order"
    if length <= room:
        assert kept == body


def test_longer_than_the_tokenizer_allows_is_cut_without_a_warning(
    bert_tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    Encoder(bert_tokenizer, 64, "tail").encode(["the film was good " * 100])
    assert capsys.readouterr().err == ""
    assert not caplog.records


@pytest.mark.parametrize(
    ("max_length", "longest", "words"),
    [(7, 512, "data.max_length is 7; it must be at least 8"), (513, 512, "a-model takes at most 512 tokens")],
)
def test_lengths_that_will_not_do(max_length: int, longest: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_length("data.max_length", max_length, longest, "a-model")


def test_any_length_will_do_where_the_model_sets_no_limit() -> None:
    check_length("data.max_length", 100_000, None, "a-model")


@pytest.mark.parametrize("special", [[], ["two words"]], ids=["cut", "not cut, as a token holds a space"])
def test_a_text_that_is_tokenised_in_parts_has_the_same_tokens(
    bert_tokenizer: PreTrainedTokenizerBase,
    roberta_tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    special: list[str],
) -> None:
    texts = [*TEXTS, " ".join(TEXTS), "", " ", "[MASK] a[SEP] b \u0301c ΑΣ x\x00 two words " * 20]
    for original, cut_up in ((bert_tokenizer, not special), (roberta_tokenizer, False)):
        tokenizer = copy.deepcopy(original)
        tokenizer.add_tokens(special)
        whole = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert token_ids(tokenizer, texts) == whole
        with monkeypatch.context() as patch:
            patch.setattr(tokenization, "_CHARACTERS_AT_ONCE", 30)
            assert (len(tokenization._parts(tokenizer, texts[-1])) > 1) == cut_up
            assert token_ids(tokenizer, texts) == whole


def _unigram() -> PreTrainedTokenizerFast:
    """As that of XLM-R and T5: its vocabulary holds the special tokens as words, at no cost."""
    words = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), ("▁film", -2.0)]
    made = Tokenizer(models.Unigram([*words, *((letter, -5.0) for letter in "<>/spadunk")], unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **{f"{name}_token": token for name, token in names.items()})


@pytest.mark.parametrize("kind", ["word pieces", "byte-level BPE", "words", "unigram"])
def test_special_tokens_in_a_text_are_text(
    bert_tokenizer: PreTrainedTokenizerBase, roberta_tokenizer: PreTrainedTokenizerBase, kind: str
) -> None:
    tokenizer = {
        "word pieces": bert_tokenizer,
        "byte-level BPE": roberta_tokenizer,
        "words": word_level_tokenizer(),
        "unigram": _unigram(),
    }[kind]
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for token in tokenizer.all_special_tokens:
        for text in (token, f"film {token} film", f"film{token}{token}"):
            (ids,) = token_ids(tokenizer, [text])
            assert ids, text
            assert special.isdisjoint(ids), text
        assert token_ids(tokenizer, [f"film {token} film"]) != token_ids(tokenizer, ["film film"])
    assert token_ids(tokenizer, ["film film"]) == [tokenizer("film film", add_special_tokens=False)["input_ids"]]


def test_a_special_token_with_the_id_of_the_unknown_one_is_not_taken_for_a_letter() -> None:
    tokenizer = word_level_tokenizer("<unk> $A <unk>", special=["<unk>", "<s>", "<pad>", "</s>", "<mask>"])
    encoder = Encoder(tokenizer, 8, "head")
    assert encoder.special_tokens() == ([0], [0])
    assert encoder.encode(["日 film 日", "film"]) == [[tokenizer(text)["input_ids"]] for text in ("日 film 日", "film")]


@pytest.mark.parametrize(("template", "before", "after"), [("$A </s> <s>", 0, 2), ("$A", 0, 0), ("<s> $A", 1, 0)])
def test_special_tokens_stand_where_the_tokenizer_puts_them(template: str, before: int, after: int) -> None:
    prefix, suffix = Encoder(word_level_tokenizer(template), 8, "head").special_tokens()
    assert (len(prefix), len(suffix)) == (before, after)
