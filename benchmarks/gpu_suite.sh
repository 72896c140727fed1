#!/usr/bin/env bash
# One command for a machine with a GPU (PyTorch and nvcc there, no network needed): builds fastctc for that card, runs
# the CUDA tests, the benchmarks and the profilers on it, then some tests under compute-sanitizer. Under eight minutes:
# the last steps are left out if those before them took long. A step that fails does not stop the next ones. The
# machine's own Python environment is left as it is.
#
#   benchmarks/gpu_suite.sh OUT             writes OUT/summary.txt and OUT/results.tar.gz, anew after each step
#   benchmarks/gpu_suite.sh --dry-run       prints the steps
#   benchmarks/gpu_suite.sh --rehearse OUT  every step on a machine without a GPU: the CPU in its place, small shapes,
#                                           and stand-ins for nvidia-smi, ncu and compute-sanitizer
#
# results.tar.gz contains gpu.md, one table of all times beside the estimates, log.txt, tests.txt, what ncu has found
# and, in results/, files for benchmarks/results/.
#
#   FASTCTC_WHEELS=DIR   wheels of Python packages that are missing there; step `packages` lists them. Get them with
#                        python3 -m pip download --no-deps --only-binary=:all: -d DIR NAME...
#   AT_MOST=460          seconds of all steps together
#   SLOWER=1             this and the limits of the steps times this, for a machine with few cores
#   WORK=/tmp/...        where to build; deleted at the end
#   TOOLKITS="DIR..."    where an nvcc may be that is not on PATH, or is older (/usr/local/cuda /usr/local/cuda-*)
#   FASTCTC_CUDA=OFF     in a rehearsal, builds no CUDA kernels, to save minutes
#   TEST_DEVICE=ptx      in a rehearsal, the tests run on nvcc's PTX, for minutes
#
# Exit status: 0 if every step passed, 1 if not, 2 if called wrongly.
set -uo pipefail

# ---- the steps: name, seconds at most, function; the most valuable first ------------------------------------------
steps=(
  "packages    40  step_packages"
  "build      200  step_build"
  "tests      150  step_tests"
  "ctc_loss    60  step_bench bench_ctc_loss.py --peers torch cudnn"
  "beam_search 60  step_bench bench_beam_search.py --peers cuda_ctc_decoder"
  "align       30  step_bench bench_forced_align.py --shapes A D E F"
  "kernels     25  step_kernels"
  "ncu         40  step_ncu"
  "memcheck    60  step_sanitize memcheck"
  "racecheck   60  step_sanitize racecheck"
)
least_tests=1000  # fewer that have passed mean that something was not run

# The tests that run under compute-sanitizer: a few of each kernel, none of them long.
sanitized="test_target_lengths_around_the_lanes or test_class_counts_around_the_lanes or test_no_frames"
sanitized+=" or test_layout_does_not_matter or test_wrong_values_stay_in_their_sample or test_best_class_anywhere"
sanitized+=" or test_wrong_sums_read_nothing_out_of_bounds or test_nan_shows_in_the_score"
sanitized+=" or test_many_forms_of_the_same or test_nan_and_padding"
sanitized+=" or test_star_is_a_column_of_zeros or test_a_sample_is_independent_of_its_batch or test_special_values"

# The packages that must be there, the oldest versions that do, and those that are good to have.
needed="torch>=2.10 numpy tqdm pytest>=8 hypothesis scikit-build-core>=1.0 pathspec packaging pybind11>=2.13 cmake>=3.24
  ninja"
useful="pytest-xdist execnet torchaudio matplotlib"

# A virtual environment on top of the machine's Python, which may be a virtual environment itself.
step_environment() {
  local of_this_machine ours
  of_this_machine=$(python3 -c 'import site, sysconfig
paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
print(*dict.fromkeys(paths), sep="\n")') && python3 -m venv --without-pip "$WORK/venv" || return
  ours=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # addsitedir also follows the .pth files there.
  while read -r folder; do echo "import site; site.addsitedir('$folder')"; done <<<"$of_this_machine" >"$ours/machine.pth"
}

# Puts an nvcc on PATH whose kernels the driver accepts: of the driver's version of CUDA or an older one, but for the
# minor number. Without a version of the driver, it is the first nvcc.
choose_nvcc() {
  local driver nvcc version usual=${CUDACXX:-$(command -v nvcc)}
  driver=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9][0-9]*\).*/\1/p' | head -1)
  for nvcc in "$usual" $(printf '%s/bin/nvcc ' ${TOOLKITS:-/usr/local/cuda /usr/local/cuda-*}); do
    [[ -x $nvcc ]] || continue
    version=$("$nvcc" --version | sed -n 's/.*release \([0-9][0-9]*\).*/\1/p')
    echo "$nvcc: CUDA ${version:-of an unknown version}; the driver's: ${driver:-unknown}"
    ((${version:-0} <= ${driver:-99})) || continue
    [[ $nvcc == "$usual" ]] || ln -s "$(dirname "$(dirname "$nvcc")")" "$WORK/cuda"
    return 0
  done
  [[ ${FASTCTC_CUDA:-} == OFF || -z $(command -v nvidia-smi) ]] && return
  echo "no nvcc here whose kernels the driver accepts"
  return 1
}

# Those of the arguments that are not installed, or are too old.
missing_packages() {
  python - "$@" <<'PYTHON'
import importlib.metadata
import re
import sys


def numbers(version):
    return [int(number) for number in re.findall(r"\d+", version)]


for each in sys.argv[1:]:
    name, _, least = each.partition(">=")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        print(each)
        continue
    print(name, found, file=sys.stderr)
    if numbers(found) < numbers(least):
        print(each)
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
  g++ --version | head -1
  choose_nvcc || return
  local missing
  missing=$(missing_packages $needed $useful) || return
  if [[ -n $missing && -n ${FASTCTC_WHEELS:-} ]]; then
    for each in $missing; do
      python -m pip install --no-index --no-deps --ignore-installed --find-links "$FASTCTC_WHEELS" "$each"
    done
  fi
  echo "the tests and benchmarks do without: "$(missing_packages $useful 2>/dev/null)
  missing=$(missing_packages $needed 2>/dev/null) || return
  [[ -z $missing ]] && return
  echo "missing here: "$missing
  echo "bring them:   python3 -m pip download --no-deps --only-binary=:all: -d DIR" $(printf "'%s' " $missing)
  echo "and set FASTCTC_WHEELS=DIR"
  return 1
}

step_build() {
  if command -v nvidia-smi >/dev/null; then
    export FASTCTC_CUDA=${FASTCTC_CUDA:-ON}
    [[ ! -e $WORK/cuda ]] || export CUDACXX=$WORK/cuda/bin/nvcc
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

# The test files that have tests for a device, those in folders last, whose tests take longest. The recognizer is left
# out: it needs more packages.
test_files() {
  grep -rlE --include='test_*.py' 'device: Device|CUDA_MACHINES' python_tests | grep -v /crnn/ | sort |
    awk -F/ 'NF == 2 { print; next } { last = last $0 "\n" } END { printf "%s", last }'
}

# One line for each test, so that they can be counted should the time be over.
step_tests() {
  local options=(-v --durations=15 -p gpu_plugin --continue-on-collection-errors) status passed
  python -c 'import xdist' 2>/dev/null && options+=(-n "${WORKERS:-8}" --max-worker-restart 100)
  PYTHONPATH=benchmarks${PYTHONPATH:+:$PYTHONPATH} FASTCTC_LONGEST_TEST=$((60 * SLOWER)) \
    python -m pytest -p no:cacheprovider "${options[@]}" -k "$TEST_DEVICE" -m "not slow" $(test_files) \
    >"$FILES/tests.txt" 2>&1
  status=$?
  tail -60 "$FILES/tests.txt"
  passed=$(passed_tests)
  echo "$passed tests have passed"
  ((passed >= least_tests)) || { echo "at least $least_tests were expected" && return 1; }
  return $status
}
passed_tests() { grep -cw PASSED "$FILES/tests.txt"; }

step_bench() {
  local bench=$1 options=(--device "$DEVICE" --out "$FILES/results" --seconds 1)
  shift
  [[ $DEVICE == cpu ]] && options+=(--quick)
  # The CPU checks the results in float64.
  OMP_NUM_THREADS=$(getconf _NPROCESSORS_ONLN) python "benchmarks/$bench" "${options[@]}" "$@"
}

step_kernels() {
  local options=(--device "$DEVICE" --out "$FILES/results")
  [[ $DEVICE == cpu ]] && options+=(--quick)
  python benchmarks/profile_kernels.py "${options[@]}"
}

step_ncu() {
  local options=(--once --device "$DEVICE")
  [[ $DEVICE == cpu ]] && options+=(--quick)
  # Without --clock-control none ncu would set the clocks, which an administrator may forbid.
  ncu --set basic --clock-control none --csv --log-file "$FILES/ncu.csv" --launch-count 40 --target-processes all \
    --kernel-name-base demangled --kernel-name "regex:fastctc" python benchmarks/profile_kernels.py "${options[@]}"
}

# Without PyTorch's cache each tensor is an allocation of its own, so that an access beside it is noticed.
step_sanitize() {
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all \
    --report-api-errors no --kernel-name kns=fastctc \
    python -m pytest -p no:cacheprovider -q --continue-on-collection-errors -k "$TEST_DEVICE and ($sanitized)" $(test_files)
}

# ---- running them -------------------------------------------------------------------------------------------------
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }

# The tool without which a step is skipped.
tool_of() {
  case $1 in ncu) echo ncu ;; memcheck | racecheck) echo compute-sanitizer ;; *) echo bash ;; esac
}

run_step() {  # name, seconds, function and arguments
  local name=$1 limit=$2 left start=$SECONDS status verdict=pass notes=""
  shift 2
  limit=$((limit * SLOWER)) left=$((AT_MOST * SLOWER - SECONDS))
  ((limit <= left)) || limit=$left
  printf '\n======== %s (at most %s s)\n' "$name" "$limit" >>"$FILES/log.txt"
  if ! command -v "$(tool_of "$name")" >/dev/null; then
    verdict=skip notes="no $(tool_of "$name") here"
  elif ((left < 5)); then
    verdict=skip notes="no time left"
  else
    timeout -k 5 "$limit" bash -c "$*" >>"$FILES/log.txt" 2>&1 </dev/null
    status=$?
    ((status == 0)) || { verdict=FAIL failed=$((failed + 1)) notes="exit status $status"; }
    ((status != 124 && status != 137)) || notes="over its time"
    [[ $name != tests ]] || notes+="${notes:+, }$(passed_tests) tests have passed"
  fi
  printf '%-5s %-12s %4d s  %s\n' "$verdict" "$name" $((SECONDS - start)) "$notes" | tee -a "$OUT/summary.txt"
  pack
}

# Programs for a rehearsal, where they are missing: a card, and tools that only run the program which they are given.
stand_ins() {
  mkdir "$WORK/stand-ins"
  printf '#!/usr/bin/env bash\n[[ $* != *name* ]] || printf "Stand-in, 580.1, "\necho 9.0\n' >"$WORK/stand-ins/nvidia-smi"
  for tool in ncu compute-sanitizer; do
    printf '#!/usr/bin/env bash\nwhile [[ $1 != python ]]; do shift; done\nexec "$@"\n' >"$WORK/stand-ins/$tool"
  done
  command -v nvcc >/dev/null || rm "$WORK/stand-ins/nvidia-smi"  # no build for a card
  chmod +x "$WORK/stand-ins/"*
}

# Everything in one file, complete or as it was.
pack() {
  cp "$OUT/summary.txt" "$FILES/summary.txt"
  tar -czf "$OUT/results.tar.gz.new" -C "$FILES" . && mv "$OUT/results.tar.gz.new" "$OUT/results.tar.gz"
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
    cd "$(dirname "$0")/.." || exit 2
    printf '%s\n' "${steps[@]}"
    echo "files of tests:" $(test_files)
    echo "under compute-sanitizer: $sanitized"
    exit
  fi
  [[ $# == 1 ]] || { usage >&2 && exit 2; }

  mkdir -p "$1" && OUT=$(cd "$1" && pwd) || exit 2
  cd "$(dirname "$0")/.." || exit 2
  SLOWER=${SLOWER:-1} AT_MOST=${AT_MOST:-460} failed=0
  WORK=$(mktemp -d "${WORK:-/tmp/fastctc-gpu-suite}.XXXXXX") || exit 2
  trap 'rm -rf "$WORK"' EXIT
  FILES=$WORK/files
  mkdir -p "$FILES/results"
  if [[ $DEVICE == cpu ]]; then
    TEST_DEVICE=${TEST_DEVICE:-cpu}
    stand_ins
  else
    TEST_DEVICE=$DEVICE
  fi
  export OUT WORK FILES SLOWER TEST_DEVICE needed useful sanitized least_tests
  export PATH="$WORK/venv/bin:$WORK/cuda/bin:$PATH:$WORK/stand-ins" PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} FASTCTC_DEVICES=$TEST_DEVICE
  [[ $DEVICE != cuda ]] || export FASTCTC_REQUIRE_CUDA=1
  export -f step_environment choose_nvcc missing_packages step_packages step_build test_files step_tests passed_tests step_bench \
    step_kernels step_ncu step_sanitize

  : >"$FILES/log.txt"
  : >"$FILES/tests.txt"
  {
    echo "fastctc $(git rev-parse --short HEAD 2>/dev/null), $(date -u +%FT%TZ), $(uname -srm), $(getconf _NPROCESSORS_ONLN) cores"
    nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader 2>/dev/null || echo "no GPU"
  } | tee "$OUT/summary.txt"
  for step in "${steps[@]}"; do
    run_step $step
  done
  if ((failed)); then
    echo "$failed FAILED in $SECONDS s; see log.txt" | tee -a "$OUT/summary.txt"
  else
    echo "all passed in $SECONDS s" | tee -a "$OUT/summary.txt"
  fi
  cp "$OUT/summary.txt" "$FILES/summary.txt"
  timeout 60 python benchmarks/gpu_table.py "$FILES" >"$FILES/gpu.md" 2>>"$FILES/log.txt" || echo "no gpu.md; see log.txt"
  pack
  exit $((failed > 0))
}

main "$@"
