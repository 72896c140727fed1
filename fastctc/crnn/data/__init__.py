"""Samples: read or drawn, prepared, kept, changed at random, and put into batches."""

from fastctc.crnn.data.augment import CHANGES, AugmentConfig, Draw, augmented, draws
from fastctc.crnn.data.batches import Batch, BatchMaker
from fastctc.crnn.data.cache import Collected, cached
from fastctc.crnn.data.collection import collect, collect_all, write_folder
from fastctc.crnn.data.domain import (
    DOMAINS,
    Constraint,
    Domain,
    DrawConfig,
    constraints,
    domain_of,
    draw_from_dict,
    draw_to_dict,
    register,
    shipped_checkpoints,
)
from fastctc.crnn.data.images import ImageError, ImageLike, Pixels, images_in
from fastctc.crnn.data.preprocess import Prepared, PreprocessConfig, prepare, steps
from fastctc.crnn.data.readers import open_source
from fastctc.crnn.data.samples import (
    LabelError,
    Problem,
    Samples,
    check_samples,
    frames_needed,
    split_holdout,
)
from fastctc.crnn.data.settings import (
    at_least,
    between,
    check_settings,
    help_of,
    kind_of,
    more_than,
    setting,
    settings_of,
)
from fastctc.crnn.data.sources import Drawn, KeyedSource, LabeledSource, NamedSource, Source, hash_of_code
from fastctc.crnn.data.tensors import normalize, pad_batch
from fastctc.crnn.data.workers import default_workers
from fastctc.files import write_atomically

__all__ = [
    "CHANGES",
    "DOMAINS",
    "AugmentConfig",
    "Batch",
    "BatchMaker",
    "Collected",
    "Constraint",
    "Domain",
    "Draw",
    "DrawConfig",
    "Drawn",
    "ImageError",
    "ImageLike",
    "KeyedSource",
    "LabelError",
    "LabeledSource",
    "NamedSource",
    "Pixels",
    "Prepared",
    "PreprocessConfig",
    "Problem",
    "Samples",
    "Source",
    "at_least",
    "augmented",
    "between",
    "cached",
    "check_samples",
    "check_settings",
    "collect",
    "collect_all",
    "constraints",
    "default_workers",
    "domain_of",
    "draw_from_dict",
    "draw_to_dict",
    "draws",
    "frames_needed",
    "hash_of_code",
    "help_of",
    "images_in",
    "kind_of",
    "more_than",
    "normalize",
    "open_source",
    "pad_batch",
    "prepare",
    "register",
    "setting",
    "settings_of",
    "shipped_checkpoints",
    "split_holdout",
    "steps",
    "write_atomically",
    "write_folder",
]
