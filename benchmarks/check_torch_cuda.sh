#!/usr/bin/env bash
# Shows that one wheel serves every torch: built against the torch of $PYTHON (say, 2.13 for the CPU), it runs
# under a CUDA build of torch without being rebuilt. No GPU is needed. Several gigabytes are downloaded, into a
# temporary folder that is deleted at the end.
#
#   benchmarks/check_torch_cuda.sh [WHEEL]
#
#   WHEEL                a wheel of fastctc; without one it is built here, with CUDA kernels if nvcc is found
#   PYTHON=python3       the Python to make the environment with; to build a wheel it needs torch,
#                        scikit-build-core, pybind11, cmake and ninja
#   TORCH=2.11.0         the torch to run under; the default index's build of it brings its CUDA packages
#   WORK=/tmp/...        the temporary folder
set -euo pipefail

case ${1:-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit ;; esac
repository=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
torch=${TORCH:-2.11.0}
work=$(mktemp -d "${WORK:-/tmp/fastctc-torch-cuda}.XXXXXX")
trap 'rm -rf "$work"' EXIT

wheel=${1:-}
if [[ -z $wheel ]]; then
  echo "== the wheel, built against torch $("$python" -c 'import torch; print(torch.__version__)')"
  "$python" -m pip wheel -q --no-deps --no-build-isolation -C "build-dir=$work/build" -w "$work" "$repository"
  wheel=$(ls "$work"/fastctc-*.whl)
fi
echo "$(basename "$wheel")  $(du -k "$wheel" | cut -f1) KiB  sha256 $(sha256sum "$wheel" | cut -c1-16)"

echo "== a fresh environment with torch $torch"
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --no-cache-dir "torch==$torch" numpy pillow captcha safetensors tqdm
"$work/venv/bin/python" -m pip install -q --no-deps "$wheel"

echo "== under that torch"
cd "$work" && "$work/venv/bin/python" - <<'PYTHON'
import torch
import torch.nn.functional as F

import fastctc

info = fastctc.build_info()
print("\n".join(f"{key:22}{value}" for key, value in info.items()))
assert torch.version.cuda, f"torch {torch.__version__} is not a CUDA build"
assert info["torch_built_against"] != torch.__version__, "the wheel was built against this very torch"

torch.manual_seed(0)
devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
for device in devices:
    logits = torch.randn(60, 8, 20, requires_grad=True)
    targets = torch.randint(1, 20, (8, 15))
    lengths = torch.full((8,), 60), torch.full((8,), 15)
    expected = F.ctc_loss(logits.double().log_softmax(-1), targets, *lengths)
    (expected_grad,) = torch.autograd.grad(expected, logits)
    there = logits.detach().to(device).requires_grad_()
    for from_logits in (False, True):
        scores = there if from_logits else there.log_softmax(-1)
        loss = fastctc.ctc_loss(scores, targets, *lengths, from_logits=from_logits)
        (grad,) = torch.autograd.grad(loss, there)
        loss_error = float((loss - expected).detach().abs() / expected.detach())
        grad_error = float((grad.cpu() - expected_grad).abs().max() / expected_grad.abs().max())
        print(f"{device}: from_logits={from_logits}: loss off by {loss_error:.1e}, gradient by {grad_error:.1e}")
        assert loss_error < 1e-5 and grad_error < 1e-5
    scores = torch.eye(3, device=device)[[1, 1, 0, 1, 2]].log_softmax(-1)
    assert fastctc.greedy_decode(scores).to_list() == [1, 1, 2]
    print(f"{device}: greedy_decode as expected")
print(f"OK: built against {info['torch_built_against']}, runs under {torch.__version__}, on {', '.join(devices)}")
PYTHON
