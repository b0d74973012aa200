"""The phantom's vocabulary: how a report says that a finding is there, and how it says that it is not."""

from __future__ import annotations

__all__ = [
    "ABSENT",
    "EXTENT",
    "IMPRESSION",
    "NORMAL_IMPRESSION",
    "OPENING",
    "PAIRS_ABSENT",
    "PRESENT",
    "UNREMARKABLE",
    "ZONES",
]

OPENING = (
    "Frontal view of the chest.",
    "PA radiograph of the chest.",
    "Single frontal radiograph.",
    "Chest, one view.",
)
ZONES = {
    "upper": ("upper lobe", "upper lung zone", "upper lung", "upper lung field"),
    "middle": ("mid lung", "middle lung zone", "mid lung zone", "mid lung field"),
    "lower": ("lower lobe", "lower lung zone", "lung base", "lower lung field"),
}
EXTENT = {"pleural effusion": (84.0, 108.0), "pneumothorax": (20.0, 31.0)}  # mm: small below, large above
PRESENT = {
    "nodule": (
        "There is a {size} nodule in the {place}.",
        "A {size} rounded nodule is seen in the {place}.",
        "Pulmonary nodule in the {place} measuring {size}.",
        "A well-defined nodular opacity of {size} projects over the {place}.",
        "Solitary pulmonary nodule, {size}, {place}.",
        "A small nodule measuring {size} is present in the {place}.",
        "In the {place} a round nodule of {size} is noted.",
    ),
    "mass": (
        "There is a mass in the {place} measuring {size}.",
        "A large lobulated mass of {size} is seen in the {place}.",
        "Lung mass in the {place}, {size} in diameter.",
        "A {size} mass occupies the {place}.",
        "Mass-like opacity with lobulated margins in the {place}, {size}.",
        "In the {place} a large mass measures {size}.",
    ),
    "pleural effusion": (
        "There is a {extent} {side} pleural effusion.",
        "{Extent} {side} pleural effusion with blunting of the costophrenic angle.",
        "Layering {side} pleural fluid, {extent}.",
        "The {side} costophrenic angle is blunted by a {extent} effusion.",
        "A {extent} effusion with a meniscus is present on the {side}.",
        "{Extent} amount of pleural fluid at the {side} base.",
    ),
    "consolidation": (
        "There is a consolidation in the {place}.",
        "Patchy consolidation is seen in the {place}, suspicious for pneumonia.",
        "Focal airspace opacity in the {place} measuring {size}.",
        "Ill-defined airspace consolidation of the {place}.",
        "In the {place} there is a patchy airspace consolidation, about {size}.",
        "Airspace disease in the {place}, likely pneumonia.",
    ),
    "cardiomegaly": (
        "There is cardiomegaly.",
        "The heart is enlarged.",
        "The cardiac silhouette is enlarged.",
        "Heart size is increased, cardiothoracic ratio {ratio}.",
        "Enlarged cardiac silhouette, with a transverse heart diameter of {size}.",
        "Cardiac enlargement is noted.",
    ),
    "pneumothorax": (
        "There is a {extent} {side} pneumothorax.",
        "{Extent} {side} apical pneumothorax with a visible pleural line.",
        "A pleural line is seen at the {side} apex, {extent} pneumothorax.",
        "{Side} pneumothorax measuring {size} at the apex.",
        "The {side} lung is partly collapsed by a {extent} pneumothorax.",
        "{Extent} collection of pleural air on the {side}, without lung markings.",
    ),
}
IMPRESSION = {
    "nodule": ("{Place} nodule.", "Pulmonary nodule, {place}; CT is advised.", "{size} nodule in the {place}."),
    "mass": ("{Place} mass.", "Lung mass, {place}, suspicious for malignancy.", "{size} mass in the {place}."),
    "pleural effusion": ("{Extent} {side} pleural effusion.", "{Side} pleural effusion.", "{Side} pleural fluid."),
    "consolidation": ("{Place} consolidation.", "{Place} pneumonia.", "Airspace consolidation, {place}."),
    "cardiomegaly": ("Cardiomegaly.", "Enlarged heart.", "Cardiac enlargement."),
    "pneumothorax": ("{Extent} {side} pneumothorax.", "{Side} pneumothorax.", "{Side} apical pneumothorax."),
}
ABSENT = {
    "nodule": (
        "No pulmonary nodule.",
        "There is no nodule.",
        "No suspicious nodules are identified.",
        "The lungs are free of nodules.",
        "No evidence of a lung nodule.",
    ),
    "mass": ("No mass.", "There is no lung mass.", "No mass is identified.", "Without evidence of a mass."),
    "pleural effusion": (
        "No pleural effusion.",
        "The costophrenic angles are sharp.",
        "There is no effusion.",
        "No pleural fluid is seen.",
        "No evidence of pleural effusion.",
    ),
    "consolidation": (
        "No consolidation.",
        "No focal airspace disease.",
        "There is no focal consolidation.",
        "Negative for consolidation.",
        "No evidence of pneumonia.",
    ),
    "cardiomegaly": (
        "Heart size is normal.",
        "The heart is not enlarged.",
        "No cardiomegaly.",
        "Cardiac silhouette within normal limits.",
        "The cardiomediastinal silhouette is unremarkable.",
    ),
    "pneumothorax": (
        "No pneumothorax.",
        "There is no pneumothorax.",
        "No evidence of pneumothorax.",
        "Negative for pneumothorax.",
        "Both lungs are fully expanded without pneumothorax.",
    ),
}
PAIRS_ABSENT = {
    ("pleural effusion", "pneumothorax"): (
        "No pleural effusion or pneumothorax.",
        "There is neither pneumothorax nor pleural effusion.",
        "No pneumothorax or effusion is seen.",
    ),
    ("nodule", "mass"): (
        "No nodule or mass.",
        "No discrete lung nodules or masses.",
        "There is no suspicious nodule or mass.",
    ),
}
UNREMARKABLE = (
    "The osseous structures are intact.",
    "No acute bony abnormality.",
    "The trachea is midline.",
    "Mediastinal contours are unremarkable.",
    "Pulmonary vascularity is within normal limits.",
    "Visualized upper abdomen is unremarkable.",
)
NORMAL_IMPRESSION = (
    "No acute cardiopulmonary abnormality.",
    "Normal chest radiograph.",
    "No active disease.",
    "The lungs are clear.",
    "Normal chest.",
    "No acute disease in the chest.",
)
