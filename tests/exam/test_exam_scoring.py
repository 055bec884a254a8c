"""Scores of pairs, against sentences that are computed one by one."""

import dataclasses
import re

import numpy as np
import pytest
from export_helpers import MAX_LENGTH, loaded, model_dir, write_model_dir

from electra_es.detect.scoring import load_detector
from electra_es.minimal_pairs.detector import examine_detector
from electra_es.minimal_pairs.pairs import load_pairs
from electra_es.minimal_pairs.results import EXAMINEES
from electra_es.minimal_pairs.scoring import BATCH_SIZE, batches, encode, make_exam
from electra_es.model.batches import Inputs, MaskedInputs
from electra_es.training.run_dir import load_model

PAIRS = load_pairs()
FEW = load_pairs("", ["accents", "enye"])[::5]


def exam(model, tokenizer, pairs=FEW, max_length=MAX_LENGTH, **options):
    return make_exam(model, tokenizer, pairs, max_length=max_length, **options)()


def letters_at(encoded, tokenizer) -> str:
    """A piece of SentencePiece may hold the full stop after a word."""
    pieces = (tokenizer.vocab[i].removeprefix("##").replace("▁", "") for i in encoded.pieces)
    return re.sub(r"\W", "", "".join(pieces))


@pytest.mark.parametrize("variant", ["wordpiece", "sentencepiece"])
def test_the_pieces_of_the_word_are_found(variant):
    _, tokenizer, _ = loaded(variant)
    for sentences, words in (([pair.right for pair in PAIRS], [pair.right_word for pair in PAIRS]),
                             ([pair.wrong for pair in PAIRS], [pair.wrong_word for pair in PAIRS])):
        found = encode(sentences, PAIRS, tokenizer, MAX_LENGTH)
        assert [letters_at(encoded, tokenizer) for encoded in found] == words


def test_the_discriminator_gives_the_probability_that_no_piece_was_replaced():
    model, tokenizer, _ = loaded("wordpiece")
    for answer in exam(model, tokenizer).answers:
        for sentence, found in zip((answer.pair.right, answer.pair.wrong),
                                   answer.preferences["discriminator"], strict=True):
            encoded, = encode([sentence], [answer.pair], tokenizer, MAX_LENGTH)
            ids = encoded.ids[np.newaxis]
            logits = model.discriminator_logits(ids, np.ones_like(ids), np.zeros_like(ids)).numpy()[0]
            replaced = 1 / (1 + np.exp(-logits[encoded.places].astype(np.float64)))
            assert np.exp(found) == pytest.approx(np.prod(1 - replaced), rel=1e-4)


def test_the_generator_uncovers_the_word_from_left_to_right():
    model, tokenizer, _ = loaded("wordpiece")
    several = 0
    for answer in exam(model, tokenizer).answers:
        for sentence, found in zip((answer.pair.right, answer.pair.wrong),
                                   answer.preferences["generator"], strict=True):
            encoded, = encode([sentence], [answer.pair], tokenizer, MAX_LENGTH)
            expected = 0.0
            several += len(encoded.places) > 1
            for i, place in enumerate(encoded.places):
                ids = encoded.ids[np.newaxis].copy()
                ids[0, encoded.places[i:]] = tokenizer.mask_id
                one = np.array([[place]])
                logits = model.mlm_logits(
                    MaskedInputs(ids, one, one, np.ones([1, 1], np.float32)),
                    Inputs(ids, np.ones_like(ids), np.zeros_like(ids), np.zeros([1], np.int64)))
                probabilities = np.exp(logits[0, 0] - np.max(logits[0, 0]))
                expected += np.log(probabilities[encoded.ids[place]] / probabilities.sum())
            assert found == pytest.approx(expected, abs=1e-3)
    assert several > 10


def test_counting_takes_the_rarer_word_for_the_wrong_one():
    model, tokenizer, _ = loaded("wordpiece")
    counts = np.arange(len(tokenizer.vocab))
    result = exam(model, tokenizer, id_counts=counts)
    for answer in result.answers:
        for sentence, found in zip((answer.pair.right, answer.pair.wrong),
                                   answer.preferences["frequency"], strict=True):
            encoded, = encode([sentence], [answer.pair], tokenizer, MAX_LENGTH)
            shares = (counts[encoded.pieces] + 1) / (counts + 1).sum()
            assert found == pytest.approx(np.log(shares).sum())
    assert exam(model, tokenizer).all.frequency is None


@pytest.mark.parametrize("variant", ["wordpiece_stripped", "sentencepiece_stripped"])
def test_without_accents_they_come_out_at_exactly_one_half(variant):
    """The two sentences are the same to a model whose vocabulary was trained without accents (ñ is an n
    then); neither rounding nor the place in a batch may prefer one."""
    model, tokenizer, _ = loaded(variant)
    assert tokenizer.config.strip_accents
    result = exam(model, tokenizer, PAIRS, id_counts=np.arange(len(tokenizer.vocab)))
    for each in result.phenomena:
        scores = [each.discriminator, each.generator, each.frequency]
        assert all(score is not None for score in scores)
        if each.name in ("accents", "enye"):
            assert [score.right for score in scores] == [each.pairs / 2] * 3
    points = {examinee: {answer.preferences[examinee].points for answer in result.answers
                         if answer.pair.phenomenon == "agreement"}
              for examinee in ("discriminator", "generator")}
    assert points == {"discriminator": {0.0, 1.0}, "generator": {0.0, 1.0}}


def test_with_accents_no_pair_is_a_tie():
    model, tokenizer, _ = loaded("wordpiece")
    result = exam(model, tokenizer, load_pairs("", ["accents"]))
    assert {answer.preferences["discriminator"].points for answer in result.answers} == {0.0, 1.0}


def test_examining_changes_nothing_and_repeats_itself():
    model, tokenizer, _ = load_model(str(model_dir("wordpiece")))[:3]
    before = [variable.numpy() for variable in model.variables]
    examine = make_exam(model, tokenizer, FEW, max_length=MAX_LENGTH)
    first = examine()
    assert examine() == first
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_new_weights_are_used_without_compiling_again():
    model, tokenizer, _ = load_model(str(model_dir("wordpiece")))[:3]
    examine = make_exam(model, tokenizer, FEW, max_length=MAX_LENGTH)
    first = examine()
    for variable in model.variables:
        variable.assign(-variable)
    assert examine().answers != first.answers


def test_a_word_that_is_cut_off_counts_one_half():
    model, tokenizer, _ = loaded("wordpiece")
    pairs = [pair for pair in PAIRS if pair.place >= 7]
    result = exam(model, tokenizer, pairs, max_length=8)
    assert len(pairs) > 5 and result.all.discriminator.accuracy == result.all.generator.accuracy == 0.5
    detector = load_detector(str(model_dir("wordpiece")))
    assert examine_detector(
        lambda texts: [cut(sentence, 5) for sentence in detector(texts)], pairs
    ).all.discriminator.accuracy == 0.5


def cut(sentence, tokens: int):
    return sentence._replace(tokens=sentence.tokens[:tokens], truncated=True)


@pytest.mark.parametrize("settings, examinees", [
    (dict(objective="mlm"), ["generator"]),
    (dict(generator_kind="uniform"), ["discriminator"]),
    (dict(objective="electric", generator_kind="two_tower"), ["discriminator", "generator"])])
def test_parts_that_a_model_does_not_have_take_no_part(settings, examinees, tmp_path):
    path = write_model_dir(tmp_path / "model", "wordpiece", **settings)
    model, tokenizer, _, _ = load_model(str(path))
    result = exam(model, tokenizer)
    assert [name for name in EXAMINEES if result.all.of(name)] == examinees
    assert all(set(answer.preferences) == set(examinees) for answer in result.answers)


def test_batches_have_few_shapes_and_every_row_once():
    rows = [np.arange(1, 1 + length, dtype=np.int32) for length in (3, 8, 9, 17, 2, 20, *[5] * 70)]
    found = list(batches(rows, pad_id=0, max_length=19 + 1))
    assert {batch.ids.shape for batch in found} == {(BATCH_SIZE, 8), (BATCH_SIZE, 16), (BATCH_SIZE, 20)}
    numbers = np.concatenate([batch.numbers[:batch.used] for batch in found])
    assert sorted(numbers) == list(range(len(rows)))
    for batch in found:
        for number, ids, mask in zip(batch.numbers, batch.ids, batch.mask, strict=True):
            np.testing.assert_array_equal(ids[mask > 0], rows[number])
            assert not ids[mask == 0].any()


def test_a_detector_is_examined_as_its_model_is():
    """Also without accents and in lower case, where its text is not the one that was given."""
    for variant in ("wordpiece", "sentencepiece_stripped"):
        model, tokenizer, _ = loaded(variant)
        expected = exam(model, tokenizer, PAIRS[::3])
        found = examine_detector(load_detector(str(model_dir(variant))), PAIRS[::3])
        assert found.all.generator is None and found.all.frequency is None
        assert [dataclasses.replace(each, generator=None) for each in expected.phenomena] == list(
            found.phenomena)
        for one, other in zip(expected.answers, found.answers, strict=True):
            assert other.preferences["discriminator"] == pytest.approx(
                one.preferences["discriminator"], abs=1e-3)
