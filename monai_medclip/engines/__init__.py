"""Engines: training that resumes exactly, embedding extraction, evaluation, and the record of what was done."""

from .autocast import AutocastInferer
from .checkpoints import BestCheckpoint, LastCheckpoint
from .curves import CurvesPlot
from .early_stopping import EarlyStopping
from .embedding import Embeddings, embed
from .evaluation import Evaluation, evaluate_clip
from .explanation import CaseExplainer, explain_cases
from .files import RESEARCH_USE, write_csv, write_json
from .history import History
from .optimization import GradientClipping, cosine_with_warmup
from .prediction import Prediction, PredictionWriter, ZeroShotInferer, chosen_rule
from .prepare_batch import ContrastivePrepareBatch, ImagePrepareBatch
from .progress import ProgressBar
from .required import RequiredFigure, required_figures
from .run_record import RunRecord, data_hashes, write_run_record
from .seeding import EpochSeeder, epoch_seed
from .summary import FigureSummary, RunsSummary, summarize_runs
from .tracking import MLFlowTracker
from .zero_shot import ZeroShot, evaluate_zero_shot

__all__ = [
    "RESEARCH_USE",
    "AutocastInferer",
    "BestCheckpoint",
    "CaseExplainer",
    "ContrastivePrepareBatch",
    "CurvesPlot",
    "EarlyStopping",
    "Embeddings",
    "EpochSeeder",
    "Evaluation",
    "FigureSummary",
    "GradientClipping",
    "History",
    "ImagePrepareBatch",
    "LastCheckpoint",
    "MLFlowTracker",
    "Prediction",
    "PredictionWriter",
    "ProgressBar",
    "RequiredFigure",
    "RunRecord",
    "RunsSummary",
    "ZeroShot",
    "ZeroShotInferer",
    "chosen_rule",
    "cosine_with_warmup",
    "data_hashes",
    "embed",
    "epoch_seed",
    "evaluate_clip",
    "evaluate_zero_shot",
    "explain_cases",
    "required_figures",
    "summarize_runs",
    "write_csv",
    "write_json",
    "write_run_record",
]
