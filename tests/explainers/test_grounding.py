"""Report grounding: every sentence its own map, all of them in one forward pass of the image."""

from __future__ import annotations

import pytest
import torch

from monai_medclip.explainers import Chefer, GradECLIP, TokenGradCAM
from monai_medclip.explainers.grounding import ReportGrounding

from ..networks.toys import tiny_clip, tokenize

SENTENCES = ("Large left effusion.", "No pneumothorax.", "Heart size is normal.")
SPANS = ((10, 30), (31, 47), (48, 69))
IMAGE = torch.linspace(-1, 1, 32 * 32).view(1, 1, 32, 32)


@pytest.mark.parametrize("explainer", [GradECLIP(), Chefer(), TokenGradCAM()], ids=lambda e: e.name)
def test_each_map_is_that_of_its_sentence_asked_alone(explainer):
    clip, ground = tiny_clip(), ReportGrounding(explainer, tokenize)
    together = ground(clip, IMAGE, SENTENCES, SPANS)
    assert together.heatmap.shape == (1, 3, 32, 32)
    for row, sentence in enumerate(SENTENCES):
        alone = ground(clip, IMAGE, [sentence], [SPANS[row]])
        torch.testing.assert_close(together.heatmap[:, row : row + 1], alone.heatmap, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.scores[:, row : row + 1], alone.scores, atol=1e-5, rtol=1e-4)
        assert alone.heatmap.abs().max() > 0
    assert not torch.allclose(together.heatmap[:, 0], together.heatmap[:, 1])


@pytest.mark.parametrize("explainer", [GradECLIP, Chefer])
def test_all_sentences_take_one_pass_of_the_image(explainer):
    clip = tiny_clip()
    calls = []
    clip.image_encoder.trunk.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    ground = ReportGrounding(explainer(), tokenize)
    for passes in (1, 2):  # also the first time, when the score is verified
        ground(clip, IMAGE, SENTENCES, SPANS)
        assert len(calls) == passes


def test_scores_are_the_pairs_own_logits_and_spans_are_kept():
    clip = tiny_clip(logit_bias=-2.0).eval()
    found = ReportGrounding(GradECLIP(), tokenize)(clip, IMAGE, SENTENCES, SPANS)
    output = clip(IMAGE, *tokenize(list(SENTENCES)))
    expected = output.logit_scale * output.image @ output.text.T + output.logit_bias
    torch.testing.assert_close(found.scores, expected.detach(), atol=1e-5, rtol=1e-5)
    assert found.sentences == SENTENCES
    assert found.spans.tolist() == [list(span) for span in SPANS]


def test_bad_input_names_the_remedy():
    clip, ground = tiny_clip(), ReportGrounding(GradECLIP(), tokenize)
    with pytest.raises(ValueError, match="not on 2"):
        ground(clip, IMAGE.repeat(2, 1, 1, 1), SENTENCES, SPANS)
    for sentences, spans in (((), ()), (SENTENCES, SPANS[:2]), (("No mass.", " "), SPANS[:2])):
        with pytest.raises(ValueError, match="at least one sentence, none blank"):
            ground(clip, IMAGE, sentences, spans)
