"""Engines: training that resumes exactly, embedding extraction, evaluation, and the record of what was done."""

from .answer_page import AnswerPage, audit_sections, judged_sections
from .ask_probe import ProbeAnswer, ask_probe
from .ask_retrieval import RetrievalAnswer, ask_retrieval
from .ask_zero_shot import ZeroShotAnswer, ask_zero_shot
from .auditing import AUDITS, Auditor, audit_clip
from .autocast import AutocastInferer
from .before_after import Moment, before_after_section, judge_moment
from .bundle_model import BundleModel, Heatmaps, Score, Study
from .checkpoints import BestCheckpoint, LastCheckpoint
from .class_choice import choose_class, class_logits, class_numbers
from .classifier_evaluation import ClassifierEvaluation, evaluate_classifier
from .curves import CurvesPlot
from .dicom_answers import dicom_statements
from .dicom_batch import USUAL_KINDS, BatchRequest, BatchSummary, run_dicom_batch
from .early_stopping import EarlyStopping
from .embedding import Embeddings, embed
from .embedding_store import EmbeddingStore, MissingTextError
from .evaluation import Evaluation, evaluate_clip
from .explanation import CaseExplainer, explain_cases
from .faithfulness import Faithfulness, faithfulness
from .feature_table import FeatureExtractor, FeatureTable
from .files import RESEARCH_USE, write_csv, write_json
from .gallery import Gallery, build_gallery
from .history import History
from .judging import Calibrated, Judged, check_findings, judge, score_rows, thresholds
from .method_menu import method_menu
from .optimization import GradientClipping, cosine_with_warmup
from .pack import pack_bundle
from .prediction import Prediction, PredictionWriter, ZeroShotInferer, chosen_rule
from .prepare_batch import ContrastivePrepareBatch, ImagePrepareBatch, LabelPrepareBatch
from .probe import FittedProbe, ProbeInput, few_shot, fit_mlp, fit_probe, probe_features
from .progress import ProgressBar
from .required import RequiredFigure, required_figures
from .run_config import trained_config
from .run_record import RunRecord, data_hashes, write_run_record
from .schedules import SCHEDULES, LrSchedule
from .score_comparison import Comparison, FineTuned, compare_scores, read_fine_tuned
from .seeding import EpochSeeder, epoch_seed
from .summary import FigureSummary, RunsSummary, summarize_runs
from .sweep import Trial, combinations, sweep
from .threads import limit_threads
from .tracking import MLFlowTracker
from .zero_shot import ZeroShot, evaluate_zero_shot

__all__ = [
    "AUDITS",
    "RESEARCH_USE",
    "SCHEDULES",
    "USUAL_KINDS",
    "AnswerPage",
    "Auditor",
    "AutocastInferer",
    "BatchRequest",
    "BatchSummary",
    "BestCheckpoint",
    "BundleModel",
    "Calibrated",
    "CaseExplainer",
    "ClassifierEvaluation",
    "Comparison",
    "ContrastivePrepareBatch",
    "CurvesPlot",
    "EarlyStopping",
    "EmbeddingStore",
    "Embeddings",
    "EpochSeeder",
    "Evaluation",
    "Faithfulness",
    "FeatureExtractor",
    "FeatureTable",
    "FigureSummary",
    "FineTuned",
    "FittedProbe",
    "Gallery",
    "GradientClipping",
    "Heatmaps",
    "History",
    "ImagePrepareBatch",
    "Judged",
    "LabelPrepareBatch",
    "LastCheckpoint",
    "LrSchedule",
    "MLFlowTracker",
    "MissingTextError",
    "Moment",
    "Prediction",
    "PredictionWriter",
    "ProbeAnswer",
    "ProbeInput",
    "ProgressBar",
    "RequiredFigure",
    "RetrievalAnswer",
    "RunRecord",
    "RunsSummary",
    "Score",
    "Study",
    "Trial",
    "ZeroShot",
    "ZeroShotAnswer",
    "ZeroShotInferer",
    "ask_probe",
    "ask_retrieval",
    "ask_zero_shot",
    "audit_clip",
    "audit_sections",
    "before_after_section",
    "build_gallery",
    "check_findings",
    "choose_class",
    "chosen_rule",
    "class_logits",
    "class_numbers",
    "combinations",
    "compare_scores",
    "cosine_with_warmup",
    "data_hashes",
    "dicom_statements",
    "embed",
    "epoch_seed",
    "evaluate_classifier",
    "evaluate_clip",
    "evaluate_zero_shot",
    "explain_cases",
    "faithfulness",
    "few_shot",
    "fit_mlp",
    "fit_probe",
    "judge",
    "judge_moment",
    "judged_sections",
    "limit_threads",
    "method_menu",
    "pack_bundle",
    "probe_features",
    "read_fine_tuned",
    "required_figures",
    "run_dicom_batch",
    "score_rows",
    "summarize_runs",
    "sweep",
    "thresholds",
    "trained_config",
    "write_csv",
    "write_json",
    "write_run_record",
]
