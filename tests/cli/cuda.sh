#!/usr/bin/env bash
# The program on GPUs: the plugin of the kernels that tests/emulation runs on the host stands in for model/cuda's.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

emulated=$(dirname "$LAZYTRAIN")/emulation/plugins
small=(model.num_layers=2 train.steps=4 checkpoint.every=2 checkpoint.keep=0)

on_gpus() { # how many a host has
  [ -e "$emulated/cuda.so" ] || skip "the emulated GPU switches stacks of x86-64"
  export LAZYTRAIN_PLUGINS=$emulated EMULATED_DEVICES=$1
}

# losses FILE: a line each.
losses() { sed -nE 's/.*"loss":([^,]+),.*/\1/p' "$1/metrics.jsonl"; }

# near A B LIMIT: the losses of two runs, relative.
near() {
  paste <(losses "$1") <(losses "$2") | awk -v limit="$3" '
    { error = ($1 - $2) / $2; if (error < 0) error = -error; if (error > limit) { print "# step " NR ": " $1 " and " $2; bad = 1 } }
    END { exit bad || NR == 0 }' || fail "the losses of $1 and $2 differ by more than $3"
}

# bfloat16 against float32: a loss is a mean over 2^7 tokens and more, of logits with errors of 2^-9.
test_trains_as_a_cpu_does() {
  on_gpus 1
  write_tiny_config
  expect 0 train 1 "${small[@]}" train.device=cpu checkpoint.dir=cpu
  expect 0 train 1 "${small[@]}" --device cuda checkpoint.dir=gpu
  expect_line stderr '^device +cuda, emulated \(compute capability 9\.0, .* GiB free\), cublasLt, bfloat16' \
    '^done: step 4'
  near gpu cpu 1e-3
}

# What a run computed on a GPU, another goes on with on a CPU, and the other way round.
test_checkpoints_know_no_device() {
  on_gpus 1
  write_tiny_config
  expect 0 train 1 "${small[@]}" train.device=cuda
  cp -R out whole
  rm "$(step_file out 4)"
  expect 0 train 1 "${small[@]}" train.device=cpu
  near out whole 1e-3
  rm "$(step_file out 4)"
  expect 0 train 1 "${small[@]}" train.device=cuda
  expect_line stderr 'resume .*step 2'
  same_tensors "$(step_file out 4)" "$(step_file whole 4)"
  expect 0 lazytrain generate "$(step_file out 4)" --prompt "the" --max-tokens 3 --device cuda
}

gives_the_bits_of_one_rank() { # RANKS WORD...
  expect 0 train "$1" "${small[@]}" train.device=cuda parallel.lanes=4 "${@:2}"
  same_tensors "$(step_file out 4)" "$(step_file ../one 4)"
}

test_the_bits_at_any_number_of_ranks() {
  on_gpus 4
  write_tiny_config
  expect 0 train 1 "${small[@]}" train.device=cuda parallel.lanes=4 checkpoint.dir=../one
  local ranks zero
  for ranks in 2 4; do
    for zero in 0 1; do
      try_apart gives_the_bits_of_one_rank $ranks parallel.backend=mpi parallel.zero=$zero
      try_apart gives_the_bits_of_one_rank $ranks parallel.backend=nccl parallel.zero=$zero
    done
  done
  all_held
}

# The emulated GPU does what is queued as late as it may. Here one of its streams, the device's or the network's, runs
# ahead: what either needs of the other must have been waited for.
test_streams_wait_for_each_other() {
  on_gpus 2
  write_tiny_config
  expect 0 train 1 "${small[@]}" train.device=cuda parallel.lanes=4 checkpoint.dir=../one
  expect 0 train 2 "${small[@]}" train.device=cuda parallel.tensor=2 checkpoint.dir=../wide
  local early
  for early in 1 2; do
    EMULATED_EARLY=$early try_apart gives_the_bits_of_one_rank 2 parallel.backend=nccl parallel.zero=1
    EMULATED_EARLY=$early try_apart gives_the_bits_of_width 2 2 parallel.backend=nccl
  done
  export EMULATED_LATE=1
  for early in 0 1; do # the library reaches GPUs
    LAZYTRAIN_CUDA_AWARE_MPI=$early try_apart gives_the_bits_of_one_rank 2 parallel.backend=mpi parallel.zero=1
    LAZYTRAIN_CUDA_AWARE_MPI=$early try_apart gives_the_bits_of_width 2 2 parallel.backend=mpi
  done
  all_held
}

test_networks() {
  on_gpus 2
  write_tiny_config
  expect 0 train 2 "${small[@]}" train.device=cuda
  expect_line stderr 'data 2 x tensor 1; backend nccl, '
  expect 0 train 2 "${small[@]}" train.device=cuda parallel.reduction=fast checkpoint.dir=fast
  near fast out 1e-3
  expect 0 train 2 "${small[@]}" train.device=cuda parallel.reduction=fast parallel.zero=1 checkpoint.dir=sharded
  same_tensors "$(step_file sharded 4)" "$(step_file fast 4)"
  rm -r out
  LAZYTRAIN_CUDA_AWARE_MPI=1 expect 0 train 2 "${small[@]}" train.device=cuda parallel.backend=mpi parallel.reduction=fast
  expect_line stderr 'data 2 x tensor 1; backend mpi between GPUs, '
  near out fast 1e-3
  rm -r out
  EMULATED_NCCL=2600 expect 0 train 2 "${small[@]}" train.device=cuda
  expect_line stderr 'backend mpi through host memory \(libnccl.so.2 is version code 2600, expected 2700 or later\), '
}

trains_at_width() { # RANKS TENSOR
  expect 0 train "$1" "${small[@]}" train.device=cuda parallel.backend=mpi parallel.tensor="$2" checkpoint.dir=wide
  near wide ../one 1e-3
  expect 0 train "$1" "${small[@]}" train.device=cuda parallel.backend=nccl parallel.tensor="$2"
  same_tensors "$(step_file out 4)" "$(step_file wide 4)"
}
gives_the_bits_of_width() { # RANKS TENSOR WORD...
  expect 0 train "$1" "${small[@]}" train.device=cuda parallel.tensor="$2" "${@:3}"
  same_tensors "$(step_file out 4)" "$(step_file ../wide 4)"
}

test_tensor_ranks() {
  on_gpus 4
  write_tiny_config
  expect 0 train 1 "${small[@]}" train.device=cuda checkpoint.dir=../one
  try_apart trains_at_width 2 2
  try_apart trains_at_width 4 2
  try_apart trains_at_width 4 4
  all_held
}

refuses() { # STATUS PATTERN RANKS WORD...
  expect "$1" train "$3" "${@:4}"
  expect_error "$2"
  [ ! -e out ] || fail "a folder was made"
}

test_bad_input() {
  on_gpus 1
  write_tiny_config
  EMULATED_DEVICES=0 try_apart refuses 2 'train.device: cuda: no NVIDIA driver is loaded.*train.device: cpu runs without' 1 train.device=cuda
  EMULATED_DEVICES=0 try_apart refuses 2 'train.device: cuda: no NVIDIA driver is loaded' 2 train.device=cuda
  EMULATED_CAPABILITY=75 try_apart refuses 2 'GPU 0 \(emulated\) has compute capability 7.5, and this build has code for 8.0 and later' 1 train.device=cuda
  try_apart refuses 2 'ranks 0 and 1 on .* would share the GPU at 0000:00:00.0; start no more ranks on a host than it has GPUs' 2 train.device=cuda
  EMULATED_NCCL=2600 EMULATED_DEVICES=2 try_apart refuses 2 'parallel.backend: nccl: libnccl.so.2 is version code 2600, expected 2700 or later; mpi goes without' 2 train.device=cuda parallel.backend=nccl
  EMULATED_MEMORY_MIB=4 EMULATED_CAPABILITY=80 try_apart refuses 2 'needs 0.0 GiB a rank and 0.0 GiB are free on the GPU; choose a smaller model' 1 train.device=cuda
  EMULATED_MEMORY_MIB=1048576 try_apart refuses 2 "beside its GPU a rank needs [0-9]+.[0-9] GiB of the host's memory for copies and [0-9.]+ GiB are free; .* checkpoint.async: false$" 1 \
    train.device=cuda checkpoint.async=true model.hidden_size=16384 model.num_layers=4 model.intermediate_size=16384
  LAZYTRAIN_PLUGINS=$PWD try_apart refuses 2 'train.device: cuda: a GPU needs the plugin cuda.so' 1 train.device=cuda
  all_held
}

falls_back() { # PATTERN RANKS
  expect 0 train "$2" train.steps=2 train.device=auto
  expect_line stderr "^device +cpu, .* \\(no GPUs: .*$1"
}

test_auto_falls_back() {
  on_gpus 1
  write_tiny_config
  EMULATED_DEVICES=0 try_apart falls_back 'no NVIDIA driver is loaded' 1
  EMULATED_CAPABILITY=75 try_apart falls_back 'has compute capability 7.5' 1
  try_apart falls_back 'fewer than ranks' 2
  LAZYTRAIN_PLUGINS=$PWD try_apart falls_back 'a GPU needs the plugin cuda.so' 1
  all_held
}

# A GPU that fails in mid-run: one line, the last checkpoint is whole, and another device goes on from it.
test_a_gpu_that_fails() {
  on_gpus 1
  write_tiny_config
  EMULATED_FAULT=ECC EMULATED_FAULT_AT=1000 expect 74 train 1 "${small[@]}" train.steps=20 train.device=cuda
  expect_error "GPU 0 \\(emulated\\): .* failed: .*cudaErrorECCUncorrectable.*the last checkpoint is whole.*this one's memory is damaged"
  lazytrain inspect "$(find out -name 'step_*.h5' | sort | tail -n 1)" --verify >/dev/null || fail "no whole checkpoint"
  expect 0 train 1 "${small[@]}" train.steps=20 train.device=cpu
}

run_tests
