#!/usr/bin/env bash
# Bad command lines and configs, alone and on two ranks: one clear line, exit status 2, nothing touched.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# bad PATTERN WORD...: the words of train() are refused, and the line matches; so on 1 and on 2 ranks.
bad() {
  local count
  for count in 1 2; do try_apart refused "$1" -- train $count "${@:2}"; done
}

# bad_yaml PATTERN LINE...: a config of these lines; "tiny.yaml:LINE: ..." is part of the pattern.
bad_yaml() {
  printf '%s\n' "${@:2}" >tiny.yaml
  bad "$1"
}

test_values() {
  write_tiny_config
  bad '^lazytrain: error: --set train.stepz=5: train.stepz: there is no such key; did you mean train.steps\?$' train.stepz=5
  bad 'train.lr: there is no such key; did you mean optimizer.lr\?$' train.lr=5
  bad 'model.attention.kind.x: there is no such key' model.attention.kind.x=5
  bad 'train.steps: found many, expected an integer of at least 0' train.steps=many
  bad 'train.steps: found the text "5", expected an integer' 'train.steps="5"'
  bad 'train.steps: found -1, expected an integer from 0 to' train.steps=-1
  bad 'train.steps: found 1.5, expected an integer' train.steps=1.5
  bad 'train.steps: found 0x10, expected an integer' train.steps=0x10
  bad 'data.seed: found 9223372036854775808, expected an integer from 0 to 9223372036854775807' data.seed=9223372036854775808
  bad 'train.global_batch: found 0, expected an integer from 1' train.global_batch=0
  bad 'optimizer.lr: found nan, expected a number above 0' optimizer.lr=nan
  bad 'optimizer.lr: found .inf, expected a number' optimizer.lr=.inf
  bad 'optimizer.lr: found 1e999, expected a number above 0' optimizer.lr=1e999
  bad 'optimizer.betas: found \[?0.9' 'optimizer.betas=0.9'
  bad 'optimizer.betas: found 1, expected a list of two numbers from 0 to below 1' 'optimizer.betas=[0.9, 1]'
  bad 'optimizer.betas: found a list of 3' 'optimizer.betas=[0.9, 0.9, 0.9]'
  bad 'model.tie_embeddings: found 1, expected true or false' model.tie_embeddings=1
  bad 'model.attention.kind: found sparse, expected lazy or softmax' model.attention.kind=sparse
  bad 'train: found a value, expected keys below it' train=5
  bad 'train.steps: found 99999999999999999999999, expected an integer' train.steps=99999999999999999999999
  bad 'train.steps: found 4611686018427387904, expected an integer from 0 to 1000000000000' train.steps=4611686018427387904
  bad 'data.seq_len: found 1099511627776, expected an integer from 1 to 16777216' data.seq_len=1099511627776
  bad 'model.vocab_size: found 1099511627776, expected an integer from 2 to 2147483647' model.vocab_size=1099511627776
  bad 'parallel.lanes: found 1099511627776, expected an integer from 1 to 16777216, or auto' parallel.lanes=1099511627776
  bad 'optimizer.lr: found 1e-400, expected a number above 0' optimizer.lr=1e-400
  bad 'train.steps=1\\x0Amodel.num_layers: 9: not valid YAML' $'train.steps=1\nmodel.num_layers: 9'
  bad 'train.steps=\\xFF: not valid YAML: invalid' $'train.steps=\xff'
  bad 'checkpoint.dir: found a text with a NUL character' 'checkpoint.dir="a\0b"'
  bad 'data.tokenizer: .*found the text ""|data.tokenizer: found nothing' 'data.tokenizer=""'
  all_held
}

test_combinations() {
  write_tiny_config
  bad 'model.num_heads: found 3, expected a divisor of model.hidden_size 32 .*; 2 or 4 would do$' model.num_heads=3
  bad 'model.num_heads: found 32, expected .* even head size; 16 would do$' model.num_heads=32
  bad 'model.num_kv_heads: found 3, expected a divisor of model.num_heads 4; 2 or 4 would do$' model.num_kv_heads=3
  bad 'model.vocab_size: found 256, expected at least 257' model.vocab_size=256
  bad 'train.micro_batch: found 3, expected a divisor of train.global_batch 8; 2 or 4 would do$' train.micro_batch=3
  bad 'parallel.lanes: found 3, expected a power of two .*8 micro-batches .*: 1, 2, 4, 8$' parallel.lanes=3
  bad 'data.document_token: found 257, expected a token id below model.vocab_size 257' data.document_token=257
  bad 'data.document_mask: true needs a document token' data.document_mask=true data.document_token=-1
  bad 'schedule.warmup_steps: found 13, expected at most schedule.decay_steps 12' schedule.warmup_steps=13
  bad 'train.eval_every: found 2, but there is nothing to evaluate on' train.eval_every=2
  all_held
}

# Ranks that do not divide the lanes: the message names those that would do.
test_ranks_that_do_not_divide_the_lanes() {
  write_tiny_config
  try_apart refused '3 data ranks .*parallel.lanes 8 .*; start 1, 2, 4, 8 ranks' -- train 3
  try_apart refused '2 data ranks .*parallel.lanes 1 .*; start 1 ranks?' -- train 2 train.global_batch=7
  try_apart refused '2 data ranks .*parallel.lanes 1 .*; start 2 ranks' -- train 4 train.global_batch=7 parallel.tensor=2
  all_held
}

# Widths of tensor parallelism that do not fit model or ranks: the message names those that would do.
test_widths_that_do_not_fit() {
  write_tiny_config
  try_apart refused 'parallel.tensor: found 2, .*number of ranks 1; widths that fit this model and 1 rank: 1$' -- train 1 parallel.tensor=2
  try_apart refused 'parallel.tensor: found 4, .*number of ranks 6; .* 6 ranks: 1, 2$' -- train 6 parallel.tensor=4
  try_apart refused 'parallel.tensor: found 3, .*model.num_heads 4; .* 3 ranks: 1$' -- train 3 parallel.tensor=3
  try_apart refused 'parallel.tensor: found 2, .*intermediate_size 49; .* 2 ranks: 1$' -- \
    train 2 parallel.tensor=2 model.intermediate_size=49
  bad 'parallel.backend: nccl carries what lies on GPUs' parallel.backend=nccl train.device=cpu
  bad 'parallel.zero: found 2, expected 0 or 1: gradients are summed whole' parallel.zero=2
  all_held
}

# Accepted at their default from the start, refused at other values until they exist.
test_capabilities_to_come() {
  write_tiny_config
  bad "log.tensorboard: true needs .*, which this version does not have; use " log.tensorboard=true
  try expect 0 train 1 train.steps=2 train.device=cpu parallel.tensor=1
  all_held
}

test_command_lines() {
  write_tiny_config
  bad '--set needs a value' --set
  bad '^lazytrain: error: --set train.steps: .*=' --set train.steps
  bad '--set =5: ' =5
  bad '--set train.steps=: train.steps: found nothing, expected an integer' train.steps=
  bad '--set train.steps=\[: .*not valid YAML' 'train.steps=['
  bad 'unknown option --stes' --stes 5
  bad 'two config files are given, tiny.yaml and text.txt' text.txt
  bad '--resume needs a value' --resume
  for count in 1 2; do
    command=("$LAZYTRAIN" train)
    [ $count -eq 1 ] || command=("$tests_root/mpirun_ranks" 2 "${command[@]}")
    try_apart refused 'no config file is given' -- "${command[@]}"
    try_apart refused 'error: -: cannot read the config: No such file' -- "${command[@]}" -
    try_apart refused 'no\\x0A\\xFF.yaml: cannot read the config: No such file' -- "${command[@]}" $'no\n\xff.yaml'
    try_apart refused 'missing.yaml: cannot read the config: No such file' -- "${command[@]}" missing.yaml
    try_apart refused '\.: found a folder, expected a YAML file' -- "${command[@]}" .
    try_apart refused '/dev/zero: found a pipe, socket or device, expected a YAML file' -- "${command[@]}" /dev/zero
    [ -p fifo.yaml ] || mkfifo fifo.yaml
    try_apart refused 'fifo.yaml: found a pipe, socket or device, expected a YAML file' -- "${command[@]}" fifo.yaml
  done
  all_held
}

test_files() {
  write_tiny_config
  bad_yaml '^lazytrain: error: tiny.yaml: .*(empty|missing)' ''
  bad_yaml '^lazytrain: error: tiny.yaml: .*(empty|missing)' '# comments' '---'
  bad_yaml '^lazytrain: error: tiny.yaml: missing: model.vocab_size, .*train.global_batch, checkpoint.dir' 'train: {steps: 5}'
  bad_yaml '^lazytrain: error: tiny.yaml:2: train.stepz: there is no such key; did you mean train.steps\?' 'train:' '  stepz: 5'
  bad_yaml '^lazytrain: error: tiny.yaml:3: train.steps: the key occurs twice' 'train:' '  steps: 5' '  steps: 6'
  bad_yaml '^lazytrain: error: tiny.yaml:2: not valid YAML: .*' 'train: {steps: 5' 'model: [1'
  bad_yaml '^lazytrain: error: tiny.yaml:2: not valid YAML: .*tabs' 'train:' $'\tsteps: 5'
  bad_yaml '^lazytrain: error: tiny.yaml: found a list, expected sections' '- a' '- list'
  bad_yaml '^lazytrain: error: tiny.yaml:1: a\\x0Alazytrain: error: b: there is no such key' '"a\nlazytrain: error: b": 1'
  bad_yaml '^lazytrain: error: tiny.yaml:1: nested more than 16 deep' "$(printf '[%.0s' {1..5000})"
  bad_yaml '^lazytrain: error: tiny.yaml:1: not valid YAML: found undefined alias' 'a: *b'
  bad_yaml '^lazytrain: error: tiny.yaml:1: .*tag' 'train: {steps: !!python/object 5}'
  bad_yaml '^lazytrain: error: tiny.yaml:1: not valid YAML: .*' $'train: {steps: "\xff\xfe"}'
  head -c 3000000 /dev/zero | tr '\0' '#' >tiny.yaml
  bad '^lazytrain: error: tiny.yaml: over [0-9]+ bytes long, which no config is'
  head -c 3000 "$LAZYTRAIN" >tiny.yaml
  bad '^lazytrain: error: tiny.yaml:1: not valid YAML'
  # Aliases that unfold to a billion values.
  local lines=('a: &a [x, x, x, x, x, x, x, x, x, x]') last=a letter
  for letter in b c d e f g h i; do
    lines+=("$letter: &$letter [$(printf "*$last, %.0s" {1..9})*$last]")
    last=$letter
  done
  bad_yaml '^lazytrain: error: tiny.yaml:' "${lines[@]}"
  all_held
}

# What other editors write means the same.
test_line_ends_and_marks() {
  write_tiny_config
  cp tiny.yaml plain.yaml
  sed 's/$/\r/' plain.yaml >tiny.yaml
  try expect 0 train 1 checkpoint.dir=returns
  (printf '\xef\xbb\xbf'; cat plain.yaml) >tiny.yaml
  try expect 0 train 2 checkpoint.dir=mark
  same_tensors returns/step_00000012.h5 mark/step_00000012.h5
  all_held
}

# Far more than any machine has: refused before anything is allocated, saying what would fit where something would.
test_a_model_too_large_for_memory() {
  write_tiny_config
  bad 'tiny.yaml: this model needs [0-9.]+ GiB a rank and [0-9.]+ GiB are free: [0-9.]+ GiB are missing; train.micro_batch: [0-9]+, parallel.lanes: 2 would fit$' \
    train.global_batch=16777216 train.micro_batch=8388608
  bad 'this model needs .* missing; model.num_layers: [0-9]+ would fit$' model.num_layers=1024 \
    model.hidden_size=8192 model.intermediate_size=8192
  bad 'this model needs .*; choose a smaller model or fewer ranks a host$' model.hidden_size=131072 \
    model.intermediate_size=524288 model.num_layers=1000
  # Sizes whose product passes 64 bits.
  truncate -s 17M text.txt
  bad 'this model needs [0-9]+\.[0-9] GiB a rank .*would fit$' data.seq_len=16777216 train.global_batch=16777216 \
    train.micro_batch=8388608 model.intermediate_size=65536
  bad 'this model needs .* missing; data.seq_len: [0-9]+ would fit$' data.seq_len=16777216 model.num_layers=100
  all_held
}

test_commands() {
  local name
  expect 2 lazytrain
  expect_error 'no command is given'
  for name in trian eval export import plan bench --verison; do
    expect 2 lazytrain $name
    expect_error "'$name' is no command of this version; see lazytrain --help"
  done
  expect 0 lazytrain --help
  expect_line stdout '^Usage: lazytrain COMMAND' '^  train ' '^  generate ' '^  inspect ' '--version'
  if grep -qE '^  (eval|export|import|plan|bench) ' stdout; then fail "a command to come is listed"; fi
  expect 0 lazytrain --version
  expect_line stdout '^lazytrain [0-9]+\.[0-9]+\.[0-9]+$' '^commit ' '^build options ' '^instruction set [a-z0-9]+$' '^BLAS kernel [A-Za-z0-9]+'
  [ ! -s stderr ] || fail "--version writes to stderr"
}

# A launcher starts every rank, and one answer will do.
test_answers_are_given_once() {
  expect 0 ranks 2 --version
  [ "$(grep -c '^lazytrain ' stdout)" -eq 1 ] || fail "--version is said $(grep -c '^lazytrain ' stdout) times"
  expect 0 ranks 2 --help
  [ "$(grep -c '^Usage: ' stdout)" -eq 1 ] || fail "--help is said $(grep -c '^Usage: ' stdout) times"
  expect 0 ranks 2 train --help
  [ "$(grep -c '^Usage: ' stdout)" -eq 1 ] || fail "train --help is said $(grep -c '^Usage: ' stdout) times"
  expect 2 ranks 2 trian
  expect_error "'trian' is no command"
  expect 2 ranks 2
  expect_error 'no command is given'
}

test_help_of_each_command() {
  local key
  expect 0 lazytrain train --help
  for key in model.vocab_size model.attention.bias_init_std data.document_token_position optimizer.freeze_lazy_after \
    schedule.min_lr_ratio train.stall_timeout_s parallel.lanes checkpoint.keep_every log.diagnostics_every; do
    expect_line stdout "^ *[!*]? *$key  "
  done
  expect_line stdout '--resume FILE.h5' '--init-from' '--overwrite' '--allow' '--set'
  expect 0 lazytrain inspect --help
  expect_line stdout '--verify'
  expect 0 lazytrain generate --help
  expect_line stdout '--prompt' '--max-tokens' '--temperature' '--top-k' '--seed'
}

run_tests
