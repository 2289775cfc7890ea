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
  mv out tree
  # MPI's own sums would read a GPU's memory on the host.
  LAZYTRAIN_CUDA_AWARE_MPI=1 expect 0 train 2 "${small[@]}" train.device=cuda parallel.backend=mpi parallel.reduction=fast
  expect_line stderr 'data 2 x tensor 1; backend mpi between GPUs, sums by the tree, '
  same_tensors "$(step_file out 4)" "$(step_file tree 4)"
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
  EMULATED_MEMORY_MIB=1048576 try_apart refuses 2 "beside its GPU a rank needs [0-9]+.[0-9] GiB of the host's memory for copies and [0-9.]+ GiB are free: [0-9.]+ GiB are missing; .* checkpoint.async: false$" 1 \
    train.device=cuda checkpoint.async=true model.hidden_size=16384 model.num_layers=4 model.intermediate_size=16384
  LAZYTRAIN_PLUGINS=$PWD try_apart refuses 2 'train.device: cuda: a GPU needs the plugin cuda.so' 1 train.device=cuda
  all_held
}

# missing RANKS WORD...: what is missing is said, and what the model needs.
missing() {
  refuses 2 'needs [0-9.]+ MiB a rank and [0-9.]+ MiB are free on the GPU: [0-9.]+ [KM]iB are missing; ' "$@"
  needed=$(sed -nE 's/.* needs ([0-9.]+) MiB.*/\1/p' stderr)
}

# What the plan says is what the run allocates, to the MiB: neither more, nor less where another takes the rest. NCCL's
# own memory is gone when the rest is counted, and a 256th is left.
takes_what_it_plans() { # RANKS WORD...
  local plan needed host=0
  EMULATED_MEMORY_MIB=4 missing "$@"
  EMULATED_MEMORY_MIB=${needed%.*} EMULATED_PROMISED_MIB=2 refuses 2 'GPU [01] \(emulated\) has no [0-9.]+ MiB' "$@"
  [ "$1" -eq 1 ] || export EMULATED_NCCL_MIB=8
  plan=$(awk -v needed="$needed" -v nccl="${EMULATED_NCCL_MIB:-0}" 'BEGIN { print int((needed + nccl) * 256 / 255) + 1 }')
  EMULATED_MEMORY_MIB=$((plan - 1)) missing "$@"
  EMULATED_MEMORY_MIB=$plan expect 0 train "$@"
  case $* in *zero=1*) host=1 ;; esac # through which tensors come from other ranks
  sed -n 's/^memory .*: parameters/parameters/p' stderr | grep -oE '(parameters|optimizer|activations|gradients|scratch|communication) [0-9.]+' |
    awk -v needed="$needed" -v host="$host" '{ sum += $2 } END { sum -= needed + host; exit NR != 6 || sum > 0.4 || sum < -0.4 }' ||
    fail "a model that needs $needed MiB prints another plan: $(grep ^memory stderr)"
}

test_memory_is_what_was_planned() {
  on_gpus 2
  write_tiny_config
  local short=(train.steps=2 train.device=cuda)
  try_apart takes_what_it_plans 1 "${short[@]}" model.num_layers=12
  try_apart takes_what_it_plans 2 "${short[@]}" parallel.backend=nccl
  try_apart takes_what_it_plans 2 "${short[@]}" parallel.backend=nccl parallel.zero=1
  all_held
}

# advises MIB PATTERN WORD...: on a GPU with so much memory; what is advised does fit.
advises() {
  local advice
  EMULATED_MEMORY_MIB=$1 refuses 2 "$(awk -v all="$1" 'BEGIN { printf "%.1f", all * 255 / 256 }') MiB are free on the GPU: .* are missing; $2 would fit$" 1 "${@:3}"
  read -ra advice < <(sed -nE 's/.* are missing; (.*) would fit$/\1/p' stderr | sed 's/: /=/g; s/,//g')
  EMULATED_MEMORY_MIB=$1 expect 0 train 1 "${@:3}" "${advice[@]}"
}

test_what_would_fit_the_memory() {
  on_gpus 1
  write_tiny_config
  local larger=(train.device=cuda train.steps=0 schedule.warmup_steps=0 model.hidden_size=64 model.num_layers=8
    model.intermediate_size=256 data.seq_len=128 train.micro_batch=4 train.global_batch=4)
  try_apart advises 49 'train.recompute: attention' "${larger[@]}"
  try_apart advises 46 'train.recompute: full' "${larger[@]}"
  try_apart advises 46 'train.recompute: full' "${larger[@]}" train.recompute=attention
  try_apart advises 43 'train.micro_batch: [12], parallel.lanes: 1' "${larger[@]}" train.recompute=full
  try_apart advises 43 'train.recompute: full, train.micro_batch: [12], parallel.lanes: 1' "${larger[@]}"
  try_apart advises 40 'train.micro_batch: 1, parallel.lanes: 1, model.num_layers: [124]' "${larger[@]}"
  EMULATED_MEMORY_MIB=4 EMULATED_CAPABILITY=80 try_apart refuses 2 '4.0 MiB are free on the GPU: .* [KM]iB are missing; choose a smaller model$' 1 train.device=cuda
  all_held
}

test_idle_gpus_are_told() {
  on_gpus 2
  write_tiny_config
  expect 0 train 1 "${small[@]}" train.device=cuda
  expect_line stderr '^lazytrain: warning: .* has 2 GPUs and 1 rank: 1 GPU will be idle; '
  rm -r out
  expect 0 train 2 "${small[@]}" train.device=cuda
  ! grep -q idle stderr || fail "$(grep idle stderr)"
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

test_generate_says_where_it_computes() {
  on_gpus 1
  write_tiny_config
  expect 0 train 1 train.steps=2 train.device=cpu
  local generate=(lazytrain generate "$(step_file out 2)" --prompt the --max-tokens 3)
  expect 0 "${generate[@]}" --device cpu
  [ ! -s stderr ] || fail "stderr is not empty: $(head -n 1 stderr)"
  mv stdout text
  expect 0 "${generate[@]}"
  [ ! -s stderr ] || fail "stderr is not empty: $(head -n 1 stderr)"
  EMULATED_DEVICES=0 expect 0 "${generate[@]}"
  expect_line stderr '^device +cpu, .* \(no GPUs: no NVIDIA driver is loaded'
  [ "$(wc -l <stderr)" -eq 1 ] || fail "more than one line"
  cmp stdout text || fail "another text than with --device cpu"
}

# The kinds and chips of what a program holds for GPUs ("1 90": PTX; "2 80": code), a line each.
gpu_code() {
  perl -e 'local $/; open my $f, "<:raw", $ARGV[0] or die; my $all = <$f>;
    for (my $at = 0; ($at = index($all, pack("L<S<S<", 0xba55ed50, 1, 16), $at)) >= 0;) {
      my $end = $at + 16 + unpack "Q<", substr $all, $at + 8, 8;
      for ($at += 16; $at < $end;) {
        my ($kind, undef, $header, $bytes, undef, undef, undef, undef, $chip) = unpack "S<S<L<Q<L<L<S<S<L<", substr $all, $at, 32;
        print "$kind $chip\n";
        $at += $header + $bytes;
      }
    }' "$1"
}

# What nvcc built, where there is no driver or, as here, no GPU to be seen.
test_the_plugin_itself() {
  local plugin
  plugin=$(dirname "$LAZYTRAIN")/plugins/cuda.so
  [ -e "$plugin" ] || skip "this build has no nvcc"
  write_tiny_config
  expect 2 train 1 train.device=cuda
  expect_error 'train.device: cuda: (no NVIDIA driver is loaded|this process sees no GPU)'
  expect 0 train 1 train.steps=2
  expect_line stderr '^device +cpu, .* \(no GPUs: (no NVIDIA driver is loaded|this process sees no GPU)'
  readelf -d "$plugin" >needs
  if grep -E 'NEEDED.*lib(cuda|nccl|cublas)' needs; then fail "it is linked with what a machine may lack"; fi
  gpu_code "$plugin" >code
  expect_line code '^2 80$' '^2 90$' '^1 90$'
}

# Chips that came after the build run what it has for all: the bits are those of the oldest.
test_later_chips() {
  on_gpus 1
  write_tiny_config
  local heads=(train.steps=2 train.device=cuda train.global_batch=2 model.hidden_size=128 model.num_heads=2 model.num_kv_heads=1)
  EMULATED_CAPABILITY=100 expect 0 train 1 "${heads[@]}" checkpoint.dir=later
  EMULATED_CAPABILITY=80 expect 0 train 1 "${heads[@]}" checkpoint.dir=oldest
  same_tensors "$(step_file later 2)" "$(step_file oldest 2)"
  expect 0 train 1 "${heads[@]}"
  near later out 1e-3
  near out later 1e-3
}

# A GPU that fails in mid-run: one line, the last checkpoint is whole, and another device goes on from it.
test_a_gpu_that_fails() {
  on_gpus 1
  write_tiny_config
  EMULATED_FAULT=ECC EMULATED_FAULT_AT=1000 expect 74 train 1 "${small[@]}" train.steps=20 train.device=cuda
  expect_error "GPU 0 \\(emulated\\): .* failed: .*cudaErrorECCUncorrectable.*the last checkpoint is whole.*this one's memory is damaged"
  lazytrain inspect "$(find out -name 'step_*.h5' | sort | tail -n 1)" --verify >/dev/null || fail "no whole checkpoint"
  EMULATED_FAULT=MEMORY EMULATED_FAULT_AT=1000 expect 1 train 1 "${small[@]}" train.steps=20 train.device=cuda
  expect_error 'GPU 0 \(emulated\): no memory was left for .*; the last checkpoint is whole, start again from it with a smaller micro_batch or seq_len'
  expect 0 train 1 "${small[@]}" train.steps=20 train.device=cpu
}

# One of two fails: its rank tells it, and the other does not wait for it.
one_fails() { # BACKEND
  # shellcheck disable=SC2016 # the script expands it
  printf '#!/bin/sh\n[ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" -eq 0 ] || export EMULATED_FAULT_AT=1000\nexec "%s" "$@"\n' "$LAZYTRAIN" >apart
  chmod +x apart
  LAZYTRAIN=$PWD/apart RUN_TIMEOUT=60 expect 74 train 2 train.steps=6 checkpoint.every=2 train.device=cuda parallel.backend="$1"
  expect_error "GPU 1 \\(emulated\\): .* failed: .*cudaErrorLaunchFailure.*the last checkpoint is whole"
  if grep 'warning' stderr; then fail "a warning beside the error"; fi
  lazytrain inspect "$(find out -name 'step_*.h5' | sort | tail -n 1)" --verify >/dev/null || fail "no whole checkpoint"
  expect 0 train 2 train.steps=6 train.device=cuda parallel.backend="$1"
}

test_one_gpu_of_two_fails() {
  on_gpus 2
  write_tiny_config
  try_apart one_fails nccl
  try_apart one_fails mpi
  all_held
}

# While it is saved: nothing more can be read from it, so that a second try is none.
test_a_gpu_that_fails_in_a_save() {
  on_gpus 1
  write_tiny_config
  local async
  for async in false true; do
    rm -rf out
    EMULATED_FAULT_FILE=$(step_file out 4).partial expect 74 train 1 train.steps=6 checkpoint.every=2 checkpoint.async=$async train.device=cuda
    expect_error 'GPU 0 \(emulated\): .* failed: .*cudaErrorLaunchFailure.*the last checkpoint is whole'
    if grep 'warning' stderr; then fail "a warning beside the error"; fi
    lazytrain inspect "$(step_file out 2)" --verify >/dev/null || fail "no whole checkpoint"
  done
}

run_tests
