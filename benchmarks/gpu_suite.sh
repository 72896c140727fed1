#!/usr/bin/env bash
# One command for a machine with a GPU (PyTorch and nvcc there, no network needed): builds fastctc for that card,
# runs the tests on it, some of them under compute-sanitizer, and the benchmarks. Under nine minutes; a step that
# fails or takes too long does not stop those after it. The machine's own Python environment is left as it is.
#
#   benchmarks/gpu_suite.sh OUT             results into the folder OUT: summary.txt, log.txt, the benchmarks' JSON
#   benchmarks/gpu_suite.sh --dry-run       prints the steps
#   benchmarks/gpu_suite.sh --rehearse OUT  the same on a machine without a GPU: CPU only, no sanitizer, quick
#
#   FASTCTC_WHEELS=DIR   wheels of Python packages that are missing there; step `packages` says which. Get them with
#                        python3 -m pip download --no-deps --only-binary=:all: -d DIR NAME...
#   TOTAL=530            seconds for everything
#   WORK=/tmp/...        where to build; deleted at the end
#
# Exit status: 0 if every step passed, 1 if not, 2 if called wrongly.
set -uo pipefail

# ---- the steps: name, seconds at most, function -----------------------------------------------------------------
steps=(
  "packages    40  step_packages"
  "build      150  step_build"
  "tests      200  step_tests"
  "memcheck    60  step_sanitize memcheck"
  "racecheck   60  step_sanitize racecheck"
  "synccheck   45  step_sanitize synccheck"
  "ctc_loss   120  step_bench bench_ctc_loss.py"
  "align       60  step_bench bench_forced_align.py"
  "beam_search 90  step_bench bench_beam_search.py"
)

# The tests that run under compute-sanitizer: a few of each kernel, none of them long.
sanitized="test_target_lengths_around_the_lanes or test_class_counts_around_the_lanes or test_no_frames"
sanitized+=" or test_layout_does_not_matter or test_wrong_values_stay_in_their_sample or test_best_class_anywhere"
sanitized+=" or test_wrong_sums_read_nothing_out_of_bounds or test_nan_shows_in_the_score"
sanitized+=" or test_many_forms_of_the_same or test_nan_and_padding"
sanitized+=" or test_star_is_a_column_of_zeros or test_a_sample_is_independent_of_its_batch or test_special_values"

# What must be importable, and the name of its wheel.
needed="torch=torch numpy=numpy PIL=pillow safetensors=safetensors tqdm=tqdm captcha=captcha matplotlib=matplotlib
  pytest=pytest hypothesis=hypothesis expecttest=expecttest scikit_build_core=scikit-build-core pathspec=pathspec
  packaging=packaging pybind11=pybind11 cmake=cmake ninja=ninja"

# A virtual environment on top of the machine's Python, which may be a virtual environment itself.
step_environment() {
  local of_this_machine ours
  of_this_machine=$(python3 -c 'import site, sysconfig
paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
print(*dict.fromkeys(paths), sep="\n")') && python3 -m venv --without-pip "$WORK/venv" || return
  ours=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "$of_this_machine" >"$ours/of_this_machine.pth"
}

missing_packages() {
  python - $needed <<'PYTHON'
import importlib.util
import sys

print(*(d for m, d in (a.split("=") for a in sys.argv[1:]) if importlib.util.find_spec(m) is None))
PYTHON
}

step_packages() {
  step_environment || return
  python - <<'PYTHON'
import os, sys, sysconfig
import torch

print("Python", sys.version, "\ntorch", torch.__version__, "CUDA", torch.version.cuda, torch.cuda.is_available())
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print("Python.h is missing in", sysconfig.get_path("include"), "and the build will fail")
PYTHON
  nvcc --version | tail -2
  g++ --version | head -1
  local missing
  missing=$(missing_packages) || return
  if [[ -n $missing && -n ${FASTCTC_WHEELS:-} ]]; then
    python -m pip install --no-index --no-deps --find-links "$FASTCTC_WHEELS" $missing
    missing=$(missing_packages) || return
  fi
  [[ -z $missing ]] && return
  echo "missing here: $missing"
  echo "bring them:   python3 -m pip download --no-deps --only-binary=:all: -d DIR $missing"
  echo "and set FASTCTC_WHEELS=DIR"
  return 1
}

step_build() {
  if [[ $DEVICE == cuda ]]; then
    export FASTCTC_CUDA=ON
    FASTCTC_CUDA_ARCHS=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d '. ')
    export FASTCTC_CUDA_ARCHS
    echo "for the card's own architecture, $FASTCTC_CUDA_ARCHS"
  else
    export FASTCTC_CUDA=OFF
  fi
  python -m pip install -v --no-build-isolation --no-deps --no-index --ignore-installed -C "build-dir=$WORK/build" -e . || return
  python -m fastctc
  DEVICE=$DEVICE python - <<'PYTHON'
import os

import fastctc

assert os.environ["DEVICE"] == "cpu" or fastctc.build_info()["cuda_available"], "no CUDA kernels that can run here"
PYTHON
}

step_tests() {
  local parallel=()
  python -c 'import xdist' 2>/dev/null && parallel=(-n 6)
  python -m pytest -p no:cacheprovider -q --durations=15 "${parallel[@]}" ${FASTCTC_TEST_OPTIONS:-}
}

# Without PyTorch's cache each tensor is an allocation of its own, so that an access beside it is noticed.
step_sanitize() {
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all \
    --report-api-errors no --kernel-name kns=fastctc \
    python -m pytest -p no:cacheprovider -q -k "cuda and ($sanitized)" python_tests
}

step_bench() {
  local options=(--device "$DEVICE" --out "$OUT" --seconds 2)
  [[ $DEVICE == cpu ]] && options+=(--quick)
  python "benchmarks/$1" "${options[@]}"
}

# ---- running them -------------------------------------------------------------------------------------------------
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }

run_step() {  # name, seconds, function and arguments
  local name=$1 limit=$2 left=$((TOTAL - SECONDS)) start=$SECONDS status
  shift 2
  ((limit < left)) || limit=$left
  printf '\n======== %s (at most %s s)\n' "$name" "$limit" >>"$OUT/log.txt"
  if ((limit < 5)); then
    status=124
  else
    timeout -k 5 "$limit" bash -c "$*" >>"$OUT/log.txt" 2>&1 </dev/null
    status=$?
  fi
  local verdict=pass
  ((status == 0)) || { verdict=FAIL failed=$((failed + 1)); }
  local reason=""
  ((status == 0)) || reason="exit status $status"
  ((status != 124 && status != 137)) || reason="no time left or over its time"
  printf '%-5s %-12s %4d s  %s\n' "$verdict" "$name" $((SECONDS - start)) "$reason" | tee -a "$OUT/summary.txt"
}

main() {
  local dry=0
  export DEVICE=cuda
  while [[ ${1:-} == -* ]]; do
    case $1 in
      --dry-run) dry=1 ;;
      --rehearse) DEVICE=cpu ;;
      -h | --help) usage && exit ;;
      *) usage >&2 && exit 2 ;;
    esac
    shift
  done
  if ((dry)); then
    printf '%s\n' "${steps[@]}" "under compute-sanitizer: $sanitized"
    exit
  fi
  [[ $# == 1 ]] || { usage >&2 && exit 2; }

  mkdir -p "$1" && OUT=$(cd "$1" && pwd) || exit 2
  cd "$(dirname "$0")/.." || exit 2
  TOTAL=${TOTAL:-530} failed=0
  WORK=$(mktemp -d "${WORK:-/tmp/fastctc-gpu-suite}.XXXXXX") || exit 2
  trap 'rm -rf "$WORK"' EXIT
  export OUT WORK needed sanitized PATH="$WORK/venv/bin:$PATH" PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
  export FASTCTC_DEVICES=$DEVICE
  [[ $DEVICE != cuda ]] || export FASTCTC_REQUIRE_CUDA=1
  export -f step_environment missing_packages step_packages step_build step_tests step_sanitize step_bench

  : >"$OUT/log.txt"
  {
    echo "fastctc $(git rev-parse --short HEAD 2>/dev/null), $(date -u +%FT%TZ), $(uname -srm), $(nproc) cores"
    nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader 2>/dev/null || echo "no GPU"
  } | tee "$OUT/summary.txt"
  for step in "${steps[@]}"; do
    [[ $DEVICE == cpu && $step == *step_sanitize* ]] && continue
    run_step $step
  done
  if ((failed)); then
    echo "$failed FAILED in $SECONDS s; see log.txt" | tee -a "$OUT/summary.txt"
    exit 1
  fi
  echo "all passed in $SECONDS s" | tee -a "$OUT/summary.txt"
}

main "$@"
