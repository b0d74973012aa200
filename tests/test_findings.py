"""Which words are asked for a finding."""

from __future__ import annotations

from monai_medclip.findings import CHEST_FINDINGS, findings_named, lesion_classes


def test_known_names_have_their_ensemble_other_names_a_generic_one_and_sentences_stand_as_they_are() -> None:
    known, generic, sentence = findings_named(["nodule", "rib fracture", "The heart is enlarged."])
    assert known is CHEST_FINDINGS[0]
    assert generic.positive == ("There is rib fracture.", "rib fracture.")
    assert "No rib fracture." in generic.negative
    assert sentence == ("The heart is enlarged.", ("The heart is enlarged.",), ())


def test_lesions_are_asked_as_captions_begin() -> None:
    (nevus,) = lesion_classes(["clark nevus"])
    assert nevus.name == "clark nevus"
    assert nevus.positive == ("Dermoscopic image of clark nevus.", "Clark nevus.", "A skin lesion: clark nevus.")
    assert nevus.negative == ()
