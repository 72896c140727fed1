"""Samples: read or drawn, prepared, kept, changed at random, and put into batches."""

from fastctc.crnn.data.augment import CHANGES, AugmentConfig, Draw, augmented, draws
from fastctc.crnn.data.batches import Batch, BatchMaker
from fastctc.crnn.data.cache import Collected, cached
from fastctc.crnn.data.claim import FolderInUseError, claimed
from fastctc.crnn.data.collection import CRASHED, collect, collect_all, write_folder
from fastctc.crnn.data.containers import Entry, is_container, parquet_package
from fastctc.crnn.data.domain import (
    DOMAINS,
    Constraint,
    Domain,
    DrawConfig,
    LanguageModel,
    constraints,
    domain_of,
    draw_from_dict,
    draw_to_dict,
    register,
    shipped_checkpoint,
    shipped_checkpoints,
    shipped_domain,
)
from fastctc.crnn.data.font_files import font_files, installed_fonts, is_unseen, package_folder, printed
from fastctc.crnn.data.images import ImageError, ImageLike, Pixels, decode, images_in
from fastctc.crnn.data.inputs import Inputs
from fastctc.crnn.data.json_text import finite, to_json
from fastctc.crnn.data.preprocess import Prepared, PreprocessConfig, prepare, steps
from fastctc.crnn.data.progress_bar import progress
from fastctc.crnn.data.readers import LabelConfig, open_source
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
from fastctc.crnn.data.tensors import normalize, normalized_batch, pad_batch
from fastctc.crnn.data.torch_state import own_torch_state, seeded, usable_device
from fastctc.crnn.data.visual_order import (
    VisualAlphabet,
    direction_for,
    direction_of,
    make_alphabet,
    with_mirrored,
)
from fastctc.crnn.data.workers import WORTH, default_workers, map_chunks
from fastctc.files import DiskFullError, explain_full_disk, no_such_file, stamp, write_atomically

__all__ = [
    "CHANGES",
    "CRASHED",
    "DOMAINS",
    "WORTH",
    "AugmentConfig",
    "Batch",
    "BatchMaker",
    "Collected",
    "Constraint",
    "DiskFullError",
    "Domain",
    "Draw",
    "DrawConfig",
    "Drawn",
    "Entry",
    "FolderInUseError",
    "ImageError",
    "ImageLike",
    "Inputs",
    "KeyedSource",
    "LabelConfig",
    "LabelError",
    "LabeledSource",
    "LanguageModel",
    "NamedSource",
    "Pixels",
    "Prepared",
    "PreprocessConfig",
    "Problem",
    "Samples",
    "Source",
    "VisualAlphabet",
    "at_least",
    "augmented",
    "between",
    "cached",
    "check_samples",
    "check_settings",
    "claimed",
    "collect",
    "collect_all",
    "constraints",
    "decode",
    "default_workers",
    "direction_for",
    "direction_of",
    "domain_of",
    "draw_from_dict",
    "draw_to_dict",
    "draws",
    "explain_full_disk",
    "finite",
    "font_files",
    "frames_needed",
    "hash_of_code",
    "help_of",
    "images_in",
    "installed_fonts",
    "is_container",
    "is_unseen",
    "kind_of",
    "make_alphabet",
    "map_chunks",
    "more_than",
    "no_such_file",
    "normalize",
    "normalized_batch",
    "open_source",
    "own_torch_state",
    "package_folder",
    "pad_batch",
    "parquet_package",
    "prepare",
    "printed",
    "progress",
    "register",
    "seeded",
    "setting",
    "settings_of",
    "shipped_checkpoint",
    "shipped_checkpoints",
    "shipped_domain",
    "split_holdout",
    "stamp",
    "steps",
    "to_json",
    "usable_device",
    "with_mirrored",
    "write_atomically",
    "write_folder",
]
