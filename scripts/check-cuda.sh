#!/usr/bin/env bash
# Type-checks the whole workspace with the feature `cuda`, without a graphics card and without a CUDA installation: NVIDIA
# publishes its compiler on PyPI. candle's kernels are compiled for real, our code is checked, nothing is linked or run.
#
# The compiler and cargo's target folder live under the cache, apart from the ordinary target folder, whose features differ.
# A success leaves a stamp there, so that `.ci/run` knows when a check is cheap; the folder can be deleted at any time.
#
#   scripts/check-cuda.sh           check
#   scripts/check-cuda.sh --cache   print the cache folder and leave
set -euo pipefail
cd "$(dirname "$0")/.."

readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/evenset-cuda"
readonly venv="$cache/venv" target="$cache/target" stamp="$cache/checked"
# CUDA 13.0, every part pinned to that release. The libraries (cublas, curand, nvrtc) are not here: they are needed to link,
# a type-check never does, and they are five times the size of all the rest.
readonly packages=(
    nvidia-cuda-nvcc==13.0.88
    nvidia-cuda-crt==13.0.88
    nvidia-nvvm==13.0.88
    nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85
)

say() { printf 'check-cuda: %s\n' "$*"; }
fail() { printf 'check-cuda: FAILED: %s\n' "$*" >&2; exit 1; }
needs() { command -v "$1" >/dev/null || fail "'$1' is not on PATH: $2"; }

case "${1-}" in
    --cache) echo "$cache"; exit 0 ;;
    "") ;;
    *) fail "unknown argument '$1'; the only one is --cache" ;;
esac

case "$(uname -sm)" in
    "Linux x86_64" | "Linux aarch64") ;;
    *) fail "NVIDIA publishes this compiler for Linux on x86_64 and aarch64 only, this is $(uname -sm)" ;;
esac
needs cargo "install Rust 1.95 or later (https://rustup.rs)"
needs g++ "nvcc compiles the host half of a kernel with it; install GCC"
needs python3 "it fetches the CUDA compiler; install Python 3 with venv and pip"

say "the CUDA 13.0 compiler, in $venv (fetched from PyPI the first time, 300 MB on disk)"
mkdir -p "$cache"
[ -x "$venv/bin/pip" ] || python3 -m venv --clear "$venv" || fail "python3 cannot make a virtual environment; install its venv module"
"$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps "${packages[@]}" \
    || fail "the CUDA compiler could not be fetched (see pip's message above)"
CUDA_HOME="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia/cu13"
NVCC="$CUDA_HOME/bin/nvcc"
"$NVCC" --version >/dev/null || fail "$NVCC does not start; delete $cache and run this again"

# candle asks an installed card which kernels to compile; here there is none. 90 is Hopper: every kernel of candle takes it.
export NVCC CUDA_HOME CUDA_PATH="$CUDA_HOME" PATH="$CUDA_HOME/bin:$PATH" CUDA_COMPUTE_CAP=90
export CARGO_TARGET_DIR="$target"

if [ -e "$stamp" ]; then cost="warm: under two minutes"; else cost="cold: about 12 minutes on two free cores, most of them in nvcc"; fi
say "cargo check of the workspace with feature cuda, in $target ($cost)"
cargo check --workspace --all-targets --features evenset-cli/cuda --locked \
    || fail "cargo check with feature cuda (see cargo's messages above)"

printf '%s\n' "${packages[@]}" > "$stamp"
say "ok: the workspace type-checks with feature cuda in $SECONDS s. Nothing ran on a card."
